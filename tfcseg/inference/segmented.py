"""A frame with the network's output: what users, rendering and writing get.

Letters: H W source image, h w grid of the logits (stride 4).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares, overlay, shrink
from tfcseg.errors import DataError, TfcsegError, UsageError
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.media.frames import Image
from tfcseg.model.evidence import CarryOver

if TYPE_CHECKING:
    from supervision import Detections

    from tfcseg.media.masks import Mask

_SHOWN_CLASSES = 3
_NOTEBOOK_PX = 960  # maximum longer side of the picture in a notebook


class SteadiedMask(NamedTuple):
    """A mask of another program, made steady."""

    mask: Mask | None  # (H, W) values to write; None: there is none to write
    compared: Sequence[Mask]  # (H, W) values after and before, to compare with the next frame's
    is_filled: bool  # the frame had none


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SegmentedFrame:
    """A frame and its labels."""

    index: int
    time_s: float
    image: Image  # (H, W, 3) uint8 RGB, as decoded
    labels: NDArray[np.uint8]  # (H, W) class indices
    is_keyframe: bool
    similarity: NDArray[np.float32] | None
    """w_t of eq. 6 (h, w); None at keyframes."""
    updated_fraction: float | None
    """Share of points updated by sparse MSDA (eq. 11); None at keyframes."""
    model_ms: float | None
    """Milliseconds; None: the frame repeats the picture before it, whose result it has, and nothing was computed."""
    is_held: bool
    """The frame repeats the picture before it: in the source, or in place of one that cannot be read. It may share its
    arrays."""
    label_set: LabelSet  # names and colours of the classes
    confidence_grid: NDArray[np.uint8] | None = None
    """(h, w) confidence of the labels on the grid of the logits: 255 times the probability that they are right."""
    carried: CarryOver | None = None
    """What a run needs to resume after this frame, where keyframes are weighed; None from `tfcseg.segment`."""
    steadied: SteadiedMask | None = None  # of masks that were given: what they were and are
    is_stand_in: bool = False
    """The frame is held in place of one that a live source has dropped."""
    ends_group: bool = False
    """Later frames depend on the frames up to this one only through ``carried``: a run can resume here."""

    @property
    def confidence(self) -> NDArray[np.uint8] | None:
        """(H, W) confidence of each pixel's label: 255 times the probability that it is right."""
        if self.confidence_grid is None:
            return None
        size_wh = (self.labels.shape[1], self.labels.shape[0])
        return np.asarray(cv2.resize(self.confidence_grid, size_wh, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    def without_unsure(self, below: float) -> SegmentedFrame:
        """The same frame with NO_CLASS (255) where the label's probability of being right is less than ``below``."""
        confidence = self.confidence
        if confidence is None or below <= 0:
            return self
        return replace(self, labels=np.where(confidence < 255 * below, np.uint8(NO_CLASS), self.labels))

    @property
    def classes(self) -> dict[str, float]:
        """Classes in the frame by name, with their shares of the pixels (0 to 1), largest first."""
        shares = class_shares(self.labels, len(self.label_set))
        order = np.argsort(-shares, kind="stable")
        return {self.label_set.names[index]: float(shares[index]) for index in order if shares[index] > 0}

    def mask(self, *names: str) -> NDArray[np.bool_]:
        """(H, W) flags: whether a pixel belongs to one of these classes, in any case. Raises UsageError for a name that
        the model does not know, or if no name is given."""
        if not names:
            raise UsageError("mask() needs the name of a class, such as mask('person')")
        return self._flags(names)[self.labels]

    def overlay(self, *, alpha: float = 0.55, classes: str | Iterable[str] = (), legend: bool = False) -> Image:
        """(H, W, 3) uint8 RGB: the frame with its ``classes`` (empty: all) in colour at opacity ``alpha``. Raises
        UsageError for an opacity outside of 0 to 1 or a name that the model does not know."""
        size = (self.labels.shape[0], self.labels.shape[1])
        visible = self._flags(classes)[: len(self.label_set)] if classes else None
        picture = overlay(self.image, self.labels, self.label_set.palette_array(), alpha=alpha, visible=visible)
        if legend:
            shares = class_shares(self.labels, len(self.label_set))
            Legend(self.label_set, size).draw(picture, shares if visible is None else shares * visible)
        return picture

    def to_supervision(self) -> Detections:
        """The classes in the frame as ``supervision.Detections``, one each: mask, box, class id, name, mean confidence.

        For the annotators, trackers and writers of Roboflow's ``supervision``. Raises TfcsegError if it is not
        installed.
        """
        if importlib.util.find_spec("supervision") is None:
            raise TfcsegError("to_supervision() needs the package supervision; run: pip install supervision")
        from supervision import Detections

        present = np.flatnonzero(class_shares(self.labels, len(self.label_set)))
        masks = self.labels == present[:, None, None].astype(np.uint8)
        boxes = [cv2.boundingRect(mask.view(np.uint8)) for mask in masks]
        sure = self.confidence
        return Detections(
            xyxy=np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float32).reshape(-1, 4),
            mask=masks,
            confidence=None if sure is None else np.array([sure[mask].mean() / 255 for mask in masks], np.float32),
            class_id=present,
            data={"class_name": np.array([self.label_set.names[index] for index in present])},
        )

    def _flags(self, names: str | Iterable[str]) -> NDArray[np.bool_]:
        flags = np.zeros(256, np.bool_)
        try:
            flags[self.label_set.indices(names)] = True
        except DataError as error:
            raise UsageError(str(error)) from None
        return flags

    def _repr_png_(self) -> bytes:
        picture = self.overlay(legend=True)
        height, width = picture.shape[:2]
        scale = min(1.0, _NOTEBOOK_PX / max(height, width))
        small = shrink(picture, (max(1, round(height * scale)), max(1, round(width * scale))))
        return bytes(cv2.imencode(".png", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1])

    def __repr__(self) -> str:
        height, width = self.labels.shape
        largest = list(self.classes.items())[:_SHOWN_CLASSES]
        shown = ", ".join(f"{name} {share:.0%}" for name, share in largest)
        return f"<SegmentedFrame {self.index} at {self.time_s:.2f} s, {width}×{height}: {shown}>"
