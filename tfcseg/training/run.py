"""Run a training: request → plan → network and data → loop → best.safetensors."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tfcseg.errors import DataError, UsageError
from tfcseg.evaluation.vspw import LABEL_FILE, open_vspw
from tfcseg.files import make_folder, refuse_inputs, removed_if_unused
from tfcseg.machine import available_cores, has_bfloat16
from tfcseg.media.source import absolute
from tfcseg.model.config import HEADS
from tfcseg.model.options import SIZE_MULTIPLE
from tfcseg.options import OnProgress, check
from tfcseg.runs.outputs import folder_lock
from tfcseg.spelling import one_line
from tfcseg.training.distilled import distilled_material
from tfcseg.training.loop import Trainer
from tfcseg.training.networks import is_image_network, refuse_new_classes, start_network, start_supervised, trained_card
from tfcseg.training.options import TrainRequest
from tfcseg.training.processes import (
    end_processes,
    first_process_first,
    is_first_process,
    process_device,
    processes_here,
    start_processes,
)
from tfcseg.training.recipes import Material, TrainOptions, recipe_options
from tfcseg.training.supervised import vspw_material
from tfcseg.training.teachers import taught_labels, teacher_files
from tfcseg.weights.loading import exact_dtype, resolve_device
from tfcseg.weights.model_card import NAME_LIMIT, parse_card, refuse_name

DISTILLED_BACKBONE, SUPERVISED_BACKBONE = "efficientnet_lite0", "mit_b0"
DISTILLED_CROP_PX, SUPERVISED_CROP_PX = 448, 480
INPUT_SIZE_PX = 480
VALIDATIONS, VALIDATION_STEPS = 10, 50
"""Default number of validations, and the fewest steps between them."""

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_GPU_WORKERS = 8
_SHOWN = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainListener:
    """Functions that are called during a training or an adaptation."""

    on_progress: OnProgress = lambda stage, done, total: None
    """Stages are ``labelling``, ``training`` and those of an adaptation."""
    on_record: Callable[[dict[str, Any]], None] = lambda record: None
    """A record of log.jsonl."""
    on_note: Callable[[str], None] = lambda note: None
    """A warning before training begins, or in place of it."""


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


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """A request with every default filled in."""

    options: TrainOptions
    teachers: Sequence[Path]
    """Empty for a VSPW folder, which has labels."""
    cache: Path
    validate_every: int
    device: torch.device
    precision: torch.dtype
    workers: int
    threads: int


def train(request: TrainRequest, listener: TrainListener | None = None) -> TrainResult:
    """Train a model, or resume from the checkpoint in ``request.output``.

    Raises UsageError for contradicting options and DataError for bad data, both before the first step. After Ctrl-C or
    SIGTERM, a checkpoint is saved and KeyboardInterrupt raised.
    """
    plan = plan_training(request)
    written = [request.output / f"{name}.safetensors" for name in ("best", "last")]
    refuse_inputs(written, filter(None, [request.init]))
    logger.info(
        "stage %s: %d steps of %d samples of %d px on %s in %s, %d threads and %d workers",
        *(plan.options.stage, plan.options.steps, plan.options.batch, plan.options.crop),
        *(plan.device, str(plan.precision).removeprefix("torch."), plan.threads, plan.workers),
    )
    if plan.device.type == "cpu":
        torch.set_num_threads(plan.threads)
    with removed_if_unused(request.output), ExitStack() as stack:
        make_folder(request.output)
        if is_first_process():
            stack.enter_context(folder_lock(request.output))
        stack.callback(end_processes)
        start_processes(plan.device)
        trainer = _trainer(request, plan, listener or TrainListener())
        best = trainer.run(validate_every=plan.validate_every, checkpoint_every=request.checkpoint_every)
    return TrainResult(
        output=request.output,
        name=trainer.card.name,
        stage=plan.options.stage,
        steps=trainer.step,
        best_miou=None if math.isinf(best) else best,
        trained_on=trainer.card.trained_on,
    )


def _trainer(request: TrainRequest, plan: TrainPlan, listener: TrainListener) -> Trainer:
    """Prepare network, data and card. Weights are loaded first, so that errors appear before media are labelled."""
    torch.manual_seed(request.seed)
    stage = plan.options.stage
    labels = taught_labels(plan.teachers) if plan.teachers else open_vspw(request.data[0], "train").labels
    labels = replace(labels, name=one_line(labels.name, NAME_LIMIT))  # that of the folder
    if stage == "attention":
        refuse_new_classes(plan.options.init, labels)
    if plan.teachers:
        backbone = request.backbone or DISTILLED_BACKBONE
        network, start = start_network(backbone, labels, request.init, embed_dim=request.embed_dim)
    else:
        backbone = request.backbone or SUPERVISED_BACKBONE
        network, start = start_supervised(backbone, labels, request.init, plan.options.short_side_px, request.embed_dim)
    if request.backbone not in {None, start.config.backbone}:
        raise UsageError(f"--init {request.init} has backbone {start.config.backbone}; leave --backbone out")
    material = first_process_first(lambda: _material(request, plan, listener))
    for defect in material.left_out[:_SHOWN]:
        listener.on_note(f"skipped: {defect}")
    if len(material.left_out) > _SHOWN:
        listener.on_note(f"skipped: {len(material.left_out) - _SHOWN} more")
    if not (plan.teachers or start.trained_on) and not (request.output / "checkpoint.pt").exists():
        listener.on_note(f"{start.config.backbone} starts from random weights, the paper's from ImageNet's; see --init")
    name = request.name or request.output.resolve().name
    card = trained_card(start, material, plan.options, name=name, licence=request.licence)
    network.config = card.config
    parse_card(card.to_metadata(), request.output / "best.safetensors")  # fail now, not when weights are saved
    return Trainer(
        network,
        card,
        plan.options,
        *material.streams(plan.options),
        request.output,
        device=plan.device,
        precision=plan.precision,
        workers=plan.workers,
        dtype=exact_dtype(network) if stage == "attention" else torch.float16,
        report=listener.on_record,
        on_step=partial(listener.on_progress, "training"),
    )


def _material(request: TrainRequest, plan: TrainPlan, listener: TrainListener) -> Material:
    if not plan.teachers:
        return vspw_material(request.data[0], plan.options, skip_bad=request.skip_bad)
    return distilled_material(
        *(request.data, plan.teachers, plan.cache, plan.options),
        skip_bad=request.skip_bad,
        progress=partial(listener.on_progress, "labelling"),
        notify=listener.on_note,
    )


def plan_training(request: TrainRequest) -> TrainPlan:
    """Plan a training run; UsageError if options contradict each other, DataError if data are missing."""
    check(request)
    _check_data(request)
    is_supervised = not request.teachers
    has_head = request.init is not None and (is_supervised or is_image_network(request.init))
    stage = request.stage or ("tfc" if is_supervised or has_head else "image")
    _check_options(request, stage, has_head=has_head)
    same = ("init", "steps", "batch", "learning_rate", "bce_weight", "seed")
    given = {
        "crop": request.crop or (SUPERVISED_CROP_PX if is_supervised else DISTILLED_CROP_PX),
        "short_side_px": request.size or INPUT_SIZE_PX,
        "folder_weights": tuple(_folder_weight(text, request.data) for text in request.folder_weights or ()),
        **{name: getattr(request, name) for name in same},
    }
    options = recipe_options(stage, supervised=is_supervised, given=given)
    device = process_device(resolve_device(request.device))
    cores = max(1, available_cores() // processes_here())
    on_gpu = device.type != "cpu"
    return TrainPlan(
        options=options,
        teachers=teacher_files(request.teachers or ()),
        cache=request.cache or request.output / "labels",
        validate_every=request.validate_every or max(VALIDATION_STEPS, options.steps // VALIDATIONS),
        device=device,
        precision=training_precision(request.precision, device),
        # On a CPU, one process prepares data faster than the network needs them.
        workers=request.workers if request.workers is not None else (min(_GPU_WORKERS, cores) if on_gpu else 1),
        # torchrun sets OMP_NUM_THREADS, and so torch's default, to 1.
        threads=request.threads or (cores if processes_here() > 1 else min(cores, torch.get_num_threads())),
    )


def training_precision(precision: str, device: torch.device) -> torch.dtype:
    """Type of the computations, by name; ``auto`` is bf16 if the hardware supports it. Weights stay in float32."""
    if precision == "auto":
        fast = {"cpu": has_bfloat16, "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False)}
        return torch.bfloat16 if fast.get(device.type, lambda: False)() else torch.float32
    if precision not in _PRECISIONS:
        raise UsageError(f"no training precision {precision!r}; there are auto, {', '.join(_PRECISIONS)}")
    return _PRECISIONS[precision]


def _check_options(request: TrainRequest, stage: str, *, has_head: bool) -> None:
    """Raise UsageError for options that do not go together."""
    refuse_name(request.name)
    width, crop = request.embed_dim, request.crop
    has_init, is_supervised = request.init is not None, not request.teachers
    wrong = {
        f"--embed-dim {width} is not a multiple of {HEADS}, the attention's heads": width is not None
        and (width < 1 or width % HEADS),
        "--embed-dim is set by the model given with --init; leave it out": width is not None and has_init,
        f"--crop {crop} is not a multiple of {SIZE_MULTIPLE}": crop is not None and crop % SIZE_MULTIPLE,
        "--size is for VSPW folders only; with --teachers the size varies": request.size is not None
        and not is_supervised,
        f"stage {stage} starts from an image network; give one of --stage image with --init": not has_head
        and (stage == "attention" or (stage == "tfc" and not is_supervised)),
        "--bce-weight needs --stage tfc": request.bce_weight is not None and stage != "tfc",
        "--cache needs --teachers, whose labels it keeps": request.cache is not None and is_supervised,
        "--folder-weight needs --teachers": request.folder_weights and is_supervised,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(message)


def _folder_weight(text: str, data: Sequence[Path]) -> tuple[str, float]:
    """Absolute folder and weight of ``FOLDER=WEIGHT``; UsageError for anything else."""
    folder, _, number = text.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not folder or not 0 < weight < math.inf:
        raise UsageError(f"--folder-weight {text}: should be FOLDER=WEIGHT, with a weight above 0")
    path = absolute(folder)
    if not any(path.is_relative_to(absolute(root)) for root in data):
        raise UsageError(f"--folder-weight {text}: {folder} is not among the data")
    return str(path), weight


def _check_data(request: TrainRequest) -> None:
    """Raise UsageError or DataError unless the data are a VSPW folder, or media without labels and with teachers."""
    for path in request.data:
        if not path.exists():
            raise DataError(f"{path} does not exist; give a VSPW folder, or images and videos with --teachers")
    labelled = [path for path in request.data if (path / LABEL_FILE).is_file() and (path / "data").is_dir()]
    if request.teachers:
        if labelled:
            raise UsageError(f"{labelled[0]} is a VSPW folder, which has labels; leave --teachers out")
        for what, written in (("--output", request.output), ("--cache", request.cache)):
            for root in request.data:
                # Frames of videos that are kept there would be trained on later.
                if written is not None and written.resolve().is_relative_to(root.resolve()):
                    raise UsageError(f"{what} {written} is inside the data ({root}); choose another folder")
    elif not labelled:
        raise UsageError(
            f"{request.data[0]} is not a VSPW folder ({LABEL_FILE} and data/); images and videos need --teachers"
        )
    elif len(request.data) > 1:
        raise UsageError(f"one VSPW folder at a time, not {len(request.data)}")
