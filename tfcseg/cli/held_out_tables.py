"""Print tables of scores on held-out photos and clips on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tfcseg.cli.console import plain
from tfcseg.cli.results import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tfcseg.research.held_out import ClipsResult, StillsResult
    from tfcseg.research.held_out.clips import ModelScores
    from tfcseg.research.held_out.stills import NetworkScores, SetScore

_COLUMNS = (
    ("flow consistency", "flow_consistency"),
    ("label\nchange", "label_change"),
    ("VC8", "vc8"),
    ("VC16", "vc16"),
    ("as\nteachers", "agreement"),
)


def print_stills(result: StillsResult) -> None:
    """Print a table per vocabulary: mIoU of every network on every set, the mean, and its share of the best teacher."""
    console = Console(highlight=False, emoji=False)
    vocabularies = list(dict.fromkeys(each.network.label_set for each in result.networks))
    for vocabulary in vocabularies:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("mIoU (%)")
        for each in result.sets:
            table.add_column(plain(f"{each.name}\n{len(each.classes[vocabulary])} classes"), justify="right")
        table.add_column("mean", justify="right")
        table.add_column("of the best\nteacher", justify="right")
        for network in result.networks:
            table.add_row(*_still_cells(network, [each.name for each in result.sets], vocabulary))
        console.print(plain(f"classes of {vocabulary}"), soft_wrap=True)
        console.print(table)
    console.print("in brackets: the network lacks some of the classes; they count as 0", soft_wrap=True)


def print_clips(result: ClipsResult) -> None:
    """Print a table per model: the first mode's numbers on every clip, and the differences of the others."""
    console = Console(highlight=False, emoji=False)
    for scores in result.results:
        first, *others = result.modes
        for mode in others or [first]:
            console.print(
                plain(f"{scores.name}: {first}" + (f" and change by {mode}" if others else "")), soft_wrap=True
            )
            console.print(_clip_table(result, scores, mode))
    teachers = f"VC by labels of {', '.join(result.teachers)}; " if result.teachers else ""
    console.print(plain(f"{teachers}flow consistency along {result.optical_flow}"), soft_wrap=True)


def _still_cells(scores: NetworkScores, sets: list[str], vocabulary: str) -> list[str]:
    share = scores.to_best_teacher.get(vocabulary)
    return [
        scores.network.name + (" (teacher)" if scores.network.role == "teacher" else ""),
        *(_score(scores.scores[name][vocabulary]) for name in sets),
        number(scores.mean[vocabulary], 2),
        "" if share is None else f"{share:.1f} %",
    ]


def _score(score: SetScore) -> str:
    return number(score.miou, 2) if score.is_complete else f"({number(score.miou, 2)})"


def _clip_table(result: ClipsResult, scores: ModelScores, mode: str) -> Table:
    first = result.modes[0]
    shown = [(title, key) for title, key in _COLUMNS if key in scores.mean[first]]
    # On 80 columns, clip names are the column to shorten.
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    for title, _ in shown:
        table.add_column(title, justify="right", no_wrap=True)
    for clip in result.clips:
        numbers = scores.clips[clip.name]
        cells = [_step(numbers[first], numbers[mode], key) for _, key in shown]
        table.add_row(plain(clip.name), *cells)
    table.add_row("mean", *(_step(scores.mean[first], scores.mean[mode], key) for _, key in shown))
    if mode in scores.changes:
        change = scores.changes[mode]
        better = [f"{change.better.get(key, 0)} of {len(result.clips)}" for _, key in shown]
        table.add_row("better on", *better)
    return table


def _step(first: Mapping[str, float | None], other: Mapping[str, float | None], key: str) -> str:
    before, after = first[key], other[key]
    if before is None or after is None or first is other:
        return number(before, 2)
    return f"{before:.2f} {after - before:+.2f}"
