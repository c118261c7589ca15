"""The output folder of a run: its files, and checks before anything is written."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tfcseg.errors import OutputError
from tfcseg.exports import COCO_MARK, FILE_NAMES, MATTE_NAME, ZIP_MARK
from tfcseg.files import make_folder, output_errors, parse_json, refuse_inputs, refuse_results, removed_if_unused
from tfcseg.media.source import Given, Source
from tfcseg.media.writer import is_our_video
from tfcseg.runs.options import KINDS
from tfcseg.runs.state import LOCK_NAME, STATE_FOLDER, RunState, unfinished_frames

RESULT_NAMES = (*(name for name in KINDS.values() if "." in name), "classes.json", *FILE_NAMES.values())
_MASK_NAME = re.compile(r"[0-9]{8,}\.png")
_PNG_NAME, _MASK_LEFTOVER = re.compile(r"(?s)[^.].*\.png|\.png"), re.compile(r"(?s)\..+\.png\.part")
_MARKS = {
    ".png": b"tEXtSoftware\x00tfcseg",
    ".zip": ZIP_MARK,
    "report.json": b'"tfcseg": ',
    "report.html": b'content="tfcseg"',
    "frames.csv": b"frame,time_s,is_keyframe,",
    FILE_NAMES["areas"]: b"second,frames,",
    FILE_NAMES["coco"]: COCO_MARK,
}
_MARKED_BYTES = 128
"""What is at the beginning or end of our files, by their name or suffix; others write files of these names, too."""


class OutputDir:
    """Paths of a run's results below ``path``. If there is a report.json, which is written last, it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.overlay, self.side_by_side = path / KINDS["overlay"], path / KINDS["side_by_side"]
        self.source, self.confidence, self.masks = path / KINDS["source"], path / KINDS["confidence"], path / "masks"
        self.report_json, self.report_html = path / KINDS["report"], path / KINDS["page"]
        self.frames_csv, self.classes_json = path / KINDS["frames_csv"], path / "classes.json"
        self.state = path / STATE_FOLDER

    def results(self) -> list[Path]:
        """Existing files with names of results; raises OutputError if the folder cannot be listed."""
        files = [path for name in RESULT_NAMES if os.path.lexists(path := self.path / name)]
        return [*files, *_matching(self.path, MATTE_NAME), *self._pictures()]

    def holds_frames(self) -> bool:
        """Whether the folder holds results of any frame."""
        with suppress(OSError), self.frames_csv.open("rb") as file:
            if file.readline() and file.readline():
                return True
        return bool(self._pictures() or RunState(self.state).checkpoints())

    def own_results(self) -> list[Path]:
        """Existing results; raises OutputError if other files have their names, which even --overwrite keeps."""
        results = self.results()
        refuse_foreign(results, "choose another output folder")
        return results

    def remove_results(self) -> None:
        """Delete the results of an earlier run, and nothing else. Raises OutputError before deleting anything if other
        files have the names of results."""
        results = self.own_results()
        RunState(self.state).clear()
        leftovers = [path for name in RESULT_NAMES if (path := self.path / f".{name}.part").exists()]
        for path in [*results, *leftovers, *self._matching(_MASK_LEFTOVER)]:
            with output_errors(f"cannot remove {str(path)!r}"):
                path.unlink()
        for folder in (self.masks, self.confidence):
            with suppress(OSError):  # not empty, or never created
                folder.rmdir()

    def discard(self) -> None:
        """Remove everything of a run: its results, and the folder if it is empty then."""
        self.remove_results()
        with suppress(OSError):  # a lock is in it, or someone else put files there
            if self.state.exists():
                self.state.rmdir()
            self.path.rmdir()

    def _pictures(self) -> list[Path]:
        """PNG files of frames: numbered, or named like their source and written by us."""
        return [path for path in self._matching(_PNG_NAME) if _MASK_NAME.fullmatch(path.name) or is_own(path)]

    def _matching(self, pattern: re.Pattern[str]) -> list[Path]:
        return [path for folder in (self.masks, self.confidence) for path in _matching(folder, pattern)]


def numbered(folder: Path, index: int) -> Path:
    """Path of one frame's PNG."""
    return folder / f"{index:08d}.png"


def _matching(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    what, advice = f"cannot list {str(folder)!r}", "; choose another output folder"
    with output_errors(what, advice), suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
    return []


def default_output(source: Given, what: str = "tfcseg") -> Path:
    """``<name>_<what>`` in the current folder, without the file's suffix; the name of a stream is ``stdin``."""
    return Path(f"{Source.of(source).title}_{what}")


@contextmanager
def claimed_output(directory: str | Path, *, inputs: Iterable[Path], overwrite: bool = False) -> Iterator[OutputDir]:
    """Prepare ``directory`` for results, or refuse in one line. Inside the block no other run may use it.

    ``inputs`` are what the run reads from disk. Raises UsageError if a result would replace one of them, and
    OutputError if results exist, another run writes there, or it is not writable. With ``overwrite`` results may exist;
    the caller removes them. A folder that was created here is removed if it is empty at the end.
    """
    output = OutputDir(Path(directory))
    refuse_inputs((output.path, output.masks, *output.results()), inputs)
    with removed_if_unused(output.path), folder_lock(output.path):
        frames = unfinished_frames(output.path)
        if not overwrite and frames is None:
            refuse_results(output.own_results(), "choose another output; --resume skips what is finished")
        elif not overwrite and output.holds_frames():
            raise OutputError(
                f"{str(output.path)!r} holds an unfinished run ({frames} frames done); use --resume to continue it, "
                "--overwrite to start again, or choose another folder"
            )
        yield output


def refuse_foreign(results: Iterable[Path], advice: str) -> None:
    """Raise OutputError if files with names of results were not written by tfcseg."""
    for path in results:
        if path.is_dir() or not is_own(path):
            raise OutputError(f"{str(path)!r} was not written by tfcseg and is kept; {advice}")


def is_own(path: Path) -> bool:
    """Whether tfcseg wrote a file that has the name of a result."""
    if path.suffix in (".mp4", ".webm", ".mkv"):
        return is_our_video(path)
    if path.name == "classes.json":
        with suppress(OSError, ValueError):
            match parse_json(path.read_bytes()):
                case [{"index": 0, "name": _, "colour": _}, *_]:
                    return True
        return False
    mark = _MARKS.get(path.name) or _MARKS[path.suffix]
    with suppress(OSError), path.open("rb") as file:
        start = file.read(_MARKED_BYTES)
        file.seek(-min(len(mark), os.fstat(file.fileno()).st_size), os.SEEK_END)
        return not start or mark in start or file.read() == mark  # empty: a run failed, or nothing is lost
    return False


def is_result(path: Path) -> bool:
    """Whether a picture or video is one that a run wrote, under the name that it gave it."""
    if path.suffix == ".png":
        return is_own(path) and path.stat().st_size > 0
    return bool(path.name in RESULT_NAMES or MATTE_NAME.fullmatch(path.name)) and is_own(path)


_ATTEMPTS = 100


@contextmanager
def folder_lock(folder: Path) -> Iterator[Path]:
    """Lock ``folder`` for this run and yield its state folder; creates both if needed.

    Raises OutputError if another process holds the lock or nothing can be written there. An empty state folder is
    removed at the end.
    """
    state = folder / STATE_FOLDER
    path = state / LOCK_NAME
    number = _acquire(folder, path)
    try:
        yield state
    finally:
        with suppress(OSError):  # an unfinished run left files in it
            path.unlink()  # before the lock ends: the next owner sees that it is gone
            state.rmdir()
        os.close(number)


def _acquire(folder: Path, path: Path) -> int:
    """Return the descriptor of the locked file; the file holds the number of the owning process."""
    make_folder(folder)
    for _ in range(_ATTEMPTS):
        make_folder(path.parent)
        try:
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another run ended just now and removed the folder
            continue
        except OSError as error:
            raise OutputError(f"cannot write {str(path)!r}: {error.strerror}") from error
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(number, 20, 0).decode(errors="replace")
            os.close(number)
            raise OutputError(
                f"another run is writing to {str(folder)!r} (process {holder or 'unknown'}); "
                "wait for it or choose another folder"
            ) from None
        except OSError:  # some network file systems have no locks: better to run without one than not at all
            pass
        with suppress(FileNotFoundError):  # another run ended meanwhile and removed it
            if os.path.samestat(os.fstat(number), path.stat()):
                os.ftruncate(number, 0)
                with suppress(OSError):  # a full disk, which is told by what is written next
                    os.pwrite(number, str(os.getpid()).encode(), 0)
                return number
        os.close(number)
    raise OutputError(f"cannot lock {str(folder)!r}: its lock keeps changing; choose another folder")
