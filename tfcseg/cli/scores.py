"""Print tables of scores on stdout, and fail if data was missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from tfcseg.cli.console import print_error
from tfcseg.cli.results import device_of, new_table, number, print_results, size_of
from tfcseg.model.options import keyframe_distance

if TYPE_CHECKING:
    from tfcseg.comparison.result import Comparison, Metric
    from tfcseg.evaluation.result import Evaluation


def fail_if_incomplete(skipped: Mapping[str, int], *, is_incomplete: bool, skip_bad: bool) -> None:
    """Exit with code 1 if data was missing without --skip-bad. The scores have been printed before."""
    if is_incomplete and not skip_bad:
        missing = ", ".join(f"{kind} ({count})" for kind, count in skipped.items() if kind != "too short")
        print_error(f"some data could not be scored: {missing}; --skip-bad accepts this")
        raise typer.Exit(1)


def print_evaluation(result: Evaluation, name: str) -> None:
    """Print the scores of data set ``name``. VC is shown with the mIoU, since it means little without it."""
    table = new_table(["", "predictable\nclasses", "all\nclasses"])
    table.add_row("mIoU", number(result.miou, 2), number(result.miou_all, 2))
    table.add_row("wIoU", number(result.wiou, 2), number(result.wiou_all, 2))
    table.add_row("pixel accuracy", number(result.pixel_accuracy, 2), number(result.pixel_accuracy_all, 2))
    table.add_row("classes counted", str(result.classes_counted), str(result.classes_counted_all))
    table.add_row()
    table.add_row("", "[bold]8 frames[/]", "[bold]16 frames[/]")
    table.add_row(f"VC at mIoU {number(result.miou, 2)}", number(result.vc8, 2), number(result.vc16, 2))
    table.add_row("windows counted", *(str(windows.counted) for windows in result.windows.values()))
    table.add_row("windows dropped", *(str(windows.dropped) for windows in result.windows.values()))
    table.add_row()
    table.add_row("flow consistency along optical flow", number(result.flow_consistency, 2))
    table.add_row("label change per frame", number(result.label_change, 2))
    table.add_row("videos scored", str(result.videos))
    table.add_row("frames scored", str(result.frames))
    for kind, count in result.skipped_by_kind.items():
        table.add_row(f"left out: {kind}", str(count))
    table.add_row("fps end to end", number(result.speed.fps))
    table.add_row("fps model only", number(result.speed.model_fps))
    print_results(f"{name} · {result.split} · {result.mode} · protocol {result.protocol}", table)


def print_comparison(result: Comparison) -> None:
    """Print a column per mode, and one that compares a pair: ratios, or differences of percentages."""
    from tfcseg.comparison.result import METRICS

    candidate, reference = result.ratio_of
    titles = {mode: mode for mode in result.modes} | ({"image": "baseline"} if result.options["baseline"] else {})
    pair = [f"{candidate} to {titles[reference]}"] if candidate != reference else []
    table = new_table(["", *titles.values(), *pair])
    for metric in METRICS:
        values = {mode: numbers.get(metric.key) for mode, numbers in result.modes.items()}
        if all(value is None for value in values.values()):
            continue
        cells = [number(value, metric.digits) for value in values.values()]
        if pair:
            cells.append(_step(metric, values[candidate], values[reference]))
        title = metric.title.format(reference=titles[reference])
        table.add_row(f"{title} (%)" if metric.is_percentage else title, *cells)
    resolution, interval = size_of(result.resolution["network"]), keyframe_distance(result.options)
    print_results(f"{result.model.name} at {resolution} · interval {interval} · {device_of(result)}", table)


def _step(metric: Metric, candidate: float | None, reference: float | None) -> str:
    """From the reference to the candidate: ``+1.23`` for percentages, ``1.23×`` for quantities."""
    if candidate is None or reference is None:
        return ""
    if metric.is_percentage:
        return f"{candidate - reference:+.{metric.digits}f}"
    return f"{candidate / reference:.2f}×" if reference else ""
