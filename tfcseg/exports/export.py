"""Write labels that are on disk in the formats of other programs, each file complete or not at all."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import TfcsegError, UsageError
from tfcseg.exports import FILE_NAMES
from tfcseg.exports.areas import write_areas
from tfcseg.exports.coco import write_coco
from tfcseg.exports.cvat import write_cvat
from tfcseg.exports.labelled_video import AddFrame, AddNote, LabelledVideo
from tfcseg.exports.mattes import write_mattes
from tfcseg.exports.yolo import write_yolo
from tfcseg.files import output_errors, sync
from tfcseg.media.masks import count_values
from tfcseg.media.writer import LOSSLESS_GRAY, VideoWriter
from tfcseg.options import OnProgress

logger = logging.getLogger(__name__)

_Writer: TypeAlias = Callable[[Path, LabelledVideo, AddNote], AbstractContextManager[AddFrame]]


@dataclass(slots=True)
class Exported:
    """Result of an export."""

    files: dict[str, str] = field(default_factory=dict)
    """File names by format; each matte has its own key."""
    notes: list[str] = field(default_factory=list)
    """Messages on what the formats cannot represent."""


def check_formats(formats: Sequence[str]) -> None:
    """TfcsegError if a format needs a package that is not installed."""
    if "coco" in formats and importlib.util.find_spec("pycocotools") is None:
        raise TfcsegError("coco.json needs the package pycocotools; run: pip install 'tfcseg[coco]'")


def check_names(formats: Sequence[str], names: Iterable[str]) -> None:
    """UsageError if files of two frames differ only in their suffix, which CVAT and YOLO leave out."""
    stem, count = next(iter(Counter(PurePath(name).stem for name in names).most_common(1)), ("", 0))
    by_stem = [name for name in ("cvat", "yolo") if name in formats]
    if by_stem and count > 1:
        raise UsageError(f"{by_stem[0]} cannot tell two frames called {stem!r} apart; rename one")


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
            for name in write_mattes(video, classes, scratch, folder, partial(on_frame, "writing mattes")):
                stem, _, kind = name.rpartition(".")
                exported.files[stem if kind == "mp4" else f"{stem}_alpha"] = name
        for name in exported.files.values():
            sync(scratch / name)
            (scratch / name).replace(folder / name)
        sync(folder)
    for note in exported.notes:
        logger.info("%s", note)
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
    with VideoWriter(path, LOSSLESS_GRAY, **video.encoding) as writer:
        yield lambda index, labels: writer.write(labels)


_WRITERS: Mapping[str, _Writer] = {
    "coco": write_coco,
    "cvat": write_cvat,
    "yolo": write_yolo,
    "video": _write_labels,
    "areas": write_areas,
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
