"""Stability of labels from frame to frame, measured without ground truth.

Letters: H image height, W image width; h, w the size at which the flow is computed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import InputError
from tfcseg.metrics.scores import Labels, Mean, percent
from tfcseg.shrinking import shrunk

Image: TypeAlias = NDArray[np.uint8]
Gray: TypeAlias = NDArray[np.uint8]
Values: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W) labels, or ids of instances."""

Preset: TypeAlias = Literal["medium", "fast"]
"""How fine the flow is. ``fast`` takes a quarter of the time; flow consistency then differs by up to 0.2 points (means
of three clips, between 80 and 99 %)."""

_PRESETS = {"medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM, "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST}
_MIN_SIDE_PX = 12  # DIS refuses anything smaller
_MIN_PHASE = 0.5  # of the frames of the most frequent phase: what few intervals reach says little
_MIN_FOLLOWED = 0.15  # of the pixels: across cuts the flow is noise that passed the check for 0 to 13 % of them


class FrameConsistency(NamedTuple):
    """A frame compared with the previous one; None if there is nothing to compare."""

    label_change: float | None  # share of all pixels whose label differs from the previous frame's
    flow_consistency: float | None  # share of the pixels followed by the flow whose label agrees


class Followed(NamedTuple):
    """Where pixels of a frame were in the frame before, on the grid (h, w) of the flow."""

    origin_x: NDArray[np.float32]
    origin_y: NDArray[np.float32]
    is_followed: NDArray[np.bool_]  # whether that is known
    pixels: int  # number of pixels of which it is

    def agreement(self, before: Values, now: Values) -> float:
        """Share of the followed pixels whose label (h, w) ``now`` is that of their origin in ``before``."""
        warped = cv2.remap(before, self.origin_x, self.origin_y, cv2.INTER_NEAREST)
        return float(np.count_nonzero((warped == now) & self.is_followed) / self.pixels)


class ConsistencyMeter:
    """Compares each frame of one video with the previous frame.

    Flow consistency follows pixels with optical flow (OpenCV DIS) on frames whose short side is at most
    ``flow_short_side_px``. Labels are compared at that size, too: the flow is not finer, and clips of different sizes
    are measured in the same way. Pixels that leave the frame or become hidden, found by a forward-backward check, do
    not count. ``flow_consistency`` is None for the first frame, with ``use_flow`` off, for frames too small for the
    flow, and where hardly anything can be followed (a cut).

    Papers call the mIoU between warped and current labels "temporal consistency". This is a different number: the share
    of pixels that keep their label, among those that the flow can follow.
    """

    def __init__(self, *, use_flow: bool = True, preset: Preset = "medium", flow_short_side_px: int = 160) -> None:
        self._flow, self._preset = _Flow(preset) if use_flow else None, preset
        self._flow_short_side_px = flow_short_side_px
        self._size: tuple[int, int] | None = None
        self._gray: Gray | None = None
        self._labels: list[Values] | None = None
        self._small: list[Values] | None = None

    @property
    def flow_name(self) -> str | None:
        """Name of the flow: only numbers of equal flows can be compared. None without flow."""
        return f"opencv-dis-{self._preset}-{self._flow_short_side_px}" if self._flow is not None else None

    def is_cut(self, change: FrameConsistency) -> bool:
        """Whether a frame shows another scene than the one before: the flow can follow nothing there. Without flow,
        or in frames too small for it, nobody knows."""
        return self._small is not None and change.flow_consistency is None and change.label_change is not None

    def update(self, image: Image, labels: Labels) -> FrameConsistency:
        """Compare the (H, W, 3) RGB ``image`` and its (H, W) ``labels`` with those of the previous call. Raises
        InputError if the frame size changes within the video."""
        return self.compare([labels], self.follow(image)())[0]

    def follow(self, image: Image) -> Callable[[], Followed | None]:
        """Take the next (H, W, 3) RGB ``image``; what is returned, for `compare`, computes the flow to it.

        That is the slow part, and needs no labels. Images must be given in order; the functions may be called in any
        order and thread. Raises InputError if the size changes.
        """
        size, (height, width) = self._size, image.shape[:2]
        if size is not None and size != (height, width):
            raise InputError(f"frame size changes from {size} to {(height, width)}; cut the video there")
        self._size = height, width
        flow = self._flow
        before, self._gray = self._gray, None if flow is None else self._shrink(image)
        now = self._gray
        if flow is None or before is None or now is None:
            return lambda: None
        return lambda: _followed(flow.calculator, before, now)

    def compare(self, maps: Sequence[Values], followed: Followed | None) -> list[FrameConsistency]:
        """Compare (H, W) labels of the next frame with those of the frame before, along the flow to it. There may be
        several maps of each frame, as many in each call."""
        previous, self._labels = self._labels, [labels.copy() for labels in maps]
        before = self._small
        size_wh = None if self._flow is None else self._small_wh(*maps[0].shape)
        self._small = None if size_wh is None else [_at_size(labels, size_wh) for labels in maps]
        if previous is None:
            return [FrameConsistency(None, None)] * len(maps)
        changes = [float(np.count_nonzero(a != b) / b.size) for a, b in zip(previous, maps, strict=True)]
        agreed: Sequence[float | None] = [None] * len(maps)
        if followed is not None and before is not None and self._small is not None:
            agreed = [followed.agreement(*pair) for pair in zip(before, self._small, strict=True)]
        return list(map(FrameConsistency, changes, agreed))

    def repeat(self) -> list[FrameConsistency]:
        """`compare` with what the call before had: nothing changes, and there is no motion."""
        return [FrameConsistency(0.0, None if self._small is None else 1.0)] * len(self._labels or [])

    def _small_wh(self, height: int, width: int) -> tuple[int, int] | None:
        scale = min(1.0, self._flow_short_side_px / min(height, width))
        size_wh = (round(width * scale), round(height * scale))
        return None if min(size_wh) < _MIN_SIDE_PX else size_wh

    def _shrink(self, image: Image) -> Gray | None:
        size_wh = self._small_wh(*image.shape[:2])
        if size_wh is None:
            return None
        return shrunk(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8), size_wh)


class StabilityScores:
    """Flow consistency and label change over pairs of successive frames of a video, but not across cuts, as means that
    pool."""

    def __init__(self, *, use_flow: bool = True) -> None:
        self._use_flow = use_flow
        self._meter = ConsistencyMeter(use_flow=use_flow)
        self._found: dict[str, list[float]] = {"flow_consistency": [], "label_change": []}

    def means(self) -> dict[str, Mean]:
        """``flow_consistency`` and ``label_change`` (see `FrameConsistency`)."""
        return {name: Mean.of(values) for name, values in self._found.items()}

    def percentages(self) -> dict[str, float | None]:
        """Both, in percent; None where nothing was measured."""
        return {name: percent(mean.value) for name, mean in self.means().items()}

    def restart(self) -> None:
        """Forget the previous frame: the next one does not follow it."""
        self._meter = ConsistencyMeter(use_flow=self._use_flow)

    def update(self, image: Image, labels: Labels) -> None:
        """Add a frame (H, W, 3) with its (H, W) labels; InputError if the size changes."""
        change = self._meter.update(image, labels)
        for name, value in change._asdict().items():
            if value is not None and not self._meter.is_cut(change):
                self._found[name].append(value)


@dataclass(slots=True)
class PhaseChanges:
    """Label change by phase: how many frames after the last keyframe a frame comes, 0 for keyframes."""

    totals: list[float] = field(default_factory=list)  # sum of label changes of each phase
    counts: list[int] = field(default_factory=list)  # number of frames of each phase
    phase: int | None = None  # phase of the last frame; None before the first keyframe

    def add(self, *, is_keyframe: bool, label_change: float | None) -> None:
        """Take the next frame; ``label_change`` is None for the first of a video."""
        if is_keyframe:
            self.phase = 0
        elif self.phase is not None:
            self.phase += 1
        if self.phase is None or label_change is None:
            return
        missing = self.phase + 1 - len(self.counts)
        self.totals += [0.0] * missing
        self.counts += [0] * missing
        self.totals[self.phase] += label_change
        self.counts[self.phase] += 1

    @property
    def pulse(self) -> float | None:
        """Greatest mean label change of a phase divided by the mean over phases: 1 is steady. None without at least two
        phases, or if no label ever changes."""
        least = _MIN_PHASE * max(self.counts, default=0)
        means = [total / count for total, count in zip(self.totals, self.counts, strict=True) if count > least]
        return max(means) * len(means) / sum(means) if len(means) > 1 and sum(means) > 0 else None


class _Flow(threading.local):
    """A flow calculator per thread, since it uses its own memory while it works."""

    def __init__(self, preset: Preset) -> None:
        self.calculator = cv2.DISOpticalFlow.create(_PRESETS[preset])


def _followed(flow: cv2.DISOpticalFlow, previous: Gray, current: Gray) -> Followed | None:
    """Pixels of ``current`` (h, w) that can be followed to ``previous``; None if hardly any can."""
    height, width = current.shape
    forward = _flow_between(flow, previous, current)
    backward = _flow_between(flow, current, previous)
    origin_x = np.arange(width, dtype=np.float32) + backward[..., 0]
    origin_y = np.arange(height, dtype=np.float32)[:, None] + backward[..., 1]
    is_inside = (origin_x > -0.5) & (origin_x < width - 0.5) & (origin_y > -0.5) & (origin_y < height - 0.5)
    forward_at_origin = np.asarray(cv2.remap(forward, origin_x, origin_y, cv2.INTER_LINEAR), dtype=np.float32)
    # Going forth and back returns to the start (the test of Sundaram et al., ECCV 2010).
    length = _squared(forward_at_origin) + _squared(backward)
    is_followed = is_inside & (_squared(forward_at_origin + backward) < 0.01 * length + 0.5)
    count = np.count_nonzero(is_followed)
    return None if count < _MIN_FOLLOWED * is_followed.size else Followed(origin_x, origin_y, is_followed, int(count))


def _at_size(labels: Values, size_wh: tuple[int, int]) -> Values:
    return cast(Values, cv2.resize(labels, size_wh, interpolation=cv2.INTER_NEAREST_EXACT))


def _flow_between(flow: cv2.DISOpticalFlow, first: Gray, second: Gray) -> NDArray[np.float32]:
    # An array of the frame's size would be taken as a first guess of the flow; any other size means there is none.
    no_guess = np.empty((1, 1, 2), dtype=np.float32)
    return np.asarray(flow.calc(first, second, no_guess), dtype=np.float32)


def _squared(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    squares = np.square(vectors)
    return squares[..., 0] + squares[..., 1]  # a tenth of the time of a sum over the last axis
