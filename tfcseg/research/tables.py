"""Update the tables in README.md and assets/*.md from the measurements in assets/results.

A table stands between ``<!-- table: [KIND] FILE... -->`` and ``<!-- end -->``. Kinds are the keys of `TABLES`; without
one, FILE is a compare.json of ``tfcseg compare``. ``speed``, ``breakdown``, ``limits`` and ``memory`` read results of
``tfcseg bench -o FILE``, ``cost`` a file of prices and then such results, ``scaling`` those of ``tfcseg bench
--scaling``, ``gains`` compare.json files, and the others results of ``tfcseg research``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeAlias

from tfcseg.errors import DataError
from tfcseg.model.options import keyframe_distance

Result: TypeAlias = dict[str, Any]
"""Content of a result file."""

MARKED = re.compile(r"(<!-- table: ([^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
NOTHING = "–"

CHOSE_SETTINGS = {"camvid_street", "halls"}
"""Inputs on which the shipped weights and settings were chosen."""

COMPARED = {
    "mIoU": ("miou", "{:.1f}"),
    "VC8": ("vc8", "{:.1f}"),
    "VC16": ("vc16", "{:.1f}"),
    "flow consistency": ("flow_consistency", "{:.2f} %"),
    "labels changed from frame to frame": ("label_change", "{:.2f} %"),
    "same labels as `image`": ("agreement", "{:.1f} %"),
    "points updated between keyframes": ("updated_fraction", "{:.1f} %"),
    "frames per second, network and labels": ("model_fps", "{:.1f}"),
    "frames per second, file to files": ("fps", "{:.1f}"),
    "GFLOPs per frame": ("gflops_per_frame", "{:.2f}"),
}
GAINS = {
    "mIoU": ("miou", "{:.1f}"),
    "VC8": ("vc8", "{:.1f}"),
    "label change, %": ("label_change", "{:.2f}"),
    "flow consistency, %": ("flow_consistency", "{:.2f}"),
    "GFLOPs per frame": ("gflops_per_frame", "{:.1f}"),
}
LIMITS = {
    "decoding alone, frames per second": ("limits decode_fps median", "{:.0f}"),
    "decoding and encoding without a network, frames per second": ("limits decode_encode_fps median", "{:.0f}"),
    "large matrix product, GFLOP/s": ("limits matrix_gflops_per_s", "{:.0f}"),
    "GFLOPs per frame, plain": ("limits gflops_per_frame plain", "{:.1f}"),
    "GFLOPs per frame, `image`": ("limits gflops_per_frame image", "{:.1f}"),
    "GFLOPs per frame, `tfc`": ("limits gflops_per_frame tfc", "{:.1f}"),
    "share of the matrix product's rate, `image`": ("limits share_of_ceiling image", "{:.0f} %"),
    "share of the matrix product's rate, `tfc`": ("limits share_of_ceiling tfc", "{:.0f} %"),
    "time of the network alone to that file to files, `image`": ("network_share image", "{:.0f} %"),
    "time of the network alone to that file to files, `tfc`": ("network_share tfc", "{:.0f} %"),
    "flow consistency's share of the time file to files": ("costs flow_consistency", "{:.0f} %"),
    "masks' share of the time file to files": ("costs masks", "{:.0f} %"),
    "share of both": ("costs flow_consistency|and|masks", "{:.0f} %"),
}
SCORES = {"miou": "mIoU", "vc8": "VC8", "vc16": "VC16"}
MARKS = {"agrees": "✓", "differs": "✗", "unclear": "~"}
CLIP_SCORES = {
    "flow consistency": "flow_consistency",
    "labels changed": "label_change",
    "VC8": "vc8",
    "VC16": "vc16",
    "same as the teachers": "agreement",
}
AROUND = "around the network"
"""Name of the steps besides the network in a bench-*.json, which are the same for all contenders."""


def _per_result(make: Callable[[Result], str]) -> Callable[[Sequence[Result]], str]:
    """Make a function that joins the tables of several results."""

    @wraps(make)
    def tables(results: Sequence[Result]) -> str:
        return "\n\n".join(map(make, results)) + "\n"

    return tables


@_per_result
def comparison_table(result: Result) -> str:
    """A column per mode of a compare.json."""
    modes = result["modes"]
    rows = [(title, [_cell(each.get(key), form) for each in modes.values()]) for title, (key, form) in COMPARED.items()]
    return _table(["", *(f"`{mode}`" for mode in modes)], rows) + "\n\n" + _conditions(result)


def gain_table(results: Sequence[Result]) -> str:
    """A row per compare.json, with each score of `image` and of `tfc`; means of the clips of a `research clips`."""
    rows = []
    for result in results:
        is_clips = result.get("kind") == "clips"
        modes = result["results"][0]["mean"] if is_clips else result["modes"]
        before, after = modes["image"], modes["tfc"]
        name = f"{len(result['clips'])} clips" if is_clips else Path(result["input"]["path"]).name
        frames = sum(clip["frames"] for clip in result["clips"]) if is_clips else result["input"]["frames"]
        cells = [
            NOTHING if before.get(key) is None else f"{form.format(before[key])} → {form.format(after[key])}"
            for key, form in GAINS.values()
        ]
        cells.append("yes" if name in CHOSE_SETTINGS else "**no**")
        rows.append((f"{name}, {frames} frames", cells))
    return _table(["`image` → `tfc`", *GAINS, "chose settings?"], rows) + "\n"


def speed_table(results: Sequence[Result]) -> str:
    """A row per contender of every benchmark: speeds, and ratios to `image` and plain."""
    titles = ["", "fps, network and labels", "to `image`", "to plain", "fps, file to files", "to `image`", "to plain"]
    rows = []
    for result in results:
        for contender in reversed(result["model_only"] or result["end_to_end"]):
            cells = []
            for part in ("model_only", "end_to_end"):
                ratios = result["ratios"].get(part, {})
                cells.append(_cell(result[part].get(contender, {}).get("fps"), "{:.2f}"))
                cells += [_cell(ratios.get(f"{contender}/{other}"), "{:.2f}×") for other in ("image", "plain")]
            rows.append((f"{_model_name(result)}, {_contender_name(result, contender)}", cells))
    return _table(titles, rows) + "\n\n" + _bench_conditions(results)


def breakdown_table(results: Sequence[Result]) -> str:
    """A row per step, a column per benchmark and contender: medians in milliseconds per frame."""
    columns = {}
    for result in results:
        for mode in (mode for mode in result["breakdown"] if mode != AROUND):
            columns[f"{_model_name(result)}, {_mode(mode)}"] = {
                **result["breakdown"][mode],
                **result["breakdown"].get(AROUND, {}),
            }
    rows = [
        (step, [_cell(steps.get(step, {}).get("median") or None, "{:.1f}") for steps in columns.values()])
        for step in _distinct(step for steps in columns.values() for step in steps)
    ]
    return _table(["ms per frame", *columns], rows) + "\n\n" + _bench_conditions(results)


def limit_table(results: Sequence[Result]) -> str:
    """Limits of the machine, and the cost of parts of a run."""
    rows = [
        (title, [_cell(_look_up(result, path), form) for result in results]) for title, (path, form) in LIMITS.items()
    ]
    return _table(["", *map(_model_name, results)], rows) + "\n\n" + _bench_conditions(results)


def memory_table(results: Sequence[Result]) -> str:
    """A row per contender, a column per benchmark: peak memory of the process and of the GPU, in MiB."""
    rows = [
        (title, [_cell(result["memory"].get(contender, {}).get(key), "{:.0f}") for result in results])
        for contender in _distinct(name for result in results for name in result["memory"])
        for title, key in ((_mode(contender), "peak_mib"), (f"{_mode(contender)}, on the GPU", "gpu_peak_mib"))
    ]
    return _table(["peak memory, MiB", *map(_model_name, results)], rows) + "\n\n" + _bench_conditions(results)


def cost_table(results: Sequence[Result]) -> str:
    """A row per benchmark and mode: the price of hours of video; the first of ``results`` has the prices.

    Processors are paid per core and hour, with a core per thread of the benchmark; GPUs per hour.
    """
    prices, *benches = results
    rows = []
    for bench in benches:
        is_gpu = bench["device"].startswith("cuda")
        cores, unit = (1, "GPU") if is_gpu else (bench["threads"], "core")
        where = bench["device_name"] + ("" if is_gpu else f", {cores} cores")
        height, width = bench["resolution"]["source"]
        for mode in (mode for mode in ("image", "tfc") if mode in bench["end_to_end"]):
            fps = bench["end_to_end"][mode]["fps"]
            hours = prices["hours"] * prices["frame_rate"] / fps * cores
            price = hours * prices["gpu_hour" if is_gpu else "core_hour"]
            cells = (f"{where}, {width}×{height}", f"{fps:.1f}", f"{hours:,.0f} {unit} hours")
            title = f"{bench['model']['name']}, `{mode}`, {bench['precision']}"
            rows.append((title, [*cells, f"{prices['currency']} {price:,.0f}"]))
    stated = (
        f"{prices['hours']:,} hours of video at {prices['frame_rate']} frames per second, at "
        f"{prices['currency']} {prices['core_hour']:g} per core and hour"
    )
    if any(bench["device"].startswith("cuda") for bench in benches):
        stated += f" and {prices['currency']} {prices['gpu_hour']:g} per GPU and hour"
    titles = ["", "measured on", "fps, file to files", "processor or GPU hours", "price"]
    table = _table(titles, rows).replace("|---|---:|", "|---|---|", 1)  # the second column is text
    return f"{table}\n\n{stated} ({prices['source']}).\n"


@_per_result
def scaling_table(result: Result) -> str:
    """A row per value: milliseconds per frame and peak memory of every contender."""
    names = _distinct(point["contender"] for point in result["points"])
    rows = []
    for value in _distinct(point["value"] for point in result["points"]):
        points = {point["contender"]: point for point in result["points"] if point["value"] == value}
        rows.append((f"{value:,}", [_growth(points.get(name)) for name in names]))
    titles = [result["unit"], *(f"{_mode(name)}: ms per frame, peak MiB" for name in names)]
    return _table(titles, rows) + "\n\n" + _conditions(result)


@_per_result
def ablation_table(result: Result) -> str:
    """A row per step of the method: our scores, the paper's, and whether they changed in the same way.

    Only ours, if no step is one of the paper's.
    """
    own_titles = ["", *SCORES.values(), "updated"]
    titles = [*own_titles, *(f"paper: {score}" for score in SCORES.values()), "like the paper"]
    rows = []
    for row in result["rows"]:
        directions = ", ".join(f"{SCORES[key]} {MARKS[found]}" for key, found in row["directions"].items())
        ours = [_cell(row[key], "{:.1f}") for key in SCORES]
        theirs = [_cell(row["paper"].get(key), "{:.1f}") for key in SCORES]
        cells = [*ours, _cell(row["updated_fraction"], "{:.1f} %"), *theirs, directions or NOTHING]
        rows.append((row["title"], cells))
    found = [direction for row in result["rows"] for direction in row["directions"].values()]
    if not found:
        own = [(title, cells[: len(own_titles) - 1]) for title, cells in rows]
        return _table(own_titles, own) + f"\n\n{_ablation_conditions(result)}"
    agree, differ, unclear = map(found.count, MARKS)
    summary = (
        f"Of {len(found)} steps {agree} changed as in the paper (✓), {differ} in the other direction (✗); "
        f"{unclear} are unclear (~), since one of the two changed by less than 0.1."
    )
    return _table(titles, rows) + f"\n\n{summary} {_ablation_conditions(result)}"


@_per_result
def similarity_table(result: Result) -> str:
    """A row per threshold: points below it, and how well this predicts changes of labels."""
    scores = next(row["similarity"] for row in result["rows"] if row["name"] == "tfc")
    keys = ("below", "accuracy", "precision", "recall")
    rows = [(f"{mask['threshold']:g}", [_cell(mask[key], "{:.1f} %") for key in keys]) for mask in scores["thresholds"]]
    titles = ["similarity below", "points", "predicted correctly", "precision of changes", "recall of changes"]
    rule = f"The label changed at {_cell(scores['changed'], '{:.1f} %')} of the points with ground truth."
    return _table(titles, rows) + f"\n\n{rule} {_ablation_conditions(result)}"


@_per_result
def still_table(result: Result) -> str:
    """A table per vocabulary, a row per network: mIoU on every set, the mean, and its share of the best teacher's."""
    sets = result["sets"]
    tables = []
    for vocabulary in _distinct(each["network"]["label_set"] for each in result["networks"]):
        titles = [f"{each['name']} ({len(each['classes'][vocabulary])})" for each in sets]
        rows = []
        for each in result["networks"]:
            network, scores = each["network"], [each["scores"][own["name"]][vocabulary] for own in sets]
            cells = [_cell(score["miou"] if score["is_complete"] else None, "{:.1f}") for score in scores]
            cells.append(_cell(each["mean"][vocabulary], "{:.1f}"))
            cells.append(_cell(each["to_best_teacher"].get(vocabulary), "{:.0f} %"))
            rows.append((f"`{network['name']}`" + (", a teacher" if network["role"] == "teacher" else ""), cells))
        tables.append(_table([f"mIoU, classes of `{vocabulary}`", *titles, "mean", "of the best teacher"], rows))
    shown = ", ".join(f"{each['stills']} of {each['name']}" for each in sets)
    inputs = _distinct(f"{each['network']['role']}s: {each['network']['input']}" for each in result["networks"])
    note = f"Stills: {shown}. In brackets: classes that occur there. {'; '.join(inputs)}."
    return "\n\n".join([*tables, note])


@_per_result
def clip_table(result: Result) -> str:
    """A table per model and mode, a row per clip: each score in the first mode and in this one."""
    first, *others = result["modes"]
    return "\n\n".join(
        _clip_rows(result, scores, first, mode) + "\n\n" + _clip_conditions(result)
        for scores in result["results"]
        for mode in others
    )


def _clip_rows(result: Result, scores: Result, first: str, mode: str) -> str:
    shown = {title: key for title, key in CLIP_SCORES.items() if scores["mean"][first].get(key) is not None}

    def steps(numbers: Result) -> list[str]:
        before, after = numbers[first], numbers[mode]
        return [f"{_cell(before.get(key), '{:.2f}')} → {_cell(after.get(key), '{:.2f}')}" for key in shown.values()]

    change = scores["changes"][mode]
    rows = [(clip["name"], [str(clip["frames"]), *steps(scores["clips"][clip["name"]])]) for clip in result["clips"]]
    rows.append(("**mean**", ["", *steps(scores["mean"])]))
    rows.append(("**gain**", ["", *(_cell(change["gain"].get(key), "{:+.2f}") for key in shown.values())]))
    better = [f"{change['better'].get(key, 0)} of {len(result['clips'])}" for key in shown.values()]
    rows.append(("**better on**", ["", *better]))
    return _table([f"`{scores['name']}`, `{first}` → `{mode}`", "frames", *shown], rows)


def clip_means_table(results: Sequence[Result]) -> str:
    """A row per file and mode: means over clips, which are the same in all files."""
    first = results[0]["results"][0]["mean"][results[0]["modes"][0]]
    shown = {title: key for title, key in CLIP_SCORES.items() if first.get(key) is not None}
    rows = [
        (
            f"`{mode}`",
            [
                keyframe_distance(options),
                *(_cell(scores["mean"][mode].get(key), "{:.2f}") for key in shown.values()),
            ],
        )
        for result in results
        for scores in result["results"]
        for mode, options in scores["options"].items()
    ]
    clips = ", ".join(clip["name"] for clip in results[0]["clips"])
    note = f"Means over {clips}. {_clip_conditions(results[0])}"
    return _table(["mode", "keyframe every", *shown], rows) + f"\n\n{note}\n"


def _clip_conditions(result: Result) -> str:
    teachers = result["teachers"]
    by = f" VC by labels of {', '.join(f'`{name}`' for name in teachers)}, averaged over time." if teachers else ""
    return (
        f"The first {result['first_s']:g} s of each clip, at most {result['max_frames']} frames; all in percent. "
        f"Flow consistency along {result['optical_flow']}.{by}"
    )


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "gains": gain_table,
    "speed": speed_table,
    "breakdown": breakdown_table,
    "limits": limit_table,
    "memory": memory_table,
    "cost": cost_table,
    "scaling": scaling_table,
    "stills": still_table,
    "clips": clip_table,
    "means": clip_means_table,
    "ablation": ablation_table,
    "similarity": similarity_table,
}


def documents(root: Path) -> list[Path]:
    """Files with tables in a checkout of the repository."""
    return [root / "README.md", *sorted((root / "assets").glob("*.md"))]


def write_tables(root: Path) -> list[Path]:
    """Update the tables in all documents; returns those that changed. DataError if ``root`` is not a checkout."""
    changed = []
    try:
        for document in documents(root):
            before = document.read_text(encoding="utf-8")
            after = with_tables(before, root)
            if after != before:
                document.write_text(after, encoding="utf-8")
                changed.append(document)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; give a checkout of the repository") from error
    return changed


def with_tables(text: str, root: Path) -> str:
    """Update every marked table in ``text`` from the results below ``root``."""

    def update(match: re.Match[str]) -> str:
        words = match[2].split()
        make = TABLES[words.pop(0)] if words[0] in TABLES else comparison_table
        results = [json.loads((root / word).read_text(encoding="utf-8")) for word in words]
        return f"{match[1]}\n{make(results)}\n{match[3]}"

    return MARKED.sub(update, text)


def _table(titles: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Markdown table of titles and (title, cells) per row; rows without any measurement are left out."""
    lines = ["| " + " | ".join(titles).strip() + " |", "|---|" + "---:|" * (len(titles) - 1)]
    lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in rows if set(cells) - {NOTHING}]
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Values without repetitions, in order."""
    return list(dict.fromkeys(values))


def _look_up(content: Any, path: str) -> Any:
    """Value at nested keys, separated by spaces (``|`` for a space in a key)."""
    for key in path.split():
        content = (content or {}).get(key.replace("|", " "))
    return content


def _growth(point: Result | None) -> str:
    if point is None or point["ms_per_frame"] is None:
        return NOTHING
    return f"{point['ms_per_frame']['median']:.0f}, {point['peak_mib']:.0f}"


def _ablation_conditions(result: Result) -> str:
    options, source = result["options"], result["input"]
    return (
        f"{source['frames']} frames of {source['name']}, {options['correlation']} correlation, keyframe "
        f"{options['keyframe_position']} of {options['keyframe_interval']} frames, threshold {options['threshold']:g}. "
        f"{_conditions(result)}"
    )


def _mode(name: str) -> str:
    """Our modes as code, other contenders as words."""
    return f"`{name}`" if name in ("image", "tfc") else name


def _model_name(result: Result) -> str:
    """Name of the model, or of the backbone of random weights, with the precision unless it is float32."""
    backbone = result["model"]["backbone"].replace("mit_b", "MiT-B").replace("efficientnet_lite0", "EfficientNet-Lite0")
    name = backbone if result["random_weights"] else f"`{result['model']['name']}`"
    return name if result["precision"] == "float32" else f"{name} in {result['precision']}"


def _contender_name(result: Result, contender: str) -> str:
    if contender != "plain":
        return f"`{contender}`"
    plain = result["plain"]
    return f"plain {plain['network']}" + ("" if plain["weights"] == "the same" else " in its place")


def _conditions(result: Result) -> str:
    height, width = result["resolution"]["network"]
    return (
        f"Model `{result['model']['name']}`, {result['device_name']} ({result['device']}, "
        f"{result['threads']} threads, {result['precision']}), network input {width}×{height}, "
        f"torch {result['versions']['torch']}."
    )


def _bench_conditions(results: Sequence[Result]) -> str:
    """Machines (each once) and models of ``results``."""
    return " ".join([*_distinct(map(_machine, results)), *map(_model_conditions, results)]) + "\n"


def _machine(result: Result) -> str:
    height, width = result["resolution"]["source"]
    plain, versions = result["plain"], result["versions"]
    also = f", transformers {versions['transformers']} in {plain['precision']}" if plain["is_measured"] else ""
    return (
        f"{result['device_name']} ({result['device']}, {result['threads']} threads, ours "
        f"{result['options']['workers']} intervals at a time, {result['precision']}), "
        f"torch {versions['torch']}{also}, {result['input']['name']} at {width}×{height}, medians of "
        f"{result['rounds']} rounds in turn."
    )


def _model_conditions(result: Result) -> str:
    height, width = result["resolution"]["network"]
    weights = "random weights, " if result["random_weights"] else ""
    share = result["updated_fraction"]
    points = "" if share is None else f", {share:.1f} % of the points updated"
    classes = f"{weights}{result['model']['classes']} classes"
    return f"{_model_name(result)}: {classes}, network input {width}×{height}{points}."
