"""Label a folder of images and videos with teachers once, and keep the soft labels on disk.

Layout of the cache (whatever is deleted is made again):

    stills/<key>.npy                     (GRID, GRID, K) uint8 soft labels; <key> = hash of teachers and content
    clips/<key>/00000.jpg ...            frames of a video, short side at most CLIP_SIDE_PX, about CLIP_RATE_HZ
    clips/<key>/labels.npy               (T, GRID, GRID, K) uint8 soft labels, averaged over time
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import BinaryIO, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, InputError, TfcsegError
from tfcseg.files import make_folder, output_errors, replace_atomically
from tfcseg.interrupts import end_with_parent, ignore_interrupts, unseen_interrupts
from tfcseg.machine import available_cores
from tfcseg.media.images import natural_key, read_image, read_size
from tfcseg.media.masks import read_index_header
from tfcseg.media.reader import open_frames, probe
from tfcseg.media.source import IMAGE_SUFFIXES, VIDEO_SUFFIXES, fingerprint
from tfcseg.options import OnStep
from tfcseg.spelling import first_of
from tfcseg.training.augment import as_bytes, by_channels
from tfcseg.training.teachers import Teacher, soft_labels
from tfcseg.training.truth import is_mask

CLIP_SIDE_PX = 336
CLIP_RATE_HZ = 15.0
"""VSPW's rate, so that an interval lasts as long in training as in the benchmark."""

_OF_CLIP = "labels.npy"

STEADY_REACH = 2
"""Frames on each side whose labels, warped by optical flow, are averaged with a frame's own."""


@dataclass(frozen=True, slots=True)
class Taught:
    """An image or a video with its soft labels on disk."""

    source: Path
    labels: Path
    frames: tuple[Path, ...] = ()
    """Consecutive frames of a video; empty for an image."""


def find_media(roots: Sequence[Path]) -> list[Path]:
    """List images, and then videos, below ``roots``, sorted and once, without masks, hidden files and what hidden
    folders hold; DataError if there are none."""
    found: list[Path] = []
    for root in roots:
        below = [path for path in sorted(root.rglob("*")) if not _is_hidden(path.relative_to(root))]
        files = [root] if root.is_file() else filter(Path.is_file, below)
        found += [
            path for path in files if path.suffix.lower() in VIDEO_SUFFIXES or (is_image(path) and not is_mask(path))
        ]
    if not found:
        raise DataError(f"no images or videos below {', '.join(str(root) for root in roots)}")
    unique = {path.absolute(): path for path in found}.values()
    return sorted(unique, key=is_image, reverse=True)  # keeps the order of those that are equal


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def is_image(path: Path) -> bool:
    """Whether a file is an image, by its name."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def label_media(
    media: Sequence[Path], teachers: Sequence[Path], cache: Path, *, progress: OnStep = lambda done, total: None
) -> list[Taught]:
    """Label the images and videos that are not in the cache yet; return all labelled media.

    Media that cannot be decoded are left out. A killed run resumes: files get their names when they are complete.
    """
    for kind in ("stills", "clips"):
        make_folder(cache / kind)
    jobs = list(zip(media, _places(media, teachers, cache), strict=True))
    missing = list({job[1]: job for job in jobs if not _is_complete(job[1])}.values())  # copies are labelled once
    if missing:
        workers = min(available_cores(), len(missing))
        context = get_context("spawn")  # forking a process that runs torch threads may deadlock
        stopped = context.Event()
        try:
            with ProcessPoolExecutor(workers, context, _start_worker, (tuple(teachers), stopped)) as pool:
                try:
                    with unseen_interrupts():
                        labelled = pool.map(_label_file, missing, chunksize=1)
                    for done, _ in enumerate(labelled, start=1):
                        progress(done, len(missing))
                finally:
                    stopped.set()  # the pool waits for its workers, and a video may take hours
        except BrokenProcessPool:
            raise TfcsegError(
                f"one of {workers} labelling processes was killed; too little memory? Finished labels are kept; run "
                "the same command again, on fewer cores if memory is short (Linux: taskset -c 0 tfcseg train …)"
            ) from None
    return [Taught(path, labels, _frames_of(labels)) for path, labels in jobs if _is_complete(labels)]


def _frames_of(labels: Path) -> tuple[Path, ...]:
    """Frames of a video by its labels, in order; none of an image."""
    frames = labels.parent.glob("*.jpg") if labels.name == _OF_CLIP else ()
    return tuple(sorted(frames, key=lambda path: natural_key(path.name)))  # long videos have more than five digits


def _is_complete(labels: Path) -> bool:
    return labels.exists() and (labels.name != _OF_CLIP or any(labels.parent.glob("*.jpg")))


def _places(media: Sequence[Path], teachers: Sequence[Path], cache: Path) -> Iterator[Path]:
    """Where the labels of each image and video belong: other content, or other teachers, have other places."""
    signature = hashlib.sha256(b"labels-3")
    for teacher in teachers:
        signature.update(teacher.read_bytes())
    for path, content in zip(media, examine(fingerprint, media), strict=True):
        key = hashlib.sha256(f"{signature.hexdigest()}\n{content}".encode()).hexdigest()[:24]
        yield cache / "stills" / f"{key}.npy" if is_image(path) else cache / "clips" / key / _OF_CLIP


_worker_teachers: list[Teacher] = []
_worker_stopped: list[Event] = []


def _start_worker(paths: tuple[Path, ...], stopped: Event) -> None:
    ignore_interrupts()
    end_with_parent()
    cv2.setNumThreads(1)
    _worker_teachers.extend(Teacher(path) for path in paths)
    _worker_stopped.append(stopped)


def _label_file(job: tuple[Path, Path]) -> None:
    source, labels = job
    with suppress(DataError, InputError):  # reported by the caller, which finds no labels
        if labels.name == _OF_CLIP:
            make_folder(labels.parent)
            save_rows(labels, steadied(_labelled_frames(source, labels.parent)))
        else:
            save_labels(labels, soft_labels(_worker_teachers, read_image(source), tiles=True))


@contextmanager
def alone_in(cache: Path, notify: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other training labels into ``cache``, and let others wait until the block ends."""
    with output_errors(f"cannot keep labels in folder {str(cache)!r}", "; choose another one"):
        cache.mkdir(parents=True, exist_ok=True)
        number = os.open(cache, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                notify(f"another training labels into {cache}; this one continues after it")
                fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def save_frame(folder: Path, number: int, jpeg: bytes) -> None:
    """Write a frame of a clip beside its labels; OutputError on failure."""
    path = folder / f"{number:05d}.jpg"
    with output_errors(f"cannot write {str(path)!r}"):
        path.write_bytes(jpeg)


def save_labels(path: Path, array: NDArray[np.uint8]) -> None:
    """Write labels, complete or not at all; OutputError on failure."""
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        _write_header(file, array.shape)
        file.write(np.ascontiguousarray(array).data)  # np.save would not say why it failed


def save_rows(path: Path, rows: Iterable[NDArray[np.uint8]]) -> None:
    """Write arrays of the same shape as one, (T, …), one by one, as `save_labels` does; no file without arrays."""
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    count = 0
    with replace_atomically(path) as temporary, temporary.open("wb") as file:
        _write_header(file, (0, *first.shape))
        for row in chain([first], rows):
            file.write(np.ascontiguousarray(row).data)
            count += 1
        file.seek(0)
        _write_header(file, (count, *first.shape))  # the same length: NumPy reserves space for the number of rows


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _labelled_frames(video: Path, folder: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield frames (about CLIP_RATE_HZ, short side at most CLIP_SIDE_PX) and labels; write frames as JPEG files."""
    with open_frames(video) as source:
        step = max(1, round(float(source.info.frame_rate) / CLIP_RATE_HZ))
        for number, frame in enumerate(islice(source, 0, None, step)):
            if _worker_stopped[0].is_set():
                raise InputError(f"{video}: labelling was stopped")
            scale = min(1.0, CLIP_SIDE_PX / min(frame.image.shape[:2]))
            image = as_bytes(cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
            save_frame(folder, number, jpeg.tobytes())
            yield image, soft_labels(_worker_teachers, image, tiles=False)


def steady_labels(frames: Sequence[NDArray[np.uint8]], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Apply `steadied` to labels (T, h, w, K) in memory."""
    return np.stack(list(steadied(zip(frames, labels, strict=True))))


def steadied(labelled: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> Iterator[NDArray[np.uint8]]:
    """Average labels over time along optical flow, frame by frame.

    labelled: (H, W, 3) frames with labels (h, w, K). Labels of neighbours within STEADY_REACH are warped to a frame
    (DIS flow at twice the grid), except where forward and backward flow differ by more than a cell. Holds few frames.
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    window: deque[_Seen] = deque(maxlen=2 * STEADY_REACH + 1)
    for frame, labels in labelled:
        height, width = labels.shape[:2]
        gray = as_bytes(cv2.cvtColor(cv2.resize(frame, (2 * width, 2 * height)), cv2.COLOR_RGB2GRAY))
        window.append((gray, labels))
        if len(window) > STEADY_REACH:
            yield _averaged(dis, window, len(window) - 1 - STEADY_REACH)
    for last in range(max(0, len(window) - STEADY_REACH), len(window)):
        yield _averaged(dis, window, last)


_Seen = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A frame as (2 h, 2 w) gray, for optical flow, and its labels."""


def _averaged(dis: cv2.DISOpticalFlow, window: Sequence[_Seen], at: int) -> NDArray[np.uint8]:
    """Average the labels of frame ``at`` with those of its neighbours in the window."""
    gray, labels = window[at]
    height, width = labels.shape[:2]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    total = labels.astype(np.float32)
    weight = np.ones((height, width, 1), np.float32)
    warp = partial(cv2.remap, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    for number, (other_gray, other_labels) in enumerate(window):
        if number == at or abs(number - at) > STEADY_REACH:
            continue
        there, back = _grid_flow(dis, gray, other_gray), _grid_flow(dis, other_gray, gray)
        map_x, map_y = columns + there[..., 0], rows + there[..., 1]
        returned = warp(back, map_x, map_y) + there
        inside = (map_x >= 0) & (map_x <= width - 1) & (map_y >= 0) & (map_y <= height - 1)
        trusted = (inside & (np.hypot(returned[..., 0], returned[..., 1]) < 1.0))[..., None].astype(np.float32)
        total += by_channels(partial(warp, map1=map_x, map2=map_y), other_labels) * trusted
        weight += trusted
    return np.asarray(np.rint(total / weight), np.uint8)


def _grid_flow(dis: cv2.DISOpticalFlow, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flow from ``source`` to ``target`` (2 h, 2 w) as (h, w, 2), in cells of the grid."""
    flow = dis.calc(source, target, None)  # type: ignore[call-overload]  # None: a new array
    size_wh = (source.shape[1] // 2, source.shape[0] // 2)
    return np.asarray(cv2.resize(flow, size_wh, interpolation=cv2.INTER_AREA) * 0.5, np.float32)


_T = TypeVar("_T")

_THREADS = 8  # more than cores: they wait for the disk
_SHOWN = 20
_WHOLE = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG": b"IEND\xaeB`\x82"}
"""First and last bytes of complete JPEG and PNG files."""


def defect_of(path: Path) -> str | None:
    """Describe what is wrong with an image or a video; None if nothing is. Only unusual images are decoded whole."""
    try:
        if not is_image(path):
            probe(path)
            return None
        with path.open("rb") as file:
            first = file.read(4)
            size = file.seek(0, 2)
            file.seek(max(0, size - 8))
            last = file.read()
        if size == 0:
            return "empty"
        is_whole = any(first.startswith(begin) and last.endswith(end) for begin, end in _WHOLE.items())
        read_size(path) if is_whole else read_image(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def mask_defect_of(path: Path) -> str | None:
    """Describe what is wrong with a mask of class indices; None if nothing is."""
    if defect := defect_of(path):
        return f"mask {defect}"
    try:
        read_index_header(path)
    except DataError as error:
        return str(error)
    return None


def examine(check: Callable[[_T], str | None], items: Iterable[_T]) -> list[str | None]:
    """Run ``check`` on all items in threads, since it reads files; results in the order of ``items``."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(check, items))


def refuse(defects: list[str], where: str) -> None:
    """Raise DataError with the first defects, if there are any."""
    if defects:
        raise DataError(f"{where}: {first_of(defects, _SHOWN, '; ')}; repair them or train with --skip-bad")
