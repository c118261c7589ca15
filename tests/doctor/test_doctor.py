"""`tfcseg doctor` on this machine, and on machines that lack something."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command_line import call
from tfcseg.doctor.checks import (
    CHECKS,
    FRAMES,
    Finding,
    check_ffmpeg,
    check_gpu,
    check_libraries,
    check_processor,
    check_weights,
    codec_finding,
    self_test_finding,
)
from tfcseg.media.ffmpeg import ffmpeg_path
from tfcseg.weights.registry import list_models

ASSETS = Path(__file__).parents[2] / "assets"
RIGHT = {
    "device": "cpu",
    "precision": "float32",
    "frames": FRAMES,
    "masks": FRAMES,
    "overlay_frames": FRAMES,
    "audio": "copied",
    "agreement": None,
    "wall_s": 1.0,
}


@pytest.fixture
def other_ffmpeg(monkeypatch):
    """Use another program as ffmpeg."""

    def use(path):
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
        ffmpeg_path.cache_clear()

    yield use
    ffmpeg_path.cache_clear()


# ------------------------------------------------------------------------------------------------------ the whole of it


def test_a_sound_installation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    diagnosis = json.loads(done.stdout)
    assert diagnosis["is_healthy"] is True
    findings = {finding["name"]: finding for finding in diagnosis["findings"]}
    assert all(finding["status"] in {"ok", "note"} for finding in findings.values())
    assert all((finding["advice"] is None) == (finding["status"] == "ok") for finding in findings.values())
    default = next(record for record in list_models() if record.is_default)
    assert default.sha256[:12] in findings[f"model {default.name}"]["found"]
    assert findings["codecs"]["found"].startswith("writes H.264 with AAC")
    assert findings["self-test"]["found"].startswith(f"{FRAMES} frames segmented on ")
    assert list(tmp_path.iterdir()) == []


def test_without_ffmpeg_the_rest_is_examined_and_what_to_do_is_said(other_ffmpeg, tmp_path, monkeypatch):
    other_ffmpeg(tmp_path / "no-ffmpeg")
    monkeypatch.setenv("COLUMNS", "300")
    done = call("doctor")
    assert done.returncode == 1
    rows = {" ".join(line.split()[:2]): line for line in done.stdout.splitlines()}
    assert "cannot be started" in rows["broken ffmpeg"]
    assert "broken self-test" in rows
    assert "ok torch" in rows
    assert "set IMAGEIO_FFMPEG_EXE to another ffmpeg" in done.stdout
    assert done.stdout.splitlines()[-1] == "broken: ffmpeg, self-test"
    assert done.stderr == ""


def test_a_damaged_library_does_not_hide_the_rest(tmp_path):
    (tmp_path / "av").mkdir()
    (tmp_path / "av" / "__init__.py").write_text("raise OSError('libav.so: \\x1b[31mno such file\\nor folder')")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
    command = [sys.executable, "-m", "tfcseg", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["av"]["status"] == "broken"
    assert findings["av"]["found"] == "cannot be loaded (OSError: libav.so: \x1b[31mno such file or folder)"
    assert findings["av"]["advice"] == "pip install --force-reinstall av"
    assert findings["opencv"]["status"] == "ok"
    assert findings["self-test"]["status"] == "broken"


def test_a_check_that_fails_itself_is_a_finding(monkeypatch):
    def fail():
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("tfcseg.doctor.checks.CHECKS", {"moon": fail, "processor": check_processor})
    done = call("doctor", "--json")
    assert done.returncode == 1
    moon, processor = json.loads(done.stdout)["findings"]
    assert (moon["name"], moon["found"]) == ("moon", "the check failed (RuntimeError: two lines)")
    assert processor["name"] == "processor"


def test_what_is_shown_is_not_interpreted(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    bad = Finding("GPU", "broken", "[red]x[/red] :smile: \x1b[31m\nnext", "[bold]do[/] this")
    monkeypatch.setattr("tfcseg.doctor.checks.examine", lambda on_check: [bad])
    done = call("doctor")
    assert "[red]x[/red] :smile: \\x1b[31m next" in done.stdout
    assert "[bold]do[/] this" in done.stdout


# --------------------------------------------------------------------------------------------------------------- ffmpeg


def test_a_program_that_is_no_ffmpeg(other_ffmpeg):
    other_ffmpeg(shutil.which("true"))
    (finding,) = check_ffmpeg()
    assert finding.status == "broken"
    assert "is not ffmpeg" in finding.found


def test_a_program_that_may_not_be_started(other_ffmpeg, tmp_path):
    (tmp_path / "ffmpeg").write_text("no program")
    other_ffmpeg(tmp_path / "ffmpeg")
    (finding,) = check_ffmpeg()
    assert finding.status == "broken"
    assert "IMAGEIO_FFMPEG_EXE" in finding.advice


def test_missing_codecs_are_named_by_what_they_are_for():
    encoders, decoders = (
        {"libx264", "aac", "ppm"},
        {"h264", "hevc", "mpeg4", "mjpeg", "vp8", "libvpx-vp9", "av1", "prores"},
    )
    assert codec_finding(encoders, decoders).status == "ok"
    lacking = codec_finding(encoders - {"libx264"}, decoders)
    assert (lacking.status, lacking.found) == ("broken", "ffmpeg lacks libx264 (writing videos)")
    lacking = codec_finding(encoders, decoders - {"hevc"})
    assert (lacking.status, lacking.found) == ("note", "videos in HEVC (phones) cannot be read")
    assert codec_finding(encoders, decoders - {"h264"}).status == "broken"


# ------------------------------------------------------------------------------------------------------------- hardware


@pytest.mark.parametrize("has", [True, False])
def test_networks_use_bfloat16_where_the_processor_has_it(has, monkeypatch):
    monkeypatch.setattr("tfcseg.doctor.checks.has_bfloat16", lambda: has)
    (finding,) = check_processor()
    assert finding.found.endswith(", in bfloat16") is has


def test_a_driver_without_a_pytorch_for_it_is_noted(monkeypatch, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this PyTorch sees a GPU")
    (tmp_path / "version").touch()
    monkeypatch.setattr("tfcseg.doctor.checks._NVIDIA_DRIVER", tmp_path / "version")
    (finding,) = check_gpu()
    assert finding.status == "note"
    assert "install PyTorch for CUDA" in finding.advice


@pytest.mark.cuda
def test_a_gpu_is_named():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    (finding,) = check_gpu()
    assert finding.status == "ok"
    assert torch.cuda.get_device_name() in finding.found


# ---------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def assets(tmp_path):
    shutil.copy(ASSETS / "models.json", tmp_path)
    for record in list_models():
        shutil.copy(record.path, tmp_path)
    return tmp_path


def test_a_changed_weights_file_is_found(assets):
    assert [finding.status for finding in check_weights(assets)] == ["ok"] * len(list_models())
    for record in list_models(assets):
        data = bytearray(record.path.read_bytes())
        data[len(data) // 2] ^= 1
        record.path.write_bytes(data)
    for finding in check_weights(assets):
        assert finding.status == "broken"
        assert "SHA-256 differs" in finding.found
        assert "install tfcseg again" in finding.advice


def test_missing_weights_and_a_missing_registry_are_found(assets, tmp_path):
    for record in list_models(assets):
        record.path.unlink()
    assert {finding.status for finding in check_weights(assets)} == {"broken"}
    (assets / "models.json").unlink()
    (finding,) = check_weights(assets)
    assert finding.status == "broken"


# ------------------------------------------------------------------------------------------------------------ self-test


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"masks": FRAMES - 1}, f"masks {FRAMES - 1} instead of {FRAMES}"),
        ({"overlay_frames": 0}, f"overlay_frames 0 instead of {FRAMES}"),
        ({"audio": "aac"}, "audio aac instead of copied"),
        ({"agreement": 0.5}, "only 50% of the labels agree with fp32 on the CPU"),
    ],
)
def test_wrong_results_are_broken(wrong, said):
    assert self_test_finding(RIGHT | {"agreement": 0.99}).status == "ok"
    finding = self_test_finding(RIGHT | wrong)
    assert finding.status == "broken"
    assert said in finding.found


def test_everything_that_is_examined_is_known_here():
    assert list(CHECKS) == [*("libraries", "ffmpeg", "processor", "GPU", "weights", "self-test")]
    assert {finding.name for finding in check_libraries()} > {"tfcseg", "torch", "numpy", "opencv", "av"}
