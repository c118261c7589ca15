"""Videos of a data set scored by the workers of a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfcseg.errors import TfcsegError
from tfcseg.evaluation.evaluate import OnVideo, Part, open_scoring, pool, score_videos
from tfcseg.evaluation.predictions import PredictionWriter
from tfcseg.evaluation.result import Evaluation
from tfcseg.evaluation.scope import Scope
from tfcseg.evaluation.vspw import VspwDataset, open_vspw
from tfcseg.workers import WorkerOptions, ray_workers


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a worker needs to score videos as `evaluate` does."""

    root: Path
    scope: Scope
    measure_flow_consistency: bool
    source: Callable[[VspwDataset], Mapping[str, Any]]
    """Returns keyword arguments of `evaluate` for the predictions; goes to the workers, which call it."""
    masks: Path | None = None
    """Where what is scored is written."""

    def open(self) -> Callable[[tuple[int, str] | None], Any]:
        """The function that scores a video, given its position and name; given nothing, it tells of the source."""
        source = dict(self.source(open_vspw(self.root, self.scope.split)))
        predict, model_s = source.pop("predict"), source.pop("model_s", None)
        scoring, _ = open_scoring(
            self.root,
            self.scope,
            **_labels(source),
            measure_flow_consistency=self.measure_flow_consistency,
            on_frame=None if self.masks is None else PredictionWriter(self.masks),
        )

        def work(video: tuple[int, str] | None) -> Mapping[str, Any] | Part:
            return source if video is None else score_videos(dict([video]), predict, scoring, model_s)

        return work


def evaluate_on_ray(recipe: Recipe, workers: WorkerOptions, *, uses_gpu: bool, on_video: OnVideo) -> Evaluation:
    """`evaluate` by the workers of a cluster, with the same scores; errors are the same."""
    with ray_workers(workers, recipe.open, uses_gpu=uses_gpu) as crew:
        (source,) = crew.in_order([None])
        started_s = time.perf_counter()
        flow = recipe.measure_flow_consistency
        scoring, videos = open_scoring(recipe.root, recipe.scope, **_labels(source), measure_flow_consistency=flow)
        parts: list[Part] = []
        for _, part in crew.each(videos.items()):
            if isinstance(part, TfcsegError):
                raise part
            parts.append(part)
            on_video(part.scores[0][1])
        facts = {"mode": source.get("mode", "predictions"), "provenance": source["provenance"]}
        return pool(scoring, parts, time.perf_counter() - started_s, **facts)


def _labels(source: Mapping[str, Any]) -> dict[str, Any]:
    return {name: source.get(name) for name in ("model_labels", "label_map")}
