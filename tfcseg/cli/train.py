"""``tfcseg train``: train a model on a VSPW folder, or distil one from teachers on any images and videos."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from tfcseg.cli import options
from tfcseg.cli.console import is_terminal, print_line, print_warning, progress
from tfcseg.cli.groups import grouped
from tfcseg.cli.results import number, print_facts, print_json
from tfcseg.errors import Interrupted, UsageError
from tfcseg.training.options import TrainRequest

if TYPE_CHECKING:
    from tfcseg.training.run import TrainListener


@grouped
def command(*, request: TrainRequest, printing: options.Printing) -> None:
    """Train a model, or continue an interrupted training.

    Works under torchrun. The examples train for a few steps only; by default, the recipe's numbers apply.

    Example: tfcseg train VSPW_480p -o runs/vspw --steps 2 --batch 1 --crop 64

    Example: tfcseg train photos --teachers teachers -o img --steps 1 --batch 1
    """
    from tfcseg.training.processes import FirstProcessError, is_first_process
    from tfcseg.training.run import train

    is_first = is_first_process()
    try:
        with _listener(shown=is_first and not printing.quiet) as listener:
            result = train(request, listener if is_first else None)
    except (FirstProcessError, UsageError) as error:
        if is_first:
            raise
        raise typer.Exit(error.exit_code) from None  # the first process reports it
    except KeyboardInterrupt:
        if is_first:
            kept = f"progress is kept in {request.output}; run the same command again to continue"
            raise Interrupted(f"interrupted; {kept if request.output.exists() else 'nothing was written'}") from None
        raise typer.Exit(Interrupted.exit_code) from None
    if is_first and not printing.quiet:
        rows = (
            ("model", f"{result.name}, stage {result.stage}, {result.steps} steps"),
            ("validation mIoU", number(result.best_miou, 2)),
            ("trained on", result.trained_on),
            ("written", f"{result.output}: best.safetensors, last.safetensors, log.jsonl, checkpoint.pt"),
        )
        print_facts(rows)
    if is_first and printing.as_json:
        content = asdict(result)
        folder = content.pop("output")
        print_json({**content, "weights": str(folder / "best.safetensors"), "log": str(folder / "log.jsonl")})


@contextmanager
def _listener(*, shown: bool) -> Iterator[TrainListener]:
    """A progress line on a terminal, otherwise a line per log record; warnings always."""
    from tfcseg.training.run import TrainListener

    is_live = shown and is_terminal()
    facts = {"training": ""}
    with progress(shown=shown, has_time=False) as on_progress:

        def advance(what: str, done: int, total: int) -> None:
            on_progress(what, done, total, facts.get(what, ""))

        def show(record: dict[str, Any]) -> None:
            line = describe(record)
            if is_live and "lr" in record:
                facts["training"] = line.partition("  ")[2]
            elif shown:
                print_line(line)

        yield TrainListener(
            on_labelled=lambda done, total: advance("labelling", done, total),
            on_note=print_warning,
            on_step=lambda step, steps: advance("training", step, steps),
            on_record=show,
        )


def describe(record: dict[str, Any]) -> str:
    """Format a log record as one line."""
    if "validation_miou" in record:
        return f"step {record['step']}  validation mIoU {record['validation_miou']:.2f} (best {record['best']:.2f})"
    minutes, seconds = divmod(record["eta_s"], 60)
    hours, minutes = divmod(minutes, 60)
    loss = "  ".join(f"{name} loss {record[name]:.4f}" for name in ("seg", "steady", "bce", "repair") if name in record)
    return (
        f"step {record['step']}/{record['steps']}  {loss}  lr {record['lr']:.2e}  "
        f"{record['images_per_s']:.1f} img/s  {hours}:{minutes:02}:{seconds:02} left"
    )
