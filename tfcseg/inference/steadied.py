"""Frames with masks of another program, made steady: what writing, rendering and measuring get.

Letters: H W image, K classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from tfcseg.errors import DataError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.links import Linker
from tfcseg.inference.segmented import SegmentedFrame, SteadiedMask
from tfcseg.inference.steadying import LinkedFrame, link_frames, steady
from tfcseg.labels.label_sets import NO_CLASS, LabelSet, distinct_palette
from tfcseg.media.frames import Frame, prefetch
from tfcseg.media.mask_folder import MaskFolder
from tfcseg.media.masks import Mask, count_values
from tfcseg.spelling import first_of

_NAMES_SHOWN = 3  # of ids of instances that share a colour

_ROUNDING = 0.01  # by how much probabilities may exceed 1, such as in half precision

_TURN_S = 0.0002  # how long a thread keeps Python's lock while others wait for it


def steadied_frames(
    frames: Iterator[Frame],
    masks: MaskFolder,
    network: IntervalNetwork,
    *,
    probabilities: Path | None = None,
    first: int = 0,
    ahead: int = 2,
) -> Iterator[SegmentedFrame]:
    """``frames`` from index ``first`` on with their steadied masks; they begin early enough for `steady`. A thread
    links frames up to ``ahead`` of the votes. DataError for masks that cannot be used."""

    def read(index: int) -> tuple[Mask | None, NDArray[np.float32] | None]:
        mask = masks.read(index)
        if mask is None or probabilities is None:
            return mask, None
        return mask, read_sureness(probabilities / masks.name(index), mask.shape)

    labels, linker = shown_classes(masks), Linker(network)
    with ExitStack() as stack:
        # Threads that share each small task would wait for each other most of the time.
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(cv2.setNumThreads, cv2.getNumThreads())
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        # They make many short calls that need Python's lock before and after: with Python's own 5 ms, they mostly wait.
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(_TURN_S)
        linked = stack.enter_context(closing(prefetch(link_frames(frames, read, linker, masks.void), ahead)))
        for frame, mask, seconds in steady(linked, first):
            yield _segmented(frame, mask, seconds, masks, labels)


def shown_classes(masks: MaskFolder) -> LabelSet:
    """Names and colours that labels are drawn with: those of the masks as far as they have any."""
    labels = masks.labels_of_values.tolist()
    palette = [*distinct_palette(NO_CLASS), (0, 0, 0)]
    given = masks.form.palette or b""
    for label, *colour in zip(labels, given[::3], given[1::3], given[2::3], strict=False):
        palette[label] = (colour[0], colour[1], colour[2])
    given_names: dict[int, list[str]] = {}
    for value, name in sorted(masks.classes.names.items()):
        if value < len(labels):
            label = labels[value]
            palette[label] = masks.classes.colours.get(value, palette[label])
            given_names.setdefault(label, []).append(name)
    unnamed = [f"{label}" for label in range(NO_CLASS)]
    if labels[NO_CLASS] == NO_CLASS - 1:
        # Of 8 bits, 255 is a class, shown as 254. Without void, values without names are 0 and 255 alone.
        is_alone = masks.void in (None, NO_CLASS - 1)
        unnamed[-1] = f"{NO_CLASS}" if is_alone else f"{NO_CLASS - 1} or {NO_CLASS}"
    return LabelSet("masks", _joined(given_names, unnamed), tuple(palette[:NO_CLASS]))


def classes_in(masks: MaskFolder, mask: Mask | None, labels: LabelSet) -> LabelSet:
    """``labels`` named after the ids that a ``mask`` has, if it has 16 bits, in which ids share labels."""
    if mask is None or mask.dtype == np.uint8:
        return labels
    names: dict[int, list[str]] = {}
    table = masks.labels_of_values
    for value in np.flatnonzero(count_values(mask)).tolist():
        names.setdefault(int(table[value]), []).append(masks.classes.names.get(value, f"{value}"))
    return replace(labels, names=_joined(names, labels.names))


def _joined(names: Mapping[int, Sequence[str]], others: Sequence[str]) -> tuple[str, ...]:
    """A name for each label, of its ``names`` or the ``others``; no two are the same."""
    found: dict[str, None] = {}
    for label, other in enumerate(others):
        name = first_of(names.get(label, [other]), _NAMES_SHOWN, " or ")
        found[f"{name} ({label})" if name in found else name] = None
    return tuple(found)


def compared_values(masks: MaskFolder, size: tuple[int, ...], given: Mask | None, mask: Mask | None) -> list[Mask]:
    """(H, W) values of a frame after and before, to compare with the next frame's; what was not there did not
    flicker."""
    after: Any = np.full(size, masks.void or 0, masks.form.dtype) if mask is None else mask
    return [after, after if given is None else given]


def read_sureness(path: Path, size: tuple[int, ...]) -> NDArray[np.float32]:
    """(H, W) by how much the first class is more probable than the second, from a .npy or .npz beside ``path``'s name.

    The file holds probabilities (K, h, w) or (h, w, K), at any size: floats from 0 to 1, or integers of any scale.
    DataError if it does not.
    """
    files = [path.with_suffix(suffix) for suffix in (".npy", ".npz")]
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        raise DataError(f"{files[0]}: no such file; --probabilities needs a .npy or .npz for each mask")
    try:
        with file.open("rb") as opened:
            loaded = np.load(opened, allow_pickle=False)
            values = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
    except Exception as error:  # damaged archives and headers raise errors of many kinds
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: cannot be read as an array of probabilities ({reason})") from error
    is_float = np.issubdtype(values.dtype, np.floating)
    if values.ndim != 3 or min(values.shape) < 2 or not (is_float or np.issubdtype(values.dtype, np.integer)):
        raise DataError(f"{file}: is {values.dtype} {values.shape}; probabilities are (K, H, W) or (H, W, K)")
    # The classes are along the axis without which the array has the mask's shape.
    shapes = values.shape[1:], values.shape[:2]
    first, last = (abs(np.log(height * size[1] / (width * size[0]))) for height, width in shapes)
    probabilities = values if first <= last else np.moveaxis(values, -1, 0)
    least, greatest = values.min(), values.max()
    if not (least >= 0 and (greatest <= 1 + _ROUNDING or not is_float)):
        raise DataError(f"{file}: holds numbers from {least:g} to {greatest:g}; probabilities are from 0 to 1")
    best = np.partition(probabilities.astype(np.float32), -2, axis=0)[-2:]
    total = probabilities.sum(axis=0, dtype=np.float32)
    sure = (best[1] - best[0]) / np.maximum(total, 1e-6)
    return np.asarray(cv2.resize(sure.clip(0, 1), (size[1], size[0])), np.float32)


def _segmented(
    linked: LinkedFrame, mask: Mask | None, seconds: float, masks: MaskFolder, labels: LabelSet
) -> SegmentedFrame:
    frame, given, link = linked.frame, linked.mask, linked.link
    similarity = None if link is None else link.similarity
    size = frame.image.shape[:2]
    changed = None if given is None or mask is None else float(np.count_nonzero(mask != given) / mask.size)
    return SegmentedFrame(
        frame.index,
        frame.time_s,
        frame.image,
        np.full(size, NO_CLASS, np.uint8) if mask is None else masks.shown(mask),
        is_keyframe=False,
        similarity=None if similarity is None else np.full((1, 1), similarity, np.float32),
        updated_fraction=changed,
        model_ms=1000 * seconds,
        is_held=frame.is_held,
        label_set=classes_in(masks, mask, labels),
        steadied=SteadiedMask(mask, compared_values(masks, size, given, mask), given is None and mask is not None),
        ends_group=True,
    )
