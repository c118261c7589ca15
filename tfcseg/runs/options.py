"""The options of a run, of its results, and of ``tfcseg steady``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from tfcseg.errors import DataError, UsageError
from tfcseg.exports import FORMATS
from tfcseg.files import parse_json
from tfcseg.inference.options import checked_options
from tfcseg.media.source import Source
from tfcseg.model.options import InferenceOptions
from tfcseg.options import Option, check
from tfcseg.spelling import known_name, words_of
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tfcseg.labels.label_sets import LabelSet
    from tfcseg.media.frames import VideoInfo
    from tfcseg.media.mask_folder import MaskFolder
    from tfcseg.weights.loading import Known

_Words: TypeAlias = str | Sequence[str]
_UNSURE_BELOW = 0.5
MASK_NAMES = ("number", "source")
KINDS = {
    **{"overlay": "overlay.mp4", "side_by_side": "side_by_side.mp4", "source": "source.mp4"},
    **{"report": "report.json", "page": "report.html", "frames_csv": "frames.csv"},
    **{"masks": "masks", "confidence": "confidence"},
}
"""Files of a run's results, and folders with a PNG per frame, by kind."""


def default_classes() -> Sequence[str]:
    """Classes of the default model, to complete their names without loading torch or NumPy."""
    from tfcseg.weights.registry import locate_weights

    with locate_weights("default")[0].open("rb") as file:
        header = parse_json(file.read(int.from_bytes(file.read(8), "little")))
    return list(parse_json(header["__metadata__"]["labels"])["names"])


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """Which results a run writes, and how they look."""

    overlay: Annotated[bool, Option("Write overlay.mp4.")] = True
    masks: Annotated[bool, Option("Write masks/00000000.png …, value = class index.")] = True
    mask_names: Annotated[
        str,
        Option("Name masks by frame number or, for folders of images, like the source's files.", choices=MASK_NAMES),
    ] = "number"
    frames_csv: Annotated[bool, Option("Write frames.csv.", flags=("--csv/--no-csv",))] = True
    report: Annotated[bool, Option("Write report.json.")] = True
    html: Annotated[
        bool | None,
        Option("Write report.html, a page to look at.", flags=("--html/--no-html",), default_text="if --report"),
    ] = None
    side_by_side: Annotated[bool, Option("Also write side_by_side.mp4.")] = False
    copy_source: Annotated[bool, Option("Also write source.mp4, so that the page can play the source anywhere.")] = (
        False
    )
    confidence: Annotated[
        bool, Option("Also write confidence/00000000.png …: how sure each label is, 255 = certain.")
    ] = False
    unsure: Annotated[
        float | None,
        Option(
            "Give pixels no class (255) if the probability that their label is right is below this.",
            low=0,
            high=1,
            default_text="all have one",
        ),
    ] = None
    alpha: Annotated[float, Option("Opacity of the class colours, 0 to 1.", low=0, high=1)] = 0.55
    legend: Annotated[bool, Option("Draw the class legend.")] = True
    classes: Annotated[
        _Words,
        Option(
            "Draw and export these classes only, e.g. person,car.",
            is_list=True,
            suggestions=default_classes,
            default_text="all",
        ),
    ] = ()
    exclude: Annotated[
        _Words,
        Option(
            "Draw and export all classes but these.", is_list=True, suggestions=default_classes, default_text="none"
        ),
    ] = ()
    palette: Annotated[
        Path | None,
        Option(
            'Colours of classes: a JSON file {"person": "#ff2a48", …}.',
            default_text="the model's, or the run's",
        ),
    ] = None
    export: Annotated[
        _Words, Option("Also write labels for other programs.", is_list=True, choices=FORMATS, default_text="none")
    ] = ()
    flow_consistency: Annotated[
        bool, Option("Measure flow consistency (optical flow).", flags=("--flow-consistency/--no-flow-consistency",))
    ] = True

    @property
    def unsure_below(self) -> float:
        """Labels with a lower probability count as unsure."""
        return _UNSURE_BELOW if self.unsure is None else self.unsure

    @property
    def page(self) -> bool:
        """Whether report.html is written."""
        return self.report if self.html is None else self.html

    @property
    def kinds(self) -> list[str]:
        """Kinds of results that are written, besides exports: keys of `KINDS`."""
        return [kind for kind in KINDS if getattr(self, "copy_source" if kind == "source" else kind)]

    @property
    def videos(self) -> list[str]:
        """Kinds of videos that are written."""
        return [kind for kind in self.kinds if KINDS[kind].endswith(".mp4")]

    @property
    def formats(self) -> tuple[str, ...]:
        """Export formats, each once. UsageError for a format that does not exist."""
        words = {known_name("format", word, FORMATS) for word in words_of(self.export)}
        return tuple(name for name in FORMATS if name in words)

    def visible(self, labels: LabelSet) -> NDArray[np.bool_]:
        """(K,) flags of the classes to draw and export. UsageError for senseless options and unknown names, and if no
        class is left."""
        import numpy as np

        check(self)
        flags = np.full(len(labels), not self.classes)
        try:
            flags[labels.indices(self.classes)] = True
            flags[labels.indices(self.exclude)] = False
        except DataError as error:
            raise UsageError(str(error)) from None
        if not flags.any():
            raise UsageError("all classes are excluded; leave one to draw")
        return flags

    def coloured(self, labels: LabelSet) -> LabelSet:
        """``labels`` in the colours of the palette, if there is one; UsageError if it cannot be used."""
        from tfcseg.labels.label_sets import read_palette

        return labels if self.palette is None else read_palette(self.palette, labels)


@dataclass(frozen=True, slots=True)
class SteadyOptions:
    """Masks of another program, and what they are."""

    masks: Annotated[Path | None, Option("Folder of the masks: one PNG per frame (required).", default_text="")] = None
    probabilities: Annotated[
        Path | None, Option("Folder with a .npy or .npz of class probabilities for each mask.", default_text="none")
    ] = None
    classes_json: Annotated[
        Path | None,
        Option(
            "Names and colours of the values; colour masks need it.",
            default_text="classes.json in the masks' folder or beside it",
        ),
    ] = None
    void: Annotated[
        int | None,
        Option(
            "Value of pixels without a class, which stay as they are.",
            low=0,
            high=65535,
            default_text="255, or 65535 in 16-bit masks; none in masks of 0 and 255 alone",
        ),
    ] = None

    def check(self) -> None:
        """UsageError without masks, and for values out of bounds; DataError for a folder that is not there."""
        check(self)
        if self.masks is None:
            raise UsageError("no masks are given; --masks FOLDER names them")
        for folder in (self.masks, self.probabilities):
            if folder is not None and not folder.is_dir():
                raise DataError(f"{folder}: no such folder")

    def open(self, info: VideoInfo) -> MaskFolder:
        """The masks of a video."""
        from tfcseg.media.mask_folder import open_masks

        assert self.masks is not None
        return open_masks(self.masks, info, self.classes_json, self.void)

    @property
    def paths(self) -> dict[str, Path | None]:
        """What is read, by its name in a run's identity."""
        return {
            "steadied masks": self.masks,
            "probabilities": self.probabilities,
            "names of classes": self.classes_json,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `tfcseg.run`."""

    inference: InferenceOptions = InferenceOptions()
    device: DeviceOptions = DeviceOptions()
    start_s: float | None = None
    end_s: float | None = None
    frame_rate: Fraction | None = None  # frames per second of a folder of images; None: 25
    results: ResultOptions = field(default_factory=ResultOptions)
    overwrite: bool = False
    resume: bool = False
    allow_network: bool = False
    steady: SteadyOptions | None = None  # masks that are made steady, in place of the network's own labels

    @property
    def decoding(self) -> dict[str, Any]:
        """Arguments of `open_frames`."""
        rate = {} if self.frame_rate is None else {"frame_rate": self.frame_rate}
        return {"start_s": self.start_s, "end_s": self.end_s, **rate}

    def inference_of(self, model: Known) -> InferenceOptions:
        """Complete options of inference; for masks of another program features alone are used, in mode ``steady``."""
        complete = checked_options(model, self.inference)
        return complete if self.steady is None else replace(complete, mode="steady")

    def places(self, source: Source) -> list[Path]:
        """Paths that are read, where no result may be written."""
        masks = [] if self.steady is None else [path for path in self.steady.paths.values() if path is not None]
        return [*source.places, *masks]

    def for_source(self, source: Source) -> RunOptions:
        """Return these options for ``source``; UsageError for options that cannot be used with it."""
        source.check()
        if self.steady is not None:
            self.steady.check()
            if source.is_live:
                raise UsageError(f"{source.name}: live video cannot be steadied; masks of later frames are needed")
        if self.frame_rate is not None and not source.is_images:
            raise UsageError(f"{source.name}: a video has its own frame rate; --fps is for folders of images")
        if self.resume and self.overwrite:
            raise UsageError("--resume continues what --overwrite removes; give only one of them")
        if self.resume and not source.is_on_disk:
            raise UsageError(
                f"{source.name}: a stream can be read only once and cannot be resumed; save it to a file first"
            )
        return replace(self, inference=replace(self.inference, latency="low")) if source.is_live else self
