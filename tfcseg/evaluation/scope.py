"""Options of scoring a VSPW folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tfcseg.options import Option

PROTOCOLS = ("vspw", "strict")


@dataclass(frozen=True, slots=True)
class Scope:
    """The videos of a VSPW folder that are scored, and how."""

    split: Annotated[str, Option("Videos to use: those listed in <split>.txt.")] = "val"
    protocol: Annotated[
        str,
        Option(
            "How VC is computed: vspw (as published) or strict (labels must be right; void is left out).",
            choices=PROTOCOLS,
        ),
    ] = "vspw"
    label_map: Annotated[
        Path | None,
        Option('JSON file {"model class": "data set class", …}.', default_text="built in, by the classes' names"),
    ] = None
    limit: Annotated[int | None, Option("Use only this many videos.", low=1, default_text="all")] = None
    skip_bad: Annotated[bool, Option("Skip damaged or missing data instead of failing, and list it.")] = False
