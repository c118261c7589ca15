"""Runs on several inputs: how each of them ended, and a log of that as JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfcseg.errors import FinishedError, LostConnection, OutputError, TfcsegError, without_passwords
from tfcseg.log import open_json_lines
from tfcseg.report.json_file import to_json
from tfcseg.report.schema import Report
from tfcseg.runs.options import RunOptions
from tfcseg.runs.outputs import OutputDir
from tfcseg.runs.pipeline import Listener, Segment, run_video, segment_here
from tfcseg.weights.on_demand import ModelOnDemand


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the run of one input ended."""

    source: str
    folder: Path
    seconds: float
    report: Report | None = None
    """None if it failed or was finished before; not if a live source was lost, whose results are complete."""
    error: TfcsegError | None = None
    """FinishedError if it was finished before."""

    @property
    def status(self) -> str:
        """``done``, ``skipped`` (it was finished before) or ``failed``."""
        if self.error is None:
            return "done"
        return "skipped" if isinstance(self.error, FinishedError) else "failed"

    @property
    def content(self) -> Any:
        """The report in JSON types, also that of a run that was finished before; None if there is none."""
        if self.report is not None:
            return to_json(self.report)
        try:
            return json.loads(OutputDir(self.folder).report_json.read_bytes())
        except (OSError, ValueError):
            return None

    def to_json(self) -> dict[str, Any]:
        """The line of a log."""
        return {
            "input": without_passwords(self.source),
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "frames": None if self.report is None else self.report.input.frames_decoded,
            "output": str(self.folder),
            "error": str(self.error) if self.status == "failed" else None,
        }


def run_input(
    source: str,
    folder: Path,
    model: ModelOnDemand,
    options: RunOptions,
    listener: Listener = Listener(),
    *,
    segment: Segment = segment_here,
) -> Outcome:
    """Run one input; a failure is part of what is returned."""
    started_s = time.monotonic()
    report: Report | None = None
    error: TfcsegError | None = None
    try:
        report = run_video(source, folder, model, options, listener, segment=segment)
    except LostConnection as failure:
        error, report = failure, failure.report
    except TfcsegError as failure:
        error = failure
    return Outcome(source=source, folder=folder, seconds=time.monotonic() - started_s, report=report, error=error)


@contextmanager
def open_batch_log(path: Path | None) -> Iterator[Callable[[Outcome], None]]:
    """Yield what appends the outcome of an input to the log at ``path``, in one piece; nothing without one.

    Errors are those of `open_json_lines`, and OutputError if the file cannot be written.
    """
    if path is None:
        yield lambda outcome: None
        return
    file = open_json_lines(path, "--batch-log")

    def add(outcome: Outcome) -> None:
        line = json.dumps(outcome.to_json(), ensure_ascii=False) + "\n"
        try:
            file.write(line.encode("utf-8", "backslashreplace"))  # a name may be no UTF-8
        except OSError as error:
            raise OutputError(f"cannot write {str(path)!r}: {error.strerror}") from error

    with file:
        yield add
