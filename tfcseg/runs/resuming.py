"""Whether a run may go on where another one stopped: only if it is the same run."""

from __future__ import annotations

import dataclasses
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tfcseg.errors import FinishedError, OutputError
from tfcseg.media.ffmpeg import ffmpeg_path
from tfcseg.model.options import InferenceOptions
from tfcseg.report import to_json
from tfcseg.runs.fingerprint import fingerprint
from tfcseg.runs.outputs import OutputDir
from tfcseg.runs.result_options import ResultOptions
from tfcseg.runs.result_plan import ResultPlan
from tfcseg.runs.state import Checkpoint, Identity, RunState, difference
from tfcseg.runs.summary import option_facts
from tfcseg.weights.loading import LoadedModel

logger = logging.getLogger(__name__)


def identify(
    source: str | Path,
    model: LoadedModel,
    options: InferenceOptions,
    results: ResultOptions,
    range_s: tuple[float | None, float | None],
) -> Identity | None:
    """Everything that decides what a run writes, or None if its source cannot be read a second time."""
    content = fingerprint(source)
    if content is None:
        return None
    classes = ", ".join(model.labels.names[index] for index in model.labels.indices(results.classes))
    wanted = dataclasses.asdict(results) | {"html": results.page, "classes": classes}
    return {
        "tfcseg": version("tfcseg"),
        "torch": torch.__version__,
        "ffmpeg": _file_facts(Path(ffmpeg_path())),  # parts of one video must come from one encoder
        "input": content,
        "start": range_s[0],
        "end": range_s[1],
        **_network_identity(model.sha256, to_json(option_facts(model, options))),
        **{name.replace("_", " "): value for name, value in wanted.items()},
    }


def refuse_finished(
    out: OutputDir,
    source: str | Path,
    model: LoadedModel,
    options: InferenceOptions,
    range_s: tuple[float | None, float | None],
    *,
    has_report: bool,
) -> None:
    """FinishedError if there is a finished run and nothing to go on with; OutputError if it was another one.

    OutputError as well if such a run would have left a report (``has_report``) and there is none: it was stopped, and
    its source could be read only once.
    """
    if RunState(out.state).identity() is not None or not out.results():
        return
    recorded = _recorded(out.report_json)
    if recorded is None and has_report:
        raise OutputError(
            f"{str(out.path)!r} holds results without a report and nothing to resume from; "
            "use --overwrite to start again or choose another folder"
        )
    if recorded is not None:
        wanted = {
            "tfcseg": version("tfcseg"),
            "input": Path(source).name,
            "start": range_s[0],
            "end": range_s[1],
            **_network_identity(model.sha256, to_json(option_facts(model, options))),
        }
        _refuse_difference(out, recorded, wanted)
    raise FinishedError(f"{str(out.path)!r} holds a finished run; there is nothing to resume")


def go_on(plan: ResultPlan, identity: Identity | None, *, resume: bool) -> Checkpoint | None:
    """Make the state folder ready; the checkpoint to go on from, None to begin with the first frame.

    OutputError if the unfinished run is another one.
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
    """OutputError with the difference if the unfinished run in the folder is not the one of ``identity``."""
    recorded = RunState(out.state).identity()
    if recorded is not None and identity is not None:
        _refuse_difference(out, recorded, identity)


def _refuse_difference(out: OutputDir, recorded: Identity, wanted: Identity) -> None:
    found = difference(recorded, wanted)
    if found is not None:
        raise OutputError(
            f"{str(out.path)!r} holds a run that cannot be resumed: {found}; use the same or --overwrite to start again"
        )


def _network_identity(sha256: str, facts: Any) -> dict[str, Any]:
    return {"weights": sha256, **{name.replace("_", " "): value for name, value in facts.items()}}


def _recorded(report: Path) -> Identity | None:
    """What report.json says of the same; None if there is none, or none of ours."""
    try:
        content = json.loads(report.read_bytes())
        return {
            "tfcseg": content["tfcseg"],
            "input": Path(content["input"]["path"]).name,
            "start": content["input"]["start_s"],
            "end": content["input"]["end_s"],
            **_network_identity(content["model"]["sha256"], content["options"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file_facts(path: Path) -> str:
    status = path.stat()
    return f"{path.name} of {status.st_size} bytes"
