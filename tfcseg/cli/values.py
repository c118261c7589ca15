"""Parse what users type after an option: times, lists and names in all common forms.

These functions are option callbacks and parsers; typer adds the option's name to their errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeAlias

import typer

from tfcseg.spelling import known_name, words_of

_NUMBER = r"\d{1,9}(?:[.,]\d{1,9}|\.)?|[.,]\d{1,9}"
_FORMS = (
    re.compile(rf"(?P<s>{_NUMBER})"),
    re.compile(rf"(?:(?P<h>\d{{1,9}}):)?(?P<m>\d{{1,9}}):(?P<s>{_NUMBER})"),
    re.compile(
        rf"(?:pt)?(?:(?P<h>{_NUMBER})\s*(?:h|hours?))?\s*(?:(?P<m>{_NUMBER})\s*(?:m|min|minutes?))?\s*"
        rf"(?:(?P<s>{_NUMBER})\s*(?:s|sec|seconds?))?\s*(?:(?P<ms>{_NUMBER})\s*ms)?"
    ),
)
MAX_PIXELS = 100_000_000
"""Of one frame, as for media."""

Known: TypeAlias = Sequence[str] | Callable[[], Sequence[str]]
"""Names, or what finds them."""

_UNIT_S = {"h": Fraction(3600), "m": Fraction(60), "s": Fraction(1), "ms": Fraction(1, 1000)}


def seconds(text: str) -> float:
    """Seconds of a time such as ``90``, ``1:30``, ``0:01:30.5``, ``00:01:30,500``, ``1m30s`` or ``1.5 min``."""
    typed = text.strip().casefold()
    match = next((match for form in _FORMS if (match := form.fullmatch(typed))), None)
    parts = {unit: _number(value) for unit, value in (match.groupdict() if match else {}).items() if value}
    if not parts or (":" in typed and (parts["s"] >= 60 or ("h" in parts and parts["m"] >= 60))):
        raise typer.BadParameter(f"{text!r} is not a time; give seconds (90.5), 1:30.5, 0:01:30.5 or 1m30.5s")
    return float(sum(_UNIT_S[unit] * value for unit, value in parts.items()))


def frame_rate(text: str) -> Fraction:
    """Frames per second such as ``25``, ``29.97`` or ``30000/1001``, from 1/1000 to 1000."""
    parts = re.fullmatch(rf"({_NUMBER})(?:/({_NUMBER}))?", text.strip())
    per_second, divisor = map(_number, parts.groups("1")) if parts else (Fraction(0), Fraction(1))
    rate: Fraction = per_second / divisor if divisor else divisor
    if not Fraction(1, 1000) <= rate <= 1000:
        raise typer.BadParameter(f"{text!r} is not a frame rate; give one such as 25, 29.97 or 30000/1001")
    return rate.limit_denominator(100_000)


def frame_size(text: str, least: int = 1) -> tuple[int, int]:
    """(height, width) of frames such as ``1280x720``, both of ``least`` pixels or more."""
    parts = re.fullmatch(r"(\d{1,5})\s*[x×*]\s*(\d{1,5})", text.strip().casefold())
    width, height = (int(part) for part in parts.groups()) if parts else (0, 0)
    if min(width, height) < least or width * height > MAX_PIXELS:
        raise typer.BadParameter(f"{text!r} is not a frame size; use WIDTHxHEIGHT, such as 1280x720")
    return height, width


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", ".").rstrip("."))


def split_list(values: Sequence[str] | None) -> list[str]:
    """Words of a comma-separated option that may be repeated; empty if it was not given."""
    words = words_of(values or ())
    if values and not words:
        raise typer.BadParameter("the list is empty; leave the option out for its default")
    return words


def names_in(known: Known) -> Sequence[str]:
    """The names themselves."""
    return known() if callable(known) else known


def list_of(what: str, known: Known) -> Callable[[Sequence[str] | None], list[str]]:
    """Make a ``callback`` for lists of ``known`` names; other words raise UsageError with the closest names."""
    return lambda values: [known_name(what, word, names_in(known)) for word in split_list(values)]


def whole_numbers(values: Sequence[str] | None) -> list[int]:
    """Parse a comma-separated list of whole numbers, for an option's ``callback``."""
    words = split_list(values)
    for word in words:
        if not re.fullmatch(r"-?\d{1,18}", word):
            raise typer.BadParameter(f"{word!r} is not a whole number; give a list such as 2,4,8")
    return [int(word) for word in words]


def one_of(what: str, known: Sequence[str]) -> Callable[[str | None], str | None]:
    """Make a ``callback`` for one of the ``known`` names; other words raise UsageError with the closest names."""
    return lambda value: None if value is None else known_name(what, value, known)
