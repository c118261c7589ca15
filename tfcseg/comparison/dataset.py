"""Compare modes on a VSPW folder: the scores of `evaluate`, speed, and frames that are labelled most differently."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

from tfcseg.comparison.page import write_page
from tfcseg.comparison.plan import (
    BASELINE,
    COMPARE_HTML,
    COMPARE_JSON,
    MAX_SAMPLE,
    Comparison,
    Plan,
    common_facts,
    known_folders,
)
from tfcseg.drawing.render import shrink_labels
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.evaluation.model_source import ModelPredictions
from tfcseg.evaluation.page import colour_key, draw_frame, pack, unpack
from tfcseg.evaluation.predictions import PredictionFolder, Predictions
from tfcseg.evaluation.result import RESULT_FILES, Evaluation, write_evaluation
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.vspw import VspwDataset, VspwFrame, VspwVideo, open_vspw, read_target
from tfcseg.files import claimed_files, write_json
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.media.frames import Image
from tfcseg.media.source import spread
from tfcseg.metrics.scores import Labels
from tfcseg.options import OnProgress
from tfcseg.report.moments import picture_size
from tfcseg.runs.outputs import default_output
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import LoadedModel, open_model

_SAMPLES = 3
"""FLOPs are counted at the beginnings of this many videos."""


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
    and a folder per run with what `eval` writes. A baseline is read as
    ``<baseline>/<video>/<frame>.png`` with classes of the data set. Failures raise a TfcsegError with one line.
    """
    plan, scope = plan or Plan(), scope or Scope()
    dataset = open_vspw(root, scope.split)
    folder = Path(output) if output is not None else default_output(root, "compare")
    inputs = [root] if plan.baseline is None else [root, plan.baseline]
    with claimed_files(folder, _result_names(folder, plan), inputs=inputs, overwrite=overwrite) as clear:
        baseline = None if plan.baseline is None else PredictionFolder(plan.baseline)
        loaded = open_model(model, device)
        wanted = plan.without_doubles(loaded)
        gallery, runs = Gallery(dataset, scope), wanted.runs(loaded)
        clear()
        samples = _samples(dataset, scope, max(each.options.keyframe_interval for each in runs))
        score = partial(_evaluate, dataset, folder, wanted, scope=scope, gallery=gallery, on_progress=on_progress)
        evaluations = [] if baseline is None else [score(BASELINE, baseline.scored())]
        for each in runs:
            each.warm_up(loaded, samples[0])
            predictions = ModelPredictions(loaded, each.options)
            evaluations.append(score(each.mode, predictions.scored_on(dataset, scope.label_map)))
        outputs = {} if baseline is None else {BASELINE: BASELINE}
        numbers = list(map(_scores, evaluations))
        result = Comparison(
            kind="vspw",
            input={"path": str(dataset.root), **evaluations[0].extent},
            is_incomplete=any(evaluation.is_incomplete for evaluation in evaluations),
            skipped=evaluations[-1].skipped_by_kind,
            **common_facts(wanted, loaded, runs, numbers, samples=samples, outputs=outputs),
        )
        write_page(folder / COMPARE_HTML, result, gallery)
        write_json(folder / COMPARE_JSON, result)
    return result


def _result_names(folder: Path, plan: Plan) -> list[str]:
    """Files that this comparison writes, and those of an earlier one with another plan."""
    runs = sorted({*plan.network_modes, *known_folders(folder)})
    return [COMPARE_JSON, COMPARE_HTML, *(f"{run}/{name}" for run in runs for name in RESULT_FILES)]


def _samples(dataset: VspwDataset, scope: Scope, interval: int) -> list[list[Image]]:
    """Beginnings of the first videos; DataError if no image of the split can be read."""
    count = min(interval, MAX_SAMPLE)
    beginnings = (list(islice(dataset.readable_images(name), count)) for name in dataset.videos[: scope.limit])
    samples = list(islice(filter(None, beginnings), _SAMPLES))
    if not samples:
        raise dataset.no_image()
    return samples


def _evaluate(
    dataset: VspwDataset,
    folder: Path,
    plan: Plan,
    name: str,
    predictions: Predictions,
    *,
    scope: Scope,
    gallery: Gallery,
    on_progress: OnProgress,
) -> Evaluation:
    """Score one run and write its results."""
    evaluation = evaluate(
        dataset.root,
        predictions,
        scope,
        measure_flow_consistency=plan.flow_consistency,
        on_frame=gallery.watch(name),
        on_done=partial(on_progress, name),
    )
    write_evaluation(folder / name, evaluation)
    return evaluation


def _scores(evaluation: Evaluation) -> dict[str, float | None]:
    """Scores of one run, and of a network the speed; ``fps`` includes reading, network and scoring."""
    keys = ("miou", "miou_all", "wiou", "vc8", "vc16", "flow_consistency", "label_change")
    speed = evaluation.speed
    speeds = {} if speed.model_fps is None else {"fps": speed.fps, "model_fps": speed.model_fps}
    return {key: getattr(evaluation, key) for key in keys} | speeds


_WATCHED = 60
"""Number of frames whose labels are kept, for every run."""

_SHOWN = 8


class Gallery:
    """Watches frames spread over the videos, the same ones for every run."""

    def __init__(self, dataset: VspwDataset, scope: Scope) -> None:
        self._dataset = dataset
        videos = dataset.videos[: scope.limit]
        watched = [videos[at] for at in spread(len(videos), _WATCHED)]
        self._watched: dict[tuple[str, str], VspwFrame] = {}
        for name in watched:
            frames = [frame for frame in dataset.read_video(name).frames if frame.mask is not None]
            places = spread(len(frames), -(-_WATCHED // len(watched)))
            self._watched |= {(name, frames[at].stem): frames[at] for at in places}
        self._runs: dict[str, dict[tuple[str, str], bytes]] = {}

    def watch(self, run: str) -> Callable[[VspwVideo, VspwFrame, Labels], None]:
        """Callback for every frame of ``run`` and its labels in classes of the data set."""
        kept = self._runs.setdefault(run, {})

        def on_frame(video: VspwVideo, frame: VspwFrame, labels: Labels) -> None:
            if (video.name, frame.stem) in self._watched:
                kept[video.name, frame.stem] = pack(shrink_labels(labels, picture_size(labels.shape)))

        return on_frame

    def pictures(self, reference: str, candidate: str) -> dict[str, Any]:
        """Frames that two runs label most differently (``gallery``), and the ``key`` to their colours."""

        def differing(place: tuple[str, str]) -> float:
            """Share of the pixels that the two label differently."""
            return float((unpack(self._runs[reference][place]) != unpack(self._runs[candidate][place])).mean())

        common = [place for place in self._watched if all(place in kept for kept in self._runs.values())]
        drawn, maps = [], []
        for place in sorted(common, key=lambda place: -differing(place))[:_SHOWN]:
            frame, shown = self._watched[place], {run: unpack(kept[place]) for run, kept in self._runs.items()}
            target, _ = read_target(cast(Path, frame.mask), len(self._dataset.labels))  # it was scored
            target = shrink_labels(target, picture_size(target.shape))
            maps += [target, *shown.values()]
            right = [f"{run} {100 * _right(each, target):.1f} %" for run, each in shown.items()]
            drawn.append(
                {
                    "title": f"{place[0]}, frame {place[1]}",
                    "value": differing(place),
                    "pictures": draw_frame(frame.image, target, shown, self._dataset.labels),
                    "notes": ["right: " + ", ".join(right)],
                }
            )
        return {"gallery": drawn, "key": colour_key(maps, self._dataset.labels)}


def _right(labels: Labels, target: Labels) -> float:
    """Share of the pixels with a class whose label is right."""
    counted = target != NO_CLASS
    return float((labels == target)[counted].mean()) if counted.any() else 0.0
