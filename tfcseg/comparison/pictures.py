"""Draw frames side by side: rows with labels of two modes and where they differ, or a grid of all steps of TFC.

Letters: H, W height and width of the video, h w grid of the similarity (stride 4). Lengths are in px.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares, covered, mark_difference, overlay, shrink, shrink_labels, side_by_side
from tfcseg.errors import InputError, UsageError
from tfcseg.files import claimed_files, replace_atomically
from tfcseg.inference.options import checked_options
from tfcseg.inference.segment import segment, segment_with
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Image
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Given, Source
from tfcseg.model.options import InferenceOptions
from tfcseg.options import OnProgress
from tfcseg.runs.outputs import default_output
from tfcseg.spelling import count_of
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model

MAX_WIDTH_PX, MAX_HEIGHT_PX = 3840, 2160
"""Pixels of all panels together; video players and picture viewers cannot show more."""
_GAPS_PX = 40

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}  # kinds of pictures by suffix

MOST_FRAMES = 12
_GRID_PANEL_PX = 360  # greatest height of a panel
LEAST_SIMILARITY = 0.5  # lower end of the colour scale: below, everything looks the same; most of a scene is above
_EMPTY = (238, 239, 241)


def write_picture(path: Path, picture: Image) -> None:
    """Write a picture, in a folder that is made if needed, complete or not at all; OutputError if that fails."""
    with replace_atomically(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(picture).save(partial, FORMATS[path.suffix.lower()], quality=90)


def _panel_size(size: Sequence[int], columns: int, max_height_px: float = MAX_HEIGHT_PX) -> tuple[int, int]:
    """(height, width) of the panels of a picture, for frames of ``size``."""
    scale = min(1.0, (MAX_WIDTH_PX - _GAPS_PX) / (columns * size[1]), max_height_px / size[0])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _labelled(image: Image, labels: NDArray[np.uint8], legend: Legend, label_set: LabelSet) -> Image:
    """``image`` (h, w, 3) with (H, W) ``labels`` and their legend."""
    small = shrink_labels(labels, image.shape[:2])
    panel = overlay(image, small, label_set.palette_array())
    legend.draw(panel, class_shares(small, len(label_set)))
    return panel


class RowPainter:
    """Draws rows for one video: original | results …, and with ``has_difference`` where two results differ.

    Use one per row and video: its legends follow what is visible.
    """

    def __init__(
        self, labels: LabelSet, size: tuple[int, int], titles: Sequence[str], *, has_difference: bool = False
    ) -> None:
        self._label_set, self._titles, self._has_difference = labels, titles, has_difference
        self._size = _panel_size(size, 1 + len(titles) + has_difference)
        self._legends = [Legend(labels, self._size) for _ in titles]

    @property
    def row_size(self) -> tuple[int, int]:
        """(height, width) of the rows."""
        panels = 1 + len(self._titles) + self._has_difference
        blank = np.zeros((*self._size, 3), np.uint8)
        row = side_by_side([blank] * panels, [""] * panels)
        return row.shape[0], row.shape[1]

    def draw(self, image: Image, results: Sequence[NDArray[np.uint8]]) -> Image:
        """Row of ``image`` (H, W, 3) and one panel for each of ``results`` ((H, W) labels)."""
        panels = [shrink(image, self._size)]
        panels += [_labelled(panels[0], *each, self._label_set) for each in zip(results, self._legends, strict=True)]
        titles = ["original", *self._titles]
        if self._has_difference:
            is_different = results[0] != results[1]
            panels.append(mark_difference(panels[0], covered(is_different, panels[0].shape[:2])))
            titles.append(f"{100 * is_different.mean():.1f} % differ")
        return side_by_side(panels, titles)


def draw_frames(
    frames: Sequence[SegmentedFrame], by_image: Sequence[NDArray[np.uint8]], threshold: float | None
) -> Image:
    """A column per frame: source, its labels in mode ``image`` (H, W), labels of TFC, similarity, updated points.

    TFC updated the points below ``threshold``. Their row is left out if there are none, or if no threshold chose them.
    """
    if not any(frame.updated_fraction for frame in frames):
        threshold = None
    size = _panel_size(frames[0].image.shape, len(frames), _GRID_PANEL_PX)
    columns = [_column(*each, size, threshold) for each in zip(frames, by_image, strict=True)]
    rows = [side_by_side(*zip(*row, strict=True)) for row in zip(*columns, strict=True)]
    gap = (rows[0].shape[1] - len(frames) * size[1]) // max(1, len(frames) - 1)
    between = np.zeros((gap, *rows[0].shape[1:]), np.uint8)
    return np.concatenate([part for row in rows for part in (row, between)][:-1])


def _column(
    frame: SegmentedFrame, by_image: NDArray[np.uint8], size: tuple[int, int], threshold: float | None
) -> Iterator[tuple[Image, str]]:
    """Panels (h, w, 3) with their titles."""
    image, w, labels = shrink(frame.image, size), frame.similarity, frame.label_set
    yield image, f"frame {frame.index} · {frame.time_s:.2f} s"
    yield _labelled(image, by_image, Legend(labels, size), labels), "image"
    yield _labelled(image, frame.labels, Legend(labels, size), labels), "tfc"
    if w is None:
        blank = np.full_like(image, _EMPTY)
        yield from [(blank, "keyframe")] * (1 if threshold is None else 2)
        return
    # Cells with sharp edges.
    enlarged = np.asarray(cv2.resize(w, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.float32)
    yield similarity_colours(enlarged), f"similarity, {LEAST_SIMILARITY:g} (dark) to 1"
    if threshold is not None:
        updated = mark_difference(image, covered(enlarged < threshold, size))
        yield updated, f"{100 * (frame.updated_fraction or 0):.1f} % updated"


def similarity_colours(w: NDArray[np.float32]) -> Image:
    """Similarities (h, w) in colour: dark violet at `LEAST_SIMILARITY` and below, yellow at 1."""
    share = np.clip((w - LEAST_SIMILARITY) / (1 - LEAST_SIMILARITY), 0, 1)
    coloured = cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(coloured[..., ::-1])


def make_frame_grid(
    source: Given,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    *,
    frames: Sequence[int],
    start_s: float | None = None,
    device: DeviceOptions = DeviceOptions(),
    overwrite: bool = False,
    allow_network: bool = False,
    on_progress: OnProgress = lambda task, done, total: None,
    inference: InferenceOptions | None = None,
) -> Path:
    """Draw ``frames`` of a video, counted from 0 at ``start_s``, side by side; returns the picture's path.

    output: a .png or .jpg file, by default ``<stem>_frames.png`` in the current folder. All frames up to the last one
    are computed, so that intervals are those of a run. Failures raise a TfcsegError with one line.
    """
    wanted = _checked_frames(frames)
    source = Source.of(source, allow_network=allow_network)
    path = Path(output) if output is not None else default_output(source, "frames.png")
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{str(path)!r} is not a picture; give a file that ends in .png or .jpg")
    with claimed_files(path.parent, [path.name], inputs=source.places, overwrite=overwrite):
        loaded = open_model(model, device)
        options = checked_options(loaded, inference)
        found, count = [], 0
        with open_frames(source, start_s=start_s) as read, closing(segment_with(read, loaded, options)) as segmented:
            for count, frame in enumerate(islice(segmented, wanted[-1] + 1), 1):
                on_progress("segmenting", count, wanted[-1] + 1)
                found += [frame] if frame.index in wanted else []
            if count <= wanted[-1]:
                why = f"has {count_of(count, 'frame')}, so there is no frame {wanted[-1]}; choose smaller numbers"
                raise InputError(f"{read.info.path}: {why}")
        alone = [next(iter(segment([frame.image], loaded, mode="image", size=options.size))).labels for frame in found]
        write_picture(path, draw_frames(found, alone, options.threshold if options.sides == "one" else None))
    return path


def _checked_frames(frames: Sequence[int]) -> list[int]:
    if not 1 <= len(frames) <= MOST_FRAMES:
        raise UsageError(f"a picture shows 1 to {MOST_FRAMES} frames, not {len(frames)}")
    if min(frames) < 0:
        raise UsageError(f"frames are counted from 0; there is no frame {min(frames)}")
    if len(set(frames)) < len(frames):
        raise UsageError(f"a frame is named twice: {','.join(map(str, frames))}")
    return sorted(frames)
