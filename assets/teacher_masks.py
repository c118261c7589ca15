"""Label every frame of a VSPW folder by itself, with a teacher: python assets/teacher_masks.py TEACHER.tflite ROOT OUT.

Writes a PNG of the data set's class indices per frame, in the layout of ``tfcseg eval --predictions``; 255 where the
teacher's class has no counterpart. Teachers with ADE20K's 31 most frequent classes only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from tfcseg.evaluation.vspw import open_vspw
from tfcseg.labels.label_sets import ADE31, built_in_label_map
from tfcseg.media.images import read_image
from tfcseg.media.masks import write_mask
from tfcseg.training.teachers import Teacher


def main(file: str, root: str, out: str) -> None:
    """Label the frames of all videos."""
    teacher, dataset = Teacher(Path(file)), open_vspw(Path(root), "val")
    values = np.full(256, 255, np.uint8)
    for name, counterpart in built_in_label_map(ADE31, dataset.labels).items():
        values[ADE31.index(name)] = dataset.labels.index(counterpart)
    for video in map(dataset.read_video, dataset.videos):
        Path(out, video.name).mkdir(parents=True, exist_ok=True)
        for frame in video.frames:
            image = read_image(frame.image)
            labels = cv2.resize(teacher.labels(image), image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            write_mask(Path(out, video.name, f"{frame.stem}.png"), values[labels], None)


if __name__ == "__main__":
    main(*sys.argv[1:])
