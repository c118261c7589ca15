"""Options that several commands share: one name, help text, default, check and completion each.

Nothing here loads torch: help and completion must be instant. Functions that parse what users type (times, names …) are
callbacks and parsers of options; typer adds the name of the option to their errors.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from tfcseg.cli.console import print_line, print_warning
from tfcseg.errors import TfcsegError, UsageError, without_passwords
from tfcseg.files import refuse_file_name
from tfcseg.log import DecisionPrinter, JsonLines, listen
from tfcseg.machine import library_versions
from tfcseg.spelling import known_name, words_of

_NUMBER = r"\d{1,9}(?:\.\d{0,9})?|\.\d{1,9}"
_CLOCK = re.compile(rf"(?:(?:(?P<h>\d{{1,9}}):)?(?P<m>\d{{1,9}}):)?(?P<s>{_NUMBER})")
_UNITS = re.compile(rf"(?:(?P<h>{_NUMBER})\s*h)?\s*(?:(?P<m>{_NUMBER})\s*m)?\s*(?:(?P<s>{_NUMBER})\s*s)?")
MAX_PIXELS = 100_000_000
"""Of one frame, as for media."""


def seconds(text: str) -> float:
    """Seconds of a time such as ``90``, ``1:30``, ``0:01:30.5`` or ``1m30s``."""
    typed = text.strip().casefold()
    match = _CLOCK.fullmatch(typed) or _UNITS.fullmatch(typed)
    parts = {unit: Fraction(value) for unit, value in match.groupdict().items() if value} if match else {}
    if not parts or (":" in typed and (parts["s"] >= 60 or ("h" in parts and parts["m"] >= 60))):
        raise typer.BadParameter(f"{text!r} is not a time; give seconds (90.5), 1:30.5, 0:01:30.5 or 1m30.5s")
    return float(3600 * parts.get("h", 0) + 60 * parts.get("m", 0) + parts.get("s", 0))


def frame_rate(text: str) -> Fraction:
    """Frames per second such as ``25``, ``29.97`` or ``30000/1001``, from 1/1000 to 1000."""
    parts = re.fullmatch(rf"({_NUMBER})(?:/({_NUMBER}))?", text.strip())
    per_second, divisor = map(Fraction, parts.groups("1")) if parts else (Fraction(0), Fraction(1))
    rate: Fraction = per_second / divisor if divisor else divisor
    if not Fraction(1, 1000) <= rate <= 1000:
        raise typer.BadParameter(f"{text!r} is not a frame rate; give one such as 25, 29.97 or 30000/1001")
    return rate.limit_denominator(100_000)


def frame_size(text: str) -> tuple[int, int]:
    """(height, width) of frames such as ``1280x720``."""
    parts = re.fullmatch(r"(\d{1,5})\s*[x×*]\s*(\d{1,5})", text.strip().casefold())
    width, height = (int(part) for part in parts.groups()) if parts else (0, 0)
    if not 0 < width * height <= MAX_PIXELS:
        raise typer.BadParameter(f"{text!r} is not a frame size; use WIDTHxHEIGHT, such as 1280x720")
    return height, width


def split_list(values: Sequence[str] | None) -> list[str]:
    """Words of a comma-separated option that may be repeated; empty if it was not given."""
    words = words_of(values or ())
    if values and not words:
        raise typer.BadParameter("the list is empty; leave the option out for its default")
    return words


def whole_numbers(values: Sequence[str] | None) -> list[int]:
    """Parse a comma-separated list of whole numbers, for an option's ``callback``."""
    words = split_list(values)
    for word in words:
        if not re.fullmatch(r"-?\d{1,18}", word):
            raise typer.BadParameter(f"{word!r} is not a whole number; give a list such as 2,4,8")
    return [int(word) for word in words]


def one_of(what: str, known: Sequence[str]) -> Callable[[str | None], str | None]:
    """Make a ``callback`` for one of the ``known`` names; other words raise UsageError with the closest name."""
    return lambda value: None if value is None else known_name(what, value, known)


logger = logging.getLogger(__name__)


def refuse_given(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Raise UsageError, which says ``why`` after its name, for the first of the options that was given."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"--{name.removeprefix('as_').replace('_', '-')} {why}")


def check_range(start: float | None, end: float | None) -> None:
    """Raise UsageError for an empty part of a video."""
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--end {end:g} is not after --start {start:g}")


def completing(known: Sequence[str] | Callable[[], Sequence[str]]) -> Callable[[str], list[str]]:
    """Make an ``autocompletion`` for a word, or the last one of a comma-separated list, among names or what a function
    returns."""

    def complete(incomplete: str) -> list[str]:
        before, comma, word = incomplete.rpartition(",")
        try:
            names = known() if callable(known) else known
            return [f"{before}{comma}{name}" for name in names if name.casefold().startswith(word.casefold())]
        except TfcsegError:  # nothing to offer; the command itself reports the error
            return []

    return complete


def some_of(what: str, known: Sequence[str], help: str, *, default: str) -> Any:
    """Option that takes ``known`` names, one by one or in lists with commas; other words raise UsageError with the
    closest name. ``default`` is shown in help."""

    def found(values: Sequence[str] | None) -> list[str]:
        return [known_name(what, word, known) for word in split_list(values)]

    return typer.Option(help=help, show_default=default, callback=found, autocompletion=completing(known))


def output_to(help: str, default: str = "") -> Any:
    """Option ``--output``; ``default`` is shown in help."""
    return typer.Option("--output", "-o", help=help, show_default=default or False)


def check_weights_name(path: Path, *suffixes: str) -> None:
    """Raise UsageError for a weights file to write that is not named like one; ``suffixes`` are others that may be."""
    known = (".safetensors", *suffixes)
    if path.suffix not in known:
        raise UsageError(f"{str(path)!r} is not a weights file; give a name that ends in {' or '.join(known)}")


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
    return str(find_on_hub(name, allow_network=context.params.get("allow_network", False), notify=print_line))


def _network(help: str) -> Any:
    return typer.Option("--allow-network", help=help, is_eager=True)


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
AllowNetwork = Annotated[bool, _network("Fetch models ORG/NAME from the Hugging Face hub.")]
AllowNetworkForVideos = Annotated[
    bool, _network("Fetch models ORG/NAME from the Hugging Face hub, and read videos at addresses such as https://….")
]
VspwFolder = Annotated[Path, typer.Argument(help="Folder with data/, <split>.txt and label_num_dic_final.json.")]
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
        "--output", "-o", help="Folder for the results.", show_default="<name>_tfcseg", callback=_named_like_a_folder
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, summary or notes: results, warnings and errors only.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Explain decisions on stderr.", callback=_explain_decisions)
]
LogFile = Annotated[
    Path | None,
    typer.Option(
        help="Append decisions, warnings and errors to this file, as JSON lines.", callback=_open_log, is_eager=True
    ),
]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model of a command, and whether it may be fetched."""

    model: Model = "default"
    allow_network: AllowNetwork = False


@dataclass(frozen=True, slots=True)
class Printing:
    """Form and amount of output."""

    as_json: Json = False
    quiet: Quiet = False
    verbose: Verbose = False
    log_file: LogFile = None


@dataclass(frozen=True, slots=True)
class ResultFile:
    """Where a result goes."""

    output: Annotated[Path | None, output_to("Write the result to this file.")] = None
    overwrite: Overwrite = False
