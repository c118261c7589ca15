"""Run all checks in order; the last one segments a small clip that ffmpeg makes and reads the results back."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tfcseg.doctor.checks import (
    Diagnosis,
    Finding,
    check_extras,
    check_ffmpeg,
    check_folder,
    check_gpu,
    check_libraries,
    check_processor,
    check_weights,
)
from tfcseg.errors import TfcsegError

if TYPE_CHECKING:
    from tfcseg.weights.loading import LoadedModel

logger = logging.getLogger(__name__)

FRAMES, RATE = 8, 10
SIZE = (180, 240)
"""Height and width of the clip."""
_NETWORK_SIZE = 160
_LEAST_AGREEMENT = 0.9
"""Share of the labels that a GPU or a shorter type must have in common with fp32 on the CPU."""
_ADVICE = "fix what is broken above; if nothing is, report this with the output of tfcseg doctor --json"


def check_by_running() -> Iterator[Finding]:
    """Segment a clip with the default model in a temporary folder and check everything that was written."""
    from tfcseg.weights.loading import load_model

    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tfcseg-doctor-", ignore_cleanup_errors=True) as folder:
        try:
            model = load_model()
            facts = _segment_clip(Path(folder), model)
        except TfcsegError as error:
            yield Finding("self-test", "broken", str(error), _ADVICE)
            return
    facts["wall_s"] = round(time.perf_counter() - started_s, 3)
    yield self_test_finding(facts)


def self_test_finding(facts: dict[str, Any]) -> Finding:
    """Judge the results of the run."""
    wrong = [
        f"{what} {facts[what]} instead of {expected}"
        for what, expected in {"frames": FRAMES, "masks": FRAMES, "overlay_frames": FRAMES, "audio": "copied"}.items()
        if facts[what] != expected
    ]
    if facts["agreement"] is not None and facts["agreement"] < _LEAST_AGREEMENT:
        wrong.append(f"only {facts['agreement']:.0%} of the labels agree with fp32 on the CPU")
    if wrong:
        return Finding("self-test", "broken", f"wrong results: {', '.join(wrong)}", _ADVICE, facts)
    found = (
        f"{FRAMES} frames segmented on {facts['device']} in {facts['precision']}: masks, video and sound are right "
        f"({facts['wall_s']:.1f} s)"
    )
    return Finding("self-test", "ok", found, facts=facts)


def _segment_clip(folder: Path, model: LoadedModel) -> dict[str, Any]:
    from tfcseg.media.masks import read_mask
    from tfcseg.media.reader import read_frames
    from tfcseg.runs.pipeline import run

    clip = folder / "clip.mp4"
    _make_clip(clip)
    report = run(clip, folder / "out", model, size=_NETWORK_SIZE)
    masks = [read_mask(path) for path in (folder / "out" / "masks").glob("*.png")]
    return {
        "model": report.model.name,
        "device": report.options.device,
        "precision": report.options.precision,
        "frames": report.input.frames_decoded,
        "masks": sum(mask.shape == SIZE and bool(mask.max() < len(model.labels)) for mask in masks),
        "overlay_frames": sum(frame.image.shape == (*SIZE, 3) for frame in read_frames(folder / "out" / "overlay.mp4")),
        "audio": (report.input.audio or "").partition("(")[2].rstrip(")"),
        "agreement": _agreement(clip, model),
    }


def _make_clip(path: Path) -> None:
    from tfcseg.media.ffmpeg import FfmpegProcess

    length = f"duration={FRAMES / RATE}"
    picture = f"testsrc2=size={SIZE[1]}x{SIZE[0]}:rate={RATE}:{length}"
    sources = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"sine={length}"]
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    with FfmpegProcess([*sources, *codecs, f"file:{path}"]) as process:
        if process.wait():
            raise TfcsegError(f"ffmpeg could not make a clip: {process.last_words()}")


def _agreement(clip: Path, model: LoadedModel) -> float | None:
    """Share of labels that are the same in fp32 on the CPU; None if the model runs like that anyway."""
    import numpy as np
    import torch

    from tfcseg.inference.segment import segment
    from tfcseg.media.reader import read_frames
    from tfcseg.weights.loading import load_model

    if (model.device.type, model.precision) == ("cpu", torch.float32):
        return None
    plain = load_model(device="cpu", precision="fp32")
    both = [[f.labels for f in segment(read_frames(clip), each, size=_NETWORK_SIZE)] for each in (model, plain)]
    return float(np.mean(np.equal(*map(np.stack, both))))


Check: TypeAlias = Callable[[], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "libraries": check_libraries,
    "extras": check_extras,
    "ffmpeg": check_ffmpeg,
    "processor": check_processor,
    "GPU": check_gpu,
    "weights": check_weights,
    "folder": check_folder,
    "self-test": check_by_running,
}
"""Names of the checks, under which a crashed check is reported."""


def examine(on_check: Callable[[str], None] = lambda name: None) -> Diagnosis:
    """Run all checks, which takes a few seconds. ``on_check`` is called with the name of the next one."""
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        on_check(name)
        findings.extend(_run(name, check))
    return Diagnosis(tuple(findings))


def _run(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # whatever is wrong with this machine, the other checks are still useful
        logger.info("the check of %s failed", name, exc_info=True)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding(name, "broken", f"the check failed ({reason})", "mend what is broken above, then look again")
