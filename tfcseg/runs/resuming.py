"""Check that a run may be resumed: only if it is the same run."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import torch

from tfcseg.errors import FinishedError, OutputError
from tfcseg.exports import FILE_NAMES
from tfcseg.files import json_object, parse_json
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.ffmpeg import ffmpeg_path
from tfcseg.media.source import Source
from tfcseg.runs.options import KINDS, RunOptions
from tfcseg.runs.outputs import OutputDir
from tfcseg.runs.result_plan import ResultPlan
from tfcseg.runs.state import Checkpoint, Identity, RunState, difference
from tfcseg.runs.summary import option_facts
from tfcseg.weights.on_demand import Known

logger = logging.getLogger(__name__)


def identify(source: Source, model: Known, run: RunOptions) -> Identity | None:
    """Everything that determines a run's results; None if its source cannot be read a second time."""
    content = source.fingerprint()
    if content is None:
        return None
    results, ffmpeg = run.results, Path(ffmpeg_path())
    identity = {
        "tfcseg": version("tfcseg"),
        "torch": torch.__version__,
        "ffmpeg": f"{ffmpeg.name} of {ffmpeg.stat().st_size} bytes",  # one encoder for all parts of a video
        "input": content,
        "start": run.start_s,
        "end": run.end_s,
        "fps": None if run.frame_rate is None else str(run.frame_rate),
        "weights": model.sha256,
        **dataclasses.asdict(option_facts(model, run.inference_of(model))),
        **dataclasses.asdict(results),
        "html": results.page,
        "classes": _class_names(model.labels, results.classes),
        "exclude": _class_names(model.labels, results.exclude),
        "palette": None if results.palette is None else sha256(model.labels.palette_array().tobytes()).hexdigest(),
        "export": ", ".join(results.formats),
        **({} if run.steady is None else run.steady.identity()),
    }
    return json_object({name.replace("_", " "): value for name, value in identity.items()})


def _class_names(labels: LabelSet, chosen: str | Sequence[str]) -> str:
    return ", ".join(labels.names[index] for index in labels.indices(chosen))


def refuse_finished(out: OutputDir, identity: Identity | None) -> None:
    """Raise FinishedError if the folder holds the complete run of ``identity``, OutputError if it holds other results.

    Returns if there are none, if their run is unfinished, or if the source is missing (``identity`` None).
    """
    if identity is None or RunState(out.state).identity() is not None or not out.results():
        return
    recorded = _finished_run(out)
    if recorded is None:
        out.own_results()
        raise OutputError(
            f"{str(out.path)!r} holds results of an unknown run, and nothing to resume from; "
            "use --overwrite to start again or choose another folder"
        )
    _refuse_difference(out, recorded, identity)
    missing = [path.name for path in _lasting(out, recorded) if not os.path.lexists(path)]
    if missing:
        raise OutputError(
            f"{str(out.path)!r} holds a finished run, but {', '.join(missing)} is missing; "
            "use --overwrite to start again"
        )
    raise FinishedError(f"{str(out.path)!r} holds a finished run; there is nothing to resume")


def holds_input(folder: Path, source: Source) -> bool | None:
    """Whether a run in ``folder``, finished or not, is of ``source``; None if there is no run."""
    out = OutputDir(folder)
    recorded = RunState(out.state).identity() or _finished_run(out)
    if recorded is None:
        return False if out.results() else None
    return recorded.get("input") == source.fingerprint()


def go_on(plan: ResultPlan, identity: Identity | None, *, resume: bool) -> Checkpoint | None:
    """Prepare the state folder; returns the checkpoint to resume from, None to start with the first frame.

    Raises OutputError if the unfinished run is a different one.
    """
    recorded = plan.state.identity() if resume else None
    if recorded is None or identity is None:
        plan.state.begin(identity)
        return None
    checkpoint = plan.state.go_on(plan.is_intact)
    frames = checkpoint.frames if checkpoint else 0
    logger.info("resumed after %d frames", frames, extra={"output": plan.out.path, "frames": frames})
    return checkpoint


def refuse_other_run(out: OutputDir, identity: Identity | None) -> None:
    """Raise OutputError with the difference if the unfinished run in the folder is not the one of ``identity``."""
    recorded = RunState(out.state).identity()
    if recorded is not None and identity is not None:
        _refuse_difference(out, recorded, identity)


def _refuse_difference(out: OutputDir, recorded: Identity, wanted: Identity) -> None:
    found = difference(recorded, wanted)
    if found is not None:
        raise OutputError(
            f"{str(out.path)!r} holds a different run: {found}; use the same settings, or --overwrite to start again"
        )


def _finished_run(out: OutputDir) -> Identity | None:
    """Identity of the finished run in the folder; None if it is unknown."""
    with suppress(OSError, ValueError):
        match parse_json(out.report_json.read_bytes()):
            case {"run": dict(identity)}:
                return identity
    return RunState(out.state).finished()


def _lasting(out: OutputDir, run: Identity) -> list[Path]:
    """Files and folders that the finished ``run`` wrote to ``out``."""
    options = {"source": "copy source", "page": "html"}
    names = [name for kind, name in KINDS.items() if run.get(options.get(kind, kind.replace("_", " ")))]
    exports = str(run.get("export") or "").split(", ")
    return [out.path / name for name in names + [FILE_NAMES[each] for each in exports if each in FILE_NAMES]]
