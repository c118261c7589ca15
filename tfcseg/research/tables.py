"""Tables of results in Markdown, for commands and for README.md and assets/*.md.

In a page a table stands between ``<!-- table: [KIND] FILE... -->`` and ``<!-- end -->``. Kinds are the keys of
`TABLES`; without one, FILE is a compare.json of ``tfcseg compare``. ``speed`` and ``memory`` read results of ``tfcseg
bench -o FILE``, ``cost`` a file of prices and then such results, ``gains`` compare.json files, ``steadied`` pairs of
``tfcseg eval --json`` (masks before and after), ``adapted`` those of ``tfcseg adapt --json``, and the others results of
``tfcseg research``. The commands print the same tables.

Tables show things by templates. A thing has a name and an object with numbers; a template has a title and a cell's
text, which names numbers of the object. A cell whose numbers were not measured is a dash; rows and columns of dashes
alone are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from tfcseg.errors import DataError
from tfcseg.model.options import keyframe_distance
from tfcseg.spelling import count_of

Result: TypeAlias = dict[str, Any]  # content of a result file, or a part of it

NOTHING = "–"


def cell(template: str, numbers: Mapping[str, Any]) -> str:
    """The template with its numbers, such as ``{nested[keys]:.1f}``, or a dash if one of them is missing or None."""
    try:
        return template.format_map(numbers)
    except (KeyError, TypeError):
        return NOTHING


def table(
    corner: str,
    templates: Iterable[tuple[str, str]],
    things: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    columns: bool = False,
) -> str:
    """Markdown table with a row per thing and a column per template, or the other way round with ``columns``.

    Templates without a format (``{name}``) make columns of text, aligned to the left. ``|`` in a text is escaped.
    """
    titles, texts = zip(*templates, strict=True)
    names, objects = zip(*((_escaped(name), numbers) for name, numbers in things), strict=True)
    cells = [[_escaped(cell(text, numbers)) for text in texts] for numbers in objects]
    heads, sides, grid = (names, titles, list(zip(*cells, strict=True))) if columns else (titles, names, cells)
    kept = [at for at, column in enumerate(zip(*grid, strict=True)) if set(column) - {NOTHING}]
    rulers = ["---:" if columns or ":" in texts[at] else "---" for at in kept]
    lines = ["| " + " | ".join([corner, *(heads[at] for at in kept)]).strip() + " |", f"|---|{'|'.join(rulers)}|"]
    lines += [
        f"| {side} | {' | '.join(row[at] for at in kept)} |"
        for side, row in zip(sides, grid, strict=True)
        if set(row) - {NOTHING}
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


MARKED = re.compile(r"(<!-- table: ([^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

CHOSE_SETTINGS = {"camvid_street", "halls"}  # inputs on which the shipped weights and settings were chosen

HAD_A_PART = {"demo.mp4"}  # inputs that had a part in settings, as the clips without ground truth

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
    ("mIoU", "{before[miou]:.1f} → {after[miou]:.1f}"),
    ("VC8", "{before[vc8]:.1f} → {after[vc8]:.1f}"),
    ("label change, %", "{before[label_change]:.2f} → {after[label_change]:.2f}"),
    ("flow consistency, %", "{before[flow_consistency]:.2f} → {after[flow_consistency]:.2f}"),
    ("GFLOPs per frame", "{before[gflops_per_frame]:.1f} → {after[gflops_per_frame]:.1f}"),
)
COST = (
    ("measured on", "{where}"),
    ("fps, file to files", "{fps:.1f}"),
    ("processor or GPU hours", "{hours:,.0f} {unit} hours"),
    ("price", "{currency} {price:,.0f}"),
)
ADAPTED = (
    ("VC8", "{vc8:.1f}"),
    ("as `image`", "{agreement:.1f}"),
    ("changed labels that are right", "{corrected:.1f}"),
)
SPEEDS = tuple(
    column
    for title, part in (("fps, network and labels", "model_only"), ("fps, file to files", "end_to_end"))
    for column in (
        (title, f"{{{part}[fps]:.2f}}"),
        ("to `image`", f"{{{part}[image]:.2f}}×"),
        ("to plain", f"{{{part}[plain]:.2f}}×"),
    )
)
SCORES = {"miou": "mIoU", "vc8": "VC8", "vc16": "VC16"}
MARKS = {"agrees": "✓", "differs": "✗", "unclear": "~"}
OWN = (*((title, f"{{{key}:.1f}}") for key, title in SCORES.items()), ("updated", "{updated_fraction:.1f} %"))
PAPERS = (
    *((f"paper: {title}", f"{{paper[{key}]:.1f}}") for key, title in SCORES.items()),
    ("like the paper", "{like:}"),
)
CLIP_SCORES = {
    "flow consistency": "flow_consistency",
    "labels changed": "label_change",
    "VC8": "vc8",
    "VC16": "vc16",
    "same as the teachers": "agreement",
}


def _each(make: Callable[[Result], str], results: Sequence[Result]) -> str:
    """The tables of several results."""
    return "\n\n".join(map(make, results))


def comparison_table(result: Result) -> str:
    """A column per mode of a compare.json, without updated points if there are none."""
    modes = {f"`{mode}`": scores for mode, scores in result["modes"].items()}
    has_updates = any(scores.get("updated_fraction") for scores in modes.values())
    rows = [row for row in COMPARED if has_updates or not row[0].startswith("points updated")]
    return table("", rows, modes.items(), columns=True) + "\n\n" + _conditions(result)


def gain_table(results: Sequence[Result]) -> str:
    """A row per compare.json, with each score of `image` and of `tfc`; means of the clips of a `research clips`."""
    rows = []
    for result in results:
        is_clips = result.get("kind") == "clips"
        modes = result["results"][0]["mean"] if is_clips else result["modes"]
        name = f"{len(result['clips'])} clips" if is_clips else Path(result["input"]["path"]).name
        frames = sum(clip["frames"] for clip in result["clips"]) if is_clips else result["input"]["frames"]
        chose = "yes" if name in CHOSE_SETTINGS else "partly" if is_clips or name in HAD_A_PART else "**no**"
        rows.append((f"{name}, {frames} frames", {"before": modes["image"], "after": modes["tfc"], "chose": chose}))
    return table("`image` → `tfc`", (*GAINS, ("chose settings?", "{chose:}")), rows)


def steadied_table(results: Sequence[Result]) -> str:
    """A row per pair of evaluations: scores of the masks before and after ``tfcseg steady``."""
    vc16 = ("VC16", "{before[vc16]:.1f} → {after[vc16]:.1f}")
    rows = [
        (f"{before['dataset']}, {before['frames']} frames", {"before": before, "after": after})
        for before, after in zip(results[::2], results[1::2], strict=True)
    ]
    return table("before → after", (*GAINS[:2], vc16, *GAINS[2:]), rows)


def adapted_table(result: Result) -> str:
    """A row per setting of an adaptation's measurements, before and after."""
    when = {"before": "before", "after": "after"}
    if result["keeps_attention"]:
        when = {"before": "before", "with_curve": "with the curve", "after": "with the attention, too"}
    rows = [("every frame by itself", result["after"]["image"])]
    for setting in (setting for setting in result["after"] if setting != "image"):
        rows += [(f"{setting.replace('_', ' ')}, {name}", result[key][setting]) for key, name in when.items()]
    return table("", ADAPTED, rows) + f"\n\nPercentages, on {result['measured_on']}."


def benchmark_tables(result: Result) -> str:
    """Speeds and memory of one benchmark, as far as they were measured."""
    speeds = [_speeds([result])] if result["model_only"] or result["end_to_end"] else []
    memory = [_memory([result])] if result["memory"] else []
    same = [f"same labels, {pair.replace('|', ' and ')}: {share:.3f} %" for pair, share in result["agreement"].items()]
    left_out = f"left out: {'; '.join(result['left_out'])}"
    return "\n\n".join([*speeds, *memory, _bench_conditions([result]), *same, left_out])


def speed_table(results: Sequence[Result]) -> str:
    """A row per contender of every benchmark: speeds, and ratios to `image` and plain."""
    return f"{_speeds(results)}\n\n{_bench_conditions(results)}"


def _speeds(results: Sequence[Result]) -> str:
    rows = []
    for result in results:
        plain = result["plain"]
        for contender in reversed(result["model_only"] or result["end_to_end"]):
            speeds: Result = {}
            for part in ("model_only", "end_to_end"):
                ratios = result["ratios"].get(part, {})
                speeds[part] = {other: ratios.get(f"{contender}/{other}") for other in ("image", "plain")}
                speeds[part] |= result[part].get(contender, {})
            shown = f"`{contender}`"
            if contender == "plain":
                shown = f"plain {plain['network']}" + ("" if plain["weights"] == "the same" else " in its place")
            rows.append((f"{_model_name(result)}, {shown}", speeds))
    return table("", SPEEDS, rows)


def memory_table(results: Sequence[Result]) -> str:
    """A row per contender, a column per benchmark: peak memory of the process and of the GPU, in MiB."""
    return f"{_memory(results)}\n\n{_bench_conditions(results)}"


def _memory(results: Sequence[Result]) -> str:
    rows: list[tuple[str, str]] = []
    for name in dict.fromkeys(name for result in results for name in result["memory"]):
        title = name if name == "plain" else f"`{name}`"
        rows += [(title, f"{{{name}[peak_mib]:.0f}}"), (f"{title}, on the GPU", f"{{{name}[gpu_peak_mib]:.0f}}")]
    columns = [(_model_name(result), result["memory"]) for result in results]
    return table("peak memory, MiB", rows, columns, columns=True)


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


def ablation_table(result: Result) -> str:
    """A row per step of the method: our scores, the paper's, and whether they changed in the same way."""
    rows = []
    for row in result["rows"]:
        like = ", ".join(f"{SCORES[key]} {MARKS[found]}" for key, found in row["directions"].items())
        rows.append((row["title"], row | ({"like": like} if like else {})))
    found = [direction for row in result["rows"] for direction in row["directions"].values()]
    agree, differ, unclear = map(found.count, MARKS)
    summary = (
        f"Of {len(found)} steps {agree} changed as in the paper (✓), {differ} in the other direction (✗); "
        f"{unclear} are unclear (~), since one of the two changed by less than 0.1. "
    )
    steps, options, source = table("", OWN + PAPERS if found else OWN, rows), result["options"], result["input"]
    return (
        f"{steps}\n\n{summary if found else ''}{source['frames']} frames of {source['name']}, "
        f"{options['correlation']} correlation, keyframe interval {options['keyframe_interval']}, threshold "
        f"{options['threshold']:g}. {_conditions(result)}"
    )


def still_table(result: Result) -> str:
    """A table per vocabulary, a row per network: mIoU on every set, the mean, and its share of the best teacher's."""
    sets = result["sets"]
    tables = []
    for vocabulary in dict.fromkeys(each["network"]["label_set"] for each in result["networks"]):
        columns = [
            (f"{each['name']} ({len(each['classes'][vocabulary])})", f"{{set{number}[miou]:.1f}}")
            for number, each in enumerate(sets)
        ]
        columns += [("mean", f"{{mean[{vocabulary}]:.1f}}"), ("of the best teacher", f"{{best[{vocabulary}]:.0f}} %")]
        rows = []
        for each in result["networks"]:
            scores = {f"set{number}": of[vocabulary] for number, of in enumerate(each["scores"].values())}
            scores = {name: score for name, score in scores.items() if score["is_complete"]}
            title = f"`{each['network']['name']}`" + (", a teacher" if each["network"]["role"] == "teacher" else "")
            rows.append((title, scores | {"mean": each["mean"], "best": each["to_best_teacher"]}))
        tables.append(table(f"mIoU, classes of `{vocabulary}`", columns, rows))
    shown = ", ".join(f"{each['stills']} of {each['name']}" for each in sets)
    inputs = dict.fromkeys(f"{each['network']['role']}s: {each['network']['input']}" for each in result["networks"])
    note = f"Stills: {shown}. In brackets: classes that occur there. {'; '.join(inputs)}."
    return "\n\n".join([*tables, note])


def clip_table(result: Result) -> str:
    """A table per model and mode, a row per clip: each score in the first mode and in this one."""
    first, *others = result["modes"]
    tables = []
    for scores in result["results"]:
        rows = [(clip["name"], {"frames": clip["frames"], **scores["clips"][clip["name"]]}) for clip in result["clips"]]
        rows.append(("**mean**", {"frames": "", **scores["mean"]}))
        for mode in others:
            step = [(title, f"{{{first}[{key}]:.2f}} → {{{mode}[{key}]:.2f}}") for title, key in CLIP_SCORES.items()]
            corner = f"`{scores['name']}`, `{first}` → `{mode}`"
            tables += [table(corner, [("frames", "{frames:}"), *step], rows), _clip_conditions(result)]
    return "\n\n".join(tables)


def clip_means_table(results: Sequence[Result]) -> str:
    """A row per model and mode of every file: means over clips, which are the same in all files."""
    every = [scores for result in results for scores in result["results"]]
    has_one_model = len({scores["name"] for scores in every}) == 1
    rows = [
        (
            f"`{mode}`" if has_one_model else f"`{scores['name']}`, `{mode}`",
            scores["mean"][mode] | {"every": keyframe_distance(options)},
        )
        for scores in every
        for mode, options in scores["options"].items()
    ]
    columns = [("keyframe every", "{every:}"), *((title, f"{{{key}:.2f}}") for title, key in CLIP_SCORES.items())]
    clips = ", ".join(clip["name"] for clip in results[0]["clips"])
    return table("mode", columns, rows) + f"\n\nMeans over {clips}. {_clip_conditions(results[0])}"


def _clip_conditions(result: Result) -> str:
    teachers = result["teachers"]
    by = f" VC by labels of {', '.join(f'`{name}`' for name in teachers)}, averaged over time." if teachers else ""
    return (
        f"The first {result['first_s']:g} s of each clip, at most {result['max_frames']} frames; all in percent. "
        f"Flow consistency along {result['optical_flow']}.{by}"
    )


TABLES: dict[str, Callable[[Sequence[Result]], str]] = {
    "gains": gain_table,
    "steadied": steadied_table,
    "adapted": partial(_each, adapted_table),
    "speed": speed_table,
    "memory": memory_table,
    "cost": cost_table,
    "stills": partial(_each, still_table),
    "clips": partial(_each, clip_table),
    "means": clip_means_table,
    "ablation": partial(_each, ablation_table),
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
        make = TABLES[words.pop(0)] if words[0] in TABLES else partial(_each, comparison_table)
        results = [json.loads((root / word).read_text(encoding="utf-8")) for word in words]
        return f"{match[1]}\n{make(results)}\n\n{match[3]}"

    return MARKED.sub(update, text)


def _model_name(result: Result) -> str:
    """Name of the model, or of the backbone of random weights, with the precision unless it is float32."""
    backbone = result["model"]["backbone"].replace("mit_b", "MiT-B").replace("efficientnet_lite0", "EfficientNet-Lite0")
    name = backbone if result["random_weights"] else f"`{result['model']['name']}`"
    return name if result["precision"] == "float32" else f"{name} in {result['precision']}"


def _conditions(result: Result) -> str:
    return (
        f"Model `{result['model']['name']}`, {result['device_name']} ({result['device']}, "
        f"{result['threads']} threads, {result['precision']}), {_network_input(result)}, "
        f"torch {result['versions']['torch']}."
    )


def _bench_conditions(results: Sequence[Result]) -> str:
    """Machines (each once) and models of ``results``."""
    return " ".join([*dict.fromkeys(map(_machine, results)), *map(_model_conditions, results)])


def _machine(result: Result) -> str:
    height, width = result["resolution"]["source"]
    plain, versions = result["plain"], result["versions"]
    also = f", transformers {versions['transformers']} in {plain['precision']}" if plain["is_measured"] else ""
    return (
        f"{result['device_name']} ({result['device']}, {result['threads']} threads, ours "
        f"{result['options']['workers']} intervals at a time, {result['precision']}), "
        f"torch {versions['torch']}{also}, {result['input']['name']} at {width}×{height}, medians of "
        f"{count_of(result['rounds'], 'round')} in turn."
    )


def _model_conditions(result: Result) -> str:
    weights = "random weights, " if result["random_weights"] else ""
    share = result["updated_fraction"]
    points = "" if not share else f", {share:.1f} % of the points updated"
    return f"{_model_name(result)}: {weights}{result['model']['classes']} classes, {_network_input(result)}{points}."


def _network_input(result: Result) -> str:
    """Size of images and keyframes as the network sees them."""
    height, width = result["resolution"]["network"]
    return f"network input {width}×{height}"
