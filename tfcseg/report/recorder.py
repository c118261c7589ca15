"""Collect the data of report.html during a run, in bounded memory.

Letters: H image height, W image width, K classes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import Image, Labels, covered, mark_difference, overlay, shrink, shrink_labels
from tfcseg.errors import OutputError
from tfcseg.files import replace_atomically
from tfcseg.report.moments import Moment, MomentPool, encode_jpeg, picture_size
from tfcseg.report.player import SERIES, ThinnedSeries, new_timeline
from tfcseg.report.schema import FrameRow

MOMENTS = {"moment": 10, "doubt": 6}
"""Maximum number of frames that are shown for the greatest label change, and for the most unsure labels."""

_SHARE_COLUMNS = 256  # and up to twice as many
_STATE_NAME = "page.npz"
_QUALITY, _TINT = 80, 0.65
_CHANGES = 3

_Arrays: TypeAlias = dict[str, Any]
"""NumPy arrays by name."""


class PageRecorder:
    """Sees every frame of a run in order; ``palette`` is (K, 3) RGB.

    Memory does not grow with the video: series are thinned to their extremes, and pictures of only a few moments are
    kept.
    """

    def __init__(self, palette: NDArray[np.uint8], frame_rate: Fraction, unsure_below: float = 0.5) -> None:
        self.palette, self.frame_rate, self.unsure_below = palette, frame_rate, unsure_below
        self.timeline = new_timeline()
        self.shares = ThinnedSeries(len(palette), _SHARE_COLUMNS)
        self.peak_shares = np.zeros(len(palette))
        """(K,) greatest share of each class in any frame."""
        self.peak_frames = np.zeros(len(palette), np.int64)
        """(K,) the first frame that has it."""
        self.start_s = 0.0
        """Time of the first frame in the source."""
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
    ) -> None:
        """Add the next frame: its ``row`` of frames.csv, (K,) class shares, (H, W, 3) RGB and (H, W) labels.

        ``sure`` (h, w) is their confidence. The arrays are read later and must not be changed.
        """
        index, previous = self.frames, self._previous
        if index == 0:
            self.start_s = row.time_s
        self.timeline.add([getattr(row, name) for name in SERIES])
        self.shares.add(shares)
        is_peak = shares > self.peak_shares
        self.peak_shares[is_peak], self.peak_frames[is_peak] = shares[is_peak], index
        if previous is not None and row.label_change is not None:
            change = row.label_change
            self._pools["moment"].offer(index, change, lambda: self._moment(row, image, previous, labels))
        if sure is not None and row.unsure is not None:
            is_unsure = sure < 255 * self.unsure_below
            self._pools["doubt"].offer(index, row.unsure, lambda: self._doubt(row, image, labels, is_unsure))
        self._previous = labels

    def _moment(self, row: FrameRow, image: Image, before: Labels, after: Labels) -> Moment:
        """Moment of the frame ``image`` (H, W, 3) between labels ``before`` and ``after`` (H, W) of it."""
        size, is_different = picture_size(image.shape), before != after
        pictures = self._pictures(shrink(image, size), {"Labels before": before, "Labels after": after})
        pictures["What changed"] = mark_difference(pictures["Frame"], covered(is_different, size))
        changes = _greatest_changes(before, after, is_different)
        return Moment(row.frame, row.label_change or 0.0, changes, _encoded(pictures))

    def _doubt(self, row: FrameRow, image: Image, labels: Labels, is_unsure: NDArray[np.bool_]) -> Moment:
        """Moment of the frame ``image`` (H, W, 3) whose ``labels`` (H, W) are unsure in parts of a grid (h, w)."""
        size = picture_size(image.shape)
        counts = np.bincount(shrink_labels(labels, is_unsure.shape)[is_unsure], minlength=1)
        most = np.argsort(-counts, kind="stable")[:_CHANGES].tolist()
        classes = tuple((name, name, float(counts[name] / is_unsure.size)) for name in most if counts[name])
        marked = cv2.resize(np.multiply(is_unsure, 255, dtype=np.uint8), size[::-1], interpolation=cv2.INTER_LINEAR)
        pictures = self._pictures(shrink(image, size), {"Labels": labels})
        pictures["Likely wrong"] = mark_difference(pictures["Frame"], np.asarray(marked, dtype=np.uint8))
        return Moment(row.frame, row.unsure or 0.0, classes, _encoded(pictures))

    def _pictures(self, frame: Image, maps: Mapping[str, Labels]) -> dict[str, Image]:
        """The ``frame`` (h, w, 3) by itself, and tinted in the colours of each of ``maps`` (H, W)."""
        size = (frame.shape[0], frame.shape[1])
        tinted = {
            title: overlay(frame, shrink_labels(labels, size), self.palette, alpha=_TINT)
            for title, labels in maps.items()
        }
        return {"Frame": frame, **tinted}

    def save(self, folder: Path) -> None:
        """Save everything that ``restore`` needs in one file in ``folder``; OutputError on failure."""
        state: _Arrays = {
            **{f"timeline_{name}": array for name, array in self.timeline.state().items()},
            **{f"shares_{name}": array for name, array in self.shares.state().items()},
            "start_s": np.array(self.start_s),
            "peak_shares": self.peak_shares,
            "peak_frames": self.peak_frames,
            "previous": np.zeros(0, np.uint8) if self._previous is None else cv2.imencode(".png", self._previous)[1],
        }
        for kind, pool in self._pools.items():
            for number, moment in enumerate(pool.held()):
                state |= {f"{kind}_{number}_{name}": array for name, array in _packed(moment).items()}
        with replace_atomically(folder / _STATE_NAME) as partial, partial.open("wb") as file:
            np.savez(file, **state)

    def restore(self, folder: Path) -> None:
        """Continue as the recorder that was saved in ``folder``; OutputError if its file is missing or damaged."""
        path = folder / _STATE_NAME
        try:
            # Read as a whole, so that a damaged archive fails here and not when an array is first used.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                state = {name: archive[name] for name in archive.files}
            self._load(state)
        except OSError as error:
            raise OutputError(
                f"cannot read {str(path)!r}: {error.strerror or error}; run again from the start"
            ) from error
        except (ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error, cv2.error) as error:
            raise OutputError(f"{str(path)!r} is damaged ({error}); run again from the start") from error

    def _load(self, state: _Arrays) -> None:
        self.timeline.load(_part(state, "timeline_"))
        self.shares.load(_part(state, "shares_"))
        self.start_s = float(state["start_s"])
        self.peak_shares[:], self.peak_frames[:] = state["peak_shares"], state["peak_frames"]
        for kind in MOMENTS:
            held: list[Moment] = []
            while packed := _part(state, f"{kind}_{len(held)}_"):
                held.append(_unpacked(packed))
            self._pools[kind] = MomentPool.holding(held, self.frame_rate, self.frames)
        if state["previous"].size:
            self._previous = np.asarray(cv2.imdecode(state["previous"], cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def _greatest_changes(
    before: Labels, after: Labels, is_different: NDArray[np.bool_]
) -> tuple[tuple[int, int, float], ...]:
    """(class before, class after, share of all pixels) of the most frequent changes."""
    where = np.flatnonzero(is_different)
    counts = np.bincount(before.ravel()[where].astype(np.int64) * 256 + after.ravel()[where])
    most = np.argsort(-counts, kind="stable")[:_CHANGES]
    return tuple(
        (int(pair) // 256, int(pair) % 256, float(counts[pair] / before.size)) for pair in most if counts[pair]
    )


def _part(state: Mapping[str, Any], prefix: str) -> _Arrays:
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _encoded(pictures: Mapping[str, Image]) -> dict[str, bytes]:
    return {title: encode_jpeg(picture, _QUALITY) for title, picture in pictures.items()}


def _packed(moment: Moment) -> _Arrays:
    """Arrays from which `_unpacked` restores the same moment."""
    return {
        "numbers": np.array([moment.index, moment.share]),
        "changes": np.array(moment.changes).reshape(-1, 3),
        **{f"jpeg_{title}": np.frombuffer(picture, np.uint8) for title, picture in moment.pictures.items()},
    }


def _unpacked(state: _Arrays) -> Moment:
    index, share = state["numbers"].tolist()
    changes = tuple((int(one), int(other), float(part)) for one, other, part in state["changes"])
    pictures = {title: picture.tobytes() for title, picture in _part(state, "jpeg_").items()}
    return Moment(int(index), share, changes, pictures)
