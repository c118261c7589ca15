"""Collect the data of report.html during a run, in bounded memory.

Letters: H image height, W image width, K classes.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import Image, Labels, covered, shrink_labels
from tfcseg.errors import OutputError
from tfcseg.files import replace_atomically
from tfcseg.report.moments import Moment, MomentPool, draw_pictures, picture_size
from tfcseg.report.player import SERIES, ThinnedSeries, new_timeline
from tfcseg.report.schema import FrameRow

MOMENTS = {"moment": 10, "doubt": 6}
"""Maximum number of frames that are shown for the greatest label change, and for the most unsure labels."""

_SHARE_COLUMNS = 256  # and up to twice as many
_STATE_NAME = "page.npz"
_CHANGES = 3


class PageRecorder:
    """Sees every frame of a run in order; ``palette`` is (K, 3) RGB.

    Memory does not grow with the video: series are thinned to their extremes, and pictures of few moments are kept.
    """

    def __init__(self, palette: NDArray[np.uint8], frame_rate: Fraction, unsure_below: float = 0.5) -> None:
        self.palette, self.frame_rate, self.unsure_below = palette, frame_rate, unsure_below
        self.timeline = new_timeline()
        self.shares = ThinnedSeries(len(palette), _SHARE_COLUMNS)
        self.peak_shares = np.zeros(len(palette))  # (K,) greatest share of each class in any frame
        self.peak_frames = np.zeros(len(palette), np.int64)  # (K,) the first frame that has it
        self.start_s = 0.0  # time of the first frame in the source
        self._pools = {kind: MomentPool(frame_rate) for kind in MOMENTS}
        self._previous: Labels | None = None

    @property
    def frames(self) -> int:
        """Number of frames added."""
        return self.timeline.frames

    def greatest(self, kind: str) -> list[Moment]:
        """Frames of one of `MOMENTS`, in order of time and a little apart."""
        return self._pools[kind].greatest(MOMENTS[kind])

    def add(
        self,
        row: FrameRow,
        shares: NDArray[np.float64],
        image: Image,
        labels: Labels,
        sure: NDArray[np.uint8] | None = None,
        *,
        is_cut: bool = False,
    ) -> None:
        """Add the next frame: its ``row`` of frames.csv, (K,) class shares, (H, W, 3) RGB and (H, W) labels.

        ``sure`` (h, w) is their confidence. That labels change at a cut is not shown. The arrays are read
        later and must not be changed.
        """
        index, previous = self.frames, self._previous
        if index == 0:
            self.start_s = row.time_s
        change = None if is_cut else row.label_change
        # A repeated keyframe is none.
        drawn = replace(row, is_keyframe=row.is_keyframe and not row.is_held, label_change=change)
        self.timeline.add([getattr(drawn, name) for name in SERIES])
        self.shares.add(shares)
        is_peak = shares > self.peak_shares
        self.peak_shares[is_peak], self.peak_frames[is_peak] = shares[is_peak], index
        if previous is not None and change is not None:
            self._pools["moment"].offer(index, change, lambda: self._moment(row, image, previous, labels))
        if sure is not None and row.unsure is not None and row.label_change != 0:  # a still picture is shown once
            is_unsure = sure < 255 * self.unsure_below
            self._pools["doubt"].offer(index, row.unsure, lambda: self._doubt(row, image, labels, is_unsure))
        self._previous = labels

    def _moment(self, row: FrameRow, image: Image, before: Labels, after: Labels) -> Moment:
        is_different = before != after
        marked = covered(is_different, picture_size(image.shape))
        maps = {"Labels before": before, "Labels after": after}
        pictures = draw_pictures(image, maps, {"What changed": marked}, self.palette)
        changes = _greatest_changes(before, after, is_different)
        return Moment(row.frame, row.label_change or 0.0, changes, pictures)

    def _doubt(self, row: FrameRow, image: Image, labels: Labels, is_unsure: NDArray[np.bool_]) -> Moment:
        unsure, size_wh = shrink_labels(labels, is_unsure.shape), picture_size(image.shape)[::-1]
        marked = cv2.resize(np.multiply(is_unsure, 255, dtype=np.uint8), size_wh, interpolation=cv2.INTER_LINEAR)
        marks = {"Likely wrong": np.asarray(marked, dtype=np.uint8)}
        pictures = draw_pictures(image, {"Labels": labels}, marks, self.palette)
        return Moment(row.frame, row.unsure or 0.0, _greatest_changes(unsure, unsure, is_unsure), pictures)

    def save(self, folder: Path) -> None:
        """Save everything that ``restore`` needs in one file in ``folder``; OutputError on failure."""
        moments = {kind: [asdict(moment) for moment in pool.held()] for kind, pool in self._pools.items()}
        state: dict[str, Any] = {
            **self.timeline.state("timeline"),
            **self.shares.state("shares"),
            "start_s": self.start_s,
            "peak_shares": self.peak_shares,
            "peak_frames": self.peak_frames,
            "previous": np.zeros(0, np.uint8) if self._previous is None else cv2.imencode(".png", self._previous)[1],
            "moments": np.frombuffer(json.dumps(moments).encode(), np.uint8),
        }
        with replace_atomically(folder / _STATE_NAME) as partial, partial.open("wb") as file:
            np.savez(file, **state)

    def restore(self, folder: Path) -> None:
        """Continue as the recorder that was saved in ``folder``; OutputError if its file is missing or damaged."""
        path = folder / _STATE_NAME
        try:
            # Read as a whole, so that a damaged archive fails here and not when an array is first used.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                self._load({name: archive[name] for name in archive.files})
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error, cv2.error) as error:
            raise OutputError(f"{str(path)!r} is missing or damaged ({error}); run again from the start") from error

    def _load(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.timeline.load(state, "timeline")
        self.shares.load(state, "shares")
        self.start_s = float(state["start_s"])
        self.peak_shares[:], self.peak_frames[:] = state["peak_shares"], state["peak_frames"]
        for kind, held in json.loads(state["moments"].tobytes()).items():
            self._pools[kind].restore([Moment(**moment) for moment in held], self.frames)
        if state["previous"].size:
            self._previous = np.asarray(cv2.imdecode(state["previous"], cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def _greatest_changes(before: Labels, after: Labels, is_counted: NDArray[np.bool_]) -> list[tuple[int, int, float]]:
    """(class before, class after, share of all pixels) of the most frequent changes among those counted."""
    counts = np.bincount(before[is_counted].astype(np.int64) * 256 + after[is_counted], minlength=1)
    most = np.argsort(-counts, kind="stable")[:_CHANGES].tolist()
    return [(*divmod(pair, 256), float(counts[pair] / before.size)) for pair in most if counts[pair]]
