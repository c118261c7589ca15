"""State of an unfinished run: checkpoints in a journal, and finished parts of videos.

It is kept in a hidden folder in the output folder and removed when the run is complete. If there is no report, only the
run's identity stays.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfcseg.errors import OutputError
from tfcseg.files import output_errors, replace_atomically, sync


class Journal:
    """Lines at ``path``; each is on disk when ``append`` returns. Raises OutputError if that fails."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Any]:
        """Read all lines up to the first incomplete one, which a crash may leave. Empty if there is no file."""
        found: list[Any] = []
        with self._errors(), suppress(FileNotFoundError, ValueError):  # the latter: not JSON
            for line in self._path.read_bytes().splitlines():
                found.append(json.loads(line))
        return found

    def append(self, entry: object) -> None:
        """Add one line. Numbers are restored exactly."""
        line = json.dumps(entry, allow_nan=False).encode() + b"\n"
        with self._errors(), self._path.open("ab", buffering=0) as file:
            while line:  # a nearly full disk accepts a part; the next write reports why
                line = line[file.write(line) :]
            os.fsync(file.fileno())

    def keep(self, count: int) -> None:
        """Drop all lines but the first ``count``, and any incomplete line."""
        lines = [json.dumps(entry) + "\n" for entry in self.read()[:count]]
        with replace_atomically(self._path) as temporary:
            temporary.write_text("".join(lines))
            sync(temporary)

    def _errors(self) -> AbstractContextManager[None]:
        return output_errors(f"cannot keep the state of the run in {str(self._path)!r}")


STATE_FOLDER = ".tfcseg"
"""Hidden folder in the output folder for what is needed to resume; removed when the run is complete."""

LOCK_NAME = "lock"

_JOURNAL_NAME, _FINISHED_NAME, _LABELS_NAME = "journal.jsonl", "finished.json", "labels"
_KEPT = 2
"""How many of the newest checkpoints, and of those that end a part, are kept: if one is damaged, another serves."""

Identity = Mapping[str, str | float | bool | None]
"""Everything that determines a run's results: name -> value."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A point at which all results of the first ``frames`` frames have been written."""

    frames: int
    part_start: int
    """First frame of the incomplete parts of videos; ``frames`` if there are none."""
    rows_bytes: int
    """Size of frames.csv; 0 if there is none."""
    wall_s: float
    """Seconds the run has taken, including the runs that it resumes."""
    resumes: int
    """How often it was resumed."""
    summary: dict[str, Any]
    legend: dict[str, Any] | None
    """State of the legend at ``part_start``."""


class RunState:
    """The state folder of a run. Raises OutputError if something in it cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_resumable = False
        """Whether ``begin`` was given an identity; without one, nothing is kept."""
        self._journal = Journal(folder / _JOURNAL_NAME)
        self._finished = Journal(folder / _FINISHED_NAME)
        self._newest: deque[int] = deque(maxlen=_KEPT)
        self._newest_part_ends: deque[int] = deque(maxlen=_KEPT)

    def identity(self) -> Identity | None:
        """Identity of the unfinished run in this folder; None if there is none."""
        match self._journal.read():
            case [{"run": dict(identity)}, *_]:
                return identity
        return None

    def finished(self) -> Identity | None:
        """Identity of a finished run without a report in this folder; None if there is none."""
        match self._finished.read():
            case [dict(identity)]:
                return identity
        return None

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints of the unfinished run, in order."""
        found = []
        for entry in self._journal.read()[1:]:
            try:
                found.append(Checkpoint(**entry))
            except TypeError:  # not one of our lines
                break
        return found

    def begin(self, identity: Identity | None) -> None:
        """Drop an earlier run's state and record this run's identity; None: it cannot be resumed."""
        self.clear()
        self.is_resumable = identity is not None
        if identity is None:
            return
        self._journal.append({"run": identity})
        with output_errors(f"cannot write to {str(self.folder)!r}"):
            for folder in (self.folder, self.folder.parent):  # the names must survive a power cut, too
                sync(folder)

    def go_on(self, is_intact: Callable[[Checkpoint], bool]) -> Checkpoint | None:
        """Newest checkpoint whose files all exist; anything after it is dropped.

        None if there is none; then everything except the identity is dropped.
        """
        self.is_resumable = True
        checkpoints = self.checkpoints()
        while checkpoints and not is_intact(checkpoints[-1]):
            checkpoints.pop()
        self._journal.keep(1 + len(checkpoints))
        self._remember(checkpoints)
        frames = checkpoints[-1].frames if checkpoints else 0
        for path in self._entries():
            if path.name != _JOURNAL_NAME and not _is_needed(path, frames):
                _remove(path)
        return checkpoints[-1] if checkpoints else None

    def add(self, checkpoint: Checkpoint) -> None:
        """Record that everything before ``checkpoint`` is on disk; removes files of older ones."""
        self._journal.append(asdict(checkpoint))
        self._remember([checkpoint])
        kept = {self.pictures(each) for each in (*self._newest, *self._newest_part_ends)}
        for path in set(self.folder.glob("at-*")) - kept:
            _remove(path)

    def _remember(self, checkpoints: Iterable[Checkpoint]) -> None:
        for each in checkpoints:
            self._newest.append(each.frames)
            if each.frames == each.part_start:
                self._newest_part_ends.append(each.frames)

    def part(self, name: str, first_frame: int) -> Path:
        """File of the part of video ``name`` that begins with this frame."""
        return self.folder / f"{name}-{first_frame:08d}.mp4"

    @property
    def labels(self) -> Path:
        """Folder of labels for redrawing parts, if masks are not written."""
        return self.folder / _LABELS_NAME

    def drop_labels(self, before: int) -> None:
        """Remove the labels of earlier frames, if there are any."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in self.labels.iterdir():
                if path.stem.isdecimal() and int(path.stem) < before:
                    _remove(path)

    def pictures(self, frames: int) -> Path:
        """Folder for arrays that belong to the checkpoint at ``frames``."""
        return self.folder / f"at-{frames:08d}"

    def make_pictures(self, frames: int) -> Path:
        """The folder ``pictures``, created if needed."""
        folder = self.pictures(frames)
        with output_errors(f"cannot create {str(folder)!r}"):
            folder.mkdir(exist_ok=True)
        return folder

    def finish(self, identity: Identity | None) -> None:
        """Drop everything; ``identity`` is kept for a run without a report."""
        if identity is not None:
            self._finished.append(identity)
        self._clear(keep=_FINISHED_NAME)

    def clear(self) -> None:
        """Remove everything but the lock."""
        self._clear()

    def _clear(self, keep: str = "") -> None:
        """Remove the journal first: without it there is no unfinished run."""
        for path in sorted(self._entries(), key=lambda path: path.name != _JOURNAL_NAME):
            if path.name != keep:
                _remove(path)

    def _entries(self) -> list[Path]:
        with output_errors(f"cannot list {str(self.folder)!r}"), suppress(FileNotFoundError):
            return sorted(path for path in self.folder.iterdir() if path.name != LOCK_NAME)
        return []


def unfinished_frames(output: Path) -> int | None:
    """Number of frames that the unfinished run in ``output`` has saved; None if there is no such run."""
    state = RunState(output / STATE_FOLDER)
    with suppress(OutputError):
        if state.identity() is not None:
            checkpoints = state.checkpoints()
            return checkpoints[-1].frames if checkpoints else 0
    return None


def difference(recorded: Identity, wanted: Identity) -> str | None:
    """Describe the first difference between two runs; None if they are equal."""
    names = [name for name in {**recorded, **wanted} if recorded.get(name) != wanted.get(name)]
    if not names:
        return None
    return ", ".join(f"{name} was {_shown(recorded.get(name))} and is now {_shown(wanted.get(name))}" for name in names)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str) and len(value) == 64:  # a hash
        return f"{value[:8]}…"
    return "not given" if value in (None, "") else str(value)


def _is_needed(path: Path, frames: int) -> bool:
    """Whether a file belongs to the first ``frames`` frames, rather than to a stopped run."""
    if path.name == _LABELS_NAME:
        return True
    stem, _, number = path.stem.rpartition("-")
    if not number.isdecimal() or path.name.startswith("."):
        return False
    return int(number) <= frames if stem == "at" else int(number) < frames


def _remove(path: Path) -> None:
    with output_errors(f"cannot remove {str(path)!r}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
