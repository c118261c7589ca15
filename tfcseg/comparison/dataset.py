"""Compare modes on a VSPW folder: the scores of `evaluate`, and speed."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

from tfcseg.comparison.page import write_page
from tfcseg.comparison.plan import (
    COMPARE_HTML,
    COMPARE_JSON,
    MAX_SAMPLE,
    Comparison,
    Plan,
    common_facts,
    known_folders,
)
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.evaluation.model_source import ModelPredictions
from tfcseg.evaluation.result import RESULT_FILES, Evaluation, write_evaluation
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.vspw import VspwDataset, open_vspw
from tfcseg.files import claimed_files, write_json
from tfcseg.media.frames import Image
from tfcseg.options import OnProgress
from tfcseg.runs.outputs import default_output
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model

_SAMPLES = 3  # FLOPs are counted at the beginnings of this many videos


def compare_dataset(
    root: str | Path,
    output: str | Path | None = None,
    model: str | Path | LoadedModel = "default",
    plan: Plan | None = None,
    *,
    scope: Scope | None = None,
    device: DeviceOptions = DeviceOptions(),
    overwrite: bool = False,
    on_progress: OnProgress = lambda task, done, total: None,
) -> Comparison:
    """Score each mode of ``plan`` on a VSPW folder, one after the other.

    output: folder, by default ``<root's name>_compare`` in the current one. It gets ``compare.json``, ``compare.html``
    and a folder per run with what `eval` writes. Failures raise a TfcsegError with one line.
    """
    plan, scope = plan or Plan(), scope or Scope()
    dataset = open_vspw(root, scope.split)
    folder = Path(output) if output is not None else default_output(root, "compare")
    with claimed_files(folder, _result_names(folder, plan), inputs=[root], overwrite=overwrite) as clear:
        loaded = open_model(model, device)
        runs = plan.runs(loaded)
        clear()
        samples = _samples(dataset, scope, max(each.options.keyframe_interval for each in runs))

        evaluations = []
        for each in runs:
            each.warm_up(loaded, samples[0])
            evaluation = evaluate(
                root,
                ModelPredictions(loaded, each.options).scored_on(dataset, scope.label_map),
                scope,
                measure_flow_consistency=plan.flow_consistency,
                on_done=partial(on_progress, each.mode),
            )
            write_evaluation(folder / each.mode, evaluation)
            evaluations.append(evaluation)
        numbers = list(map(_scores, evaluations))
        result = Comparison(
            kind="vspw",
            input={"path": str(dataset.root), **evaluations[0].extent},
            is_incomplete=any(evaluation.is_incomplete for evaluation in evaluations),
            skipped=evaluations[-1].skipped_by_kind,
            **common_facts(plan, loaded, runs, numbers, samples=samples, outputs={}),
        )
        write_page(folder / COMPARE_HTML, result)
        write_json(folder / COMPARE_JSON, result)
    return result


def _result_names(folder: Path, plan: Plan) -> list[str]:
    runs = sorted({*plan.modes, *known_folders(folder)})
    return [COMPARE_JSON, COMPARE_HTML, *(f"{run}/{name}" for run in runs for name in RESULT_FILES)]


def _samples(dataset: VspwDataset, scope: Scope, interval: int) -> list[list[Image]]:
    count = min(interval, MAX_SAMPLE)
    beginnings = (list(islice(dataset.readable_images(name), count)) for name in dataset.videos[: scope.limit])
    samples = list(islice(filter(None, beginnings), _SAMPLES))
    if not samples:
        raise dataset.no_image()
    return samples


def _scores(evaluation: Evaluation) -> dict[str, float | None]:
    """Scores of one run, and of a network the speed; ``fps`` includes reading, network and scoring."""
    keys = ("miou", "miou_all", "wiou", "vc8", "vc16", "flow_consistency", "label_change")
    speed = evaluation.speed
    speeds = {} if speed.model_fps is None else {"fps": speed.fps, "model_fps": speed.model_fps}
    return {key: getattr(evaluation, key) for key in keys} | speeds
