"""Run a training: recipe → network → loop → best.safetensors."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tfcseg.errors import UsageError
from tfcseg.evaluation.vspw import open_vspw
from tfcseg.files import make_folder, removed_if_unused
from tfcseg.training.loop import Trainer
from tfcseg.training.options import TrainRequest
from tfcseg.training.processes import end_processes, first_process_first, start_processes
from tfcseg.training.recipes import Distillation, distilled_material, start_network, trained_card
from tfcseg.training.request import TrainPlan, plan_training
from tfcseg.training.supervised import start_supervised, vspw_material
from tfcseg.training.teachers import taught_labels
from tfcseg.weights.model_card import parse_card

DEFAULT_BACKBONE = "efficientnet_lite0"
SUPERVISED_BACKBONE = "mit_b0"
"""The smallest of the paper's."""
_SHOWN = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainListener:
    """Functions that are called during a training."""

    on_labelled: Callable[[int, int], None] = lambda done, total: None
    """Files labelled by the teachers so far, and in all."""
    on_note: Callable[[str], None] = lambda note: None
    """A warning before training begins."""
    on_step: Callable[[int, int], None] = lambda step, steps: None
    on_record: Callable[[dict[str, Any]], None] = lambda record: None
    """A record of log.jsonl."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Facts about a finished training."""

    output: Path
    name: str
    stage: str
    steps: int
    best_miou: float | None
    """On the validation samples at the label grid, 0–100; None if nothing was validated."""
    trained_on: str


def train(request: TrainRequest, listener: TrainListener | None = None) -> TrainResult:
    """Train a model, or resume from the checkpoint in ``request.output``.

    Raises UsageError for contradicting options and DataError for bad data, both before the first step. After Ctrl-C or
    SIGTERM, a checkpoint is saved and KeyboardInterrupt raised.
    """
    plan = plan_training(request)
    _log_plan(plan)
    if plan.device.type == "cpu":
        torch.set_num_threads(plan.threads)
    with removed_if_unused(request.output), ExitStack() as stack:
        make_folder(request.output)
        stack.callback(end_processes)
        _, processes = start_processes(plan.device)
        trainer = _trainer(request, plan, processes, listener or TrainListener())
        best = trainer.run(validate_every=plan.validate_every, checkpoint_every=request.checkpoint_every)
    return TrainResult(
        output=request.output,
        name=trainer.card.name,
        stage=plan.options.stage,
        steps=trainer.step,
        best_miou=None if math.isinf(best) else best,
        trained_on=trainer.card.trained_on,
    )


def _log_plan(plan: TrainPlan) -> None:
    precision = str(plan.precision).removeprefix("torch.")
    logger.info(
        "stage %s, %s: %d steps of %d samples of %d px on %s in %s, %d threads and %d workers",
        *(plan.options.stage, "supervised" if plan.is_supervised else "distilled", plan.options.steps),
        *(plan.options.batch, plan.options.crop, plan.device, precision, plan.threads, plan.workers),
        extra={"device": plan.device, "precision": precision, "threads": plan.threads, "workers": plan.workers},
    )


def _trainer(request: TrainRequest, plan: TrainPlan, processes: int, listener: TrainListener) -> Trainer:
    """Prepare network, data and card. Weights are loaded first, so that errors appear before media are labelled."""
    torch.manual_seed(request.seed)
    if plan.is_supervised:
        labels = open_vspw(request.data[0], "train").labels
        backbone = request.backbone or SUPERVISED_BACKBONE
        network, start = start_supervised(backbone, labels, request.init, plan.options.short_side_px, request.embed_dim)
    else:
        labels = taught_labels(plan.teachers)
        backbone = request.backbone or DEFAULT_BACKBONE
        network, start = start_network(backbone, labels, request.init, embed_dim=request.embed_dim)
    if request.backbone not in {None, start.config.backbone}:
        raise UsageError(f"--init {request.init} has backbone {start.config.backbone}; leave --backbone out")
    job = Distillation(request.data, plan.teachers, plan.cache, request.skip_bad, listener.on_labelled)
    material = first_process_first(
        lambda: (
            vspw_material(request.data[0], plan.options, processes, skip_bad=request.skip_bad)
            if plan.is_supervised
            else distilled_material(job, plan.options, processes)
        )
    )
    for defect in material.left_out[:_SHOWN]:
        listener.on_note(f"skipped: {defect}")
    if len(material.left_out) > _SHOWN:
        listener.on_note(f"skipped: {len(material.left_out) - _SHOWN} more")
    if plan.is_supervised and not start.trained_on and not (request.output / "checkpoint.pt").exists():
        listener.on_note(f"{start.config.backbone} starts from random weights, the paper's from ImageNet's; see --init")
    name = request.name or request.output.resolve().name
    card = trained_card(start, material, plan.options, processes, name=name, licence=request.licence)
    network.config = card.config
    parse_card(card.to_metadata(), request.output / "best.safetensors")  # fail now, not when weights are saved
    return Trainer(
        network=network,
        card=card,
        options=plan.options,
        train=material.train,
        validation=material.validation,
        folder=request.output,
        device=plan.device,
        precision=plan.precision,
        workers=plan.workers,
        report=listener.on_record,
        on_step=listener.on_step,
    )
