"""Many inputs: what is finished is skipped, and a log says how each of them ended."""

import json

import pytest

import tfcseg
from tests.helpers.command_line import call
from tests.helpers.media import write_clip
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.errors import FinishedError, OutputError
from tfcseg.runs import pipeline

FAST = ("--no-overlay", "--no-masks", "--no-html", "--no-flow-consistency")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(folder / f"{name}.mp4", 3) for name in "ab"]


def lines_of(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_batch_is_told_line_by_line_and_done_once(clips, weights, tmp_path):
    bad, log, out = tmp_path / "bad.mp4", tmp_path / "batch.jsonl", tmp_path / "out"
    bad.write_text("no video")
    names = tmp_path / "inputs.txt"
    names.write_text("\r\n".join(map(str, [bad, *clips])), encoding="utf-8-sig")  # as Windows writes it
    command = ("run", "--inputs", names, "-o", out, "-m", weights, "--skip-finished", "--batch-log", log, *FAST)
    assert call(*command).returncode == 1
    first = lines_of(log)
    assert [(line["input"], line["status"], line["frames"]) for line in first] == [
        (str(bad), "failed", None),
        *((str(clip), "done", 3) for clip in clips),
    ]
    assert "bad.mp4" in first[0]["error"]
    assert [line["output"] for line in first[1:]] == [str(out / "a_tfcseg"), str(out / "b_tfcseg")]
    assert all(line["seconds"] > 0 for line in first)
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    bad.unlink()
    names.write_text("\n".join(map(str, clips)))
    again = call(*command, "--json")
    assert again.returncode == 0, again.stderr
    assert "2 of 2 inputs were finished before" in again.stderr
    assert len(json.loads(again.stdout)) == 2
    assert [line["status"] for line in lines_of(log)[3:]] == ["skipped", "skipped"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == made


def test_what_is_finished_is_skipped_before_the_model_is_loaded(clips, weights, tmp_path, monkeypatch):
    results = tfcseg.ResultOptions(overlay=False, masks=False, html=False, flow_consistency=False)
    tfcseg.run(clips[0], tmp_path / "out", weights, results=results)

    def load(*args, **kwargs):
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("tfcseg.weights.loading.open_model", load)
    with pytest.raises(FinishedError, match="holds a finished run"):
        tfcseg.run(clips[0], tmp_path / "out", weights, results=results, skip_finished=True)
    with pytest.raises(OutputError, match=r"different run: size was 64 and is now 32; .*overwrite=True"):
        tfcseg.run(clips[0], tmp_path / "out", weights, results=results, skip_finished=True, size=32)


def test_runs_of_other_settings_are_replaced_if_that_is_asked_for(clips, weights, tmp_path):
    results = tfcseg.ResultOptions(overlay=False, masks=False, html=False, flow_consistency=False)
    for size in (64, 64, 32):
        reports = tfcseg.run(clips, tmp_path, weights, results=results, skip_finished=True, overwrite=True, size=size)
        assert len(reports) == (0 if (tmp_path / "seen").exists() and size == 64 else 2)
        (tmp_path / "seen").touch()


def test_an_unfinished_run_is_not_taken_for_a_finished_one(clips, weights, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(pipeline, "build_report", lambda *args, **named: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tfcseg.run(clips[0], out, weights)
    monkeypatch.undo()
    with pytest.raises(OutputError, match="holds an unfinished run"):
        tfcseg.run(clips[0], out, weights, skip_finished=True)
    assert tfcseg.run(clips[0], out, weights, skip_finished=True, resume=True).speed.resumes == 1


def test_a_log_that_cannot_be_written_is_told_at_once(clips, weights, tmp_path):
    done = call("run", clips[0], "-o", tmp_path / "out", "-m", weights, "--batch-log", tmp_path / "none" / "log")
    assert done.returncode == 1
    assert "choose another --batch-log" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_log_is_not_appended_to_a_video(weights, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 2)
    before = clip.read_bytes()
    done = call("run", clip, "-o", tmp_path / "out", "-m", weights, "--batch-log", clip)
    assert (done.returncode, clip.read_bytes()) == (2, before)
    assert "is not a log of JSON lines; choose another --batch-log" in done.stderr
    assert not (tmp_path / "out").exists()
