"""Print the tables of a benchmark on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tfcseg.cli.console import plain
from tfcseg.cli.results import NOTHING

if TYPE_CHECKING:
    from tfcseg.benchmark.result import Benchmark, Speed
    from tfcseg.benchmark.timing import Spread
    from tfcseg.research.scaling import Scaling


def print_benchmark(result: Benchmark) -> None:
    """Print the results, their conditions, and what was left out."""
    console = Console(highlight=False)
    console.print(plain(_conditions(result)), soft_wrap=True)
    for title, name in (("the network alone", "model_only"), ("file to files", "end_to_end")):
        speeds: Mapping[str, Speed] = getattr(result, name)
        if speeds:
            console.print(_speeds(title, speeds, result.ratios[name]))
    for title, stages in result.stages.items():
        console.print(_stages(title, stages))
    for line in [*_limits(result), *_rest(result)]:
        console.print(plain(line), soft_wrap=True)
    console.print(plain(f"left out: {'; '.join(result.left_out)}"), soft_wrap=True)


def print_scaling(result: Scaling) -> None:
    """Print a row per value and contender."""
    table = _table(result.scaling, ["", "ms per frame", "range", "peak MiB", "GPU MiB"])
    for point in result.points:
        if point.ms_per_frame is None:
            table.add_row(str(point.value), point.contender, plain(str(point.error)))
            continue
        times = point.ms_per_frame
        gpu = NOTHING if point.gpu_peak_mib is None else f"{point.gpu_peak_mib:.0f}"
        numbers = f"{times.median:.1f}", f"{times.low:.1f} to {times.high:.1f}", f"{point.peak_mib:.0f}", gpu
        table.add_row(str(point.value), point.contender, *numbers)
    console = Console(highlight=False)
    console.print(plain(_conditions(result)), soft_wrap=True)
    console.print(table)


def _conditions(result: Benchmark | Scaling) -> str:
    source, network = ("×".join(map(str, reversed(result.resolution[name]))) for name in ("source", "network"))
    threads = f", {result.threads} {'thread' if result.threads == 1 else 'threads'}" if result.device == "cpu" else ""
    weights = " (random weights)" if result.random_weights else ""
    seconds = result.options.get("compile_s")
    compiled = f", compiled in {seconds:.1f} s" if seconds is not None else ""
    workers = result.options["workers"]
    beside = f", {workers} intervals at a time" if workers > 1 else ""
    device = f"{result.device}, {result.precision}{threads}{beside}{compiled}"
    return (
        f"{result.model.name}{weights}, {result.model.classes} classes · {result.input['name']} {source}, "
        f"network {network} · interval {result.options['keyframe_interval']}, {result.options['correlation']} · "
        f"{result.device_name} ({device}), torch {result.versions['torch']}"
    )


def _speeds(title: str, speeds: Mapping[str, Speed], ratios: Mapping[str, float]) -> Table:
    table = _table(title, ["fps", "ms per frame", "range", "to plain", "to image"])
    for name, speed in speeds.items():
        times = speed.ms_per_frame
        to = [ratios.get(f"{name}/{other}") for other in ("plain", "image")]
        ratio = [NOTHING if value is None else f"{value:.2f}×" for value in to]
        table.add_row(name, f"{speed.fps:.2f}", f"{times.median:.1f}", f"{times.low:.1f} to {times.high:.1f}", *ratio)
    return table


def _stages(title: str, stages: Mapping[str, Spread]) -> Table:
    table = _table(title, ["ms per frame", "range"])
    for name, times in stages.items():
        if times.high:
            table.add_row(name, f"{times.median:.2f}", f"{times.low:.2f} to {times.high:.2f}")
    return table


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(f"[bold]{title}[/]")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _limits(result: Benchmark) -> list[str]:
    limits: Mapping[str, Any] = result.limits
    if not limits:
        return []
    lines = [
        f"without a network: decoding {limits['decode_fps'].median:.0f} fps, "
        f"decoding and encoding {limits['decode_encode_fps'].median:.0f} fps",
        f"matrix product: {limits['matrix_gflops_per_s']:.0f} GFLOP/s",
    ]
    for mode, gflops in limits["gflops_per_frame"].items():
        share = limits["share_of_ceiling"].get(mode)
        reached = "" if share is None else f", {share:.0f} % of the matrix product's rate"
        lines.append(f"{mode}: {gflops:.2f} GFLOPs per frame{reached}")
    return lines


def _rest(result: Benchmark) -> list[str]:
    lines = [f"same labels, {pair.replace('|', ' and ')}: {share:.3f} %" for pair, share in result.agreement.items()]
    if result.updated_fraction is not None:
        lines.append(f"points updated between keyframes: {result.updated_fraction:.2f} %")
    for name, share in result.network_share.items():
        lines.append(f"network alone, {name}: {share:.0f} % of the time file to files")
    lines += [f"{part}: {share:.1f} % of the time file to files" for part, share in result.costs.items()]
    for name, memory in result.memory.items():
        gpu = "" if memory.gpu_peak_mib is None else f", GPU {memory.gpu_peak_mib:.0f} MiB"
        lines.append(f"memory, {name}: {memory.peak_mib:.0f} MiB, {memory.before_mib:.0f} before the first frame{gpu}")
    return lines
