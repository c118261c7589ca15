"""CVAT's "Segmentation mask 1.1": a zip of colour pictures of classes and of objects, as Pascal VOC has them.

Every class of a frame is one object, which is what CVAT needs to import it as a mask.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.exports import ZIP_MARK
from tfcseg.exports.labelled_video import AddFrame, AddNote, LabelledVideo, add_to_zip, classes_in
from tfcseg.labels.label_sets import distinct_palette
from tfcseg.media.masks import Labels

_BACKGROUND = "background"
_OBJECT_COLOURS = np.array(distinct_palette(255), np.uint8)
"""Pascal VOC's colours; the n-th is that of the n-th object."""

_FASTEST = (cv2.IMWRITE_PNG_COMPRESSION, 1)


@contextmanager
def write_cvat(path: Path, video: LabelledVideo, note: AddNote) -> Iterator[AddFrame]:
    """Write ``path`` while the block gives it each frame; ``note`` is called for every changed colour."""
    colours = _distinct_colours(video, note)
    by_class = np.zeros((256, 3), np.uint8)
    for index, colour in colours.items():
        by_class[index] = colour
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = ZIP_MARK
        add_to_zip(archive, "labelmap.txt", _label_map(video, colours))
        # CVAT's names of frames: their files', or in a video their numbers.
        frames = len(video.masks)
        stems = [PurePath(name).stem for name in video.names[:frames]] or [f"frame_{n:06d}" for n in range(frames)]
        add_to_zip(archive, "ImageSets/Segmentation/default.txt", "".join(f"{stem}\n" for stem in stems))

        def add(index: int, labels: Labels) -> None:
            found = [label for label in classes_in(labels) if label in colours]
            by_object = np.zeros((256, 3), np.uint8)
            by_object[found] = _OBJECT_COLOURS[: len(found)]
            add_to_zip(archive, f"SegmentationClass/{stems[index]}.png", _picture(labels, by_class))
            add_to_zip(archive, f"SegmentationObject/{stems[index]}.png", _picture(labels, by_object))

        yield add


def _distinct_colours(video: LabelledVideo, note: AddNote) -> dict[int, tuple[int, int, int]]:
    """Colour of each exported class; none is black, which is the background's, and no two are the same."""
    colours: dict[int, tuple[int, int, int]] = {}
    for index in video.shown_indices:
        if video.labels.names[index].casefold() == _BACKGROUND:
            continue
        number = wanted = int.from_bytes(video.labels.palette[index], "big")
        taken = {0, *(int.from_bytes(colour, "big") for colour in colours.values())}
        while number in taken:
            number = (number + 1) % (1 << 24)
        red, green, blue = number.to_bytes(3, "big")
        colours[index] = red, green, blue
        if number != wanted:
            note(f"cvat.zip: {video.labels.names[index]!r} has the colour #{number:06x} there, its own is taken")
    return colours


def _label_map(video: LabelledVideo, colours: dict[int, tuple[int, int, int]]) -> str:
    rows = ["# label:color_rgb:parts:actions", f"{_BACKGROUND}:0,0,0::"]
    for index, (red, green, blue) in colours.items():
        name = re.sub(r"[:\r\n]", "_", video.labels.names[index])  # a colon ends it
        rows.append(f"{name}:{red},{green},{blue}::")
    return "".join(f"{row}\n" for row in rows)


def _picture(labels: Labels, table: NDArray[np.uint8]) -> bytes:
    """PNG of (H, W) ``labels`` in the colours of ``table`` (256, 3) RGB."""
    picture = cv2.applyColorMap(labels, np.ascontiguousarray(table[:, ::-1])[:, None])
    return cv2.imencode(".png", picture, _FASTEST)[1].tobytes()
