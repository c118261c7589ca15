"""Labels of a video as files of other programs: annotation tools, training, compositing, spreadsheets."""

from __future__ import annotations

import re

FILE_NAMES = {"coco": "coco.json", "cvat": "cvat.zip", "yolo": "yolo.zip", "video": "labels.mkv", "areas": "areas.csv"}
"""File of each format; ``matte`` writes two files per class instead."""

FORMATS = ("coco", "cvat", "yolo", "video", "matte", "areas")

MATTE_NAME = re.compile(r"(?s)matte_.+\.(mp4|webm)")
"""Names of the files of ``matte``."""

COCO_MARK, ZIP_MARK = b'"labels by tfcseg"', b"labels by tfcseg"
"""Near the beginning of our coco.json, and the comment at the end of our archives; others write such files, too."""
