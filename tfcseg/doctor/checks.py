"""Check libraries, ffmpeg, processor and GPU, weights; then segment a small clip."""

from __future__ import annotations

import hashlib
import importlib
import logging
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tfcseg.errors import TfcsegError
from tfcseg.machine import available_cores, cpu_name, has_bfloat16
from tfcseg.media.ffmpeg import FfmpegProcess, ask_ffmpeg, ffmpeg_path
from tfcseg.weights.registry import list_models

if TYPE_CHECKING:
    from tfcseg.weights.loading import LoadedModel

logger = logging.getLogger(__name__)

SCHEMA = 1

_LIBRARIES = {
    "torch": "torch",
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "av": "av",
    "pillow": "PIL",
    "safetensors": "safetensors.torch",
}
"""Module of each package."""

_NEEDED_CODECS = {"libx264": "writing videos", "aac": "their sound", "ppm": "reading frames", "h264": "reading videos"}
_WELCOME_DECODERS = {
    "HEVC (phones)": {"hevc"},
    "MPEG-4": {"mpeg4"},
    "Motion JPEG": {"mjpeg"},
    "VP8": {"vp8", "libvpx"},
    "VP9": {"vp9", "libvpx-vp9"},
    "AV1": {"libdav1d", "libaom-av1", "av1"},
    "ProRes": {"prores"},
}
"""Names of each decoder; any one of them is enough."""
_LISTED_CODEC = re.compile(r"^ [A-Z.]{6} (\S+)", re.MULTILINE)
_TIMEOUT_S = 30

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_REINSTALL = "install tfcseg again: pip install --force-reinstall tfcseg"
_REINSTALL_FFMPEG = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to another ffmpeg"

FRAMES, RATE = 8, 10
SIZE = (180, 240)
"""Height and width of the clip."""
_NETWORK_SIZE = 160
_LEAST_AGREEMENT = 0.9
"""Share of the labels that a GPU or a shorter type must have in common with fp32 on the CPU."""
_MEND_FIRST = "fix what is broken above; if nothing is, report this with the output of tfcseg doctor --json"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    status: Literal["ok", "note", "broken"]
    """``note``: something optional is missing. ``broken``: something needed does not work."""
    found: str
    advice: str | None = None  # none if nothing needs to be done


def check_libraries() -> Iterator[Finding]:
    """Load each library and ask for its version."""
    system = f"Python {platform.python_version()}, {platform.platform()}"
    yield Finding("tfcseg", "ok", f"{version('tfcseg')} on {system}")
    for package, module in _LIBRARIES.items():
        name = package.partition("-")[0]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy and torch warn of each other; the self-test shows if they work
                importlib.import_module(module)
        except Exception as error:  # noqa: BLE001  # a damaged library raises anything while it loads
            advice = f"pip install --force-reinstall {package}"
            yield Finding(name, "broken", f"cannot be loaded ({_on_one_line(error)})", advice)
        else:
            yield Finding(name, "ok", str(sys.modules[module.partition(".")[0]].__version__))


def check_ffmpeg() -> Iterator[Finding]:
    """Start ffmpeg and read its lists of codecs."""
    try:
        path = ffmpeg_path()
        about = ask_ffmpeg(["-version"], timeout_s=_TIMEOUT_S)
    except (TfcsegError, OSError, subprocess.SubprocessError) as error:
        yield Finding("ffmpeg", "broken", f"cannot be started ({error})", _REINSTALL_FFMPEG)
        return
    found = re.match(r"ffmpeg version (\S+)", about)
    if found is None:
        yield Finding("ffmpeg", "broken", f"{path} is not ffmpeg", _REINSTALL_FFMPEG)
        return
    yield Finding("ffmpeg", "ok", f"{found[1]} at {path}")
    encoders, decoders = (ask_ffmpeg([kind], timeout_s=_TIMEOUT_S) for kind in ("-encoders", "-decoders"))
    yield codec_finding(set(_LISTED_CODEC.findall(encoders)), set(_LISTED_CODEC.findall(decoders)))


def codec_finding(encoders: set[str], decoders: set[str]) -> Finding:
    """Judge what an ffmpeg with these codecs can do."""
    available = encoders | (decoders & {"h264"})
    lacking = [f"{name} ({use})" for name, use in _NEEDED_CODECS.items() if name not in available]
    unread = [name for name, names in _WELCOME_DECODERS.items() if decoders.isdisjoint(names)]
    if lacking:
        return Finding("codecs", "broken", f"ffmpeg lacks {', '.join(lacking)}", _REINSTALL_FFMPEG)
    if unread:
        return Finding("codecs", "note", f"videos in {', '.join(unread)} cannot be read", _REINSTALL_FFMPEG)
    return Finding("codecs", "ok", "writes H.264 with AAC, reads all usual formats")


def check_processor() -> Iterator[Finding]:
    """Name of the processor, how many of its cores the network uses, and whether it computes in bfloat16."""
    import torch

    found = f"{cpu_name()}; {available_cores()} cores, of which the network uses {torch.get_num_threads()}"
    yield Finding("processor", "ok", found + (", in bfloat16" if has_bfloat16() else ""))


def check_gpu() -> Iterator[Finding]:
    """GPUs that PyTorch can use, and a driver without a PyTorch that uses it."""
    import torch

    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        found = ", ".join(f"{gpu.name} ({gpu.total_memory / (1 << 30):.0f} GiB)" for gpu in gpus)
        yield Finding("GPU", "ok", f"{found}; used unless --device says otherwise")
    elif _NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi"):
        found = f"there is an NVIDIA driver, but PyTorch {torch.__version__} finds no GPU"
        advice = "install PyTorch for CUDA (https://pytorch.org/get-started/locally); without it the CPU is used"
        yield Finding("GPU", "note", found, advice)
    elif torch.backends.mps.is_available():
        yield Finding("GPU", "ok", "Apple GPU; used with --device mps")
    else:
        yield Finding("GPU", "ok", "none; the network runs on the CPU")


def check_weights(assets: Path | None = None) -> Iterator[Finding]:
    """Compare every file of the registry with the SHA-256 that it must have."""
    try:
        records = list_models(assets)
    except TfcsegError as error:
        yield Finding("weights", "broken", str(error), _REINSTALL)
        return
    for record in records:
        name, default = f"model {record.name}", ", the default" if record.is_default else ""
        try:
            sha256 = hashlib.sha256(record.path.read_bytes()).hexdigest()
        except OSError as error:
            yield Finding(name, "broken", f"{record.path} cannot be read ({error.strerror})", _REINSTALL)
            continue
        if sha256 == record.sha256:
            yield Finding(name, "ok", f"as shipped{default} (SHA-256 {sha256[:12]}…)")
        else:
            found = f"{record.path} is not the file that was shipped (SHA-256 differs)"
            yield Finding(name, "broken", found, _REINSTALL)


def check_by_running() -> Iterator[Finding]:
    """Segment a clip with the default model in a temporary folder and check everything that was written."""
    from tfcseg.weights.loading import load_model

    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tfcseg-doctor-", ignore_cleanup_errors=True) as folder:
        try:
            results = _segment_clip(Path(folder), load_model())
        except TfcsegError as error:
            yield Finding("self-test", "broken", str(error), _MEND_FIRST)
            return
    yield self_test_finding({**results, "wall_s": time.perf_counter() - started_s})


def self_test_finding(results: dict[str, Any]) -> Finding:
    """Judge the results of the run."""
    wanted = {"frames": FRAMES, "masks": FRAMES, "overlay_frames": FRAMES, "audio": "copied"}
    wrong = [f"{what} {results[what]} instead of {right}" for what, right in wanted.items() if results[what] != right]
    if results["agreement"] is not None and results["agreement"] < _LEAST_AGREEMENT:
        wrong.append(f"only {results['agreement']:.0%} of the labels agree with fp32 on the CPU")
    if wrong:
        return Finding("self-test", "broken", f"wrong results: {', '.join(wrong)}", _MEND_FIRST)
    found = (
        f"{FRAMES} frames segmented on {results['device']} in {results['precision']}: masks, video and sound are right "
        f"({results['wall_s']:.1f} s)"
    )
    return Finding("self-test", "ok", found)


def _segment_clip(folder: Path, model: LoadedModel) -> dict[str, Any]:
    from tfcseg.media.masks import read_mask
    from tfcseg.media.reader import read_frames
    from tfcseg.runs.pipeline import run

    clip, length = folder / "clip.mp4", f"duration={FRAMES / RATE}"
    picture = f"testsrc2=size={SIZE[1]}x{SIZE[0]}:rate={RATE}:{length}"
    sources = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"sine={length}"]
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    with FfmpegProcess([*sources, *codecs, f"file:{clip}"]) as process:
        if process.wait():
            raise TfcsegError(f"ffmpeg could not make a clip: {process.last_words()}")
    report = run(clip, folder / "out", model, size=_NETWORK_SIZE)
    masks = [read_mask(path) for path in (folder / "out" / "masks").glob("*.png")]
    return {
        "device": report.options.device,
        "precision": report.options.precision,
        "frames": report.input.frames_decoded,
        "masks": sum(mask.shape == SIZE and bool(mask.max() < len(model.labels)) for mask in masks),
        "overlay_frames": sum(frame.image.shape == (*SIZE, 3) for frame in read_frames(folder / "out" / "overlay.mp4")),
        "audio": (report.input.audio or "").partition("(")[2].rstrip(")"),
        "agreement": _agreement(clip, model),
    }


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


CHECKS: dict[str, Callable[[], Iterable[Finding]]] = {
    "libraries": check_libraries,
    "ffmpeg": check_ffmpeg,
    "processor": check_processor,
    "GPU": check_gpu,
    "weights": check_weights,
    "self-test": check_by_running,
}


def examine(on_check: Callable[[str], None] = lambda name: None) -> list[Finding]:
    """Run all checks, which takes a few seconds. ``on_check`` is called with the name of the next one."""
    findings: list[Finding] = []
    for name, check in CHECKS.items():
        on_check(name)
        try:
            findings.extend(check())
        except Exception as error:  # whatever is wrong with this machine, the other checks are still useful
            logger.info("the check of %s failed", name, exc_info=True)
            findings.append(Finding(name, "broken", f"the check failed ({_on_one_line(error)})", _MEND_FIRST))
    return findings


def _on_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
