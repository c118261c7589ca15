"""Many inputs: what is finished is skipped, and the log says how each of them ended."""

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
    records = map(json.loads, log.read_text().splitlines())
    return [record["fields"] for record in records if record["logger"] == "tfcseg.cli.run"]


def test_a_batch_is_told_line_by_line_and_done_once(clips, weights, tmp_path):
    bad, log, out = tmp_path / "bad.mp4", tmp_path / "batch.jsonl", tmp_path / "out"
    bad.write_text("no video")
    names = tmp_path / "inputs.txt"
    names.write_text("\r\n".join(map(str, [bad, *clips])), encoding="utf-8-sig")  # as Windows writes it
    command = ("run", "--inputs", names, "-o", out, "-m", weights, "--resume", "--log-file", log, *FAST)
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


def test_summaries_and_warnings_of_a_batch_name_their_input(clips, weights, tmp_path):
    done = call("run", *clips, "-o", tmp_path / "out", "-m", weights, *FAST, "--export", "yolo")
    assert done.returncode == 0
    told = [line.split() for line in done.stderr.splitlines()]
    assert [line[1] for line in told if line[0] == "input"] == list(map(str, clips))
    assert [line[1] for line in told if line[0] == "warning:"] == [f"{clip}:" for clip in clips]
    alone = call("run", clips[0], "-o", tmp_path / "alone", "-m", weights, *FAST, "--export", "yolo")
    assert alone.stderr.startswith("warning: yolo.zip: ")


def test_what_is_finished_is_skipped_before_the_model_is_loaded(clips, weights, tmp_path, monkeypatch):
    results = tfcseg.ResultOptions(overlay=False, masks=False, html=False, flow_consistency=False)
    tfcseg.run(clips[0], tmp_path / "out", weights, results=results)

    def load(*args, **kwargs):
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("tfcseg.weights.loading.open_model", load)
    with pytest.raises(FinishedError, match="holds a finished run"):
        tfcseg.run(clips[0], tmp_path / "out", weights, results=results, resume=True)
    with pytest.raises(OutputError, match=r"different run: size was 64 and is now 32; .*overwrite=True"):
        tfcseg.run(clips[0], tmp_path / "out", weights, results=results, resume=True, size=32)


def test_an_unfinished_run_is_not_taken_for_a_finished_one(clips, weights, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(pipeline, "build_report", lambda *args, **named: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tfcseg.run(clips[0], out, weights)
    monkeypatch.undo()
    assert tfcseg.run(clips[0], out, weights, resume=True).speed.resumes == 1
