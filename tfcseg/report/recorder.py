"""Collect the data of report.html during a run, in bounded memory.

Letters: H image height, W image width, K classes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.render import Image, Labels, covered, shrink, shrink_labels
from tfcseg.errors import OutputError
from tfcseg.files import replace_atomically
from tfcseg.report.moment_pictures import DrawnMoment, draw_moment, encode_jpeg, picture_size
from tfcseg.report.moments import Moment, MomentPool
from tfcseg.report.player import SERIES, new_timeline
from tfcseg.report.tables import FrameRow
from tfcseg.report.thinning import ThinnedSeries

MOMENTS, DOUBTS = 10, 6
_SHARE_COLUMNS = 256  # and up to twice as many
_STATE_NAME = "page.npz"
_QUALITY = 90
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
        self._pool = MomentPool(frame_rate)
        self._doubts = MomentPool(frame_rate)
        self._drawn: list[DrawnMoment] | None = None
        self._drawn_doubts: list[DrawnMoment] | None = None
        self._previous: Labels | None = None

    @property
    def frames(self) -> int:
        """Number of frames added."""
        return self.timeline.frames

    def drawn_moments(self) -> list[DrawnMoment]:
        """The frames with the greatest label change, in order of time and a little apart; at most ``MOMENTS``.

        Drawn pictures are kept until the next frame is added.
        """
        if self._drawn is None:
            self._drawn = [draw_moment(moment, self.palette) for moment in self._pool.greatest(MOMENTS)]
        return self._drawn

    def drawn_doubts(self) -> list[DrawnMoment]:
        """The frames of most unsure labels, as `drawn_moments`; at most ``DOUBTS``."""
        if self._drawn_doubts is None:
            found = self._doubts.greatest(DOUBTS)
            self._drawn_doubts = [draw_moment(moment, self.palette, is_doubt=True) for moment in found]
        return self._drawn_doubts

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
        self._drawn = self._drawn_doubts = None
        if index == 0:
            self.start_s = row.time_s
        self.timeline.add([getattr(row, name) for name in SERIES])
        self.shares.add(shares)
        is_peak = shares > self.peak_shares
        self.peak_shares[is_peak], self.peak_frames[is_peak] = shares[is_peak], index
        if previous is not None and row.label_change is not None:
            change = row.label_change
            self._pool.offer(
                index,
                change,
                lambda: _sketch(
                    index=index, time_s=row.time_s, change=change, image=image, before=previous, after=labels
                ),
            )
        if sure is not None and row.unsure is not None:
            share, below = row.unsure, 255 * self.unsure_below
            self._doubts.offer(
                index,
                share,
                lambda: _sketch_doubt(
                    index=index, time_s=row.time_s, share=share, image=image, labels=labels, is_unsure=sure < below
                ),
            )
        self._previous = labels

    def save(self, folder: Path) -> None:
        """Save everything that ``restore`` needs in one file in ``folder``; OutputError on failure."""
        state: _Arrays = {
            **{f"timeline_{name}": array for name, array in self.timeline.state().items()},
            **{f"shares_{name}": array for name, array in self.shares.state().items()},
            "start_s": np.array(self.start_s),
            "peak_shares": self.peak_shares,
            "peak_frames": self.peak_frames,
            "previous": np.zeros(0, np.uint8) if self._previous is None else cv2.imencode(".png", self._previous)[1],
            **{f"moment_{name}": array for name, array in _moments_state(self._pool.held()).items()},
            **{f"doubt_{name}": array for name, array in _moments_state(self._doubts.held()).items()},
        }
        with replace_atomically(folder / _STATE_NAME) as partial, partial.open("wb") as file:
            np.savez(file, **state)

    @classmethod
    def restore(
        cls, folder: Path, palette: NDArray[np.uint8], frame_rate: Fraction, unsure_below: float = 0.5
    ) -> PageRecorder:
        """Load a recorder saved in ``folder``; OutputError if its file is missing or damaged."""
        path, recorder = folder / _STATE_NAME, cls(palette, frame_rate, unsure_below)
        try:
            # Read as a whole, so that a damaged archive fails here and not when an array is first used.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                state = {name: archive[name] for name in archive.files}
            recorder._load(state)
        except OSError as error:
            raise OutputError(
                f"cannot read {str(path)!r}: {error.strerror or error}; run again from the start"
            ) from error
        except (ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error, cv2.error) as error:
            raise OutputError(f"{str(path)!r} is damaged ({error}); run again from the start") from error
        return recorder

    def _load(self, state: _Arrays) -> None:
        self.timeline.load(_part(state, "timeline_"))
        self.shares.load(_part(state, "shares_"))
        self.start_s = float(state["start_s"])
        self.peak_shares[:], self.peak_frames[:] = state["peak_shares"], state["peak_frames"]
        moments, doubts = (_moments(_part(state, prefix)) for prefix in ("moment_", "doubt_"))
        self._pool = MomentPool.holding(moments, self.frame_rate, self.frames)
        self._doubts = MomentPool.holding(doubts, self.frame_rate, self.frames)
        if state["previous"].size:
            self._previous = np.asarray(cv2.imdecode(state["previous"], cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def _sketch(index: int, time_s: float, change: float, image: Image, before: Labels, after: Labels) -> Moment:
    """Moment of the frame ``image`` (H, W, 3) between labels ``before`` and ``after`` (H, W) of it."""
    size = picture_size(image.shape)
    is_different = before != after
    return Moment(
        index=index,
        time_s=time_s,
        share=change,
        changes=_greatest_changes(before, after, is_different),
        source=encode_jpeg(shrink(image, size), _QUALITY),
        before=shrink_labels(before, size),
        after=shrink_labels(after, size),
        changed=covered(is_different, size),
    )


def _sketch_doubt(
    index: int, time_s: float, share: float, image: Image, labels: Labels, is_unsure: NDArray[np.bool_]
) -> Moment:
    """Moment of the frame ``image`` (H, W, 3) whose ``labels`` (H, W) are unsure in parts of a grid (h, w)."""
    size = picture_size(image.shape)
    at_grid = shrink_labels(labels, is_unsure.shape)[is_unsure]
    counts = np.bincount(at_grid, minlength=1)
    most = np.argsort(-counts, kind="stable")[:_CHANGES].tolist()
    classes = tuple((name, name, float(counts[name] / is_unsure.size)) for name in most if counts[name])
    small = shrink_labels(labels, size)
    marked = cv2.resize(np.multiply(is_unsure, 255, dtype=np.uint8), size[::-1], interpolation=cv2.INTER_LINEAR)
    source = encode_jpeg(shrink(image, size), _QUALITY)
    return Moment(
        index=index,
        time_s=time_s,
        share=share,
        changes=classes,
        source=source,
        before=small,
        after=small,
        changed=np.asarray(marked, dtype=np.uint8),
    )


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


def _moments_state(held: Sequence[Moment]) -> _Arrays:
    """Arrays from which `_moments` restores the same moments."""
    sources = [moment.source for moment in held]
    # Level 1 takes a quarter of the time of PNG files; one moment at a time takes little memory.
    maps = [zlib.compress(np.stack([each.before, each.after, each.changed]).tobytes(), 1) for each in held]
    return {
        "index": np.array([moment.index for moment in held], np.int64),
        "numbers": np.array([(moment.time_s, moment.share) for moment in held]).reshape(-1, 2),
        "changes": np.array([change for moment in held for change in moment.changes]).reshape(-1, 3),
        "change_counts": np.array([len(moment.changes) for moment in held], np.int64),
        "size": np.array(held[0].before.shape if held else (0, 0), np.int64),
        "source_sizes": np.array([len(source) for source in sources], np.int64),
        "sources": np.frombuffer(b"".join(sources), np.uint8),
        "map_sizes": np.array([len(packed) for packed in maps], np.int64),
        "maps": np.frombuffer(b"".join(maps), np.uint8),
    }


def _moments(state: Mapping[str, Any]) -> list[Moment]:
    sources, maps = (np.split(state[f"{name}s"], np.cumsum(state[f"{name}_sizes"])[:-1]) for name in ("source", "map"))
    changes = np.split(state["changes"], np.cumsum(state["change_counts"]))
    moments = []
    for number, (index, (time_s, change)) in enumerate(zip(state["index"], state["numbers"], strict=True)):
        packed = np.frombuffer(zlib.decompress(maps[number].tobytes()), np.uint8)
        before, after, changed = packed.reshape(3, *state["size"])
        moments.append(
            Moment(
                index=int(index),
                time_s=float(time_s),
                share=float(change),
                changes=tuple((int(one), int(other), float(share)) for one, other, share in changes[number]),
                source=sources[number].tobytes(),
                before=before,
                after=after,
                changed=changed,
            )
        )
    return moments
