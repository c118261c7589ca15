"""Options that several commands share: one name, help text, default, check and completion each.

Nothing here loads torch: help and completion must be instant.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from tfcseg.cli.console import print_line, print_warning
from tfcseg.cli.values import Known, frame_rate, list_of, names_in, seconds
from tfcseg.errors import TfcsegError, UsageError, without_passwords
from tfcseg.files import refuse_file_name
from tfcseg.log import DecisionPrinter, JsonLines, listen
from tfcseg.machine import library_versions

logger = logging.getLogger(__name__)


def was_given(context: typer.Context, name: str) -> bool:
    """Whether the option was given on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_given(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Raise UsageError, which says ``why`` after its name, for the first of the options that was given."""
    for name in names:
        if was_given(context, name):
            raise UsageError(f"--{name.removeprefix('as_').replace('_', '-')} {why}")


def check_range(start: float | None, end: float | None) -> None:
    """Raise UsageError for an empty part of a video."""
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--end {end:g} is not after --start {start:g}")


def completing(known: Known) -> Callable[[str], list[str]]:
    """Make an ``autocompletion`` for a word or for the last word of a comma-separated list."""

    def complete(incomplete: str) -> list[str]:
        before, comma, word = incomplete.rpartition(",")
        try:
            return [f"{before}{comma}{name}" for name in names_in(known) if name.casefold().startswith(word.casefold())]
        except TfcsegError:  # nothing to offer; the command itself will say why
            return []

    return complete


def some_of(what: str, known: Known, help: str, *, default: str) -> Any:
    """Option that takes ``known`` names, one by one or in lists with commas; ``default`` is what help says of it."""
    return typer.Option(
        help=help, show_default=default, callback=list_of(what, known), autocompletion=completing(known)
    )


def output(help: str, default: str = "") -> Any:
    """Option ``--output``; ``default`` is what help says of it."""
    return typer.Option("--output", "-o", help=help, show_default=default or False)


def model_names() -> list[str]:
    """Models of the registry, and ``default``."""
    from tfcseg.weights.registry import list_models

    return ["default", *(record.name for record in list_models())]


def _explain_decisions(context: typer.Context, wanted: bool) -> bool:
    if wanted and not context.resilient_parsing:
        context.find_root().call_on_close(listen(DecisionPrinter(print_line)))
    return wanted


def _open_log(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None and not context.resilient_parsing:
        context.find_root().call_on_close(listen(JsonLines(path, print_warning)))
        arguments = [without_passwords(argument) for argument in sys.argv[1:]]
        facts = {"arguments": arguments, "versions": {"tfcseg": version("tfcseg"), **library_versions()}}
        logger.info("%s begins", context.command_path, extra=facts)
    return path


def _named_like_a_folder(path: Path | None) -> Path | None:
    if path is not None:
        refuse_file_name(path)
    return path


def on_disk(context: typer.Context, model: str | None) -> str | None:
    """Return the model as a name or path. Models of the Hugging Face hub come from its cache, or the network if
    allowed."""
    if model is None or "/" not in model or Path(model).exists() or context.resilient_parsing:
        return model
    from tfcseg.weights.hub import find_on_hub, hub_name

    name = hub_name(model)
    if name is None:
        return model
    return str(find_on_hub(name, allow_network=context.params.get("allow_network", False), say=print_line))


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A shipped model (see tfcseg models), a weights file, or any SegFormer: a Hugging Face folder, a "
        ".pth or .safetensors file, or ORG/NAME[@REVISION].",
        autocompletion=completing(model_names),
        callback=on_disk,
    ),
]
AllowNetwork = Annotated[
    bool,
    typer.Option("--allow-network", help="Fetch models ORG/NAME from the Hugging Face hub.", is_eager=True),
]
Start = Annotated[
    float | None,
    typer.Option(help="Begin at this time of the video: 90, 1:30, 0:01:30.5 or 1m30s.", parser=seconds, metavar="TIME"),
]
End = Annotated[float | None, typer.Option(help="Stop before this time of the video.", parser=seconds, metavar="TIME")]
MeasureFlowConsistency = Annotated[
    bool, typer.Option(help="Measure flow consistency (optical flow), the slowest of the scores.")
]
FrameRate = Annotated[
    Fraction | None,
    typer.Option(
        "--fps",
        help="Frame rate of a folder of images, e.g. 25, 29.97 or 30000/1001.",
        show_default="25",
        parser=frame_rate,
        metavar="RATE",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder for the results.",
        show_default="<name>_tfcseg",
        callback=_named_like_a_folder,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, summary or notes: results, warnings and errors only.")
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Explain decisions on stderr.", callback=_explain_decisions),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        help="Append decisions, warnings and errors to this file, as JSON lines.", callback=_open_log, is_eager=True
    ),
]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model a command uses, and whether it may be fetched."""

    model: Model = "default"
    allow_network: AllowNetwork = False


@dataclass(frozen=True, slots=True)
class Printing:
    """What a command says, and where."""

    as_json: Json = False
    quiet: Quiet = False
    verbose: Verbose = False
    log_file: LogFile = None
