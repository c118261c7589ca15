"""Streams closed or full, variables that name nothing, arguments that are empty: one line or a finished run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tfcseg
from tests.helpers.command_line import call
from tests.helpers.media import write_clip
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.media.ffmpeg import ffmpeg_path

QUICK = ("--no-flow-consistency", "--no-html", "--size", "32")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("media") / "clip.mp4", 3)


def shell(*arguments, streams):
    """``tfcseg arguments…`` with its ``streams`` redirected as in a shell."""
    command = f'"$0" -m tfcseg "$@" {streams}'
    words = ["bash", "-c", command, sys.executable, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def results(out):
    return {path.name for path in out.iterdir()}


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "2> /dev/full"])
def test_a_run_is_finished_when_nobody_can_be_told(clip, weights, tmp_path, streams):
    done = shell("run", clip, "-o", tmp_path / "out", "-m", weights, *QUICK, "--json", streams=streams)
    assert done.returncode == 0
    assert results(tmp_path / "out") >= {"frames.csv", "masks", "overlay.mp4", "report.json"}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["input"]["frames_decoded"] == 3
    assert (done.stdout == "") == (">&-" in streams)
    head = (tmp_path / "out" / "frames.csv").read_text().splitlines()[0]
    assert head.startswith("frame,time_s"), "and nothing that was meant for a stream"


def test_what_a_full_stdout_cannot_take_is_told(clip, weights, tmp_path):
    done = shell("run", clip, "-o", tmp_path / "out", "-m", weights, *QUICK, "--json", "-q", streams="> /dev/full")
    assert (done.returncode, done.stderr) == (1, "error: cannot write to stdout: No space left on device\n")
    assert results(tmp_path / "out") >= {"frames.csv", "masks", "overlay.mp4", "report.json"}


def test_a_folder_that_is_gone_is_told(tmp_path):
    (tmp_path / "gone").mkdir()
    moved = f'cd "{tmp_path}/gone" && rmdir "{tmp_path}/gone" && "$0" "$@"'
    root = str(Path(tfcseg.__file__).parent.parent)
    done = subprocess.run(
        ["bash", "-c", moved, sys.executable, "-m", "tfcseg", "models"],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = "error: the current folder is gone: No such file or directory; change to another one\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("run", "--help"), ("models",), ()])
def test_every_command_tells_of_a_full_stdout(arguments):
    done = shell(*arguments, streams="> /dev/full")
    assert (done.returncode, done.stderr) == (1, "error: cannot write to stdout: No space left on device\n")


def test_a_closed_stdin_holds_no_video(tmp_path, weights):
    done = shell("run", "-", "-o", tmp_path / "out", "-m", weights, streams="<&-")
    assert (done.returncode, done.stderr) == (1, "error: -: not a video: it is empty (0 bytes)\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "text", "folder", "no_name", "other_interpreter"])
def test_a_variable_that_names_no_program_is_one_line(clip, weights, tmp_path, monkeypatch, kind):
    path = tmp_path / "ffmpeg"
    if kind in ("text", "other_interpreter"):
        path.write_text("#!/none" if kind == "other_interpreter" else "text")
        path.chmod(0o755 if kind == "other_interpreter" else 0o644)
    if kind == "folder":
        path.mkdir()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "no-such-ffmpeg" if kind == "no_name" else str(path))
    ffmpeg_path.cache_clear()
    try:
        done = call("run", clip, "-o", tmp_path / "out", "-m", weights)
        assert done.returncode == 1
        assert ("no-such-ffmpeg" if kind == "no_name" else str(path)) in done.error
        assert call("doctor").returncode == 1
    finally:
        ffmpeg_path.cache_clear()
    assert not (tmp_path / "out").exists()


def test_a_program_may_be_named_without_its_path(monkeypatch):
    folder, name = os.path.split(ffmpeg_path())
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", name)
    monkeypatch.setenv("PATH", folder, prepend=os.pathsep)
    wanted = ffmpeg_path()
    ffmpeg_path.cache_clear()
    try:
        assert ffmpeg_path() == wanted
    finally:
        ffmpeg_path.cache_clear()


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ("run", ""),
            ("run", "a.mp4", ""),
            ("run", "--", ""),
            ("run", "a.mp4", "-o", ""),
            ("run", "a.mp4", "--model="),
        ),
        *(("run", "a.mp4", "--classes", ""), ("eval", ""), ("compare", ""), ("train", "", "-o", "x")),
        *(
            ("bench", ""),
            ("research", "publish", "", "--name", "x", "--measure", "y"),
            ("research", "ablate", ""),
            ("",),
        ),
    ],
)
def test_empty_arguments_are_refused(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4", 2)
    done = call(*arguments)
    assert done.returncode == 2
    assert "is empty" in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
