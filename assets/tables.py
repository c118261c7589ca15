"""Update the tables in README.md and assets/*.md from the measurements in assets/results: python assets/tables.py.

A table stands between ``<!-- table: [KIND] FILE... -->`` and ``<!-- end -->``. Kinds are the keys of `TABLES`; without
one, FILE is a compare.json of ``tfcseg compare``. ``speed`` and ``memory`` read results of ``tfcseg bench -o FILE``,
``cost`` a file of prices and then such results, ``gains`` compare.json files, ``steadied`` pairs of ``tfcseg eval
--json`` (masks before and after), ``adapted`` those of ``tfcseg adapt --json``, and the others results of ``tfcseg
research``. The commands print the same tables.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tfcseg.research import tables
from tfcseg.research.tables import Result, bench_conditions, conditions, table

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"(<!-- table: ([^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

CHOSE_SETTINGS = {"camvid_street", "halls"}
"""Inputs on which the shipped weights and settings were chosen."""

COMPARED = (
    ("mIoU", "{miou:.1f}"),
    ("VC8", "{vc8:.1f}"),
    ("VC16", "{vc16:.1f}"),
    ("flow consistency", "{flow_consistency:.2f} %"),
    ("labels changed from frame to frame", "{label_change:.2f} %"),
    ("same labels as `image`", "{agreement:.1f} %"),
    ("points updated between keyframes", "{updated_fraction:.1f} %"),
    ("frames per second, network and labels", "{model_fps:.1f}"),
    ("frames per second, file to files", "{fps:.1f}"),
    ("GFLOPs per frame", "{gflops_per_frame:.2f}"),
)
GAINS = (
    ("mIoU", "{before.miou:.1f} → {after.miou:.1f}"),
    ("VC8", "{before.vc8:.1f} → {after.vc8:.1f}"),
    ("label change, %", "{before.label_change:.2f} → {after.label_change:.2f}"),
    ("flow consistency, %", "{before.flow_consistency:.2f} → {after.flow_consistency:.2f}"),
    ("GFLOPs per frame", "{before.gflops_per_frame:.1f} → {after.gflops_per_frame:.1f}"),
)
COST = (
    ("measured on", "{where}"),
    ("fps, file to files", "{fps:.1f}"),
    ("processor or GPU hours", "{hours:,.0f} {unit} hours"),
    ("price", "{currency} {price:,.0f}"),
)


def each(make: Callable[[Result], str], results: Sequence[Result]) -> str:
    """The tables of several results."""
    return "\n\n".join(map(make, results))


def comparison_table(result: Result) -> str:
    """A column per mode of a compare.json."""
    modes = {f"`{mode}`": scores for mode, scores in result["modes"].items()}
    return table("", COMPARED, modes.items(), columns=True) + "\n\n" + conditions(result)


def gain_table(results: Sequence[Result]) -> str:
    """A row per compare.json, with each score of `image` and of `tfc`; means of the clips of a `research clips`."""
    rows = []
    for result in results:
        is_clips = result.get("kind") == "clips"
        modes = result["results"][0]["mean"] if is_clips else result["modes"]
        name = f"{len(result['clips'])} clips" if is_clips else Path(result["input"]["path"]).name
        frames = sum(clip["frames"] for clip in result["clips"]) if is_clips else result["input"]["frames"]
        chose = "yes" if name in CHOSE_SETTINGS else "**no**"
        rows.append((f"{name}, {frames} frames", {"before": modes["image"], "after": modes["tfc"], "chose": chose}))
    return table("`image` → `tfc`", (*GAINS, ("chose settings?", "{chose:}")), rows)


def steadied_table(results: Sequence[Result]) -> str:
    """A row per pair of evaluations: scores of the masks before and after ``tfcseg steady``."""
    vc16 = ("VC16", "{before.vc16:.1f} → {after.vc16:.1f}")
    rows = [
        (f"{before['dataset']}, {before['frames']} frames", {"before": before, "after": after})
        for before, after in zip(results[::2], results[1::2], strict=True)
    ]
    return table("before → after", (*GAINS[:2], vc16, *GAINS[2:]), rows)


def speed_table(results: Sequence[Result]) -> str:
    """A row per contender of every benchmark: speeds, and ratios to `image` and plain."""
    return f"{tables.speed_table(results)}\n\n{bench_conditions(results)}"


def memory_table(results: Sequence[Result]) -> str:
    """A row per contender, a column per benchmark: peak memory of the process and of the GPU, in MiB."""
    return f"{tables.memory_table(results)}\n\n{bench_conditions(results)}"


def cost_table(results: Sequence[Result]) -> str:
    """A row per benchmark and mode: the price of hours of video; the first of ``results`` has the prices.

    Processors are paid per core and hour, with a core per thread of the benchmark; GPUs per hour.
    """
    prices, *benches = results
    rows = []
    for bench in benches:
        is_gpu = bench["device"].startswith("cuda")
        cores, unit = (1, "GPU") if is_gpu else (bench["threads"], "core")
        height, width = bench["resolution"]["source"]
        where = f"{bench['device_name']}{'' if is_gpu else f', {cores} cores'}, {width}×{height}"
        for mode in (mode for mode in ("image", "tfc") if mode in bench["end_to_end"]):
            fps = bench["end_to_end"][mode]["fps"]
            hours = prices["hours"] * prices["frame_rate"] / fps * cores
            cost = {"hours": hours, "unit": unit, "price": hours * prices["gpu_hour" if is_gpu else "core_hour"]}
            title = f"{bench['model']['name']}, `{mode}`, {bench['precision']}"
            rows.append((title, prices | cost | {"where": where, "fps": fps}))
    stated = (
        f"{prices['hours']:,} hours of video at {prices['frame_rate']} frames per second, at "
        f"{prices['currency']} {prices['core_hour']:g} per core and hour"
    )
    if any(bench["device"].startswith("cuda") for bench in benches):
        stated += f" and {prices['currency']} {prices['gpu_hour']:g} per GPU and hour"
    return f"{table('', COST, rows)}\n\n{stated} ({prices['source']})."


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "gains": gain_table,
    "steadied": steadied_table,
    "adapted": partial(each, tables.adapted_table),
    "speed": speed_table,
    "memory": memory_table,
    "cost": cost_table,
    "stills": partial(each, tables.still_table),
    "clips": partial(each, tables.clip_table),
    "means": tables.clip_means_table,
    "ablation": partial(each, tables.ablation_table),
}


def with_tables(text: str, root: Path = ROOT) -> str:
    """Update every marked table in ``text`` from the results below ``root``."""

    def update(match: re.Match[str]) -> str:
        words = match[2].split()
        make = TABLES[words.pop(0)] if words[0] in TABLES else partial(each, comparison_table)
        results = [json.loads((root / word).read_text(encoding="utf-8")) for word in words]
        return f"{match[1]}\n{make(results)}\n\n{match[3]}"

    return MARKED.sub(update, text)


def main() -> None:
    """Update all documents, and print the names of those that changed."""
    for document in [ROOT / "README.md", *sorted((ROOT / "assets").glob("*.md"))]:
        before = document.read_text(encoding="utf-8")
        after = with_tables(before)
        if after != before:
            document.write_text(after, encoding="utf-8")
            print(document)


if __name__ == "__main__":
    main()
