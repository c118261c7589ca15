"""What a training run was asked to do, checked and completed before any work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tfcseg.errors import DataError, UsageError
from tfcseg.evaluation.vspw import LABEL_FILE
from tfcseg.machine import available_cores, has_bfloat16
from tfcseg.model.config import HEADS
from tfcseg.model.options import SIZE_MULTIPLE
from tfcseg.options import check
from tfcseg.training.loop import TrainOptions
from tfcseg.training.options import TrainRequest
from tfcseg.training.processes import process_device, processes_here
from tfcseg.training.recipes import is_vspw, recipe_options
from tfcseg.training.teachers import teacher_files
from tfcseg.weights.loading import resolve_device

DISTILLED_CROP_PX, SUPERVISED_CROP_PX = 448, 480
INPUT_SIZE_PX, MOST_INPUT_SIZE_PX = 480, 4096
VALIDATIONS, VALIDATION_STEPS = 10, 50
"""Times that a run is validated if nothing else was asked for, and the fewest steps between them."""
NAME_LIMIT = 100

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LEAST = {
    "steps": 1,
    "batch": 1,
    "crop": SIZE_MULTIPLE,
    "size": SIZE_MULTIPLE,
    "workers": 0,
    "threads": 1,
    "validate_every": 1,
    "checkpoint_every": 1,
    "seed": 0,
}
_GPU_WORKERS = 8


@dataclass(frozen=True, slots=True)
class TrainPlan:
    """A request with every default filled in."""

    is_supervised: bool
    options: TrainOptions
    teachers: Sequence[Path]
    cache: Path
    validate_every: int
    device: torch.device
    precision: torch.dtype
    workers: int
    threads: int


def plan_training(request: TrainRequest) -> TrainPlan:
    """UsageError for a request that makes no sense, DataError for data that is not there."""
    check(request)
    _check_numbers(request)
    if request.name is not None and not (0 < len(request.name) <= NAME_LIMIT and request.name.isprintable()):
        raise UsageError(f"--name must be one line of 1 to {NAME_LIMIT} characters")
    is_supervised = _is_supervised(request)
    stage = request.stage or ("tfc" if is_supervised or request.init else "image")
    if stage == "tfc" and not is_supervised and request.init is None:
        raise UsageError("stage tfc refines an image network that the teachers trained: give it with --init")
    if stage != "image" and request.features_from is not None:
        raise UsageError("--features-from teaches an image network: it needs --stage image")
    if stage == "image" and request.bce_weight is not None:
        raise UsageError("--bce-weight weighs L_bce, which stage image has none of; leave it out")
    if request.steady_weight is not None and (stage != "image" or is_supervised):
        raise UsageError("--steady-weight weighs pairs of images, which only stage image with --teachers has")
    if is_supervised and request.cache is not None:
        raise UsageError("--cache keeps what teachers label; a VSPW folder has labels of its own: leave it out")
    given = {
        "crop": request.crop or (SUPERVISED_CROP_PX if is_supervised else DISTILLED_CROP_PX),
        "short_side_px": request.size or INPUT_SIZE_PX,
        "init": None if request.init is None else str(request.init),
        "features_from": None if request.features_from is None else str(request.features_from),
        "steps": request.steps,
        "batch": request.batch,
        "learning_rate": request.learning_rate,
        "bce_weight": request.bce_weight,
        "steady_weight": request.steady_weight,
        "seed": request.seed,
    }
    options = recipe_options(stage, supervised=is_supervised, given=given)
    device = process_device(resolve_device(request.device))
    cores = max(1, available_cores() // processes_here())
    on_gpu = device.type != "cpu"
    return TrainPlan(
        is_supervised=is_supervised,
        options=options,
        teachers=teacher_files(request.teachers or ()),
        cache=request.cache or request.output / "labels",
        validate_every=request.validate_every or max(VALIDATION_STEPS, options.steps // VALIDATIONS),
        device=device,
        precision=training_precision(request.precision, device),
        # On the CPU one process prepares more than a network there can use.
        workers=request.workers if request.workers is not None else (min(_GPU_WORKERS, cores) if on_gpu else 1),
        # torch's own choice obeys OMP_NUM_THREADS, which torchrun sets to 1 unless told otherwise.
        threads=request.threads or (cores if processes_here() > 1 else min(cores, torch.get_num_threads())),
    )


def training_precision(precision: str, device: torch.device) -> torch.dtype:
    """Type that the network computes in; ``auto`` is bf16 where the hardware has it, weights are float32 anyway."""
    if precision == "auto":
        fast = {"cpu": has_bfloat16, "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False)}
        return torch.bfloat16 if fast.get(device.type, lambda: False)() else torch.float32
    if precision not in _PRECISIONS:
        raise UsageError(f"no training precision {precision!r}; there are auto, {', '.join(_PRECISIONS)}")
    return _PRECISIONS[precision]


def _check_numbers(request: TrainRequest) -> None:
    for name, least in _LEAST.items():
        value = getattr(request, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value} is less than {least}")
    if request.learning_rate is not None and not 0 < request.learning_rate <= 1:
        raise UsageError(f"--lr {request.learning_rate:g} is not between 0 and 1")
    if request.embed_dim is not None and (request.embed_dim < 1 or request.embed_dim % HEADS):
        raise UsageError(f"--embed-dim {request.embed_dim} is not a multiple of {HEADS}, the attention's heads")
    if request.embed_dim is not None and request.init is not None:
        raise UsageError("--embed-dim is that of the model given with --init; leave it out")
    if request.bce_weight is not None and not 0 <= request.bce_weight <= 100:
        raise UsageError(f"--bce-weight {request.bce_weight:g} is not between 0 and 100")
    if request.steady_weight is not None and not 0 <= request.steady_weight <= 100:
        raise UsageError(f"--steady-weight {request.steady_weight:g} is not between 0 and 100")
    if request.crop is not None and request.crop % SIZE_MULTIPLE:
        raise UsageError(f"--crop {request.crop} is not a multiple of {SIZE_MULTIPLE}")
    if request.size is not None and request.size > MOST_INPUT_SIZE_PX:
        raise UsageError(f"--size {request.size} is more than {MOST_INPUT_SIZE_PX}")
    if request.size is not None and request.teachers:
        raise UsageError("--size is for VSPW folders: what teachers label is seen at many sizes")


def _is_supervised(request: TrainRequest) -> bool:
    """Whether the data brings its labels (VSPW layout) and not the teachers."""
    for path in request.data:
        if not path.exists():
            raise DataError(f"{path} does not exist; give a VSPW folder, or images and videos with --teachers")
    labelled = [path for path in request.data if is_vspw(path)]
    if request.teachers:
        if labelled:
            raise UsageError(f"{labelled[0]} is a VSPW folder with labels of its own; leave --teachers out")
        _check_apart(request)
        return False
    if not labelled:
        raise UsageError(
            f"{request.data[0]} is no VSPW folder ({LABEL_FILE} and data/); images and videos need --teachers"
        )
    if len(request.data) > 1:
        raise UsageError(f"one VSPW folder at a time, not {len(request.data)}")
    return True


def _check_apart(request: TrainRequest) -> None:
    """The label cache holds frames of videos, which the next start would take for data."""
    for what, written in (("--output", request.output), ("--cache", request.cache)):
        for root in request.data:
            if written is not None and written.resolve().is_relative_to(root.resolve()):
                raise UsageError(f"{what} {written} is inside of the data ({root}); write elsewhere")
