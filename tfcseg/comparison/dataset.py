"""Compare modes on a VSPW folder: the scores of `evaluate`, and speed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tfcseg.comparison.flops import FLOPS_FACTS, count_gflops
from tfcseg.comparison.gallery import Gallery
from tfcseg.comparison.page import write_page
from tfcseg.comparison.plan import BASELINE, MAX_SAMPLE, Plan, Run, known_folders
from tfcseg.comparison.result import (
    COMPARE_HTML,
    COMPARE_JSON,
    Comparison,
    TradeOffPoint,
    default_output,
    ratios,
    write_comparison,
)
from tfcseg.comparison.trade_off import PLOT_NAMES, draw_trade_off, require_matplotlib
from tfcseg.errors import DataError, InputError
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.evaluation.model_source import ModelPredictions
from tfcseg.evaluation.predictions import PredictionFolder, PredictionSource
from tfcseg.evaluation.result import RESULT_FILES, Evaluation, write_evaluation
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.vspw import VspwDataset, open_vspw
from tfcseg.files import claimed_files
from tfcseg.inference.network_input import network_size
from tfcseg.media.frames import Image
from tfcseg.media.images import read_image
from tfcseg.report.conditions import model_conditions
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model

_SAMPLES = 3
"""FLOPs are counted at the beginnings of this many videos."""

OnProgress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with the current task, the number of finished videos, and their total."""


def compare_dataset(
    root: str | Path,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    plan: Plan | None = None,
    *,
    scope: Scope | None = None,
    device: DeviceOptions = DeviceOptions(),
    overwrite: bool = False,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> Comparison:
    """Score each mode of ``plan`` on a VSPW folder, one after the other.

    output: folder, by default ``<root's name>_compare`` in the current one. It gets ``compare.json``, ``compare.html``,
    the plot if the plan has intervals, and a folder per run with what `eval` writes. A baseline is read as
    ``<baseline>/<video>/<frame>.png`` with classes of the data set. Failures raise a TfcsegError with one line.
    """
    plan, scope = plan or Plan(), scope or Scope()
    if plan.intervals:
        require_matplotlib()
    dataset = open_vspw(root, scope.split)
    folder = Path(output) if output is not None else default_output(root)
    inputs = [root] if plan.baseline is None else [root, plan.baseline]
    with claimed_files(folder, _result_names(folder, plan), inputs=inputs, overwrite=overwrite) as clear:
        baseline = None if plan.baseline is None else PredictionFolder(plan.baseline)
        loaded = open_model(model, device)
        wanted = plan.without_doubles(loaded)
        gallery = Gallery(dataset, dataset.videos[: scope.limit])
        job = _DatasetComparison(
            dataset=dataset,
            folder=folder,
            plan=wanted,
            scope=scope,
            model=loaded,
            gallery=gallery,
            on_progress=on_progress,
        )
        runs = wanted.runs(loaded)
        clear()
        result = job.result(baseline, runs)
        write_page(folder / COMPARE_HTML, result, gallery)
        write_comparison(folder / COMPARE_JSON, result)
    return result


def _result_names(folder: Path, plan: Plan) -> list[str]:
    """Files that this comparison writes, and those of an earlier one with another plan."""
    runs = sorted({*plan.folders(), *known_folders(folder)})
    return [COMPARE_JSON, COMPARE_HTML, *PLOT_NAMES, *(f"{run}/{name}" for run in runs for name in RESULT_FILES)]


@dataclass(frozen=True, slots=True)
class _DatasetComparison:
    dataset: VspwDataset
    folder: Path
    plan: Plan
    scope: Scope
    model: LoadedModel
    gallery: Gallery
    on_progress: OnProgress

    def result(self, baseline: PredictionFolder | None, runs: Sequence[Run]) -> Comparison:
        """Score everything and combine the scores."""
        samples = self._samples(max(each.options.keyframe_interval for each in runs))
        evaluations: list[Evaluation] = []
        points: list[TradeOffPoint] = []
        modes: dict[str, dict[str, float | None]] = {}
        if baseline is not None:
            evaluations.append(self._evaluate(BASELINE, baseline, provenance=baseline.provenance()))
            modes["image"] = _scores(evaluations[0])
        for each in runs:
            each.warm_up(self.model, samples[0])
            evaluations.append(self._evaluate_run(each))
            numbers = _scores(evaluations[-1]) | _speed(evaluations[-1])
            points.append(TradeOffPoint(each.mode, each.options.keyframe_interval, numbers))
        for each, point in zip(runs[: len(self.plan.network_modes)], points, strict=False):
            modes[point.mode] = {**point.numbers, **count_gflops(self.model, each.options, samples)}
        if self.plan.intervals:
            draw_trade_off(
                self.folder, points, ("miou", "vc8"), self._title(), baseline=modes["image"] if baseline else None
            )
        reference, candidate = self.plan.sides
        size = (samples[0][0].shape[0], samples[0][0].shape[1])
        return Comparison(
            kind="vspw",
            input=self._input(evaluations[0]),
            options=self.plan.to_json(runs),
            resolution={"source": size, "network": network_size(size, runs[0].options.size)},
            modes=modes,
            ratio_of=(candidate, reference),
            ratio=ratios(modes[candidate], modes[reference]) if candidate != reference else {},
            flops={**FLOPS_FACTS, "frames": sum(len(sample) for sample in samples)},
            trade_off=tuple(points) if self.plan.intervals else (),
            outputs=self._outputs(runs),
            is_incomplete=any(evaluation.is_incomplete for evaluation in evaluations),
            skipped=evaluations[-1].skipped_by_kind,
            **model_conditions(self.model),
        )

    def _samples(self, interval: int) -> list[list[Image]]:
        """Beginnings of the first videos; DataError if no image of the split can be read."""
        samples: list[list[Image]] = []
        for name in self.dataset.videos[: self.scope.limit]:
            paths = (frame.image for frame in self.dataset.read_video(name).frames)
            images = (image for path in paths if path is not None and (image := _read_if_possible(path)) is not None)
            if sample := list(itertools.islice(images, min(interval, MAX_SAMPLE))):
                samples.append(sample)
            if len(samples) == _SAMPLES:
                break
        if not samples:
            raise DataError(f"{self.dataset.root}: no image of split {self.dataset.split!r} can be read")
        return samples

    def _evaluate_run(self, each: Run) -> Evaluation:
        predictions = ModelPredictions(self.model, each.options)
        return self._evaluate(each.folder, **predictions.scored_on(self.dataset, self.scope.label_map))

    def _evaluate(self, name: str, predict: PredictionSource, **options: Any) -> Evaluation:
        """Score one run, and write its files."""
        total = len(self.dataset.videos[: self.scope.limit])
        done = itertools.count(1)
        stage = name.replace("_", " ")
        self.on_progress(stage, 0, total)
        evaluation = evaluate(
            self.dataset.root,
            predict,
            self.scope,
            measure_flow_consistency=self.plan.flow_consistency,
            on_frame=self.gallery.watch(name),
            on_video=lambda score: self.on_progress(stage, next(done), total),
            **options,
        )
        write_evaluation(self.folder / name, evaluation)
        return evaluation

    def _input(self, evaluation: Evaluation) -> dict[str, Any]:
        return {
            "path": str(self.dataset.root),
            "split": evaluation.split,
            "protocol": evaluation.protocol,
            "videos": evaluation.videos,
            "frames": evaluation.frames,
            "classes_counted": evaluation.classes_counted,
            "classes_counted_all": evaluation.classes_counted_all,
            "windows": {f"{n}": windows.counted for n, windows in evaluation.windows.items()},
        }

    def _title(self) -> str:
        precision = str(self.model.precision).removeprefix("torch.")
        where = f"{self.dataset.root.name}, {self.dataset.split}"
        return f"{self.model.card.name} on {where} · {self.model.device} · {precision}"

    def _outputs(self, runs: Sequence[Run]) -> dict[str, str]:
        names = [*([] if self.plan.baseline is None else [BASELINE]), *(each.folder for each in runs)]
        plots = {"trade_off_png": PLOT_NAMES[0], "trade_off_svg": PLOT_NAMES[1]} if self.plan.intervals else {}
        return {name: name for name in names} | plots | {"page": COMPARE_HTML, "compare": COMPARE_JSON}


def _scores(evaluation: Evaluation) -> dict[str, float | None]:
    keys = ("miou", "miou_all", "wiou", "vc8", "vc16", "flow_consistency", "label_change")
    return {key: getattr(evaluation, key) for key in keys}


def _speed(evaluation: Evaluation) -> dict[str, float | None]:
    """``fps`` includes reading, network and scoring."""
    return {"fps": evaluation.speed.fps, "model_fps": evaluation.speed.model_fps}


def _read_if_possible(path: Path) -> Image | None:
    try:
        return read_image(path)
    except InputError:  # the evaluation reports it, or skips it
        return None
