"""``tfcseg research …``: what makes the paper's tables, our models' cards and the tables of the README."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfcseg.cli import ablate, fitting, held_out, publish
from tfcseg.cli.console import one_line

app = typer.Typer(help="Make the paper's tables, models and their cards.", rich_markup_mode="rich")
app.command("ablate")(ablate.command)
app.command("stills")(held_out.stills)
app.command("clips")(held_out.clips)
app.command("calibrate")(fitting.calibrate)
app.command("fit-evidence")(fitting.fit_evidence)
app.command("publish")(publish.command)


@app.command()
def tables(
    root: Annotated[Path, typer.Argument(help="A copy of the repository.", show_default="here")] = Path(),
) -> None:
    """Write the tables of README.md and assets/*.md anew from assets/results; prints the files that changed.

    Example: tfcseg research tables .
    """
    from tfcseg.research.tables import write_tables

    for path in write_tables(root):
        print(one_line(str(path)))


@app.command()
def average(
    out: Annotated[Path, typer.Argument(help="Weights file to write.", show_default=False)],
    parts: Annotated[list[str], typer.Argument(metavar="WEIGHTS=SHARE...", show_default=False)],
) -> None:
    """Average the weights of runs that started from the same model.

    Example: tfcseg research average mean.safetensors best.safetensors=1
    """
    from tfcseg.research.average import average_files

    average_files(out, parts)
