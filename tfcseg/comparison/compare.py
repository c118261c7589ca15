"""Compare modes: on one video, each as `run` runs it, and their labels frame by frame; on a VSPW folder by scores."""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tfcseg.comparison.page import write_page
from tfcseg.comparison.pictures import RowPainter, write_picture
from tfcseg.comparison.plan import (
    BASELINE,
    COMPARE_HTML,
    COMPARE_JSON,
    MAX_SAMPLE,
    Comparison,
    Difference,
    Plan,
    common_facts,
    known_folders,
    titles_of,
    warm_up,
)
from tfcseg.errors import DataError
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.evaluation.model_source import ModelPredictions
from tfcseg.evaluation.predictions import MASKS_NAME, PredictionFolder, Predictions
from tfcseg.evaluation.result import RESULT_FILES, Evaluation, write_evaluation
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.vspw import VspwDataset, open_vspw
from tfcseg.exports.labelled_video import read_labels
from tfcseg.files import claimed_files, refuse_inputs, refuse_results, write_json
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.labels.label_sets import NO_CLASS, built_in_label_map
from tfcseg.media.frames import FrameSource, Image, VideoInfo, prefetch_frames, select_frames
from tfcseg.media.mask_folder import CLASSES_NAME, list_masks, read_classes
from tfcseg.media.masks import read_mask
from tfcseg.media.reader import open_frames
from tfcseg.media.source import Given, Source
from tfcseg.media.writer import VideoWriter
from tfcseg.metrics.consistency import StabilityScores
from tfcseg.model.options import InferenceOptions
from tfcseg.options import OnProgress
from tfcseg.report.moments import greatest_moments
from tfcseg.report.schema import Report
from tfcseg.runs.options import ResultOptions
from tfcseg.runs.outputs import OutputDir, default_output, numbered
from tfcseg.runs.pipeline import run
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model

SIDE_BY_SIDE, DIFFERENCES = "side_by_side.mp4", "differences"
_FLOP_SAMPLES = 3  # number of intervals, spread over the video or from the beginnings of videos, to count FLOPs on
_MAX_PICTURES = 6


def compare_video(
    source: Given,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    plan: Plan = Plan(),
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    device: DeviceOptions = DeviceOptions(),
    overwrite: bool = False,
    allow_network: bool = False,
    on_progress: OnProgress = lambda task, done, total: None,
) -> Comparison:
    """Run the modes of ``plan`` on a video or a folder of frames, one after the other, and compare what they give.

    output: folder, by default ``<stem>_compare`` in the current one. It gets ``compare.json``, ``compare.html``,
    ``side_by_side.mp4``, pictures of the greatest differences, and a folder per run with all that `run` writes. Every
    run is warmed up before its clock starts. Any failure raises a TfcsegError with one line.
    """
    source = Source.of(source, allow_network=allow_network)
    source.check()
    source.check_readable_again("every mode reads the video")
    folder = Path(output) if output is not None else default_output(source, "compare")
    inputs = [*source.places, *([] if plan.baseline is None else [Path(plan.baseline)])]
    pictures = [f"{DIFFERENCES}/{path.name}" for path in (folder / DIFFERENCES).glob("frame_*.png")]
    names = [COMPARE_JSON, COMPARE_HTML, SIDE_BY_SIDE, *pictures]
    with claimed_files(folder, names, inputs=inputs, overwrite=overwrite) as clear:
        earlier = _claimed_runs(folder, plan, inputs, overwrite=overwrite)
        loaded = open_model(model, device)
        if plan.baseline is not None:
            _check_classes(Path(plan.baseline), loaded)
        job = _VideoComparison(
            source=source,
            start_s=start_s,
            end_s=end_s,
            folder=folder,
            plan=plan,
            model=loaded,
            runs=plan.runs(loaded),
            baseline=_masks_of(plan, source, start_s, end_s),
            on_progress=on_progress,
        )
        opening = job.read(max(options.keyframe_interval for options in job.runs.values()))
        baseline = job.measure_baseline()
        clear()
        for each in earlier:
            each.discard()
        with ExitStack() as unfinished:
            for mode in job.runs:
                unfinished.callback(OutputDir(folder / mode).discard)
            result = job.result(baseline, [job.run(mode, opening) for mode in job.runs])
            write_page(folder / COMPARE_HTML, result)
            write_json(folder / COMPARE_JSON, result)
            unfinished.pop_all()
    return result


def _masks_of(plan: Plan, source: Source, start_s: float | None, end_s: float | None) -> list[Path]:
    """The baseline's masks, if there is one; where it has one for each frame of the whole video, those of the part."""
    if plan.baseline is None:
        return []
    folder = Path(plan.baseline)
    masks = list_masks(folder / MASKS_NAME if (folder / MASKS_NAME).is_dir() else folder)
    if start_s is None and end_s is None:
        return masks
    with open_frames(source) as whole:
        times_s = [frame.time_s for frame in whole]
        part = select_frames(whole.info.frame_rate, start_s, end_s, first_time_s=times_s[0])
    return masks[part] if len(times_s) == len(masks) else masks  # these must be of the part, which is checked later


def _check_classes(baseline: Path, model: LoadedModel) -> None:
    """Raise DataError if the baseline is the folder of a run in which values are other classes than the model's."""
    path, masks, own = baseline / CLASSES_NAME, baseline / MASKS_NAME, dict(enumerate(model.labels.names))
    if not (path.is_file() and masks.is_dir()):
        return
    for value, name in read_classes(baseline, path).names.items():
        if value != NO_CLASS and own.get(value) != name:
            means = f"{own[value]!r}" if value in own else "no class"
            advice = f"compare with a model of the same classes, or give {str(masks)!r}, whose values are not looked up"
            raise DataError(f"{path}: {value} is {name!r}, but {means} of {model.card.name}; {advice}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _VideoComparison:
    """A comparison on a part of a video, which is read once per run, and a few more times."""

    source: Source
    start_s: float | None
    end_s: float | None
    folder: Path
    plan: Plan
    model: LoadedModel
    runs: Mapping[str, InferenceOptions]  # by mode, which names the folder of its results, too
    baseline: Sequence[Path]  # masks of another program, one per frame; empty without one
    on_progress: OnProgress

    def open(self, skip_s: float = 0.0) -> FrameSource:
        start_s = (self.start_s or 0.0) + skip_s if skip_s else self.start_s
        return open_frames(self.source, start_s=start_s, end_s=self.end_s)

    def read(self, count: int, skip_s: float = 0.0) -> list[Image]:
        """The first ``count`` frames, or as many as a sample may have."""
        with self.open(skip_s) as frames:
            return [frame.image for frame in itertools.islice(frames, min(count, MAX_SAMPLE))]

    def read_labels(self, mode: str, index: int) -> NDArray[np.uint8]:
        """(H, W) class indices that a mode gave a frame."""
        if self.baseline and mode == "image":
            return read_mask(self.baseline[index])
        return read_mask(numbered(OutputDir(self.folder / mode).masks, index))

    def measure_baseline(self) -> list[dict[str, float | None]]:
        """Stability of the other program's masks, if any; DataError unless there is one that fits for every frame."""
        if not self.baseline:
            return []
        scores, frames, count = StabilityScores(use_flow=self.plan.flow_consistency), 0, len(self.baseline)
        with self.open() as source:
            size = source.info.height, source.info.width
            for frame in source:
                self.on_progress("baseline", frames, source.info.frames_between(self.start_s, self.end_s))
                if frames < count:
                    scores.update(frame.image, read_labels(self.baseline[frames], size, self.model.labels))
                frames += 1
        if frames != count:
            advice = "give one per frame of the video, or of the part that is compared"
            raise DataError(f"{self.plan.baseline}: {count} masks for {frames} frames; {advice}")
        return [scores.percentages()]

    def run(self, mode: str, opening: Sequence[Image]) -> Report:
        """Warm up, then run everything that the command does: this is the speed that users get."""
        warm_up(self.model, self.runs[mode], opening)

        def on_frame(frame: SegmentedFrame, info: VideoInfo) -> None:
            self.on_progress(mode, frame.index + 1, info.frames_between(self.start_s, self.end_s))

        return run(
            self.source,
            self.folder / mode,
            self.model,
            start_s=self.start_s,
            end_s=self.end_s,
            results=ResultOptions(flow_consistency=self.plan.flow_consistency),
            on_frame=on_frame,
            **asdict(self.runs[mode]),
        )

    def result(self, baseline: Sequence[dict[str, float | None]], reports: Sequence[Report]) -> Comparison:
        agreement, differences = self._compare_frames(reports[0].input.frames_decoded)
        numbers = [*baseline, *map(_numbers, reports)]
        outputs = {"side_by_side": SIDE_BY_SIDE} | ({"differences": DIFFERENCES} if differences else {})
        samples = self._samples(reports[0])
        facts = common_facts(self.plan, self.model, self.runs, numbers, samples=samples, outputs=outputs)
        for mode, found in facts["modes"].items():
            found["agreement"] = agreement.get(mode)
        source = reports[0].input
        return Comparison(
            kind="video",
            input={
                "path": source.path,
                "frames": source.frames_decoded,
                "frame_rate": source.frame_rate,
                "start_s": self.start_s,
                "end_s": self.end_s,
            },
            differences=differences,
            warnings=reports[0].warnings,
            **facts,
        )

    def _samples(self, report: Report) -> list[list[Image]]:
        count = max(options.longest_interval for options in self.runs.values())
        starts = {report.input.frames_decoded * part // _FLOP_SAMPLES for part in range(_FLOP_SAMPLES)}
        return [self.read(count, start / float(report.input.frame_rate)) for start in sorted(starts)]

    def _compare_frames(self, frames: int) -> tuple[dict[str, float], tuple[Difference, ...]]:
        """Write the modes side by side: percentages of pixels with the label of the first mode, by mode, and
        differences. Keeps a few bytes per frame."""
        modes = self.plan.shown(self.runs)
        shown = titles_of((modes[0], modes[-1]), self.plan.baseline)
        same: defaultdict[str, float] = defaultdict(float)
        times_s, differing = array("d"), array("d")
        with self.open() as source:
            painter = RowPainter(self.model.labels, (source.info.height, source.info.width), list(shown.values()))
            rate = source.info.frame_rate
            with VideoWriter(self.folder / SIDE_BY_SIDE, size=painter.row_size, frame_rate=rate) as writer:
                for frame in prefetch_frames(source):
                    self.on_progress("side by side", frame.index, frames)
                    found = {mode: self.read_labels(mode, frame.index) for mode in modes}
                    first = found[modes[0]]
                    shares = {mode: np.count_nonzero(each == first) / each.size for mode, each in found.items()}
                    for mode in modes[1:]:
                        same[mode] += shares[mode]
                    times_s.append(frame.time_s)
                    differing.append(1 - shares[modes[-1]])
                    writer.write(painter.draw(frame.image, [found[mode] for mode in shown]))
        agreement = {mode: 100 * total / len(times_s) for mode, total in same.items()}
        return agreement, tuple(self._draw_greatest(shown, times_s, differing))

    def _draw_greatest(
        self, shown: Mapping[str, str], times_s: Sequence[float], differing: Sequence[float]
    ) -> Iterator[Difference]:
        """Write pictures of the frames in which the modes ``shown``, with their titles, differ most."""
        for index in greatest_moments(times_s, differing, count=_MAX_PICTURES, apart_s=1.0):
            with open_frames(self.source, start_s=times_s[index]) as frames:
                frame = next(frames)
            results = [self.read_labels(mode, index) for mode in shown]
            # A painter for each: legends follow a video, and these frames are not consecutive.
            painter = RowPainter(self.model.labels, results[0].shape, list(shown.values()), has_difference=True)
            picture = f"{DIFFERENCES}/frame_{index:08d}.png"
            write_picture(self.folder / picture, painter.draw(frame.image, results))
            yield Difference(index, frame.time_s, 100 * differing[index], picture)


def _numbers(report: Report) -> dict[str, float | None]:
    shares = {
        name: getattr(report.stability, name) for name in ("flow_consistency", "label_change", "updated_fraction")
    }
    percentages = {name: None if share is None else 100 * share for name, share in shares.items()}
    speeds = ("fps", "model_fps", "keyframe_ms", "non_keyframe_ms")
    return percentages | {name: getattr(report.speed, name) for name in speeds}


def _claimed_runs(folder: Path, plan: Plan, inputs: Sequence[Path], *, overwrite: bool) -> list[OutputDir]:
    """Results of earlier runs, also of another plan, which this comparison replaces; refused without ``overwrite``."""
    earlier = [OutputDir(folder / name) for name in {*known_folders(folder), *plan.modes}]
    for each in earlier:
        results = each.results()
        refuse_inputs((each.path, each.masks, *results), inputs)
        if not overwrite:
            refuse_results(results)
    return earlier


def compare_dataset(
    root: str | Path,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    plan: Plan = Plan(),
    *,
    scope: Scope = Scope(),
    device: DeviceOptions = DeviceOptions(),
    overwrite: bool = False,
    on_progress: OnProgress = lambda task, done, total: None,
) -> Comparison:
    """Score each mode of ``plan`` on a VSPW folder, one after the other.

    output: folder, by default ``<root's name>_compare`` in the current one. It gets ``compare.json``, ``compare.html``
    and a folder per run with what `eval` writes. A baseline is what `PredictionFolder` reads. Failures raise a
    TfcsegError with one line.
    """
    dataset = open_vspw(root, scope.split)
    folder = Path(output) if output is not None else default_output(root, "compare")
    inputs = [root] if plan.baseline is None else [root, plan.baseline]
    of_runs = [f"{run}/{name}" for run in sorted({*plan.modes, *known_folders(folder)}) for name in RESULT_FILES]
    names = [COMPARE_JSON, COMPARE_HTML, *of_runs]
    with claimed_files(folder, names, inputs=inputs, overwrite=overwrite) as clear:
        loaded = open_model(model, device)
        baseline = None if plan.baseline is None else _baseline(plan.baseline, dataset, loaded, scope.label_map)
        runs = plan.runs(loaded)
        samples = _samples(dataset, scope, max(options.longest_interval for options in runs.values()))

        def score(name: str, predictions: Predictions) -> Evaluation:
            flow, on_done = plan.flow_consistency, partial(on_progress, name)
            return evaluate(root, predictions, scope, measure_flow_consistency=flow, on_done=on_done)

        scored = {}
        if baseline is not None:
            scored[BASELINE] = score(BASELINE, baseline)
        outputs = {name: name for name in scored}
        for mode, options in runs.items():
            warm_up(loaded, options, samples[0])
            scored[mode] = score(mode, ModelPredictions(loaded, options).scored_on(dataset, scope.label_map))
        evaluations = list(scored.values())
        numbers = list(map(_scores, evaluations))
        result = Comparison(
            kind="vspw",
            input={"path": str(dataset.root), **evaluations[0].extent},
            is_incomplete=any(evaluation.is_incomplete for evaluation in evaluations),
            skipped=evaluations[-1].skipped_by_kind,
            **common_facts(plan, loaded, runs, numbers, samples=samples, outputs=outputs),
        )
        clear()
        for name, evaluation in scored.items():
            write_evaluation(folder / name, evaluation)
        write_page(folder / COMPARE_HTML, result)
        write_json(folder / COMPARE_JSON, result)
    return result


def _baseline(path: str | Path, dataset: VspwDataset, model: LoadedModel, label_map: Path | None) -> Predictions:
    """Predictions of the baseline. A given label map is for the model's classes; DataError if others need one, too."""
    folder = PredictionFolder(path)
    own = folder.labels(dataset)
    if own is None or own.names == model.labels.names:
        return folder.scored_on(dataset, None if own is None else label_map)
    try:
        built_in_label_map(own, dataset.labels)
    except DataError:
        raise DataError(
            f"{path}: no built-in label map leads from its classes to those of {dataset.root}, and a given "
            f"one is for {model.card.name}'s; score both with tfcseg eval, each with its own --label-map"
        ) from None
    return folder.scored_on(dataset)


def _samples(dataset: VspwDataset, scope: Scope, interval: int) -> list[list[Image]]:
    """Intervals from the beginnings of videos; if these are few, consecutive ones."""
    count, names = min(interval, MAX_SAMPLE), dataset.videos[: scope.limit]
    each = -(-_FLOP_SAMPLES // max(1, len(names)))
    beginnings = map(dataset.readable_images, names)
    parts = (list(itertools.islice(images, count)) for images in beginnings for _ in range(each))
    samples = list(itertools.islice(filter(None, parts), _FLOP_SAMPLES))
    if not samples:
        raise dataset.no_image()
    return samples


def _scores(evaluation: Evaluation) -> dict[str, float | None]:
    """Scores of one run, and of a network the speed; ``fps`` includes reading, network and scoring."""
    keys = ("miou", "miou_all", "wiou", "vc8", "vc16", "flow_consistency", "label_change")
    speed = evaluation.speed
    speeds = {} if speed.model_fps is None else {"fps": speed.fps, "model_fps": speed.model_fps}
    return {key: getattr(evaluation, key) for key in keys} | speeds
