"""Option aliases that several commands share: one name, one help text, one default, one check, one completion.

Nothing here loads torch: help and completion must be instant.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from tfcseg.cli.console import print_line, print_warning
from tfcseg.cli.values import one_of, seconds
from tfcseg.errors import TfcsegError, UsageError
from tfcseg.files import refuse_file_name
from tfcseg.log import DecisionPrinter, JsonLines, listen
from tfcseg.machine import library_versions
from tfcseg.model.config import CORRELATIONS, KEYFRAME_POSITIONS, LATENCIES, MODES

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")
PROTOCOLS = ("vspw", "strict")
NETWORK = (
    *("mode", "keyframe_interval", "threshold", "size", "correlation", "keyframe_position", "keyframe_carry"),
    "latency",
)
"""Parameters that say how frames go through the network."""

logger = logging.getLogger(__name__)


def network_options(context: typer.Context) -> dict[str, Any]:
    """What the user said of ``NETWORK``, as keyword arguments; None where the model's default stands."""
    return {name: context.params[name] for name in NETWORK if name in context.params}


def was_given(context: typer.Context, name: str) -> bool:
    """Whether the user gave the option himself."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def check_range(start: float | None, end: float | None) -> None:
    """UsageError for a part of a video that holds nothing."""
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--end {end:g} is not after --start {start:g}")


def completing(known: Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """Make a completion of one word or of the last word of a list with commas, for an option's ``autocompletion``."""

    def complete(incomplete: str) -> list[str]:
        before, comma, word = incomplete.rpartition(",")
        try:
            return [f"{before}{comma}{name}" for name in known() if name.casefold().startswith(word.casefold())]
        except TfcsegError:  # nothing to offer; the command itself will say why
            return []

    return complete


def model_names() -> list[str]:
    """Models of the registry, and ``default``."""
    from tfcseg.weights.registry import list_models

    return ["default", *(record.name for record in list_models())]


def class_names() -> list[str]:
    """Classes of the default model, as its file names them."""
    from tfcseg.weights.registry import list_models
    from tfcseg.weights.tensor_header import parse_json, read_header

    path = next(record.path for record in list_models() if record.is_default)
    match parse_json(read_header(path).metadata.get("labels", "{}")):
        case {"names": [*names]}:
            return [str(name) for name in names]
    return []


def _explain_decisions(context: typer.Context, wanted: bool) -> bool:
    if wanted and not context.resilient_parsing:
        context.find_root().call_on_close(listen(DecisionPrinter(print_line)))
    return wanted


def _open_log(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None and not context.resilient_parsing:
        context.find_root().call_on_close(listen(JsonLines(path, print_warning)))
        facts = {"arguments": sys.argv[1:], "versions": {"tfcseg": version("tfcseg"), **library_versions()}}
        logger.info("%s begins", context.command_path, extra=facts)
    return path


def _named_like_a_folder(path: Path | None) -> Path | None:
    if path is not None:
        refuse_file_name(path)
    return path


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Name of a shipped model (see [bold]tfcseg models[/]) or a weights file.",
        autocompletion=completing(model_names),
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        help="[bold]tfc[/], [bold]blend[/] (the full network on every frame, steadied), [bold]reuse[/] (keyframe reuse "
        "alone) or [bold]image[/] (every frame by itself).",
        callback=one_of("mode", MODES),
        autocompletion=completing(lambda: MODES),
    ),
]
KeyframeInterval = Annotated[
    int | None, typer.Option(help="Every n-th frame is a keyframe.", show_default="the model's")
]
Threshold = Annotated[
    float | None,
    typer.Option(help="Points less similar than this are recomputed.", show_default="the model's"),
]
Size = Annotated[int | None, typer.Option(help="Short side of the network's input in px.", show_default="the model's")]
Correlation = Annotated[
    str | None,
    typer.Option(
        help="Compare with the keyframe at the same position ([bold]paper[/]) or at the best match ([bold]aligned[/]).",
        show_default="the model's",
        callback=one_of("correlation", CORRELATIONS),
        autocompletion=completing(lambda: CORRELATIONS),
    ),
]
KeyframePosition = Annotated[
    str | None,
    typer.Option(
        help="Which frame of an interval is its keyframe: [bold]first[/] (the paper's) or [bold]middle[/].",
        show_default="the model's",
        callback=one_of("keyframe position", KEYFRAME_POSITIONS),
        autocompletion=completing(lambda: KEYFRAME_POSITIONS),
    ),
]
KeyframeCarry = Annotated[
    float | None,
    typer.Option(
        help="How much of the keyframe before a keyframe keeps where both agree, 0 (the paper's) to 1 (steadiest).",
        show_default="the model's",
    ),
]
Latency = Annotated[
    str,
    typer.Option(
        help="[bold]low[/] labels every frame before the next is read, for live input; needs the keyframe first.",
        callback=one_of("latency", LATENCIES),
        autocompletion=completing(lambda: LATENCIES),
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network for this size of video first, which takes minutes; for long videos on GPUs.",
    ),
]
Start = Annotated[
    float | None,
    typer.Option(help="Begin at this time of the video: 90, 1:30, 0:01:30.5 or 1m30s.", parser=seconds, metavar="TIME"),
]
End = Annotated[float | None, typer.Option(help="Stop before this time of the video.", parser=seconds, metavar="TIME")]
MeasureTc = Annotated[bool, typer.Option(help="Measure TC (optical flow), which takes longer than all other scores.")]
Protocol = Annotated[
    str,
    typer.Option(
        help="How VC is counted: [bold]vspw[/] (as published) or [bold]strict[/] (right, void left out).",
        callback=one_of("protocol", PROTOCOLS),
        autocompletion=completing(lambda: PROTOCOLS),
    ),
]
Split = Annotated[str, typer.Option(help="List of videos: <split>.txt.")]
LabelMap = Annotated[
    Path | None,
    typer.Option(help='JSON {"model class": "data set class", …}.', show_default="built in, by the classes' names"),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Score the first videos only.", show_default="all")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out, list and accept what is damaged or missing.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:<number> or mps.", autocompletion=completing(lambda: DEVICES))
]
Precision = Annotated[
    str,
    typer.Option(
        help="auto, fp32, bf16 or fp16 (auto: fp16 on CUDA; bf16 on a CPU where the model's labels stay the same; else "
        "fp32).",
        callback=one_of("precision", PRECISIONS),
        autocompletion=completing(lambda: PRECISIONS),
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
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; warnings and errors only.")]
ResultOnly = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes: the result only.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Say on stderr what is decided, and why.", callback=_explain_decisions),
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        help="Append decisions, warnings and errors to this file, as JSON lines.", callback=_open_log, is_eager=True
    ),
]
