"""``tfcseg train``: train a model on a VSPW folder, or distil one from teachers on any images and videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tfcseg.cli import options
from tfcseg.cli.console import is_terminal, plain, print_line, print_warning, stderr
from tfcseg.cli.progress import progress
from tfcseg.cli.results import print_json
from tfcseg.errors import Interrupted, UsageError
from tfcseg.weights.device import DEVICES

if TYPE_CHECKING:
    from tfcseg.training.run import TrainListener, TrainResult

Device = Annotated[
    str,
    typer.Option(help="auto, cpu, cuda, cuda:<number> or mps.", autocompletion=options.completing(lambda: DEVICES)),
]


def command(
    data: Annotated[
        list[Path],
        typer.Argument(
            help="A VSPW folder (supervised), or images, videos and folders of them (with --teachers).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run; a run that is there goes on.", show_default=False)
    ],
    teachers: Annotated[
        list[Path] | None,
        typer.Option(help="Networks that label the data: .tflite files or a folder of them.", show_default=False),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for the teachers' labels.", show_default="<output>/labels")
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="image (the image network) or tfc (clips of one interval).",
            show_default="tfc; image with --teachers and without --init",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="efficientnet_lite0 or mit_b0 … mit_b5.", show_default="mit_b0; efficientnet_lite0 with --teachers"
        ),
    ] = None,
    embed_dim: Annotated[
        int | None, typer.Option(help="Width of the decode head.", show_default="128 for efficientnet_lite0, else 256")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Weights file or model to start from; for a VSPW folder also a published SegFormer or MiT.",
            show_default="ImageNet's for efficientnet_lite0, else random",
        ),
    ] = None,
    features_from: Annotated[
        str | None,
        typer.Option(help="Weights file or model whose features the backbone is to learn too (stage image)."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.", show_default="the recipe's")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Samples per step and process.", show_default="the recipe's")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.", show_default="the recipe's")] = None,
    steady_weight: Annotated[
        float | None,
        typer.Option(
            help="Show pairs of images a moment apart and weigh what they disagree in (stage image, with --teachers).",
            show_default="0: single images",
        ),
    ] = None,
    bce_weight: Annotated[
        float | None,
        typer.Option(help="Weight of L_bce beside L_seg (stage tfc); 0 trains without it.", show_default="1"),
    ] = None,
    crop: Annotated[
        int | None, typer.Option(help="Side of the training crop in px.", show_default="480, 448 with --teachers")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Short side of the model's input in px, when trained on a VSPW folder.", show_default="480"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that prepare data.", show_default="1, up to 8 for a GPU")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of the network on the CPU.", show_default="all cores")
    ] = None,
    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda, cuda:<number> or mps.", autocompletion=options.completing(lambda: DEVICES)),
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, fp32 or bf16 (auto: bf16 where the hardware has it, else fp32).")
    ] = "auto",
    validate_every: Annotated[
        int | None, typer.Option(help="Steps between validations.", show_default="a tenth of all")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of all that is random.")] = 0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave damaged files out instead of stopping.")] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the model in its card.", show_default="the output folder's")
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the model in its card.")] = "not stated",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Train a model, or continue an interrupted training.

    Works under torchrun. The examples train for a few steps to show that everything works; without those numbers the
    recipe's own hold.

    Example: tfcseg train VSPW_480p -o runs/vspw --steps 2 --batch 1 --crop 64

    Example: tfcseg train photos --teachers teachers -o img --steps 1 --batch 1
    """
    from tfcseg.training.processes import FirstProcessError, is_first_process
    from tfcseg.training.request import TrainRequest
    from tfcseg.training.run import train

    talks = is_first_process()
    request = TrainRequest(
        data=data,
        output=output,
        teachers=teachers or (),
        cache=cache,
        stage=stage,
        backbone=backbone,
        embed_dim=embed_dim,
        init=init,
        features_from=features_from,
        steps=steps,
        batch=batch,
        learning_rate=lr,
        bce_weight=bce_weight,
        steady_weight=steady_weight,
        crop=crop,
        size=size,
        workers=workers,
        threads=threads,
        device=device,
        precision=precision,
        validate_every=validate_every,
        checkpoint_every=checkpoint_every,
        seed=seed,
        skip_bad=skip_bad,
        name=name,
        licence=licence,
    )
    try:
        with _listener(shown=talks and not quiet) as listener:
            result = train(request, listener if talks else None)
    except (FirstProcessError, UsageError) as error:
        if talks:
            raise
        raise typer.Exit(error.exit_code) from None  # the first process says it
    except KeyboardInterrupt:
        if talks:
            kept = f"what is done is kept in {output}, and the same command goes on from there"
            raise Interrupted(f"interrupted; {kept}") from None
        raise typer.Exit(Interrupted.exit_code) from None
    if talks and not quiet:
        _print_summary(result)
    if talks and as_json:
        _print_json(result)


@contextmanager
def _listener(*, shown: bool) -> Iterator[TrainListener]:
    """A progress line on a terminal, one line per log record elsewhere; warnings always."""
    from tfcseg.training.run import TrainListener

    is_live = shown and is_terminal()
    facts = {"training": ""}
    with progress(shown=shown, has_time=False) as on_progress:

        def advance(what: str, done: int, total: int) -> None:
            on_progress(what, done, total, facts.get(what, ""))

        def tell(record: dict[str, Any]) -> None:
            line = describe(record)
            if is_live and "lr" in record:
                facts["training"] = line.partition("  ")[2]
            elif shown:
                print_line(line)

        yield TrainListener(
            on_labelled=lambda done, total: advance("labelling", done, total),
            on_left_out=_print_left_out,
            on_note=print_warning,
            on_step=lambda step, steps: advance("training", step, steps),
            on_record=tell,
        )


def describe(record: dict[str, Any]) -> str:
    """A log record as one line."""
    if "validation_miou" in record:
        return f"step {record['step']}  validation mIoU {record['validation_miou']:.2f} (best {record['best']:.2f})"
    minutes, seconds = divmod(record["eta_s"], 60)
    hours, minutes = divmod(minutes, 60)
    loss = "  ".join(f"{name} loss {record[name]:.4f}" for name in ("seg", "steady", "bce") if name in record)
    return (
        f"step {record['step']}/{record['steps']}  {loss}  lr {record['lr']:.2e}  "
        f"{record['images_per_s']:.1f} img/s  {hours}:{minutes:02}:{seconds:02} left"
    )


def _print_left_out(defects: Sequence[str]) -> None:
    for defect in defects[:5]:
        print_warning(f"left out: {defect}")
    if len(defects) > 5:
        print_warning(f"left out: {len(defects) - 5} more")


def _print_summary(result: TrainResult) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    score = "–" if result.best_miou is None else f"{result.best_miou:.2f} on the validation samples"
    rows = (
        ("model", f"{result.name}, stage {result.stage}, {result.steps} steps"),
        ("best mIoU", score),
        ("trained on", result.trained_on),
        ("written", f"{result.output}: best.safetensors, last.safetensors, log.jsonl, checkpoint.pt"),
    )
    for key, value in rows:
        table.add_row(f"[bold]{key}[/]", plain(value))
    stderr.print(table)


def _print_json(result: TrainResult) -> None:
    content = {
        "name": result.name,
        "stage": result.stage,
        "steps": result.steps,
        "best_miou": result.best_miou,
        "trained_on": result.trained_on,
        "weights": str(result.output / "best.safetensors"),
        "log": str(result.output / "log.jsonl"),
    }
    print_json(content)
