"""Conditions of a benchmark: models, machine and options."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from tfcseg.benchmark.contest import Contest
from tfcseg.benchmark.plain import REFERENCE_VARIANT, has_transformers
from tfcseg.inference.network_input import network_size
from tfcseg.report.conditions import model_conditions


def contest_facts(contest: Contest) -> dict[str, Any]:
    """Keyword arguments for both `Benchmark` and `Scaling`."""
    request = contest.request
    facts = model_conditions(contest.model)
    if has_transformers():
        facts["versions"] = {**facts["versions"], "transformers": version("transformers")}
    options = {name: value for name, value in asdict(contest.options).items() if name != "mode"}
    options["workers"] = contest.workers(contest.options.mode)
    return {
        **facts,
        "random_weights": request.backbone is not None,
        "embed_dim": contest.model.card.config.embed_dim,
        "input": {"name": contest.clip.name, "frame_rate": str(contest.clip.frame_rate)},
        "resolution": {"source": contest.clip.size, "network": network_size(contest.clip.size, contest.options.size)},
        "options": {**options, "updated_fraction": request.updated_fraction, "compile_s": contest.compile_s},
        "plain": _plain_facts(contest),
        "rounds": request.rounds,
    }


def _plain_facts(contest: Contest) -> dict[str, Any]:
    """Facts about plain SegFormer, which has our weights, or random ones if our model is no SegFormer."""
    if not has_transformers():
        return {"is_measured": False}
    backbone = contest.model.card.config.backbone
    has_same_weights = backbone.startswith("mit_")
    variant = backbone.removeprefix("mit_") if has_same_weights else REFERENCE_VARIANT
    return {
        "is_measured": True,
        "network": f"SegFormer-{variant.upper()}",
        "weights": "the same" if has_same_weights else "random, with as many classes",
        "precision": str(contest.plain_precision).removeprefix("torch."),
        "process": "the same as ours, which keeps freed memory",
        "end_to_end": "one frame after the other; overlay and masks by the same writers, no report, no stability",
    }
