"""Write the tables of README.md and assets/*.md from the measurements in assets/results.

A table stands between ``<!-- table: [KIND] FILE... -->`` and ``<!-- end -->``. Without a kind, FILE is a compare.json
of ``tfcseg compare``; ``speed``, ``breakdown``, ``limits`` and ``memory`` take what ``tfcseg bench -o FILE`` wrote, a
column or block of rows per file, and ``scaling`` a scaling-*.json of ``tfcseg bench --scaling``. ``gains`` has a row
per compare.json: what `image` scores and what `tfc` does. ``ablation`` and
``similarity`` take what ``tfcseg research ablate -o FILE`` wrote, a table per file. ``stills`` takes what
``tfcseg research stills -o FILE`` wrote, ``clips`` (clip by clip) and ``means`` (over all clips, mode by mode) what
``tfcseg research clips -o FILE`` did. ``cost`` takes a file of prices, and then what ``tfcseg bench -o FILE`` wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfcseg.errors import DataError
from tfcseg.research.costs import cost_table

MARKED = re.compile(r"(<!-- table: ([^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

ROWS = (
    ("mIoU", "miou", "{:.1f}"),
    ("VC8", "vc8", "{:.1f}"),
    ("VC16", "vc16", "{:.1f}"),
    ("flow consistency", "flow_consistency", "{:.2f} %"),
    ("labels changed from frame to frame", "label_change", "{:.2f} %"),
    ("same labels as `image`", "agreement", "{:.1f} %"),
    ("points updated between keyframes", "updated_fraction", "{:.1f} %"),
    ("frames per second, network and labels", "model_fps", "{:.1f}"),
    ("frames per second, file to files", "fps", "{:.1f}"),
    ("GFLOPs per frame", "gflops_per_frame", "{:.2f}"),
)
LIMIT_ROWS = (
    ("decoding alone, frames per second", ("decode_fps", "median"), "{:.0f}"),
    ("decoding and encoding without a network, frames per second", ("decode_encode_fps", "median"), "{:.0f}"),
    ("large matrix product, GFLOP/s", ("matrix_gflops_per_s",), "{:.0f}"),
    ("GFLOPs per frame, plain", ("gflops_per_frame", "plain"), "{:.1f}"),
    ("GFLOPs per frame, `image`", ("gflops_per_frame", "image"), "{:.1f}"),
    ("GFLOPs per frame, `tfc`", ("gflops_per_frame", "tfc"), "{:.1f}"),
    ("share of the matrix product's rate, `image`", ("share_of_ceiling", "image"), "{:.0f} %"),
    ("share of the matrix product's rate, `tfc`", ("share_of_ceiling", "tfc"), "{:.0f} %"),
)
COST_ROWS = (
    ("flow consistency's share of the time file to files", "flow_consistency"),
    ("masks' share of the time file to files", "masks"),
    ("share of both", "flow_consistency and masks"),
)
SCORE_TITLES = {"miou": "mIoU", "vc8": "VC8", "vc16": "VC16"}
MARKS = {"agrees": "✓", "differs": "✗", "unclear": "~"}
"""What a step did, next to the paper's."""

CHOSE_SETTINGS = {"camvid_street", "halls"}
"""Inputs on which the shipped weights and settings were chosen; all others had no part in any choice."""

GAIN_COLUMNS = (
    ("mIoU", "miou", "{:.1f}"),
    ("VC8", "vc8", "{:.1f}"),
    ("label change, %", "label_change", "{:.2f}"),
    ("flow consistency, %", "flow_consistency", "{:.2f}"),
    ("GFLOPs per frame", "gflops_per_frame", "{:.1f}"),
)
CLIP_COLUMNS = (
    ("flow consistency", "flow_consistency"),
    ("labels changed", "label_change"),
    ("VC8", "vc8"),
    ("VC16", "vc16"),
    ("same as the teachers", "agreement"),
)
AROUND = "around the network"
"""What the steps beside the network are called in a bench-*.json: the same for all contenders."""

NOTHING = "–"


def table(comparison: dict[str, Any]) -> str:
    """Markdown table of one compare.json: a column per mode, and a line that says what was measured on what."""
    modes = comparison["modes"]
    lines = _heading(["", *(f"`{mode}`" for mode in modes)])
    for title, key, form in ROWS:
        lines += _row(title, [_cell(numbers.get(key), form) for numbers in modes.values()])
    return "\n".join(lines) + "\n\n" + _conditions(comparison) + "\n"


def gain_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per compare.json: each score of `image`, an arrow, and that of `tfc`; inputs of `CHOSE_SETTINGS` marked."""
    lines = _heading(["`image` → `tfc`", *(title for title, _, _ in GAIN_COLUMNS), "chose settings?"])
    for result in results:
        before, after = result["modes"]["image"], result["modes"]["tfc"]
        name = Path(result["input"]["path"]).name
        cells = [
            NOTHING if before.get(key) is None else f"{form.format(before[key])} → {form.format(after[key])}"
            for _, key, form in GAIN_COLUMNS
        ]
        chose = "yes" if name in CHOSE_SETTINGS else "**no**"
        lines += _row(f"{name}, {result['input']['frames']} frames", [*cells, chose])
    return "\n".join(lines) + "\n"


def speed_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per contender of every benchmark, TFC first: speed, and how many times that of `image` and of plain."""
    titles = ["", "fps, network and labels", "to `image`", "to plain", "fps, file to files", "to `image`", "to plain"]
    lines = _heading(titles)
    for result in results:
        for contender in reversed(result["model_only"] or result["end_to_end"]):
            cells = []
            for part in ("model_only", "end_to_end"):
                ratios = result["ratios"].get(part, {})
                cells.append(_cell(result[part].get(contender, {}).get("fps"), "{:.2f}"))
                cells += [_cell(ratios.get(f"{contender}/{other}"), "{:.2f}×") for other in ("image", "plain")]
            lines += _row(f"{_model_name(result)}, {_contender_name(result, contender)}", cells)
    return "\n".join(lines) + "\n\n" + _bench_conditions(results) + "\n"


def breakdown_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per step, a column per benchmark and contender: medians in milliseconds per frame."""
    titles, columns = [], []
    for result in results:
        around = result["breakdown"].get(AROUND, {})
        for mode in (mode for mode in result["breakdown"] if mode != AROUND):
            titles.append(f"{_model_name(result)}, {_mode(mode)}")
            columns.append({**result["breakdown"][mode], **around})
    lines = _heading(["ms per frame", *titles])
    for step in dict.fromkeys(step for steps in columns for step in steps):
        times = [steps.get(step, {}).get("median") for steps in columns]
        lines += _row(step, [_cell(time or None, "{:.1f}") for time in times])
    return "\n".join(lines) + "\n\n" + _bench_conditions(results) + "\n"


def limit_table(results: Sequence[dict[str, Any]]) -> str:
    """What the machine can do without a network, what the network makes of it, and what parts of a run cost."""
    lines = _heading(["", *(_model_name(result) for result in results)])
    for title, path, form in LIMIT_ROWS:
        lines += _row(title, [_cell(_look_up(result["limits"], path), form) for result in results])
    for mode in ("image", "tfc"):
        shares = [_cell(result["network_share"].get(mode), "{:.0f} %") for result in results]
        lines += _row(f"time of the network alone to that file to files, `{mode}`", shares)
    for title, part in COST_ROWS:
        lines += _row(title, [_cell(result["costs"].get(part), "{:.0f} %") for result in results])
    return "\n".join(lines) + "\n\n" + _bench_conditions(results) + "\n"


def memory_table(results: Sequence[dict[str, Any]]) -> str:
    """Peak memory of the process in MiB: a row per contender, a column per benchmark, and what the GPU held if any."""
    lines = _heading(["peak memory, MiB", *(_model_name(result) for result in results)])
    for contender in dict.fromkeys(name for result in results for name in result["memory"]):
        for title, key in ((_mode(contender), "peak_mib"), (f"{_mode(contender)}, on the GPU", "gpu_peak_mib")):
            numbers = [result["memory"].get(contender, {}).get(key) for result in results]
            lines += _row(title, [_cell(number, "{:.0f}") for number in numbers])
    return "\n".join(lines) + "\n\n" + _bench_conditions(results) + "\n"


def scaling_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per value of what grows: milliseconds per frame and peak memory of every contender."""
    parts = []
    for result in results:
        names = list(dict.fromkeys(point["contender"] for point in result["points"]))
        lines = _heading([result["unit"], *(f"{_mode(name)}: ms per frame, peak MiB" for name in names)])
        for value in dict.fromkeys(point["value"] for point in result["points"]):
            points = {point["contender"]: point for point in result["points"] if point["value"] == value}
            cells = [_growth(points.get(name)) for name in names]
            lines += _row(f"{value:,}", cells)
        parts.append("\n".join(lines) + "\n\n" + _conditions(result))
    return "\n\n".join(parts) + "\n"


def ablation_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per step of the method, ours beside the paper's, and whether the step moved the numbers the same way."""
    parts = []
    for result in results:
        scores = list(SCORE_TITLES.values())
        lines = _heading(["", *scores, "updated", *(f"paper: {score}" for score in scores), "like the paper"])
        for row in result["rows"]:
            cells = [_cell(row[key], "{:.1f}") for key in SCORE_TITLES]
            cells.append(_cell(row["updated_fraction"], "{:.1f} %"))
            cells += [_cell(row["paper"].get(key), "{:.1f}") for key in SCORE_TITLES]
            lines += _row(row["title"], [*cells, _directions(row)])
        parts.append("\n".join(lines) + "\n\n" + _direction_count(result) + " " + _ablation_conditions(result))
    return "\n\n".join(parts) + "\n"


def similarity_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per threshold: points below it, and how well being below it tells that the label changed."""
    parts = []
    for result in results:
        scores = next(row["similarity"] for row in result["rows"] if row["name"] == "tfc")
        lines = _heading(["similarity below", "points", "told rightly", "precision of changes", "recall of changes"])
        for mask in scores["thresholds"]:
            cells = [_cell(mask[key], "{:.1f} %") for key in ("below", "accuracy", "precision", "recall")]
            lines += _row(f"{mask['threshold']:g}", cells)
        rule = f"The label changed at {_cell(scores['changed'], '{:.1f} %')} of the points with ground truth."
        parts.append("\n".join(lines) + "\n\n" + rule + " " + _ablation_conditions(result))
    return "\n\n".join(parts) + "\n"


def still_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per network, a block of columns per vocabulary: mIoU on every set, the mean, a student's share of it."""
    parts = []
    for result in results:
        sets = [each["name"] for each in result["sets"]]
        lines = []
        for vocabulary in dict.fromkeys(each["network"]["label_set"] for each in result["networks"]):
            counts = [len(each["classes"][vocabulary]) for each in result["sets"]]
            titles = [f"{name} ({count})" for name, count in zip(sets, counts, strict=True)]
            lines += _heading([f"mIoU, classes of `{vocabulary}`", *titles, "mean", "of the best teacher"])
            for each in result["networks"]:
                scores = [each["scores"][name][vocabulary] for name in sets]
                cells = [_cell(score["miou"] if score["is_complete"] else None, "{:.1f}") for score in scores]
                cells.append(_cell(each["mean"][vocabulary], "{:.1f}"))
                cells.append(_cell(each["to_best_teacher"].get(vocabulary), "{:.0f} %"))
                lines += _row(_network_name(each["network"]), cells)
            lines.append("")
        shown = ", ".join(f"{each['stills']} of {each['name']}" for each in result["sets"])
        inputs = "; ".join(
            dict.fromkeys(f"{each['network']['role']}s: {each['network']['input']}" for each in result["networks"])
        )
        parts.append("\n".join(lines) + f"\nStills: {shown}. In brackets: classes that occur there. {inputs}.")
    return "\n\n".join(parts) + "\n"


def clip_table(results: Sequence[dict[str, Any]]) -> str:
    """A table per model and mode: a row per clip, each cell from the first mode to this one; means, wins, gains."""
    parts = []
    for result in results:
        first, *others = result["modes"]
        for scores in result["results"]:
            for mode in others:
                parts.append("\n".join(_clip_rows(result, scores, first, mode)) + "\n\n" + _clip_conditions(result))
    return "\n\n".join(parts) + "\n"


def _clip_rows(result: dict[str, Any], scores: dict[str, Any], first: str, mode: str) -> list[str]:
    shown = [(title, key) for title, key in CLIP_COLUMNS if scores["mean"][first].get(key) is not None]
    lines = _heading([f"`{scores['name']}`, `{first}` → `{mode}`", "frames", *(title for title, _ in shown)])
    for clip in result["clips"]:
        own = scores["clips"][clip["name"]]
        lines += _row(clip["name"], [str(clip["frames"]), *(_step(own[first], own[mode], key) for _, key in shown)])
    means, change = scores["mean"], scores["changes"][mode]
    lines += _row("**mean**", ["", *(_step(means[first], means[mode], key) for _, key in shown)])
    lines += _row("**gain**", ["", *(_cell(change["gain"].get(key), "{:+.2f}") for _, key in shown)])
    better = [f"{change['better'].get(key, 0)} of {len(result['clips'])}" for _, key in shown]
    return lines + _row("**better on**", ["", *better])


def clip_means_table(results: Sequence[dict[str, Any]]) -> str:
    """A row per file and mode: means over clips that are the same in all files."""
    shown = [column for column in CLIP_COLUMNS if _mean_of_first(results[0]).get(column[1]) is not None]
    lines = _heading(["mode", "keyframe every", *(title for title, _ in shown)])
    for result in results:
        for scores in result["results"]:
            for mode, options in scores["options"].items():
                mean = scores["mean"][mode]
                values = [_cell(mean.get(key), "{:.2f}") for _, key in shown]
                lines += _row(f"`{mode}`", [str(options["keyframe_interval"]), *values])
    clips = ", ".join(clip["name"] for clip in results[0]["clips"])
    return "\n".join(lines) + f"\n\nMeans over {clips}. {_clip_conditions(results[0])}\n"


def _mean_of_first(result: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = result["results"][0]["mean"][result["modes"][0]]
    return found


def _step(before: dict[str, Any], after: dict[str, Any], key: str) -> str:
    return f"{_cell(before.get(key), '{:.2f}')} → {_cell(after.get(key), '{:.2f}')}"


def _clip_conditions(result: dict[str, Any]) -> str:
    teachers = result["teachers"]
    by = f" VC by labels of {', '.join(f'`{name}`' for name in teachers)}, steadied in time." if teachers else ""
    return (
        f"The first {result['first_s']:g} s of each clip, at most {result['max_frames']} frames; all in percent. "
        f"Flow consistency along {result['optical_flow']}.{by}"
    )


def _network_name(network: dict[str, Any]) -> str:
    return f"`{network['name']}`" + (", a teacher" if network["role"] == "teacher" else "")


TABLES: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {
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
    """Files of a copy of the repository that have tables."""
    return [root / "README.md", *sorted((root / "assets").glob("*.md"))]


def write_tables(root: Path) -> list[Path]:
    """Make the tables of all documents anew; those that changed. DataError if ``root`` is no copy of the repository."""
    changed = []
    try:
        for document in documents(root):
            before = document.read_text(encoding="utf-8")
            after = with_tables(before, root)
            if after != before:
                document.write_text(after, encoding="utf-8")
                changed.append(document)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}; run it in a copy of the repository") from error
    return changed


def with_tables(text: str, root: Path) -> str:
    """``text`` with every marked table made anew from the results below ``root``."""

    def renew(match: re.Match[str]) -> str:
        words = match[2].split()
        kind = words.pop(0) if words[0] in TABLES else None
        results = [json.loads((root / word).read_text(encoding="utf-8")) for word in words]
        made = table(*results) if kind is None else TABLES[kind](results)
        return match[1] + "\n" + made + "\n" + match[3]

    return MARKED.sub(renew, text)


def _heading(cells: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(cells).strip() + " |", "|---|" + "---:|" * (len(cells) - 1)]


def _row(title: str, cells: Sequence[str]) -> list[str]:
    """A line, or none where nothing was measured."""
    return [] if set(cells) <= {NOTHING} else [f"| {title} | " + " | ".join(cells) + " |"]


def _cell(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _look_up(content: Any, path: Sequence[str]) -> Any:
    for key in path:
        content = (content or {}).get(key)
    return content


def _growth(point: dict[str, Any] | None) -> str:
    if point is None or point["ms_per_frame"] is None:
        return NOTHING
    return f"{point['ms_per_frame']['median']:.0f}, {point['peak_mib']:.0f}"


def _directions(row: dict[str, Any]) -> str:
    marks = [f"{SCORE_TITLES[key]} {MARKS[told]}" for key, told in row["directions"].items()]
    return ", ".join(marks) or NOTHING


def _direction_count(result: dict[str, Any]) -> str:
    """How many steps went the paper's way."""
    told = [direction for row in result["rows"] for direction in row["directions"].values()]
    counts = {name: told.count(name) for name in MARKS}
    return (
        f"Of {len(told)} steps {counts['agrees']} went the paper's way (✓), {counts['differs']} the other way (✗); "
        f"{counts['unclear']} cannot be told (~), since here or there nothing moved by 0.1."
    )


def _ablation_conditions(result: dict[str, Any]) -> str:
    options, source = result["options"], result["input"]
    return (
        f"{source['frames']} frames of {source['name']}, {options['correlation']} correlation, keyframe "
        f"{options['keyframe_position']} of {options['keyframe_interval']} frames, threshold {options['threshold']:g}. "
        f"{_conditions(result)}"
    )


def _mode(name: str) -> str:
    """Our modes as code, everything else as words."""
    return f"`{name}`" if name in ("image", "tfc") else name


def _model_name(result: dict[str, Any]) -> str:
    """The model's, or the backbone's if the weights are random; with the precision if that is not float32."""
    backbone = result["model"]["backbone"].replace("mit_b", "MiT-B").replace("efficientnet_lite0", "EfficientNet-Lite0")
    name = backbone if result["random_weights"] else f"`{result['model']['name']}`"
    return name if result["precision"] == "float32" else f"{name} in {result['precision']}"


def _contender_name(result: dict[str, Any], contender: str) -> str:
    if contender != "plain":
        return f"`{contender}`"
    plain = result["plain"]
    return f"plain {plain['network']}" + ("" if plain["weights"] == "the same" else " in its place")


def _conditions(result: dict[str, Any]) -> str:
    height, width = result["resolution"]["network"]
    return (
        f"Model `{result['model']['name']}`, {result['device_name']} ({result['device']}, "
        f"{result['threads']} threads, {result['precision']}), network input {width}×{height}, "
        f"torch {result['versions']['torch']}."
    )


def _bench_conditions(results: Sequence[dict[str, Any]]) -> str:
    """What the numbers of all ``results`` stand on; what is the same for several is said once."""
    machines = dict.fromkeys(_machine(result) for result in results)
    models = [_model_conditions(result) for result in results]
    return " ".join([*machines, *models])


def _machine(result: dict[str, Any]) -> str:
    height, width = result["resolution"]["source"]
    plain, versions = result["plain"], result["versions"]
    also = f", transformers {versions['transformers']} in {plain['precision']}" if plain["is_measured"] else ""
    return (
        f"{result['device_name']} ({result['device']}, {result['threads']} threads, ours "
        f"{result['options']['workers']} intervals at a time, {result['precision']}), "
        f"torch {versions['torch']}{also}, {result['input']['name']} at {width}×{height}, medians of "
        f"{result['rounds']} rounds in turn."
    )


def _model_conditions(result: dict[str, Any]) -> str:
    height, width = result["resolution"]["network"]
    weights = "random weights, " if result["random_weights"] else ""
    share = result["updated_fraction"]
    points = "" if share is None else f", {share:.1f} % of the points updated"
    classes = f"{weights}{result['model']['classes']} classes"
    return f"{_model_name(result)}: {classes}, network input {width}×{height}{points}."
