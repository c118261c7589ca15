"""Write labels that are on disk in the formats of other programs, each file complete or not at all."""

from __future__ import annotations

import csv
import importlib.util
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path, PurePath

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import InputError, TfcsegError, UsageError
from tfcseg.exports import FILE_NAMES
from tfcseg.exports.annotations import write_coco, write_cvat, write_yolo
from tfcseg.exports.labelled_video import AddFrame, AddNote, LabelledVideo
from tfcseg.files import output_errors, sync
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Image
from tfcseg.media.masks import Labels, count_values
from tfcseg.media.writer import LOSSLESS_GRAY, WITH_ALPHA, VideoWriter
from tfcseg.options import OnProgress

logger = logging.getLogger(__name__)

_AT_ONCE = 4
"""Classes whose videos are encoded in one pass: bounds memory and processes, whatever the number of classes."""

_MARGIN_PX = 16
"""Width of the border around a class whose colours are kept, so that encoding does not darken its edge."""


@dataclass(slots=True)
class Exported:
    """Result of an export."""

    files: dict[str, str] = field(default_factory=dict)  # file names by format; each matte has its own key
    notes: list[str] = field(default_factory=list)  # messages on what the formats cannot represent


def check_formats(formats: Sequence[str]) -> None:
    """TfcsegError if a format needs a package that is not installed."""
    if "coco" in formats and importlib.util.find_spec("pycocotools") is None:
        raise TfcsegError("coco.json needs the package pycocotools; run: pip install 'tfcseg[coco]'")


def check_names(formats: Sequence[str], names: Iterable[str]) -> None:
    """UsageError for names of frames that CVAT and YOLO cannot list: without suffixes, in UTF-8, one per line."""
    kind = next((name for name in ("cvat", "yolo") if name in formats), None)
    if kind is None:
        return
    for stem, count in Counter(PurePath(name).stem for name in names).items():
        if stem.encode(errors="ignore").decode() != stem or "\n" in stem or "\r" in stem:
            raise UsageError(f"{kind} lists names in UTF-8, one per line, not {stem!r}; rename this frame")
        if count > 1:
            raise UsageError(f"{kind} cannot tell two frames called {stem!r} apart; rename one")


def export(
    video: LabelledVideo,
    formats: Sequence[str],
    folder: Path,
    scratch: Path,
    on_frame: OnProgress = lambda task, done, total: None,
) -> Exported:
    """Write ``formats`` of ``video`` to ``folder``; nothing gets its name before all of them are complete.

    ``scratch`` is a folder on the same disk that may be made and removed. DataError for masks that cannot be read,
    InputError for a source that cannot, OutputError if a file cannot be written.
    """
    exported = Exported()
    with output_errors(f"cannot write exports to {str(folder)!r}"), _scratch(scratch):
        seen = _write_frame_by_frame(video, formats, scratch, exported, on_frame)
        if "matte" in formats:
            classes = [index for index in video.shown_indices if seen[index]]
            if not classes:
                exported.notes.append("no mattes were written: none of the classes is in the video")
            for name in _write_mattes(video, classes, scratch, folder, on_frame):
                stem, _, kind = name.rpartition(".")
                exported.files[stem if kind == "mp4" else f"{stem}_alpha"] = name
        for name in exported.files.values():
            sync(scratch / name)
            (scratch / name).replace(folder / name)
        sync(folder)
    logger.info("exported %s", ", ".join(exported.files.values()), extra={"output": folder})
    return exported


def _write_frame_by_frame(
    video: LabelledVideo, formats: Sequence[str], scratch: Path, exported: Exported, on_frame: OnProgress
) -> NDArray[np.int64]:
    """Write all formats but mattes; returns the number of pixels of each label in the whole video, (256,)."""
    seen = np.zeros(256, np.int64)
    with ExitStack() as stack:
        adders: list[AddFrame] = []
        for name in formats:
            if name in _WRITERS:
                writer = _WRITERS[name](scratch / FILE_NAMES[name], video, exported.notes.append)
                adders.append(stack.enter_context(writer))
                exported.files[name] = FILE_NAMES[name]
        task = f"writing {', '.join(exported.files.values())}" if adders else "looking for classes"
        for index, labels in enumerate(video.read_labels()):
            seen += count_values(labels)
            for add in adders:
                add(index, labels)
            on_frame(task, index + 1, len(video.masks))
    return seen


@contextmanager
def _write_labels(path: Path, video: LabelledVideo, note: AddNote) -> Iterator[AddFrame]:
    """Write all classes as they are in the masks, also those that other formats leave out."""
    coding = LOSSLESS_GRAY
    if video.size[1] == 1:  # ffmpeg cannot cut one column into slices; the first version of FFV1 has none
        coding = replace(coding, arguments=(*coding.arguments, "-level", "1"))
    with VideoWriter(path, coding, **video.encoding) as writer:
        yield lambda index, labels: writer.write(labels)


@contextmanager
def _write_areas(path: Path, video: LabelledVideo, note: AddNote) -> Iterator[AddFrame]:
    """A row per second: its number, how many frames it has, and the mean share of the pixels of each exported class."""
    shown = video.shown_indices
    pixels = np.zeros(len(shown), np.int64)
    second = frames = 0
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["second", "frames", *(video.labels.names[index] for index in shown)])

        def end_second() -> None:
            nonlocal frames
            if frames:
                shares = pixels / (frames * video.size[0] * video.size[1])
                table.writerow([second, frames, *(f"{share:.6f}" for share in shares)])
            pixels[:] = frames = 0

        def add(index: int, labels: Labels) -> None:
            nonlocal second, frames
            if int(index / video.frame_rate) != second:
                end_second()
                second = int(index / video.frame_rate)
            pixels[:] += count_values(labels)[shown]
            frames += 1

        yield add
        end_second()


_WRITERS = {
    "coco": write_coco,
    "cvat": write_cvat,
    "yolo": write_yolo,
    "video": _write_labels,
    "areas": _write_areas,
}


@contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    """Make an empty folder for the block, and remove it afterwards."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def matte_names(labels: LabelSet, index: int) -> tuple[str, str]:
    """Names of the matte of a class and of its video with alpha: its name, in letters that every file system takes."""
    plain = [re.sub(r"[^\w-]+", "_", name).strip("_") or "class" for name in labels.names]
    folded = [name.casefold() for name in plain]
    stem = plain[index] if Counter(folded)[folded[index]] == 1 else f"{plain[index]}_{index}"
    return f"matte_{stem}.mp4", f"matte_{stem}.webm"


def _write_mattes(
    video: LabelledVideo, classes: Sequence[int], scratch: Path, folder: Path, on_frame: OnProgress
) -> list[str]:
    """Per class a video white on black, and the source with everything else transparent; returns their names."""
    frames = len(video.masks)
    passes = range(0, len(classes), _AT_ONCE)
    for number, first in enumerate(passes):
        some = classes[first : first + _AT_ONCE]
        for done in _write_some_mattes(video, some, scratch, folder):
            on_frame("writing mattes", number * frames + done, len(passes) * frames)
    return [name for index in classes for name in matte_names(video.labels, index)]


def _write_some_mattes(video: LabelledVideo, classes: Sequence[int], scratch: Path, folder: Path) -> Iterator[int]:
    """Yields how many frames are done."""
    with ExitStack() as stack:
        images = stack.enter_context(video.open_images())
        writers = []
        for index in classes:
            white, alpha = matte_names(video.labels, index)
            matte = stack.enter_context(VideoWriter(scratch / white, named=folder / white, **video.encoding))
            cutout = stack.enter_context(
                VideoWriter(scratch / alpha, WITH_ALPHA, named=folder / alpha, **video.encoding)
            )
            writers.append((index, matte, cutout))
        for number, (image, labels) in enumerate(zip_longest(images, video.read_labels())):
            _check_image(image, number, video)
            for index, matte, cutout in writers:
                mask = np.multiply(labels == index, 255, dtype=np.uint8)
                matte.write(cv2.merge([mask, mask, mask]))
                cutout.write(cut_out(image, mask))
            yield number + 1


def cut_out(image: Image, mask: Labels) -> Image:
    """(H, W, 4) RGBA of (H, W, 3) ``image``, opaque where (H, W) ``mask`` is 255; black far from there."""
    side = 2 * _MARGIN_PX + 1
    near = cv2.dilate(mask, np.ones((side, side), np.uint8))
    return np.dstack([cv2.bitwise_and(image, image, mask=near), mask])


def _check_image(image: Image | None, number: int, video: LabelledVideo) -> None:
    """Raise InputError for a frame that cannot be that of the mask ``number``."""
    if image is None:
        problem = f"the source ends after {number} frames, there are masks of {len(video.masks)}"
    elif number == len(video.masks):
        problem = f"the source has more than the {number} frames of the masks"
    elif image.shape[:2] != video.size:
        found, wanted = (f"{width}×{height}" for height, width in (image.shape[:2], video.size))
        problem = f"frame {number} of the source is {found}, its mask {wanted}"
    else:
        return
    raise InputError(f"{problem}; is it the same video?")
