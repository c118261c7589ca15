"""Which results a run writes, and how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tfcseg.errors import DataError, UsageError
from tfcseg.options import Option, check

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tfcseg.labels.label_sets import LabelSet

_UNSURE_BELOW = 0.5
MASK_NAMES = ("number", "source")


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """Which results a run writes, and how they look."""

    overlay: Annotated[bool, Option("Write overlay.mp4.")] = True
    masks: Annotated[bool, Option("Write masks/00000000.png …, value = class index.")] = True
    mask_names: Annotated[
        str,
        Option(
            "Name masks by frame number or, for folders of images, like the source's files.",
            choices=MASK_NAMES,
        ),
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
        str | Sequence[str], Option("Draw these classes only, e.g. person,car.", default_text="all")
    ] = ()
    """Names, in a list or separated by commas; pixels of other classes keep their source colours. Empty: all."""
    flow_consistency: Annotated[
        bool,
        Option(
            "Measure flow consistency (optical flow).",
            flags=("--flow-consistency/--no-flow-consistency",),
        ),
    ] = True

    @property
    def unsure_below(self) -> float:
        """Labels with a lower probability count as unsure."""
        return _UNSURE_BELOW if self.unsure is None else self.unsure

    @property
    def writes_anything(self) -> bool:
        """Whether any result is written."""
        files = self.masks, self.confidence, self.frames_csv, self.report, self.page
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

    def visible(self, labels: LabelSet) -> NDArray[np.bool_] | None:
        """(K,) flags of the classes to draw; None for all. Raises UsageError for invalid options and unknown names."""
        import numpy as np

        check(self)
        if not self.classes:
            return None
        flags = np.zeros(len(labels), np.bool_)
        try:
            flags[labels.indices(self.classes)] = True
        except DataError as error:
            raise UsageError(str(error)) from None
        return flags
