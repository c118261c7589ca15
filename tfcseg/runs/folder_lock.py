"""Lock an output folder for one run. The lock ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tfcseg.errors import OutputError
from tfcseg.files import make_folder

STATE_FOLDER = ".tfcseg"
"""Hidden folder in the output folder for what is needed to resume; removed when the run is complete."""

LOCK_NAME = "lock"
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
            if _is_locked(number, path):
                os.ftruncate(number, 0)
                os.pwrite(number, str(os.getpid()).encode(), 0)
                return number
        except BlockingIOError:
            holder = os.pread(number, 20, 0).decode(errors="replace")
            os.close(number)
            raise OutputError(
                f"another run is writing to {str(folder)!r} (process {holder or 'unknown'}); "
                "wait for it or choose another folder"
            ) from None
        os.close(number)
    raise OutputError(f"cannot lock {str(folder)!r}: its lock keeps changing; choose another folder")


def _is_locked(number: int, path: Path) -> bool:
    """Lock the open file; False if it is no longer the one at ``path``. BlockingIOError if another process holds it."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # some network file systems have no locks: better to run without one than not at all
        return True
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False
