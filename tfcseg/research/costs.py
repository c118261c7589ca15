"""What hours of video cost, from measured speeds and stated prices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CONTENDERS = ("image", "tfc")
"""Modes of a bench-*.json that are worth paying for."""


def cost_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per bench-*.json and mode, from the speed file to files; the first of ``results`` states the prices.

    A processor is paid by core and hour, as many cores as the benchmark had threads; a GPU by the hour.
    """
    prices, *benches = results
    lines = [
        "| | measured on | fps, file to files | processor or GPU hours | price |",
        "|---|---|---:|---:|---:|",
    ]
    for bench in benches:
        for mode in (mode for mode in CONTENDERS if mode in bench["end_to_end"]):
            fps = bench["end_to_end"][mode]["fps"]
            height, width = bench["resolution"]["source"]
            is_gpu = bench["device"].startswith("cuda")
            busy_hours = prices["hours"] * prices["frame_rate"] / fps
            hours = busy_hours if is_gpu else busy_hours * bench["threads"]
            price = hours * prices["gpu_hour" if is_gpu else "core_hour"]
            unit = "GPU hours" if is_gpu else "core hours"
            where = bench["device_name"] if is_gpu else f"{bench['device_name']}, {bench['threads']} cores"
            cells = (
                f"{bench['model']['name']}, `{mode}`, {bench['precision']}",
                f"{where}, {width}×{height}",
                f"{fps:.1f}",
                f"{hours:,.0f} {unit}",
                f"{prices['currency']} {price:,.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    stated = (
        f"{prices['hours']:,} hours of video at {prices['frame_rate']} frames per second, at "
        f"{prices['currency']} {prices['core_hour']:g} per core and hour"
    )
    if any(bench["device"].startswith("cuda") for bench in benches):
        stated += f" and {prices['currency']} {prices['gpu_hour']:g} per GPU and hour"
    return "\n".join(lines) + f"\n\n{stated} ({prices['source']}).\n"
