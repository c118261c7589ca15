"""Read a folder of masks that another program made for a video: match masks and frames, and name their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, UsageError
from tfcseg.files import read_json
from tfcseg.media.frames import VideoInfo
from tfcseg.media.images import natural_key
from tfcseg.media.masks import Colours, Mask, MaskForm, count_values, look_up, read_header, read_values
from tfcseg.media.source import spread

_UNLABELLED = 255  # label of pixels without a class

CLASSES_NAME = "classes.json"
_EXAMPLE = '[{"index": 0, "name": "sky", "colour": [70, 130, 180]}, …]'
_SAMPLES = 8  # number of masks that are examined before the first frame


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Names and colours of the values of masks; empty if unknown."""

    names: Mapping[int, str]
    colours: Mapping[int, tuple[int, int, int]]
    path: Path | None = None

    @property
    def by_colour(self) -> Colours:
        """Value of each colour."""
        return {colour: value for value, colour in self.colours.items()}

    def check(self, path: Path, mask: Mask, void: int | None) -> None:
        """Raise DataError for a value that is not a class."""
        foreign = set(np.flatnonzero(count_values(mask)).tolist()) - {*self.names, void}
        if self.names and foreign:
            raise DataError(
                f"mask {str(path)!r} has the value {min(foreign)}, which is none of the {len(self.names)} classes in "
                f"{str(self.path)!r}"
            )


@dataclass(frozen=True, slots=True)
class MaskFolder:
    """Masks for the frames of a video."""

    path: Path
    files: Mapping[int, Path]  # files by frame
    pattern: tuple[str, int, int] | None
    """Prefix, number of digits, and number of the first frame in file names; None without numbers."""
    names_of_frames: Sequence[str]  # files of the frames, for folders of images
    classes: ClassNames
    form: MaskForm
    void: int | None  # value of pixels without a class, which do not change

    def read(self, index: int) -> Mask | None:
        """Read (H, W) values of a frame's mask; None without a mask, DataError for another depth."""
        path = self.files.get(index)
        if path is None:
            return None
        mask, form = read_values(path, self.classes.by_colour)
        if form.dtype != self.form.dtype:
            raise DataError(f"mask {str(path)!r} has {form.bits} bits, but others have {self.form.bits}; give one kind")
        self.classes.check(path, mask, self.void)
        return mask

    def name(self, index: int) -> str:
        """File name for a frame's mask, whether it exists or not."""
        if index in self.files:
            return self.files[index].name
        if self.names_of_frames:
            return f"{Path(self.names_of_frames[index]).stem}.png"
        before, digits, first = self.pattern or ("", 8, 0)
        return f"{before}{first + index:0{digits}d}.png"

    def shown(self, mask: Mask) -> NDArray[np.uint8]:
        """(H, W) labels for drawing a ``mask``, as in `values_as_labels`."""
        if mask.dtype == np.uint8 and self.void == _UNLABELLED:
            return np.asarray(mask, np.uint8)
        return np.asarray(look_up(self.labels_of_values, mask), np.uint8)

    @property
    def labels_of_values(self) -> NDArray[np.uint8]:
        """(256,) or (65536,) label that draws each value, as in `values_as_labels`."""
        return values_as_labels(8 * np.dtype(self.form.dtype).itemsize, self.void)


def values_as_labels(bits: int, void: int | None) -> NDArray[np.uint8]:
    """(2^bits,) label that draws each value of a mask: 255 for void. Ids of instances share 253 colours; of 8 bits, 255
    is 254, if it is a class."""
    values = np.arange(1 << bits)
    table = np.where(values < 254, values, 1 + values % 253) if bits > 8 else values.clip(max=254)
    if void is not None:
        table[void] = _UNLABELLED
    return table.astype(np.uint8)


def open_masks(folder: Path, info: VideoInfo, classes_json: Path | None = None, void: int | None = None) -> MaskFolder:
    """Open the masks in ``folder`` for the frames of a video; DataError if sizes, depths or numbers do not fit.

    ``classes_json`` has names and colours of values; by default a file classes.json in the folder or beside it.
    ``void`` is the value of pixels without a class, by default 255 (65535 in 16-bit masks), unless masks have only the
    values 0 and 255.
    """
    paths = list_masks(folder)
    headers = {path: read_header(path) for path in paths}
    for path, header in headers.items():
        if header.size != (info.height, info.width):
            raise DataError(
                f"mask {str(path)!r} is {header.size[1]}x{header.size[0]}, but frames of {info.path} are "
                f"{info.width}x{info.height}; give masks of the video's own size"
            )
    classes = read_classes(folder, classes_json)
    colour = next((path for path, header in headers.items() if header.is_colour), None)
    if colour is not None and not classes.colours:
        raise DataError(
            f"mask {str(colour)!r} is a colour picture; give masks of values, or --classes-json FILE, which reads "
            f"{_EXAMPLE}"
        )
    if colour is not None and max(classes.colours) > _UNLABELLED:
        raise DataError(f"{classes.path}: has a colour for {max(classes.colours)}; colour masks take values up to 255")
    files, pattern = _by_frame(folder, paths, info)
    some = [read_values(paths[at], classes.by_colour) for at in spread(len(paths), _SAMPLES)]
    form = some[0][1]
    largest = int(np.iinfo(form.dtype).max)
    if void is not None and void > largest:
        raise UsageError(f"--void {void} is more than the masks in {folder} can hold; the largest value is {largest}")
    if void is None:
        is_binary = all(np.isin(mask, (0, largest)).all() for mask, _ in some)
        void = None if is_binary or form.mode in ("1", "RGB") else largest
    return MaskFolder(folder, files, pattern, info.names, classes, form=form, void=void)


def list_masks(folder: Path) -> list[Path]:
    """List the PNG files of a folder in natural order; DataError if there are none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; masks are read from a folder of one PNG per frame")
    found = [path for path in folder.iterdir() if path.suffix.lower() == ".png" and not path.name.startswith(".")]
    if not found:
        hint = f"; those of a run are in {str(folder / 'masks')!r}" if (folder / "masks").is_dir() else ""
        raise DataError(f"{folder}: no PNG files in this folder; masks are one PNG per frame{hint}")
    return sorted(found, key=lambda path: natural_key(path.name))


def read_classes(folder: Path, path: Path | None = None) -> ClassNames:
    """Read names and colours of values from ``path``, or from a ``classes.json`` in the folder or beside it, if any."""
    if path is None:
        path = next((each for each in (folder / CLASSES_NAME, folder.parent / CLASSES_NAME) if each.is_file()), None)
        if path is None:
            return ClassNames({}, {})
    return classes_of(read_json(path), path)


def classes_of(content: Any, path: Path) -> ClassNames:
    """Names and colours of values from the ``content`` of a JSON file; DataError, which names ``path``, for others."""
    try:
        if isinstance(content, dict):  # of names and values, or of values and names
            pairs = (pair if isinstance(pair[1], str) else pair[::-1] for pair in content.items())
            content = [{"index": value, "name": name} for value, name in pairs]
        entries = [_entry(entry) for entry in content]
    except (KeyError, TypeError, ValueError):
        entries = []
    if not entries:
        raise DataError(f"{path}: is not a list of classes; it should read {_EXAMPLE}")
    for index, count in Counter(index for index, *_ in entries).most_common(1):
        if count > 1:
            raise DataError(f"{path}: index {index} is given twice")
    names = {index: name for index, name, _ in entries}
    return ClassNames(names, {index: colour for index, _, colour in entries if colour is not None}, path)


def _entry(entry: Any) -> tuple[int, str, tuple[int, int, int] | None]:
    index, colour = int(entry["index"]), entry.get("colour")
    if not 0 <= index < 1 << 16:
        raise ValueError
    if colour is not None:
        red, green, blue = bytes(tuple(colour))
        colour = red, green, blue
    return index, str(entry["name"]), colour


def _by_frame(
    folder: Path, paths: Sequence[Path], info: VideoInfo
) -> tuple[dict[int, Path], tuple[str, int, int] | None]:
    """Match by the names of the frames' files, by numbers, or in order if there is a mask for each."""
    if info.names:
        frames = {Path(name).stem: index for index, name in enumerate(info.names)}
        files = {frames[path.stem]: path for path in paths if path.stem in frames}
        if files or len(paths) != len(info.names):
            foreign = [path.name for path in paths if path.stem not in frames]
            if foreign:
                raise DataError(f"{folder}: {foreign[0]} has no frame of that name in {info.path}")
            return files, None
    count = info.frames_declared
    stems = [path.stem for path in paths]
    digits = [stem[len(stem.rstrip("0123456789")) :] for stem in stems]
    before = {stem.rstrip("0123456789") for stem in stems}
    if not all(digits) or len(before) > 1 or len({int(each) for each in digits}) < len(digits):
        if count is not None and count != len(paths):
            raise DataError(_mismatch(folder, len(paths), info))
        return dict(enumerate(paths)), None
    numbers = [int(each) for each in digits]
    # Frames are numbered from 0 or 1 on; if there is a mask for each frame, from any number.
    has_gap_before = numbers[0] > 1 and len(paths) != count and (count is None or numbers[-1] < count)
    first = 0 if has_gap_before else numbers[0]
    if count is not None and numbers[-1] - first >= count:
        raise DataError(_mismatch(folder, len(paths), info))
    pattern = (before.pop(), min(map(len, digits)), first)
    return {number - first: path for number, path in zip(numbers, paths, strict=True)}, pattern


def _mismatch(folder: Path, count: int, info: VideoInfo) -> str:
    return (
        f"{folder}: {count} masks do not fit the {info.frames_declared} frames of {info.path}; "
        "give one mask per frame, or number them like the frames"
    )
