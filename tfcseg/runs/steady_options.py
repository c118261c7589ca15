"""The options of ``tfcseg steady``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tfcseg.errors import DataError, UsageError
from tfcseg.media.source import fingerprint
from tfcseg.options import Option, check

if TYPE_CHECKING:
    from tfcseg.media.frames import VideoInfo
    from tfcseg.media.mask_folder import MaskFolder


@dataclass(frozen=True, slots=True)
class SteadyOptions:
    """Masks of another program, and what they are."""

    masks: Annotated[Path | None, Option("Folder of the masks: one PNG per frame.", default_text="required")] = None
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
    def places(self) -> list[Path]:
        """What is read, so that no result is written there."""
        return [path for path in (self.masks, self.probabilities, self.classes_json) if path is not None]

    def identity(self) -> dict[str, str | int | None]:
        """What decides the results."""
        assert self.masks is not None
        return {
            "steadied masks": fingerprint(self.masks),
            "probabilities": None if self.probabilities is None else fingerprint(self.probabilities),
            "names of classes": None if self.classes_json is None else fingerprint(self.classes_json),
            "void": self.void,
        }
