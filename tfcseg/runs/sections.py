"""One video on several workers: they segment sections of it, and this process draws and writes the results.

The labels of a section also depend on the end of the section before (`SECTION_PARTS`) and on the frames up to the next
keyframe after it, so a worker reads these, too. It seeks to them. This process decodes all frames for drawing, and
compares checksums of every picture; if a worker saw other pictures, it decodes everything before as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import Any

import numpy as np

from tfcseg.errors import InputError
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.groups import SECTION_PARTS
from tfcseg.inference.segment import segment_frames
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.media.frames import Frame, Image, prefetch_frames
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Source
from tfcseg.model.options import InferenceOptions
from tfcseg.runs.job import Job
from tfcseg.runs.options import RunOptions
from tfcseg.weights.loading import ModelOnDemand
from tfcseg.workers import Workers

_NO_IMAGE, _NO_LABELS = np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0), np.uint8)


@dataclass(frozen=True, slots=True)
class PackedFrame:
    """A segmented frame on its way between processes, without its image."""

    frame: SegmentedFrame
    labels: bytes
    checksum: int  # of the image

    @classmethod
    def of(cls, frame: SegmentedFrame, part_frames: int) -> PackedFrame:
        """Pack a frame. What a resumed run needs goes along at the end of each part: it is large."""
        ends_part = (frame.index + 1) % part_frames == 0
        carried = None
        if ends_part and frame.carried is not None:
            carried = type(frame.carried)(*(tensor.cpu() for tensor in frame.carried))
        small = replace(frame, image=_NO_IMAGE, labels=_NO_LABELS, carried=carried, ends_group=ends_part)
        return cls(small, zlib.compress(np.ascontiguousarray(frame.labels).data, 1), checksum(frame.image))

    def unpacked(self, frame: Frame) -> SegmentedFrame:
        """The segmented frame, of which ``frame`` is what was decoded here."""
        labels = np.frombuffer(bytearray(zlib.decompress(self.labels)), np.uint8)
        is_held = frame.is_held or self.frame.is_held  # what was shown before a section is not known there
        return replace(self.frame, image=frame.image, labels=labels.reshape(frame.image.shape[:2]), is_held=is_held)


def checksum(image: Image) -> int:
    """A number that tells two (H, W, 3) images apart."""
    return zlib.crc32(np.ascontiguousarray(image).data)


@dataclass(frozen=True, slots=True)
class SectionJob:
    """Frames ``first`` up to, not including, ``stop`` of a video, with complete ``inference`` options."""

    source: str
    options: RunOptions
    inference: InferenceOptions
    part_frames: int
    first: int
    stop: int
    start_s: float | None
    """When the source shows the first frame that the worker reads; None: it decodes everything before, too."""

    @property
    def first_read(self) -> int:
        """First frame that is needed: where keyframes are weighed, where the end of the section before begins."""
        return self.first if self.inference.sides == "one" else max(0, self.first - self.part_frames)

    def __call__(self, model: ModelOnDemand) -> dict[int, PackedFrame]:
        """Segment the frames: by index; none if the video ends before them."""
        network = IntervalNetwork(model.loaded, self.inference)
        skipped = self.first_read if self.start_s is None else 0
        range_s = {} if self.start_s is None else {"start_s": self.start_s}
        try:
            source = Source.of(self.source, allow_network=self.options.allow_network)
            frames = open_frames(source, **(self.options.decoding | range_s))
        except InputError:  # the process that reads all frames reports why, or has ended
            return {}
        packed: dict[int, PackedFrame] = {}
        with frames, closing(prefetch_frames(frames)) as read:
            wanted = islice(read, skipped, None)
            numbered = (replace(frame, index=frame.index + self.first_read - skipped) for frame in wanted)
            for frame in segment_frames(numbered, network, None, self.part_frames, self.first):
                if frame.index >= self.stop:
                    break
                if frame.index >= self.first:
                    packed[frame.index] = PackedFrame.of(frame, self.part_frames)
        return packed


def segment_sections(frames: Iterator[Frame], job: Job, crew: Workers[Any]) -> Generator[SegmentedFrame, None, None]:
    """Segment ``frames`` on ``crew`` as `segment_frames` does alone, and with the same results. The first frame begins
    an interval; it need not begin a section."""
    first = next(frames, None)
    if first is None:
        return
    info, length = job.info, SECTION_PARTS * job.part_frames
    zero_s = first.time_s - float(first.index / info.frame_rate)
    seeks = True

    def section(number: int) -> SectionJob:
        found = SectionJob(
            source=info.source.given,
            options=job.run,
            inference=job.network.options,
            part_frames=job.part_frames,
            first=number * length,
            stop=(number + 1) * length,
            start_s=None,
        )
        start_s = zero_s + float(found.first_read / info.frame_rate)
        return replace(found, start_s=start_s) if seeks and number else found

    with closing(crew.in_order(map(section, count(first.index // length)))) as results:
        found: dict[int, PackedFrame] = {}
        for frame in chain([first], frames):
            if frame is first or frame.index % length == 0:
                found = next(results)
                if not _shows(found.get(frame.index), frame):
                    seeks = False
                    (found,) = crew.in_order([section(frame.index // length)])
            packed = found.pop(frame.index, None)
            if packed is None or not _shows(packed, frame):
                raise InputError(
                    f"{info.path}: frame {frame.index} was decoded differently on a worker; run again without --ray, "
                    "with --resume"
                )
            yield replace(packed.unpacked(frame), label_set=job.network.labels)


def _shows(packed: PackedFrame | None, frame: Frame) -> bool:
    return packed is not None and packed.checksum == checksum(frame.image)
