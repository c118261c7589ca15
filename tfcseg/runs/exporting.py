"""Exports at the end of a run, from the labels that it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import numpy as np

from tfcseg.errors import UsageError
from tfcseg.exports.export import Exported, OnExport, check_formats, export
from tfcseg.exports.labelled_video import LabelledVideo
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.frames import Image
from tfcseg.media.prefetch import prefetch_frames
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Given, Source
from tfcseg.runs.options import RunOptions
from tfcseg.runs.result_options import ResultOptions
from tfcseg.runs.result_plan import ResultPlan

SCRATCH = "exports"
"""Folder in the state folder where exports are until all of them are complete."""


def check_export(results: ResultOptions, source: Source) -> None:
    """Refuse before any work what cannot be exported of ``source``: UsageError, or TfcsegError without a package."""
    check_formats(results.formats)
    if "matte" in results.formats and not source.is_readable_again and not results.copy_source:
        raise UsageError(
            f"{source.name}: can be read only once, and mattes need its pixels at the end; add --copy-source"
        )


def export_results(plan: ResultPlan, frames: int, options: RunOptions, on_frame: OnExport) -> Exported:
    """Export what a run wrote, all of whose ``frames`` are done; see `export`."""
    if not plan.options.formats:
        return Exported()
    info, out = plan.info, plan.out
    if info.source.is_readable_again:
        images = partial(open_images, info.source, **options.decoding)
    else:
        images = partial(open_images, out.source)
    video = LabelledVideo(
        masks=[plan.kept_labels(index) for index in range(frames)],
        size=(info.height, info.width),
        frame_rate=info.frame_rate,
        pixel_aspect=info.pixel_aspect,
        names=info.names,
        labels=plan.labels,
        shown=shown_classes(plan.options, plan.labels),
        open_images=images,
    )
    return export(video, plan.options.formats, out.path, out.state / SCRATCH, on_frame)


def shown_classes(options: ResultOptions, labels: LabelSet) -> Any:
    """(K,) flags of the classes to export."""
    visible = options.visible(labels)
    return np.ones(len(labels), np.bool_) if visible is None else visible


@contextmanager
def open_images(source: Given, **decoding: Any) -> Iterator[Iterator[Image]]:
    """(H, W, 3) RGB frames of a source, some read ahead; ``decoding`` is told to `open_frames`."""
    with open_frames(source, **decoding) as frames, closing(prefetch_frames(frames)) as read:
        yield (frame.image for frame in read)
