"""Read a VSPW folder, including the defects of its public copies.

::

    ROOT/  train.txt  val.txt  test.txt  label_num_dic_final.json
           data/<video>/origin/00000166.jpg     frame numbers are 15 fps indices into the source video
           data/<video>/mask/00000166.png       8 bit: 0 = others, 1…K = classes, 255 = void

Frames are found by listing both folders, never by counting. Anything else of this layout is read the same way.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tfcseg.errors import DataError, InputError
from tfcseg.files import read_json_object
from tfcseg.labels.label_sets import NO_CLASS, LabelSet, distinct_palette
from tfcseg.media.frames import Image
from tfcseg.media.images import read_image
from tfcseg.media.masks import read_mask
from tfcseg.media.source import IMAGE_SUFFIXES
from tfcseg.metrics.scores import Labels

LABEL_FILE = "label_num_dic_final.json"
_MOST_CLASSES = 253  # raw values 1…253, so that index 254 stays free to mark stray values
_STRAY = 254


@dataclass(frozen=True, slots=True)
class VspwFrame:
    """One frame number of a video; ``image`` or ``mask`` is None where the file is missing."""

    stem: str
    number: int
    image: Path | None
    mask: Path | None


@dataclass(frozen=True, slots=True)
class VspwVideo:
    """Frames in the order of their numbers; ``missing_before[i]`` frames are missing just before frame i."""

    name: str
    frames: tuple[VspwFrame, ...]
    missing_before: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VspwDataset:
    """One split of a folder: ``videos`` are names from the list, which may be missing on disk."""

    root: Path
    split: str
    labels: LabelSet
    videos: tuple[str, ...]

    def read_video(self, name: str) -> VspwVideo:
        """List the frames of a video; it has none if its folder is missing or empty."""
        folder = self.root / "data" / name
        images = _list_by_stem(folder / "origin", IMAGE_SUFFIXES)
        masks = _list_by_stem(folder / "mask", (".png",))
        frames = sorted(
            (VspwFrame(stem, _number(stem, folder), images.get(stem), masks.get(stem)) for stem in images | masks),
            key=lambda frame: frame.number,
        )
        for one, other in itertools.pairwise(frames):
            if one.number == other.number:
                raise DataError(f"{folder}: {one.stem} and {other.stem} are the same frame number; keep one name")
        return VspwVideo(name, tuple(frames), _missing_before([frame.number for frame in frames]))

    def readable_images(self, name: str) -> Iterator[Image]:
        """Yield the images of a video that can be read; an evaluation reports the others."""
        for frame in self.read_video(name).frames:
            if frame.image is not None:
                with suppress(InputError):
                    yield read_image(frame.image)

    def no_image(self) -> DataError:
        """Make the error for a split without a readable image."""
        return DataError(f"{self.root}: no image of split {self.split!r} can be read")


def open_vspw(root: str | Path, split: str = "val") -> VspwDataset:
    """Read the class list and the split list of ``root``; DataError says what the folder lacks."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the VSPW folder that holds data/ and {LABEL_FILE}")
    if not (root / "data").is_dir():
        raise DataError(f"{root}: no data/ in it; a VSPW folder has data/<video>/origin and data/<video>/mask")
    return VspwDataset(root, split, _read_labels(root / LABEL_FILE), _read_split(root, split))


def read_target(path: Path, num_classes: int) -> tuple[Labels, dict[int, int]]:
    """(H, W) class indices of a raw mask, 255 = ignore, and the pixel counts of stray values.

    Raw 0 (others) and 255 (void) are ignored, raw v is class v − 1. Stray values (such as the 252 of some public masks)
    are ignored in the labels and counted as {raw value: pixels}.
    """
    raw = read_mask(path)
    table = np.full(256, _STRAY, dtype=np.uint8)
    table[[0, 255]] = NO_CLASS
    table[1 : num_classes + 1] = np.arange(num_classes)
    labels = np.asarray(cv2.LUT(raw, table), dtype=np.uint8)
    is_stray = labels == _STRAY
    if not is_stray.any():
        return labels, {}
    labels[is_stray] = NO_CLASS
    values, counts = np.unique(raw[is_stray], return_counts=True)
    return labels, dict(zip(values.tolist(), counts.tolist(), strict=True))


def _read_labels(path: Path) -> LabelSet:
    """Class names in the order of their ids 1…K, which the file gives as strings; 0 and 255 are ignored."""
    names: dict[int, str] = {}
    for name, written in read_json_object(path).items():
        if isinstance(written, bool) or not re.fullmatch(r"\d{1,3}", str(written)):
            raise DataError(f"{path}: {name!r} has id {written!r}; ids are numbers from 0 to 255")
        value = int(written)
        if value in names:
            raise DataError(f"{path}: {names[value]!r} and {name!r} have the same id {value}")
        names[value] = name
    classes = sorted(set(names) - {0, 255})
    if not classes or classes[-1] > _MOST_CLASSES or classes != list(range(1, len(classes) + 1)):
        raise DataError(f"{path}: class ids must be 1, 2, 3 … without gaps, up to {_MOST_CLASSES}")
    return LabelSet(
        path.parent.name or "vspw", tuple(names[value] for value in classes), distinct_palette(len(classes))
    )


def _read_split(root: Path, split: str) -> tuple[str, ...]:
    path = root / f"{split}.txt"
    try:
        # strip() for CRLF lists and for last lines without a newline, where `line[:-1]` would remove a letter
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        found = sorted(other.stem for other in root.glob("*.txt"))
        raise DataError(
            f"{root}: no list {split}.txt for the split; lists there: {', '.join(found) or 'none'}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    names = list(dict.fromkeys(filter(None, names)))
    if not names:
        raise DataError(f"{path}: lists no videos")
    for name in names:
        if name != Path(name).name or name == "..":
            raise DataError(f"{path}: {name!r} is not the name of a folder in data/")
    return tuple(names)


def _list_by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files with one of ``suffixes``; hidden ones (public copies carry ._* twins) are not frames."""
    if not folder.is_dir():
        return {}
    try:
        files = sorted(folder.iterdir(), reverse=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    return {path.stem: path for path in files if path.suffix.lower() in suffixes and not path.name.startswith(".")}


def _number(stem: str, folder: Path) -> int:
    digits = re.search(r"\d+$", stem, flags=re.ASCII)
    if digits is None:
        raise DataError(f"{folder}: frame {stem!r} does not end in a frame number, so gaps cannot be seen")
    return int(digits.group())


def _missing_before(numbers: list[int]) -> tuple[int, ...]:
    """Number of missing frames before each, assuming that a video mostly keeps one step between numbers."""
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    if not steps:
        return (0,) * len(numbers)
    frequency = Counter(steps)
    usual = min(frequency, key=lambda step: (-frequency[step], step))
    return (0, *(-(-step // usual) - 1 for step in steps))
