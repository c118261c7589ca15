"""``tfcseg research …``: commands for the paper's tables, model cards and tables of the README."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfcseg.cli import ablate, fitting, held_out, options, publish
from tfcseg.cli.console import one_line
from tfcseg.cli.program import Command

app = typer.Typer(help="Reproduce the paper's tables; measure and publish models.", rich_markup_mode=None)
app.command("ablate", cls=Command)(ablate.command)
app.command("stills", cls=Command)(held_out.stills)
app.command("clips", cls=Command)(held_out.clips)
app.command("calibrate", cls=Command)(fitting.calibrate)
app.command("fit-evidence", cls=Command)(fitting.fit_evidence)
app.command("publish", cls=Command)(publish.command)


@app.command(cls=Command)
def tables(
    root: Annotated[Path, typer.Argument(help="A checkout of the repository.", show_default="here")] = Path(),
) -> None:
    """Update the tables in README.md and assets/*.md.

    Reads assets/results and prints the names of the files that changed.

    Example: tfcseg research tables .
    """
    from tfcseg.research.tables import write_tables

    for path in write_tables(root):
        print(one_line(str(path)))


@app.command(cls=Command)
def average(
    out: Annotated[Path, typer.Argument(help="Weights file to write.", show_default=False)],
    parts: Annotated[
        list[str],
        typer.Argument(metavar="WEIGHTS=SHARE...", help="Files and their shares of the mean.", show_default=False),
    ],
    overwrite: options.Overwrite = False,
) -> None:
    """Average the weights of several training runs.

    The runs must have started from the same model. The card of the result names the files and their shares.

    Example: tfcseg research average mean.safetensors my.safetensors=1
    """
    from tfcseg.files import claimed_files
    from tfcseg.research.average import average_files

    files = [part.rpartition("=")[0] for part in parts]
    with claimed_files(out.parent, [out.name], inputs=files, overwrite=overwrite):
        print(one_line(average_files(out, parts).description))
