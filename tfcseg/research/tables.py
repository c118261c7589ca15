"""Tables of results in Markdown: what commands print, and assets/tables.py writes into pages.

Tables show things by templates. A thing has a name and an object with numbers; a template has a title and a cell's
text, which names numbers of the object. A cell whose numbers were not measured is a dash; rows and columns of dashes
alone are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import Formatter
from typing import Any, TypeAlias

from tfcseg.model.options import keyframe_distance
from tfcseg.spelling import count_of

Result: TypeAlias = dict[str, Any]
"""Content of a result file, or a part of it."""

NOTHING = "–"


class _NotMeasuredError(Exception):
    """A template names a number that is missing."""


class _Numbers(Formatter):
    """Fills in ``{keys.of.nested.objects:.1f}``."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        value: Any = kwargs
        for key in field_name.split("."):
            value = (value or {}).get(key)
        if value is None:
            raise _NotMeasuredError
        return value, field_name


def cell(template: str, numbers: Mapping[str, Any]) -> str:
    """The template with its numbers, or a dash if one of them is missing."""
    try:
        return _Numbers().vformat(template, (), numbers)
    except _NotMeasuredError:
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


ADAPTED = (
    ("VC8", "{vc8:.1f}"),
    ("as `image`", "{agreement:.1f}"),
    ("changed labels that are right", "{corrected:.1f}"),
)
SPEEDS = tuple(
    column
    for title, part in (("fps, network and labels", "model_only"), ("fps, file to files", "end_to_end"))
    for column in (
        (title, f"{{{part}.fps:.2f}}"),
        ("to `image`", f"{{{part}.image:.2f}}×"),
        ("to plain", f"{{{part}.plain:.2f}}×"),
    )
)
SCORES = {"miou": "mIoU", "vc8": "VC8", "vc16": "VC16"}
OWN = (*((title, f"{{{key}:.1f}}") for key, title in SCORES.items()), ("updated", "{updated_fraction:.1f} %"))
PAPERS = tuple((f"paper: {title}", f"{{paper.{key}:.1f}}") for key, title in SCORES.items())
CLIP_SCORES = {
    "flow consistency": "flow_consistency",
    "labels changed": "label_change",
    "VC8": "vc8",
    "VC16": "vc16",
    "same as the teachers": "agreement",
}


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
    speeds = [speed_table([result])] if result["model_only"] or result["end_to_end"] else []
    memory = [memory_table([result])] if result["memory"] else []
    same = [f"same labels, {pair.replace('|', ' and ')}: {share:.3f} %" for pair, share in result["agreement"].items()]
    left_out = f"left out: {'; '.join(result['left_out'])}"
    return "\n\n".join([*speeds, *memory, bench_conditions([result]), *same, left_out])


def speed_table(results: Sequence[Result]) -> str:
    """A row per contender of every benchmark: speeds, and ratios to `image` and plain."""
    rows = []
    for result in results:
        for contender in reversed(result["model_only"] or result["end_to_end"]):
            speeds: Result = {}
            for part in ("model_only", "end_to_end"):
                ratios = result["ratios"].get(part, {})
                speeds[part] = {other: ratios.get(f"{contender}/{other}") for other in ("image", "plain")}
                speeds[part] |= result[part].get(contender, {})
            rows.append((f"{_model_name(result)}, {_contender_name(result, contender)}", speeds))
    return table("", SPEEDS, rows)


def memory_table(results: Sequence[Result]) -> str:
    """A row per contender, a column per benchmark: peak memory of the process and of the GPU, in MiB."""
    rows = [
        (title, f"{{{name}.{key}:.0f}}")
        for name in _distinct(name for result in results for name in result["memory"])
        for title, key in ((_mode(name), "peak_mib"), (f"{_mode(name)}, on the GPU", "gpu_peak_mib"))
    ]
    columns = [(_model_name(result), result["memory"]) for result in results]
    return table("peak memory, MiB", rows, columns, columns=True)


def ablation_table(result: Result) -> str:
    """A row per step of the method: our scores, and the paper's if it has more than one of the rows."""
    rows = [(row["title"], row) for row in result["rows"]]
    columns = OWN + PAPERS if sum(bool(row["paper"]) for _, row in rows) > 1 else OWN
    return f"{table('', columns, rows)}\n\n{_ablation_conditions(result)}"


def still_table(result: Result) -> str:
    """A table per vocabulary, a row per network: mIoU on every set, the mean, and its share of the best teacher's."""
    sets = result["sets"]
    tables = []
    for vocabulary in _distinct(each["network"]["label_set"] for each in result["networks"]):
        columns = [
            (f"{each['name']} ({len(each['classes'][vocabulary])})", f"{{{each['name']}.miou:.1f}}") for each in sets
        ]
        columns += [("mean", f"{{mean.{vocabulary}:.1f}}"), ("of the best teacher", f"{{best.{vocabulary}:.0f}} %")]
        rows = []
        for each in result["networks"]:
            scores = {name: of[vocabulary] for name, of in each["scores"].items() if of[vocabulary]["is_complete"]}
            title = f"`{each['network']['name']}`" + (", a teacher" if each["network"]["role"] == "teacher" else "")
            rows.append((title, scores | {"mean": each["mean"], "best": each["to_best_teacher"]}))
        tables.append(table(f"mIoU, classes of `{vocabulary}`", columns, rows))
    shown = ", ".join(f"{each['stills']} of {each['name']}" for each in sets)
    inputs = _distinct(f"{each['network']['role']}s: {each['network']['input']}" for each in result["networks"])
    note = f"Stills: {shown}. In brackets: classes that occur there. {'; '.join(inputs)}."
    return "\n\n".join([*tables, note])


def clip_table(result: Result) -> str:
    """A table per model and mode, a row per clip: each score in the first mode and in this one."""
    first, *others = result["modes"]
    return "\n\n".join(
        _clip_rows(result, scores, first, mode) + "\n\n" + _clip_conditions(result)
        for scores in result["results"]
        for mode in others
    )


def _clip_rows(result: Result, scores: Result, first: str, mode: str) -> str:
    rows = [(clip["name"], {"frames": clip["frames"], **scores["clips"][clip["name"]]}) for clip in result["clips"]]
    rows.append(("**mean**", {"frames": "", **scores["mean"]}))
    step = [(title, f"{{{first}.{key}:.2f}} → {{{mode}.{key}:.2f}}") for title, key in CLIP_SCORES.items()]
    return table(f"`{scores['name']}`, `{first}` → `{mode}`", [("frames", "{frames:}"), *step], rows)


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


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Values without repetitions, in order."""
    return list(dict.fromkeys(values))


def _ablation_conditions(result: Result) -> str:
    options, source = result["options"], result["input"]
    return (
        f"{source['frames']} frames of {source['name']}, {options['correlation']} correlation, keyframe "
        f"{options['keyframe_position']} of {options['keyframe_interval']} frames, threshold {options['threshold']:g}. "
        f"{conditions(result)}"
    )


def _mode(name: str) -> str:
    """Our modes as code, other contenders as words."""
    return f"`{name}`" if name in ("image", "tfc") else name


def _model_name(result: Result) -> str:
    """Name of the model, with the precision unless it is float32."""
    name = f"`{result['model']['name']}`"
    return name if result["precision"] == "float32" else f"{name} in {result['precision']}"


def _contender_name(result: Result, contender: str) -> str:
    if contender != "plain":
        return f"`{contender}`"
    plain = result["plain"]
    return f"plain {plain['network']}" + ("" if plain["weights"] == "the same" else " in its place")


def conditions(result: Result) -> str:
    """Model, machine and size of the input."""
    return (
        f"Model `{result['model']['name']}`, {result['device_name']} ({result['device']}, "
        f"{result['threads']} threads, {result['precision']}), {_network_input(result)}, "
        f"torch {result['versions']['torch']}."
    )


def bench_conditions(results: Sequence[Result]) -> str:
    """Machines (each once) and models of ``results``."""
    return " ".join([*_distinct(map(_machine, results)), *map(_model_conditions, results)])


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
    share = result["updated_fraction"]
    points = "" if share is None else f", {share:.1f} % of the points updated"
    return f"{_model_name(result)}: {result['model']['classes']} classes, {_network_input(result)}{points}."


def _network_input(result: Result) -> str:
    """Size of the network's input; rows of an ablation name larger keyframes themselves."""
    height, width = result["resolution"]["network"]
    scale = 1 if "rows" in result else result["options"].get("keyframe_scale", 1)
    larger = f", in `tfc` {scale:g} times that for keyframes" if scale > 1 else ""
    return f"network input {width}×{height}{larger}"
