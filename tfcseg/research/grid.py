"""Markdown tables of things by templates.

A thing has a name and an object with numbers; a template has a title and a cell's text, which names numbers of the
object. A cell whose numbers were not measured is a dash; rows and columns of dashes alone are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

NOTHING = "–"


class _NotMeasuredError(Exception):
    """A template names a number that is missing."""


class _Numbers(Formatter):
    """Fills in ``{keys.of.nested.objects:.1f}``."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        value: Any = kwargs
        for key in field_name.split("."):
            value = (value or {}).get(key)
        if value is None:
            raise _NotMeasuredError
        return value, field_name


def cell(template: str, numbers: Mapping[str, Any]) -> str:
    """The template with its numbers, or a dash if one of them is missing."""
    try:
        return _Numbers().vformat(template, (), numbers)
    except _NotMeasuredError:
        return NOTHING


def table(
    corner: str,
    templates: Iterable[tuple[str, str]],
    things: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    columns: bool = False,
) -> str:
    """Markdown table with a row per thing and a column per template, or the other way round with ``columns``.

    Templates without a format (``{name}``) make columns of text, aligned to the left. ``|`` in a text is escaped.
    """
    titles, texts = zip(*templates, strict=True)
    names, objects = zip(*((_escaped(name), numbers) for name, numbers in things), strict=True)
    cells = [[_escaped(cell(text, numbers)) for text in texts] for numbers in objects]
    heads, sides, grid = (names, titles, list(zip(*cells, strict=True))) if columns else (titles, names, cells)
    kept = [at for at, column in enumerate(zip(*grid, strict=True)) if set(column) - {NOTHING}]
    rulers = ["---:" if columns or ":" in texts[at] else "---" for at in kept]
    lines = ["| " + " | ".join([corner, *(heads[at] for at in kept)]).strip() + " |", f"|---|{'|'.join(rulers)}|"]
    lines += [
        f"| {side} | {' | '.join(row[at] for at in kept)} |"
        for side, row in zip(sides, grid, strict=True)
        if set(row) - {NOTHING}
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
