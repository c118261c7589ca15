"""Which results a run writes, and how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from tfcseg.errors import DataError, UsageError
from tfcseg.exports import FORMATS
from tfcseg.files import parse_json
from tfcseg.options import Option, check
from tfcseg.spelling import known_name, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tfcseg.labels.label_sets import LabelSet

_Words: TypeAlias = str | Sequence[str]
_UNSURE_BELOW = 0.5
MASK_NAMES = ("number", "source")


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
    """The frames as they were read."""
    confidence: Annotated[
        bool, Option("Also write confidence/00000000.png …: how sure each label is, 255 = certain.")
    ] = False
    """8-bit gray, 255 times the probability that a label is right."""
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
    """Pixels of other classes keep their source colours. Empty: all."""
    exclude: Annotated[
        _Words,
        Option(
            "Draw and export all classes but these.", is_list=True, suggestions=default_classes, default_text="none"
        ),
    ] = ()
    """Taken away from ``classes``."""
    palette: Annotated[
        Path | None,
        Option(
            'Colours of classes: a JSON file {"person": "#ff2a48", …} or a GIMP palette (.gpl) with their names.',
            default_text="the model's, or the run's",
        ),
    ] = None
    """Classes that the file does not name keep the model's colours."""
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
    def writes_anything(self) -> bool:
        """Whether any result is written."""
        files = self.masks, self.confidence, self.frames_csv, self.report, self.page, self.formats
        return any(files) or bool(self.videos)

    @property
    def page(self) -> bool:
        """Whether report.html is written."""
        return self.report if self.html is None else self.html

    @property
    def videos(self) -> tuple[str, ...]:
        """Names of the videos that are written."""
        wanted = {"overlay": self.overlay, "side_by_side": self.side_by_side, "source": self.copy_source}
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    @property
    def formats(self) -> tuple[str, ...]:
        """Export formats, each once. UsageError for a format that does not exist."""
        words = {known_name("format", word, FORMATS) for word in words_of(self.export)}
        return tuple(name for name in FORMATS if name in words)

    def visible(self, labels: LabelSet) -> NDArray[np.bool_] | None:
        """(K,) flags of the classes to draw and export, None for all.

        UsageError for senseless options and unknown names, and if no class is left.
        """
        import numpy as np

        check(self)
        if not self.classes and not self.exclude:
            return None
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
        from tfcseg.labels.palettes import read_palette

        return labels if self.palette is None else read_palette(Path(self.palette), labels)
