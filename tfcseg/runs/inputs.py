"""Find the inputs of a call (files, folders, patterns), each once, with its own output folder.

Output folders are named after paths, not positions, so that a batch in another order finds its earlier results.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfcseg.errors import InputError, UsageError, without_passwords
from tfcseg.files import errors_as
from tfcseg.media.images import natural_key
from tfcseg.media.source import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Source
from tfcseg.runs.outputs import default_output, is_result
from tfcseg.runs.resuming import holds_input
from tfcseg.spelling import count_of

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Inputs:
    """Single inputs without duplicates, as the user named them."""

    sources: tuple[str, ...]
    is_batch: bool  # whether each has its own folder below the output folder, even if there is only one
    notes: tuple[str, ...] = ()  # messages about what was left out


def find_inputs(names: Iterable[str]) -> Inputs:
    """Find every video, folder of images, picture and stream that ``names`` stand for, each once.

    A folder of videos stands for its videos, a folder of such folders for all of theirs, and a pattern that the shell
    did not expand for its matches. Raises UsageError for an empty name.
    """
    found: dict[str, str] = {}
    notes: list[str] = []
    is_batch = False
    for name in names:
        if not name:
            raise UsageError("an input is empty: a file, a folder or - is needed")
        for match in _matches(name):
            sources = _in_folder(match, notes) if Source.of(match).kind == "folder" else [match]
            is_batch |= sources != [match]
            for source in sources:
                other = found.setdefault(Source.of(source).key, source)
                if other is not source:
                    notes.append(f"{without_passwords(source)}: is named twice; it is processed once")
    return Inputs(tuple(found.values()), is_batch or len(found) > 1, tuple(notes))


def read_list(path: str) -> list[str]:
    """Read names of inputs from a file or stdin (``-``), one per line or null-separated; raises InputError."""
    with errors_as(InputError, f"{path}: the list of inputs cannot be read"):
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    data = data.removeprefix(codecs.BOM_UTF8)
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    found = [os.fsdecode(name) for name in names if name.strip()]
    if not found:
        raise InputError(f"{path}: the list of inputs is empty")
    return found


def output_folders(inputs: Inputs, output: Path | None, *, resume: bool) -> list[Path]:
    """Choose a folder for each input: ``output`` itself for a single one, else ``<output>/<name>_tfcseg``.

    Equal names get as much of their paths in front as tells them apart. With ``resume``, the folder that already holds
    a run of the input wins, and one that holds another input's run is avoided.
    """
    if not inputs.is_batch:
        return [output or default_output(inputs.sources[0])]
    base = output or Path()
    names = [_names(source) for source in inputs.sources]
    uses = Counter(key for each in names for key in {name.casefold() for name in each})
    folders: list[Path] = []
    for source, each in zip(inputs.sources, names, strict=True):
        own = [base / f"{name}_tfcseg" for name in each if uses[name.casefold()] == 1]
        every = [base / f"{name}_tfcseg" for name in each]
        folders.append(_resumable(source, own, every, folders) if resume else own[0])
    return folders


def _resumable(source: str, own: Sequence[Path], every: Sequence[Path], taken: Sequence[Path]) -> Path:
    """The folder that holds a run of ``source``, else the first of its ``own`` that holds no other input's run."""
    held = {folder: holds_input(folder, Source.of(source)) for folder in [own[0], *every] if os.path.lexists(folder)}
    mine = (folder for folder, is_mine in held.items() if is_mine and folder not in taken)
    free = (folder for folder in own if held.get(folder) is None)
    return next(mine, None) or next(free, own[0])


def _matches(name: str) -> list[str]:
    if Source.of(name).kind != "file" or os.path.lexists(name) or not glob.has_magic(name):
        return [name]
    found = glob.glob(name, recursive=True)  # noqa: PTH207  # knows patterns that begin at the root
    return sorted(found, key=natural_key) or [name]


def _in_folder(folder: str, notes: list[str], *, is_outer: bool = True) -> list[str]:
    """The folder itself if it holds images; else its videos, or what its folders hold. What is left out is noted, such
    as results of runs."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: natural_key(e.name))
    except OSError:  # reading it reports why
        return [folder]
    folders = [
        entry.path for entry in found if entry.is_dir() and not entry.name.endswith("_tfcseg")
    ]  # results of a run
    files = [entry.path for entry in found if not entry.is_dir()]
    videos, images = (
        [path for path in files if Path(path).suffix.lower() in suffixes]
        for suffixes in (VIDEO_SUFFIXES, IMAGE_SUFFIXES)
    )
    results = [path for path in videos if is_result(Path(path))]
    videos = [path for path in videos if path not in results]
    if not is_outer and images and is_result(Path(images[0])):  # masks, or pictures of the confidence
        results, images = [*results, *images], []
    if results:
        notes.append(
            f"{folder}: {count_of(len(results), 'result')} of tfcseg left out, such as {Path(results[0]).name}"
        )
    inner_notes: list[str] = []
    inner = [_in_folder(each, inner_notes, is_outer=False) for each in folders if is_outer]
    if not (videos or images):
        notes += inner_notes
        return [source for sources in inner for source in sources] or [folder] * is_outer
    is_videos = len(videos) >= len(images)  # at most as many pictures, such as a thumbnail for each
    others = ((len(images), "picture") if is_videos else (len(videos), "video")), (sum(map(bool, inner)), "folder")
    skipped = ", ".join(count_of(number, noun) for number, noun in others if number)
    if skipped:
        kind = "videos" if is_videos else "pictures"
        notes.append(f"{folder}: treated as a folder of {kind}; skipped in it: {skipped}; name these, too, to run them")
    return videos if is_videos else [folder]


def _names(source: str) -> list[str]:
    """Candidate names for an input's results: its name, more and more of its path, and with its suffix."""
    path = Path(without_passwords(Source.of(source).key))
    stem = Source.of(source).title
    before = [part for part in path.parts[:-1] if part != path.anchor]
    names = [
        "_".join([*before[len(before) - depth :], name])
        for name in (stem, path.name)
        for depth in range(len(before) + 1)
    ]
    short = [name for name in dict.fromkeys(names) if name == stem or len(os.fsencode(name)) <= _LONGEST_NAME]
    return [*short, f"{stem[:64]}-{hashlib.sha256(os.fsencode(Source.of(source).key)).hexdigest()[:12]}"]
