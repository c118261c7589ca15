"""Runs and pages for tests: reports of runs that never happened, and a parser that sees a page as a browser does."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from tfcseg.drawing.render import class_shares
from tfcseg.labels.label_sets import distinct_palette
from tfcseg.report.recorder import PageRecorder
from tfcseg.report.schema import (
    ClassFacts,
    ConfidenceFacts,
    FrameRow,
    InputFacts,
    ModelFacts,
    OptionFacts,
    Report,
    SpeedFacts,
    StabilityFacts,
)

RATE = Fraction(30)
NAMES = ("sky", "road", "tree", "person", "car")
PALETTE = np.array(distinct_palette(len(NAMES)), np.uint8)

HOSTILE = (
    "<img src=x onerror=hacked()>",
    "</script><script>hacked()</script>",
    "<!--<script>",
    "\"' onmouseover='hacked()' x=\"",
    "line\nbreak\tand\x1b[31m",
    "\u2028paragraph\u2029",
    "\u202egnp.exe \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;b&gt; &amp;",
    "\udcff not utf-8",
)


def make_report(path="clip.mp4", names=NAMES, **outputs: str) -> Report:
    return Report(
        tfcseg="0.1.0",
        input=InputFacts(path, 60, None, 64, 48, RATE, 2.0, 0, None),
        model=ModelFacts(names[0], "mit_b0", "ab" * 32, len(names), 3_752_694, names[-1], names[0], names[-1]),
        options=OptionFacts("tfc", 4, 0.8, None, "paper", "first", 0.0, "one", device="cpu", precision="float32"),
        speed=SpeedFacts(12.3456789, 20.25, None, 61.23456, 22.0),
        stability=StabilityFacts(0.0123, 0.97, "opencv-dis-medium-240", 0.9, 0.05, 63),
        confidence=ConfidenceFacts(0.8, 0.1, 0.5, 1.5, 0.04),
        classes=tuple(ClassFacts(index, name, 1 / len(names)) for index, name in enumerate(names)),
        outputs=outputs,
        warnings=tuple(names),
    )


def rows_of(count, *, seed=0):
    """Rows as a run writes them: nothing to compare at the first frame, nothing blended at keyframes."""
    rng = np.random.default_rng(seed)
    for index, (change, kept, alike, updated, sure) in enumerate(rng.random((count, 5))):
        is_keyframe = index % 4 == 0
        yield FrameRow(
            index,
            index / float(RATE),
            is_keyframe,
            None if is_keyframe else float(alike),
            None if is_keyframe else float(updated),
            float(change) if index else None,
            float(kept) if index else math.nan,
            20.0,
            confidence=float(sure),
            unsure=float((sure_of(index) < 127.5).mean()),
        )


def sure_of(index):
    """(h, w) how sure the labels of a frame are."""
    return np.random.default_rng(index).integers(0, 256, (12, 16), dtype=np.uint8)


def scenes(count, *, size=(48, 64), seed=0):
    """(image, labels) of frames: noise whose labels are a few blocks that jump about."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        coarse = rng.integers(0, len(NAMES), (3, 4), dtype=np.uint8)
        labels = np.ascontiguousarray(coarse.repeat(size[0] // 3, axis=0).repeat(size[1] // 4, axis=1))
        yield rng.integers(0, 256, (*labels.shape, 3), dtype=np.uint8), labels


def record(count, *, recorder=None, first=0, seed=0):
    """Recorder that saw ``count`` frames, from ``first`` on; the same frames for the same seed."""
    recorder = recorder or PageRecorder(PALETTE, RATE)
    for row, (image, labels) in zip(rows_of(count, seed=seed), scenes(count, seed=seed), strict=True):
        if row.frame >= first:
            recorder.add(row, class_shares(labels, len(NAMES)), image, labels, sure_of(row.frame))
    return recorder


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.texts.append(data)

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self):
        return json.loads(self.scripts[0])
