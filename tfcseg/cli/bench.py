"""``tfcseg bench``: measure how fast this machine segments, and the memory that it takes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

from tfcseg.benchmark.request import PARTS, Request
from tfcseg.cli import options
from tfcseg.cli.console import measured
from tfcseg.cli.groups import Without, grouped
from tfcseg.errors import UsageError
from tfcseg.model.options import InferenceOptions
from tfcseg.research.tables import benchmark_tables
from tfcseg.weights.device import DeviceOptions

Only = Annotated[list[str] | None, options.some_of("part", PARTS, "Parts to measure.", default=",".join(PARTS))]


@grouped
def command(
    *,
    request: Request,
    choice: options.ModelChoice,
    only: Only = None,
    inference: Annotated[InferenceOptions, Without("mode")],
    device: DeviceOptions,
    file: options.ResultFile,
    printing: options.Printing,
) -> None:
    """Measure the speed of this machine, and memory.

    Takes turns with tfcseg frame by frame, tfcseg with TFC, and, if transformers is installed, plain SegFormer.

    Example: tfcseg bench assets/demo.mp4 --only model --frames 3 --rounds 1
    """
    if request.backbone is not None and choice.model != "default":
        raise UsageError("--backbone uses random weights and --model trained ones; give only one of them")
    from tfcseg.benchmark.measure import measure

    request = replace(request, model=choice.model, parts=only or PARTS, inference=inference, device=device)
    measured(partial(measure, request), benchmark_tables, inputs=[request.video], file=file, printing=printing)
