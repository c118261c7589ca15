"""Export labels for other programs, at the end of a run or from the folder of a finished one."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfcseg.errors import DataError, UsageError
from tfcseg.exports import FILE_NAMES
from tfcseg.exports.export import Exported, check_formats, check_names, export, matte_names
from tfcseg.exports.labelled_video import LabelledVideo
from tfcseg.files import identity, read_json_object, refuse_results
from tfcseg.labels.label_sets import NO_CLASS, LabelSet, named_classes
from tfcseg.media.frames import Image, prefetch_frames
from tfcseg.media.images import natural_key
from tfcseg.media.mask_folder import classes_of, read_classes, values_as_labels
from tfcseg.media.masks import read_mask
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Given, Source
from tfcseg.options import OnProgress
from tfcseg.runs.job import Job
from tfcseg.runs.options import ResultOptions
from tfcseg.runs.outputs import OutputDir, folder_lock, numbered, refuse_foreign
from tfcseg.runs.state import unfinished_frames

SCRATCH = "exports"  # folder in the state folder where exports are until all of them are complete


def check_export(results: ResultOptions, source: Source) -> None:
    """Refuse before any work what cannot be exported of ``source``: UsageError, or TfcsegError without a package."""
    check_formats(results.formats)
    if "matte" in results.formats and not source.is_readable_again and not results.copy_source:
        raise UsageError(
            f"{source.name}: can be read only once, and mattes need its pixels at the end; add --copy-source"
        )


def export_results(job: Job, frames: int, on_frame: OnProgress) -> Exported:
    """Export the labels of a run, all of whose ``frames`` are done; see `export`."""
    options, info, out, labels = job.options, job.info, job.out, job.labels
    if not options.formats:
        return Exported()
    if info.source.is_readable_again:
        images = partial(open_images, info.source, **job.run.decoding)
    else:
        images = partial(_open_copy, out.source, (info.height, info.width))
    video = LabelledVideo(
        masks=[job.kept_labels(index) for index in range(frames)],
        size=(info.height, info.width),
        frame_rate=info.frame_rate,
        pixel_aspect=info.pixel_aspect,
        names=info.names,
        labels=labels,
        shown=options.visible(labels),
        open_images=images,
    )
    return export(video, options.formats, out.path, out.state / SCRATCH, on_frame)


@contextmanager
def open_images(source: Given, **decoding: Any) -> Iterator[Iterator[Image]]:
    """(H, W, 3) RGB frames of a source, some read ahead; ``decoding`` are arguments of `open_frames`."""
    with open_frames(source, **decoding) as frames, closing(prefetch_frames(frames)) as read:
        yield (frame.image for frame in read)


@contextmanager
def _open_copy(path: Path, size: tuple[int, int]) -> Iterator[Iterator[Image]]:
    """Frames of a run's source.mp4, where an odd ``size`` (H, W) was padded."""
    height, width = size
    padded = height + height % 2, width + width % 2
    with open_images(path) as images:
        yield (image[:height, :width] if image.shape[:2] == padded else image for image in images)


def export_run(
    folder: Path,
    options: ResultOptions,
    *,
    source: str | Path | None = None,
    frame_rate: Fraction | None = None,
    overwrite: bool = False,
    on_frame: OnProgress = lambda task, done, total: None,
) -> Exported:
    """Export the masks of the finished run in ``folder`` as `options` say: formats, classes, colours.

    ``source`` and ``frame_rate`` take the place of what the report says. DataError for a folder that is not a finished
    run's, UsageError for what cannot be exported of it, OutputError if there are such files and not ``overwrite``.
    """
    check_formats(options.formats)
    out, report, masks = _finished_run(folder)
    facts = report["input"]
    rate = frame_rate or _fraction(facts.get("frame_rate"))
    if rate is None:
        raise UsageError(f"{str(folder)!r} has no report.json that says its frame rate; give it with --fps")
    files = _names_of(out, masks)
    check_names(options.formats, files)
    values = _values_of(report)
    labels = options.coloured(_labels_of(out, report, is_shown=values is not None))
    height, width = read_mask(masks[0]).shape
    video = LabelledVideo(
        masks=masks,
        size=(height, width),
        frame_rate=rate,
        pixel_aspect=_fraction(facts.get("pixel_aspect")) or Fraction(1),
        names=files,
        labels=labels,
        values=values,
        shown=options.visible(labels),
        open_images=_images_of(out, (height, width), facts, source, rate, must_exist="matte" in options.formats),
    )
    names = {FILE_NAMES[name] for name in options.formats if name in FILE_NAMES}
    if "matte" in options.formats:
        names |= {name for index in video.shown_indices for name in matte_names(labels, index)}
    existing = [path for name in sorted(names) if os.path.lexists(path := folder / name)]
    refuse_foreign(existing, "rename it")
    if not overwrite:
        refuse_results(existing, "rename what is there")
    with folder_lock(folder) as state:
        return export(video, options.formats, folder, state / SCRATCH, on_frame)


def _finished_run(folder: Path) -> tuple[OutputDir, Mapping[str, Any], Sequence[Path]]:
    """Output, report and masks in order of the finished run in ``folder``; DataError if there is none with masks."""
    out = OutputDir(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of a finished run")
    if unfinished_frames(folder) is not None:
        raise DataError(f"{folder}: holds an unfinished run; finish it with --resume first")
    report = read_json_object(out.report_json) if out.report_json.exists() else {"input": {}}
    if not isinstance(report.get("input"), dict):
        raise DataError(f"{out.report_json}: has no facts about an input; it is not the report of a run")
    masks = sorted(out.masks.glob("*.png"), key=lambda path: natural_key(path.name))
    wanted = report["input"].get("frames_decoded")
    if not masks or wanted not in (None, len(masks)):
        of = "" if wanted is None else f", of {wanted} frames"
        raise DataError(f"{out.masks}: holds {len(masks)} masks{of}; give the folder of a run with all its masks")
    return out, report, masks


def _fraction(value: object) -> Fraction | None:
    """A positive number of a report, where it is rounded to six decimals."""
    if not isinstance(value, int | float) or value <= 0:
        return None
    usual = Fraction(value).limit_denominator(1001)
    return usual if abs(usual - Fraction(value)) < Fraction(1, 10**6) else Fraction(str(value))


def _names_of(out: OutputDir, masks: Sequence[Path]) -> list[str]:
    """Files of the frames, if each has its own: a column of frames.csv, or by the names of masks."""
    with suppress(OSError, ValueError), out.frames_csv.open(encoding="utf-8", newline="") as file:
        names = [row.get("source", "") for row in csv.DictReader(file)]
        if len(names) == len(masks) and all(names):
            return names
    is_numbered = all(path == numbered(out.masks, index) for index, path in enumerate(masks))
    return [] if is_numbered else [path.name for path in masks]


def _images_of(
    out: OutputDir,
    size: tuple[int, int],
    facts: Mapping[str, Any],
    source: str | Path | None,
    rate: Fraction,
    *,
    must_exist: bool,
) -> Callable[[], AbstractContextManager[Iterator[Image]]]:
    """Function that opens the frames: from ``source``, from the run's input, or from the run's copy of it.

    The report has the input as it was typed, mostly from a folder that the run's folder is in.
    """
    given, folder = str(facts.get("path", "")) if source is None else str(source), out.path.resolve()
    places = [*folder.parents, Path(), folder] if source is None else [Path()]
    found = next((path for place in places if given and identity(path := place / given)), None)
    if found is not None:
        times = {"start_s": facts.get("start_s"), "end_s": facts.get("end_s")}
        return partial(open_images, found, frame_rate=rate, **times)
    if must_exist and (source is not None or not out.source.exists()):
        is_one_place = source is not None or Path(given).is_absolute()
        where = "there" if is_one_place else f"in {str(folder)!r}, a folder above it or the current one"
        raise DataError(f"{given!r} is not {where}, and mattes need the source's pixels; give it with --source")
    return partial(_open_copy, out.source, size)


def _values_of(report: Mapping[str, Any]) -> NDArray[np.uint8] | None:
    """(256,) label of each value in steadied masks, as the report names them; None if they are the same."""
    steady = report.get("steady")
    void = steady.get("void", NO_CLASS) if isinstance(steady, dict) else NO_CLASS
    differs = void is None or (isinstance(void, int) and 0 <= void < NO_CLASS)
    return values_as_labels(8, void) if differs else None


def _labels_of(out: OutputDir, report: Mapping[str, Any], *, is_shown: bool) -> LabelSet:
    """The classes that a run wrote; of given masks whose values have no names, or whose labels are as they were shown,
    those that its report lists."""
    if report.get("steady") and (is_shown or not out.classes_json.exists()):
        known = classes_of(report.get("classes"), out.report_json)
    else:
        known = read_classes(out.path, out.classes_json)
    return named_classes("classes.json", known.names, known.colours)
