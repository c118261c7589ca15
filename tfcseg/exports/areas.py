"""Class areas per second, as a table for spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tfcseg.exports.labelled_video import AddFrame, AddNote, LabelledVideo
from tfcseg.media.masks import Labels, count_values


@contextmanager
def write_areas(path: Path, video: LabelledVideo, note: AddNote) -> Iterator[AddFrame]:
    """Write ``path`` while the block gives it each frame.

    A row per second: its number (0 is the first segmented one), how many frames it has, and the mean share of the
    pixels that each exported class covers.
    """
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
