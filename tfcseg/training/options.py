"""Options of a training run, and of an adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tfcseg.model.options import SIZE_MULTIPLE
from tfcseg.options import THE_MODELS, Option
from tfcseg.weights.device import DEVICES

STAGES = ("image", "tfc", "attention")
_RECIPES = "the recipe's"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """Model, data and recipe of a training run; None stands for the recipe's or the machine's default."""

    data: Annotated[
        list[Path],
        Option(
            "A VSPW folder (supervised), or images, videos and folders of them (with --teachers).", is_argument=True
        ),
    ]
    output: Annotated[Path, Option("Folder of the run; an interrupted run there continues.", flags=("--output", "-o"))]
    teachers: Annotated[
        list[Path] | None, Option("Networks that label the data: .tflite files or folders of them.", default_text="")
    ] = None
    folder_weights: Annotated[
        list[str] | None,
        Option(
            "FOLDER=WEIGHT: draw a folder's photos and clips this many times as often (with --teachers); repeatable.",
            flags=("--folder-weight",),
            default_text="",
        ),
    ] = None
    """Folders are among ``data`` or inside; of nested ones the innermost counts."""
    cache: Annotated[Path | None, Option("Folder for the teachers' labels.", default_text="<output>/labels")] = None
    stage: Annotated[
        str | None,
        Option(
            "image (the image network), tfc (clips of one interval) or attention (the sparse attention alone).",
            choices=STAGES,
            default_text="tfc; image with --teachers, unless --init has a head",
        ),
    ] = None
    backbone: Annotated[
        str | None,
        Option(
            "efficientnet_lite0, mosaic or mit_b0 … mit_b5.", default_text="mit_b0; efficientnet_lite0 with --teachers"
        ),
    ] = None
    embed_dim: Annotated[
        int | None, Option("Width of the decode head.", default_text="128 for efficientnet_lite0 and mosaic, else 256")
    ] = None
    """Only without ``init``."""
    init: Annotated[
        str | None,
        Option(
            "Model to start from: a shipped one, a weights file, a published SegFormer or MiT, or MOSAIC's .tflite.",
            default_text="ImageNet's for efficientnet_lite0, else random",
        ),
    ] = None
    steps: Annotated[int | None, Option("Training steps.", low=1, default_text=_RECIPES)] = None
    batch: Annotated[int | None, Option("Samples per step and process.", low=1, default_text=_RECIPES)] = None
    learning_rate: Annotated[
        float | None, Option("Learning rate.", low=1e-12, high=1, flags=("--lr",), default_text=_RECIPES)
    ] = None
    bce_weight: Annotated[
        float | None, Option("Weight of L_bce (stage tfc); 0 trains without it.", low=0, high=100, default_text="1")
    ] = None
    """In eq. 12; the paper's ablation has 0."""
    crop: Annotated[
        int | None,
        Option("Side of the training crop, in pixels.", low=SIZE_MULTIPLE, default_text="480, 448 with --teachers"),
    ] = None
    size: Annotated[
        int | None,
        Option(
            "Short side of the model's input, in pixels (VSPW folder only).",
            low=SIZE_MULTIPLE,
            high=4096,
            default_text="480",
        ),
    ] = None
    """At inference; crops of a VSPW folder vary around it."""
    workers: Annotated[
        int | None, Option("Processes that prepare data.", low=0, default_text="1, up to 8 for a GPU")
    ] = None
    threads: Annotated[int | None, Option("CPU threads of the network.", low=1, default_text="all cores")] = None
    device: Annotated[str, Option("auto, cpu, cuda, cuda:<number> or mps.", suggestions=DEVICES)] = "auto"
    precision: Annotated[str, Option("auto, fp32 or bf16 (auto: bf16 where the hardware has it, else fp32).")] = "auto"
    validate_every: Annotated[
        int | None, Option("Steps between validations.", low=1, default_text="a tenth of all")
    ] = None
    checkpoint_every: Annotated[int, Option("Steps between checkpoints.", low=1)] = 200
    seed: Annotated[int, Option("Random seed.", low=0)] = 0
    skip_bad: Annotated[bool, Option("Skip damaged files instead of stopping.")] = False
    name: Annotated[str | None, Option("Name of the model in its card.", default_text="the output folder's")] = None
    licence: Annotated[
        str | None, Option("Licence of the model in its card.", default_text="that of --init, else not stated")
    ] = None


@dataclass(frozen=True, slots=True)
class AdaptOptions:
    """Options of an adaptation."""

    size: Annotated[int, Option("Short side of the network's input, in pixels.", low=SIZE_MULTIPLE, high=4096)] = (
        THE_MODELS
    )
    steps: Annotated[
        int, Option("Training steps of the sparse attention; 0 fits the curve alone.", low=0, high=1_000_000)
    ] = 300
    seed: Annotated[int, Option("Random seed.", low=0, high=2**31 - 1)] = 0
