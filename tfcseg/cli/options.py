"""Option aliases that several commands share: one name, one help text, one default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option("--model", "-m", help="Name of a shipped model (see [bold]tfcseg models[/]) or a weights file.")
]
Mode = Annotated[
    str,
    typer.Option(help="[bold]tfc[/], [bold]reuse[/] (keyframe reuse alone) or [bold]image[/] (every frame by itself)."),
]
KeyframeInterval = Annotated[
    int | None, typer.Option(help="Every n-th frame is a keyframe.", show_default="the model's, 4")
]
Threshold = Annotated[
    float | None,
    typer.Option(help="Points less similar than this are recomputed.", show_default="the model's, 0.8"),
]
Size = Annotated[
    int | None, typer.Option(help="Short side of the network's input in px.", show_default="the model's, 480")
]
Correlation = Annotated[
    str | None,
    typer.Option(
        help="Compare with the keyframe at the same position ([bold]paper[/]) or at the best match ([bold]aligned[/]).",
        show_default="the model's",
    ),
]
KeyframePosition = Annotated[
    str | None,
    typer.Option(
        help="Which frame of an interval is its keyframe: [bold]first[/] (the paper's) or [bold]middle[/].",
        show_default="the model's",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:<number> or mps.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 (auto: fp16 on CUDA, else fp32).")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for the results.", show_default="<name>_tfcseg")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier run.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary; warnings and errors only.")]
