"""Labels for annotation tools and training: COCO's run lengths, CVAT's pictures of classes, YOLO's polygons.

Each writer is a context that yields a function to add a frame, and writes one by one, so that memory does not grow with
the video. Letters: H, W image height and width, N points.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tfcseg.exports import COCO_MARK, ZIP_MARK
from tfcseg.exports.labelled_video import AddFrame, AddNote, LabelledVideo, add_to_zip, classes_in
from tfcseg.labels.label_sets import NO_CLASS, distinct_palette
from tfcseg.media.masks import Labels


@contextmanager
def write_coco(path: Path, video: LabelledVideo, note: AddNote) -> Iterator[AddFrame]:
    """A run-length mask per class and frame, as in COCO-Stuff; ids of categories and images are indices + 1."""
    height, width = video.size
    head = {
        "info": {"description": json.loads(COCO_MARK)},
        "categories": [_category(video, index) for index in video.shown_indices],
        "images": [
            {"id": index + 1, "file_name": video.name(index), "width": width, "height": height}
            for index in range(len(video.masks))
        ],
    }
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{json.dumps(head)[:-1]}, "annotations": [\n')
        written = 0

        def add(index: int, labels: Labels) -> None:
            nonlocal written
            for annotation in _annotations(index, video.only_shown(labels)):
                written += 1
                comma = ",\n" if written > 1 else ""
                file.write(f"{comma}{json.dumps({'id': written, **annotation})}")

        yield add
        file.write("]}\n")


def _category(video: LabelledVideo, index: int) -> dict[str, Any]:
    name, colour = video.labels.names[index], video.labels.palette[index]
    return {"id": index + 1, "name": name, "supercategory": "stuff", "isthing": 0, "color": colour}


def _annotations(index: int, labels: Labels) -> Iterator[dict[str, Any]]:
    from pycocotools import mask as run_lengths

    found = classes_in(labels)
    if not found:
        return
    masks = np.asfortranarray(np.stack([labels == label for label in found], axis=-1).astype(np.uint8))
    coded = run_lengths.encode(masks)
    for label, rle, area, box in zip(found, coded, run_lengths.area(coded), run_lengths.toBbox(coded), strict=True):
        yield {
            "image_id": index + 1,
            "category_id": label + 1,
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("ascii")},
            "area": int(area),
            "bbox": box.tolist(),
            "iscrowd": 0,
        }


_BACKGROUND = "background"
_OBJECT_COLOURS = np.array(distinct_palette(255), np.uint8)
"""Pascal VOC's colours; the n-th is that of the n-th object."""


@contextmanager
def write_cvat(path: Path, video: LabelledVideo, note: AddNote) -> Iterator[AddFrame]:
    """CVAT's "Segmentation mask 1.1": a zip of pictures of classes and of objects, as Pascal VOC has them.

    Every class of a frame is one object, which is what CVAT needs to import it as a mask.
    """
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
    return cv2.imencode(".png", picture, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes()


LEAST_PX = 16
"""Smaller parts are left out: a polygon of a few pixels teaches nothing."""


@dataclass(slots=True)
class _Losses:
    holes: int = 0
    small: int = 0
    wrong_pixels: int = 0
    pixels: int = 0

    def __str__(self) -> str:
        wrong = self.wrong_pixels / max(1, self.pixels)
        return (
            f"polygons cannot have holes, {self.holes} were filled; {self.small} parts below {LEAST_PX} pixels, or as "
            f"thin as a line, were left out; drawn in their order they give {wrong:.3%} of the pixels another label"
        )


@contextmanager
def write_yolo(path: Path, video: LabelledVideo, note: AddNote) -> Iterator[AddFrame]:
    """Polygons for YOLO's segmentation: a zip as Ultralytics lays out data sets.

    A frame's polygons go from the largest to the smallest. Drawn in this order they give back the labels, since parts
    in the hole of another are drawn after it.
    """
    losses = _Losses()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = ZIP_MARK

        def add(index: int, labels: Labels) -> None:
            name = f"labels/train/{PurePath(video.name(index)).stem}.txt"
            add_to_zip(archive, name, "".join(_rows(video.only_shown(labels), losses)))

        yield add
        add_to_zip(archive, "train.txt", "".join(f"images/train/{video.name(n)}\n" for n in range(len(video.masks))))
        names = "".join(f"  {index}: {json.dumps(name)}\n" for index, name in enumerate(video.labels.names))
        add_to_zip(archive, "data.yaml", f"# {losses}\npath: .\ntrain: train.txt\nval: train.txt\nnames:\n{names}")
    if losses.holes or losses.small or losses.wrong_pixels:
        note(f"yolo.zip: {losses}")


def _rows(labels: Labels, losses: _Losses) -> list[str]:
    """``class x y x y …`` of each part, with coordinates from 0 to 1."""
    parts = [part for label in classes_in(labels) for part in _parts(labels, label, losses)]
    parts.sort(key=lambda part: -part.pixels)
    drawn = np.full_like(labels, NO_CLASS)
    scale = np.array([labels.shape[1], labels.shape[0]])
    rows = []
    for part in parts:
        cv2.fillPoly(drawn, [part.outline], part.label)
        # The centres of pixels, so that programs that round down find the same pixel, not the one before it.
        numbers = ((part.outline[:, 0] + 0.5) / scale).ravel().tolist()
        rows.append(f"{part.label} {' '.join(f'{number:.6f}' for number in numbers)}\n")
    losses.pixels += labels.size
    losses.wrong_pixels += int(np.count_nonzero(drawn != labels))
    return rows


class _Part(NamedTuple):
    label: int
    pixels: int  # with those of its holes
    outline: NDArray[np.int32]  # (N, 1, 2) x and y of the pixels at its corners


def _parts(labels: Labels, label: int, losses: _Losses) -> Iterator[_Part]:
    outlines, hierarchy = cv2.findContours((labels == label).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for found, (*_, outer) in zip(outlines, hierarchy[0].tolist(), strict=True):
        outline = np.asarray(found, dtype=np.int32)
        pixels = _pixels_within(outline)
        if outer >= 0:
            losses.holes += 1
        elif pixels < LEAST_PX or len(outline) < 3:
            losses.small += 1
        else:
            yield _Part(label, pixels, outline)


def _pixels_within(outline: NDArray[np.int32]) -> int:
    """Number of pixels of a filled outline, itself included: Pick's theorem."""
    steps = int(np.abs(np.diff(outline[:, 0], axis=0, append=outline[:1, 0])).max(axis=1).sum())
    return round(cv2.contourArea(outline) + steps / 2 + 1)
