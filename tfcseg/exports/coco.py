"""COCO annotations: one run-length mask per class and frame, as data sets of stuff have them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tfcseg.exports import COCO_MARK
from tfcseg.exports.labelled_video import AddFrame, AddNote, LabelledVideo, classes_in
from tfcseg.media.masks import Labels


@contextmanager
def write_coco(path: Path, video: LabelledVideo, note: AddNote) -> Iterator[AddFrame]:
    """Write ``path`` while the block gives it each frame; ids of categories and images are indices + 1.

    Annotations come one by one, so that memory does not grow with the video.
    """
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
    """One for each class of (H, W) ``labels``."""
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
