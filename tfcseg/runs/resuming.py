"""Check that a run may be resumed: only if it is the same run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import torch

from tfcseg.errors import FinishedError, OutputError
from tfcseg.files import parse_json, to_json
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.ffmpeg import ffmpeg_path
from tfcseg.media.source import Source, fingerprint
from tfcseg.runs.options import RunOptions
from tfcseg.runs.outputs import OutputDir
from tfcseg.runs.state import Identity, RunState
from tfcseg.runs.summary import option_facts
from tfcseg.weights.loading import Known


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
    }
    if run.steady is not None:
        for name, path in run.steady.paths.items():
            identity[name] = None if path is None else fingerprint(path)
        identity["void"] = run.steady.void
    found: Identity = to_json({name.replace("_", " "): value for name, value in identity.items()})
    return found


def _class_names(labels: LabelSet, chosen: str | Sequence[str]) -> str:
    return ", ".join(labels.names[index] for index in labels.indices(chosen))


def refuse_other_run(out: OutputDir, identity: Identity | None) -> None:
    """Raise FinishedError if the folder holds the complete run of ``identity``, OutputError if it holds another run.
    Returns if there is none, if the same run is unfinished, or if the source is missing (``identity`` None)."""
    unfinished = RunState(out.state).identity()
    if identity is None or (unfinished is None and not out.results()):
        return
    recorded = unfinished or _finished_run(out)
    if recorded is None:
        out.own_results()
        raise OutputError(
            f"{str(out.path)!r} holds results of an unknown run, and nothing to resume from; "
            "use --overwrite to start again or choose another folder"
        )
    names = [name for name in {**recorded, **identity} if recorded.get(name) != identity.get(name)]
    if names:
        found = (f"{name} was {_shown(recorded.get(name))} and is now {_shown(identity.get(name))}" for name in names)
        raise OutputError(
            f"{str(out.path)!r} holds a different run: {', '.join(found)}; use the same settings, or --overwrite to "
            "start again"
        )
    if unfinished is None:
        raise FinishedError(f"{str(out.path)!r} holds a finished run; there is nothing to resume")


def holds_input(folder: Path, source: Source) -> bool | None:
    """Whether a run in ``folder``, finished or not, is of ``source``; None if there is no run."""
    out = OutputDir(folder)
    recorded = RunState(out.state).identity() or _finished_run(out)
    if recorded is None:
        return False if out.results() else None
    return recorded.get("input") == source.fingerprint()


def _finished_run(out: OutputDir) -> Identity | None:
    with suppress(OSError, ValueError):
        match parse_json(out.report_json.read_bytes()):
            case {"run": dict(identity)}:
                return identity
    return RunState(out.state).identity(is_finished=True)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str) and len(value) == 64:  # a hash
        return f"{value[:8]}…"
    return "not given" if value in (None, "") else str(value)
