"""``tfcseg train`` and ``tfcseg adapt``: train a model, or only TFC for a network of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tfcseg.cli import options
from tfcseg.cli.console import is_terminal, print_facts, print_json, print_line, print_tables, print_warning, progress
from tfcseg.cli.groups import grouped
from tfcseg.errors import Interrupted, UsageError
from tfcseg.files import claimed_files, to_json
from tfcseg.report.html import shown_number as number
from tfcseg.research.tables import adapted_table
from tfcseg.spelling import visible
from tfcseg.training.options import AdaptOptions, TrainRequest
from tfcseg.weights.device import DeviceOptions

if TYPE_CHECKING:
    from tfcseg.adaptation.adapt import AdaptResult
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

        def show(record: dict[str, Any]) -> None:
            line = describe(record)
            if is_live and "lr" in record:
                facts["training"] = line.partition("  ")[2]
            elif shown:
                print_line(line)

        yield TrainListener(
            on_progress=lambda what, done, total: on_progress(what, done, total, facts.get(what, "")),
            on_record=show,
            on_note=print_warning,
        )


def describe(record: dict[str, Any]) -> str:
    """Format a log record as one line."""
    if "validation_miou" in record:
        return f"step {record['step']}  validation mIoU {record['validation_miou']:.2f} (best {record['best']:.2f})"
    minutes, seconds = divmod(record["eta_s"], 60)
    hours, minutes = divmod(minutes, 60)
    loss = "  ".join(f"{name} loss {record[name]:.4f}" for name in ("seg", "bce", "repair") if name in record)
    return (
        f"step {record['step']}/{record['steps']}  {loss}  lr {record['lr']:.2e}  "
        f"{record['images_per_s']:.1f} img/s  {hours}:{minutes:02}:{seconds:02} left"
    )


@grouped
def adapt_command(
    *,
    videos: Annotated[list[Path], typer.Argument(help="Videos or folders of frames; they need no labels.")],
    choice: options.ModelChoice,
    output: Annotated[Path, options.output_to("Weights file to write, .safetensors.")],
    validate: Annotated[
        list[Path] | None,
        typer.Option(help="Measure on this video; may be given again.", show_default="the ends of the videos"),
    ] = None,
    numbers: AdaptOptions,
    device: DeviceOptions,
    overwrite: options.Overwrite = False,
    printing: options.Printing,
) -> None:
    """Teach TFC to a network on your own videos, without labels.

    The labels that the network gives single frames are the teacher; the network itself does not change. Run the same
    command again to continue an interrupted one.

    Example: tfcseg adapt assets/demo.mp4 -o a.safetensors --steps 2 --size 64
    """
    options.check_weights_name(output)
    from tfcseg.adaptation.adapt import adapt, work_folder

    measured_on = validate or []
    inputs: list[str | Path] = [*videos, *measured_on, choice.model]
    try:
        with (
            claimed_files(output.parent, [output.name], inputs=inputs, overwrite=overwrite),
            _listener(shown=not printing.quiet) as listener,
        ):
            result = adapt(
                *(videos, choice.model, output, numbers),
                validate=measured_on,
                device=device,
                overwrite=overwrite,
                listener=listener,
            )
    except KeyboardInterrupt:
        kept = f"progress is kept in {work_folder(output)}; run the same command again to continue"
        raise Interrupted(f"interrupted; {kept}") from None
    _show_adapted(result, printing)


def _show_adapted(result: AdaptResult, printing: options.Printing) -> None:
    content = to_json(result)
    if not printing.quiet:
        print_tables(adapted_table(content), on_stderr=True)
    if result.steps and not result.keeps_attention:
        print_warning("the sparse attention was left out: it brought labels no closer to those of mode image")
    if printing.as_json:
        print_json(content)
    else:
        print(visible(result.output))
