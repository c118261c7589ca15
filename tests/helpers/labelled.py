"""Videos of drawn labels on disk, for exports."""

from __future__ import annotations

from contextlib import contextmanager
from fractions import Fraction

import cv2
import numpy as np

from tfcseg.exports.export import export
from tfcseg.exports.labelled_video import LabelledVideo
from tfcseg.labels.label_sets import NO_CLASS, LabelSet
from tfcseg.media.masks import write_mask

LABELS = LabelSet(
    "things",
    ("sky", "road", "traffic light", "person"),
    ((110, 190, 255), (110, 92, 140), (255, 165, 70), (255, 42, 72)),
)
SKY, ROAD, LIGHT, PERSON = range(4)
SIZE = (45, 71)


def drawn_maps(count=4):
    """Label maps with holes, islands in holes, parts without a class, and a class that comes and goes."""
    maps = []
    for number in range(count):
        labels = np.full(SIZE, SKY, np.uint8)
        labels[25:] = ROAD
        cv2.circle(labels, (20 + number, 20), 12, PERSON, -1)
        cv2.circle(labels, (20 + number, 20), 7, ROAD, -1)
        cv2.circle(labels, (20 + number, 20), 3, PERSON, -1)
        labels[40:, 60:] = NO_CLASS
        if number % 2:
            labels[5:12, 50:58] = LIGHT
        maps.append(labels)
    return maps


def drawn_images(count):
    rows, columns = np.indices(SIZE)
    return [np.dstack([rows * 5, columns * 3, np.full(SIZE, 20 * number)]).astype(np.uint8) for number in range(count)]


def labelled_video(folder, maps, **changes):
    """The ``maps`` as masks in ``folder``, and what is to be exported of them: everything."""
    for index, labels in enumerate(maps):
        write_mask(folder / f"{index:08d}.png", labels, LABELS.palette_array())

    @contextmanager
    def open_images():
        yield iter(drawn_images(len(maps)))

    facts = {
        "masks": [folder / f"{index:08d}.png" for index in range(len(maps))],
        "size": maps[0].shape,
        "frame_rate": Fraction(30000, 1001),
        "labels": LABELS,
        "shown": np.ones(len(LABELS), np.bool_),
        "open_images": open_images,
    }
    return LabelledVideo(**{**facts, **changes})


def export_to(folder, video, *formats):
    return export(video, formats, folder, folder / ".tfcseg" / "exports")


def only(*classes):
    """Flags of some classes."""
    return np.isin(np.arange(len(LABELS)), classes)
