"""State of an unfinished run: its newest checkpoints, and finished parts of videos.

It is kept in a hidden folder in the output folder and removed when the run is complete. If there is no report, only the
run's identity stays.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tfcseg.errors import OutputError
from tfcseg.files import output_errors, replace_atomically, sync

STATE_FOLDER = ".tfcseg"
"""Hidden folder in the output folder for what is needed to resume; removed when the run is complete."""

LOCK_NAME = "lock"

_STATE_NAME, _LABELS_NAME = "state.json", "labels"
_KEPT = 2
"""How many of the newest checkpoints, and of those that end a part, are kept: if one is damaged, another serves."""

Identity = Mapping[str, str | float | bool | None]  # everything that determines a run's results: name -> value


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A point at which all results of the first ``frames`` frames have been written."""

    frames: int
    part_start: int  # first frame of the incomplete parts of videos; ``frames`` if there are none
    rows_bytes: int  # size of frames.csv; 0 if there is none
    wall_s: float  # seconds the run has taken, including the runs that it resumes
    resumes: int  # how often it was resumed
    summary: dict[str, Any]
    legend: dict[str, Any] | None  # state of the legend at ``part_start``


class RunState:
    """The state folder of a run. Raises OutputError if something in it cannot be read or written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.labels = folder, folder / _LABELS_NAME  # the latter for redrawing parts without masks
        self.is_resumable = False  # whether ``begin`` was given an identity; without one, nothing is kept

    def identity(self, *, is_finished: bool = False) -> Identity | None:
        """Identity of the unfinished run in this folder, or of a finished one without a report; None if there is
        none."""
        content = self._read()
        return content.get("run") if content.get("is_finished", False) == is_finished else None

    def checkpoints(self) -> list[Checkpoint]:
        """The newest checkpoints of the unfinished run, in order, but those of other versions with other fields."""
        names = {item.name for item in fields(Checkpoint)}
        return [Checkpoint(**entry) for entry in self._read().get("checkpoints", ()) if entry.keys() == names]

    def begin(self, identity: Identity | None) -> None:
        """Drop an earlier run's state and record this run's identity; None: it cannot be resumed."""
        self.clear()
        self.is_resumable = identity is not None
        if identity is not None:
            self._write(identity, [])
            with output_errors(f"cannot write to {str(self.folder)!r}"):
                sync(self.folder.parent)

    def go_on(self, is_intact: Callable[[Checkpoint], bool]) -> Checkpoint | None:
        """Newest checkpoint whose files all exist; anything after it is dropped. None if there is none; then everything
        except the identity is dropped."""
        self.is_resumable = True
        checkpoints = self.checkpoints()
        while checkpoints and not is_intact(checkpoints[-1]):
            checkpoints.pop()
        self._write(self.identity(), checkpoints)
        frames = checkpoints[-1].frames if checkpoints else 0
        for path in self._entries():
            if path.name != _STATE_NAME and not _is_needed(path, frames):
                _remove(path)
        return checkpoints[-1] if checkpoints else None

    def add(self, checkpoint: Checkpoint) -> None:
        """Record that everything before ``checkpoint`` is on disk; removes files of older ones."""
        known = [*self.checkpoints(), checkpoint]
        part_ends = [each for each in known if each.frames == each.part_start]
        kept = [each for each in known if each in known[-_KEPT:] or each in part_ends[-_KEPT:]]
        self._write(self.identity(), kept)
        for path in set(self.folder.glob("at-*")) - {self.folder_at(each.frames) for each in kept}:
            _remove(path)

    def part(self, name: str, first_frame: int) -> Path:
        """File of the part of video ``name`` that begins with this frame."""
        return self.folder / f"{name}-{first_frame:08d}.mp4"

    def drop_labels(self, before: int) -> None:
        """Remove the labels of earlier frames, if there are any."""
        for path in self.labels.glob("*.png"):
            if path.stem.isdecimal() and int(path.stem) < before:
                _remove(path)

    def folder_at(self, frames: int) -> Path:
        """Folder of the checkpoint at ``frames``, for arrays."""
        return self.folder / f"at-{frames:08d}"

    def make_folder_at(self, frames: int) -> Path:
        """The same, created if needed."""
        folder = self.folder_at(frames)
        with output_errors(f"cannot create {str(folder)!r}"):
            folder.mkdir(exist_ok=True)
        return folder

    def finish(self, identity: Identity | None) -> None:
        """Drop everything; ``identity`` is kept for a run without a report."""
        if identity is None:
            self.clear()
            return
        self._write(identity, [], is_finished=True)
        for path in self._entries():
            if path.name != _STATE_NAME:
                _remove(path)

    def clear(self) -> None:
        """Remove everything but the lock; first the list of checkpoints, without which there is no unfinished run."""
        for path in sorted(self._entries(), key=lambda path: path.name != _STATE_NAME):
            _remove(path)

    def _read(self) -> dict[str, Any]:
        path = self.folder / _STATE_NAME
        with output_errors(f"cannot read {str(path)!r}"), suppress(FileNotFoundError, ValueError):
            content: dict[str, Any] = json.loads(path.read_bytes())
            return content
        return {}

    def _write(self, run: Identity | None, checkpoints: Sequence[Checkpoint], *, is_finished: bool = False) -> None:
        """Replace what is recorded; it is on disk then. Numbers are restored exactly."""
        content = {"run": run, "is_finished": is_finished, "checkpoints": [asdict(each) for each in checkpoints]}
        with replace_atomically(self.folder / _STATE_NAME) as partial:
            partial.write_text(json.dumps(content, allow_nan=False))
            sync(partial)
        with output_errors(f"cannot write to {str(self.folder)!r}"):
            sync(self.folder)

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
