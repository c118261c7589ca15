"""Resuming: what is refused, what is found damaged, and who may write to a folder at a time."""

import contextlib
import dataclasses
import gc
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import tfcseg
from tests.helpers.command_line import call, interruptible
from tests.helpers.media import children, folder_of_images, numbered_images, read_number, write_clip, write_video
from tests.helpers.tiny_model import build_tiny_model, moving_images, write_tiny_model
from tests.runs.test_resume_after_kill import assert_same_results
from tfcseg.errors import FinishedError, InputError, OutputError, UsageError
from tfcseg.inference import both_sides
from tfcseg.media import writer as video_writer
from tfcseg.media.masks import read_mask
from tfcseg.media.reader import open_frames, read_frames
from tfcseg.media.source import Source
from tfcseg.media.writer import VideoWriter
from tfcseg.report.schema import FrameTable
from tfcseg.runs import pipeline
from tfcseg.runs.options import ResultOptions
from tfcseg.runs.outputs import folder_lock
from tfcseg.runs.state import LOCK_NAME, STATE_FOLDER, RunState, unfinished_frames

PART_FRAMES = 4
FRAMES = 18
STOP_AT = 10
SAFE = 12
"""Frames that an interrupt at STOP_AT leaves: its interval is finished."""
MODEL = build_tiny_model()
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch):
    monkeypatch.setattr(video_writer, "PART_FRAMES", PART_FRAMES)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("media") / "clip.mp4", moving_images(FRAMES, (48, 64)))


@pytest.fixture(scope="module")
def finished(clip, tmp_path_factory):
    """Results of a run that was left alone."""
    out = tmp_path_factory.mktemp("finished") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_writer, "PART_FRAMES", PART_FRAMES)
        tfcseg.run(clip, out, MODEL)
    return out


@pytest.fixture(scope="module")
def stopped(clip, tmp_path_factory):
    """Results of a run that was interrupted after two parts; a test takes a copy."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_writer, "PART_FRAMES", PART_FRAMES)
        interrupt(clip, out)
    return out


@pytest.fixture
def out(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "out")


def interrupt(source, out, model=MODEL, at=STOP_AT, safe=None, **options):
    """A run that Ctrl-C stops when frame ``at`` has been through the network, and ``safe`` frames are saved already."""
    safe = at // PART_FRAMES * PART_FRAMES if safe is None else safe

    def on_frame(frame, info):
        if frame.index == at:
            wait_until(lambda: unfinished_frames(Path(out)) >= safe)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tfcseg.run(source, out, model, **{"on_frame": on_frame, **options})


def first_frame(source, out, model=MODEL, **options):
    """Resume, and return the report and the index of the first frame that was computed."""
    computed = []
    report = tfcseg.run(source, out, model, resume=True, on_frame=lambda f, info: computed.append(f.index), **options)
    return report, computed[0]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- going on ------------------------------------------------------------------------------------------------------


def test_an_interrupt_leaves_whole_parts_and_says_how_many_frames_are_safe(out):
    assert unfinished_frames(out) == SAFE
    assert {path.name for path in out.iterdir()} == {"classes.json", "frames.csv", "masks", STATE_FOLDER}
    names = {path.name for path in (out / STATE_FOLDER).iterdir()}
    assert names == {"state.json", "at-00000008", "at-00000012", *(f"overlay-{n:08d}.mp4" for n in (0, 4, 8))}


def test_checkpoints_of_another_version_do_not_stop_a_new_run(out, clip):
    path = out / STATE_FOLDER / "state.json"
    state = json.loads(path.read_bytes())
    state["run"]["tfcseg"] = "0.0.1"
    for entry in state["checkpoints"]:
        entry["added_later"] = entry.pop("resumes")
    path.write_text(json.dumps(state))
    assert unfinished_frames(out) == 0
    with pytest.raises(OutputError, match=r"tfcseg was 0\.0\.1 and is now"):
        tfcseg.run(clip, out, MODEL, resume=True)
    tfcseg.run(clip, out, MODEL, overwrite=True)
    assert len(list((out / "masks").iterdir())) == FRAMES


@pytest.mark.parametrize(
    "options",
    [{}, {"masks": False, "side_by_side": True}, {"overlay": False}, {"masks": False, "overlay": False, "html": False}],
)
def test_what_a_part_has_so_far_is_safe_and_drawn_again(clip, tmp_path, monkeypatch, options):
    """Also in the midst of a part; the encoder, which cannot be saved, begins with the part once more."""
    monkeypatch.setattr(video_writer, "PART_FRAMES", 16)
    results = ResultOptions(**options)
    tfcseg.run(clip, tmp_path / "alone", MODEL, results=results, sides="both")
    for at in (5, 9, 17):
        resume = at > 5
        interrupt(clip, tmp_path / "out", at=at, safe=0, results=results, sides="both", resume=resume)
        assert unfinished_frames(tmp_path / "out") == min(FRAMES, at // 4 * 4 + 4)
    report = tfcseg.run(clip, tmp_path / "out", MODEL, results=results, sides="both", resume=True)
    assert report.speed.resumes == 3
    ours, others = files(tmp_path / "out"), files(tmp_path / "alone")
    assert ours.keys() == others.keys()
    assert all(ours[name] == others[name] for name in ours if name.startswith("masks") or name.endswith(".mp4"))
    if "overlay" not in options and "masks" not in options:
        assert_same_results(tmp_path / "out", tmp_path / "alone")


def copy_of_running(folder, target):
    """Copy of a run that goes on meanwhile: it gives temporary files their final names, and drops old checkpoints."""
    while True:
        try:
            return shutil.copytree(folder, target, copy_function=copy_if_there)
        except shutil.Error:  # a folder is gone
            shutil.rmtree(target)


def copy_if_there(source, target):
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


@pytest.mark.parametrize(
    ("options", "safe"), [({}, 12), ({"sides": "both"}, 4), ({"sides": "both", "keyframes": "adaptive"}, 4)]
)
def test_a_run_is_saved_every_few_seconds(clip, tmp_path, monkeypatch, options, safe):
    """What a kill leaves, which nobody can prepare for; with both sides, keyframes wait for those after them."""
    monkeypatch.setattr(video_writer, "PART_FRAMES", 240)
    monkeypatch.setattr("tfcseg.runs.results.SAFE_EVERY_S", 0)
    copies = []

    def on_frame(frame, info):
        if frame.index == 13:
            wait_until(lambda: unfinished_frames(tmp_path / "out") >= safe)
            copies.append(copy_of_running(tmp_path / "out", tmp_path / "killed"))

    tfcseg.run(clip, tmp_path / "out", MODEL, on_frame=on_frame, **options)
    assert safe <= first_frame(clip, copies[0], **options)[1] <= 14  # the frame after the one that was shown
    assert_same_results(copies[0], tmp_path / "out")


def test_a_resumed_run_begins_after_the_last_whole_part(clip, out, finished):
    report, first = first_frame(clip, out)
    assert first == SAFE
    assert report.speed.resumes == 1
    assert report.input.frames_decoded == FRAMES
    assert_same_results(out, finished)


@pytest.mark.parametrize(
    "options",
    [
        {"overlay": False},
        {"masks": False, "html": False},
        {"frames_csv": False, "report": False},
        {"side_by_side": True, "legend": False, "flow_consistency": False},
    ],
)
def test_any_choice_of_results_can_be_resumed(clip, tmp_path, options):
    results = ResultOptions(**options)
    interrupt(clip, tmp_path / "out", results=results)
    _, first = first_frame(clip, tmp_path / "out", results=results)
    assert first == SAFE
    tfcseg.run(clip, tmp_path / "alone", MODEL, results=results)
    ours, others = files(tmp_path / "out"), files(tmp_path / "alone")
    assert ours.keys() == others.keys()
    assert all(ours[name] == others[name] for name in ours if name.startswith("masks") or name.endswith(".mp4"))


@pytest.mark.parametrize(
    "options",
    [
        *({"sides": "both"}, {"sides": "both", "keyframes": "adaptive"}),
        *({"sides": "past"}, {"sides": "past", "latency": "low"}, {"sides": "both", "keyframe_interval": 1}),
    ],
)
def test_what_keyframes_carry_over_survives_an_interrupt(clip, tmp_path, options):
    interrupt(clip, tmp_path / "out", **options)
    _, first = first_frame(clip, tmp_path / "out", **options)
    # With low latency nobody knows whether the next frame begins an interval: only parts are safe.
    if {"keyframes", "keyframe_interval"} & {*options}:  # intervals end elsewhere
        assert SAFE - 4 < first <= SAFE
    else:
        assert first == (2 * PART_FRAMES if "latency" in options else SAFE)
    tfcseg.run(clip, tmp_path / "alone", MODEL, **options)
    assert_same_results(tmp_path / "out", tmp_path / "alone")
    # Otherwise this would prove nothing: the frames after the interrupt lean on those before.
    images = [frame.image for frame in read_frames(clip)]
    anew = next(iter(tfcseg.segment(images[first:], MODEL, **options)))
    assert (anew.labels != read_mask(tmp_path / "out" / "masks" / f"{first:08d}.png")).any()


@pytest.mark.parametrize("options", [{}, {"sides": "both"}, {"sides": "both", "keyframes": "adaptive"}])
def test_a_decoder_that_fails_in_between_is_not_taken_for_the_end(clip, tmp_path, monkeypatch, options):
    """Frames before it would be others if those after it were never to come."""
    monkeypatch.setattr(both_sides, "REACH", 4)
    frames = pipeline.prefetch_frames

    def failing(source):
        yield from islice(frames(source), 15)
        raise InputError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "prefetch_frames", failing)
        with pytest.raises(InputError, match="killed; resume=True continues after the"):
            tfcseg.run(clip, tmp_path / "out", MODEL, **options)
    tfcseg.run(clip, tmp_path / "out", MODEL, resume=True, **options)
    tfcseg.run(clip, tmp_path / "alone", MODEL, **options)
    assert_same_results(tmp_path / "out", tmp_path / "alone")


def test_a_run_whose_carried_keyframe_is_damaged_goes_on_from_the_part_before(clip, tmp_path):
    out, options = tmp_path / "out", {"sides": "both"}
    interrupt(clip, out, **options)
    (out / STATE_FOLDER / "at-00000012" / "carried.npz").write_bytes(b"PK")
    _, first = first_frame(clip, out, **options)
    assert first == 2 * PART_FRAMES
    tfcseg.run(clip, tmp_path / "alone", MODEL, **options)
    assert_same_results(out, tmp_path / "alone")


def test_a_run_that_was_resumed_may_be_stopped_again(clip, out, finished):
    interrupt(clip, out, at=13, resume=True)
    assert unfinished_frames(out) == 4 * PART_FRAMES
    report, first = first_frame(clip, out)
    assert (first, report.speed.resumes) == (4 * PART_FRAMES, 2)
    assert_same_results(out, finished)


def test_what_failed_at_the_very_end_is_finished_without_the_network(clip, out, finished):
    (out / "overlay.mp4").mkdir()  # in the way of the name
    with pytest.raises(OutputError, match=r"overlay\.mp4: cannot be written: Is a directory; resume=True continues"):
        tfcseg.run(clip, out, MODEL, resume=True)
    (out / "overlay.mp4").rmdir()
    computed = []
    tfcseg.run(clip, out, MODEL, resume=True, on_frame=lambda frame, info: computed.append(frame))
    assert computed == []
    assert_same_results(out, finished)


def test_resuming_nothing_is_a_run_like_any_other(clip, tmp_path, finished):
    tfcseg.run(clip, tmp_path / "out", MODEL, resume=True)
    assert_same_results(tmp_path / "out", finished)


def test_a_folder_of_images_can_be_resumed(tmp_path):
    folder = folder_of_images(tmp_path / "frames", numbered_images(11), [f"{n}.png" for n in range(11)])
    (folder / "7.png").write_bytes(b"")  # the one before stands in, also for the comparison at the border
    for out in ("alone", "stopped"):
        if out == "stopped":
            interrupt(folder, tmp_path / out, at=9)
        tfcseg.run(folder, tmp_path / out, MODEL, resume=True)
    assert_same_results(tmp_path / "stopped", tmp_path / "alone")


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 0.5}, "threshold was 0.8 and is now 0.5"),
        ({"keyframe_interval": 2}, "keyframe interval was 4 and is now 2"),
        ({"mode": "reuse"}, "mode was tfc and is now reuse"),
        ({"half_size_share": 0.5}, "half size share was 0.0 and is now 0.5"),
        ({"end_s": 0.5}, "end was not given and is now 0.5"),
        ({"results": ResultOptions(alpha=0.3)}, "alpha was 0.55 and is now 0.3"),
        ({"results": ResultOptions(flow_consistency=False)}, "flow consistency was on and is now off"),
        ({"results": ResultOptions(classes=("sky", "car"))}, "classes was not given and is now sky, car"),
    ],
)
def test_other_options_are_refused_with_the_difference(clip, out, options, words):
    before = files(out)
    with pytest.raises(OutputError, match="holds a different run") as caught:
        tfcseg.run(clip, out, MODEL, resume=True, **options)
    assert words in str(caught.value)
    assert files(out) == before


def test_other_weights_are_refused(clip, out):
    other = dataclasses.replace(MODEL, sha256="f" * 64)
    with pytest.raises(OutputError, match="weights was 00000000… and is now ffffffff…"):
        tfcseg.run(clip, out, other, resume=True)


def test_another_version_is_refused(clip, out, monkeypatch):
    monkeypatch.setattr("tfcseg.runs.resuming.version", lambda name: "9.9")
    with pytest.raises(OutputError, match=r"tfcseg was .* and is now 9\.9"):
        tfcseg.run(clip, out, MODEL, resume=True)


def test_another_video_is_refused_and_the_same_one_elsewhere_is_not(clip, out, tmp_path):
    other = write_video(tmp_path / clip.name, moving_images(FRAMES, (48, 64), seed=1))
    with pytest.raises(OutputError, match=r"input was [0-9a-f]{8}… and is now"):
        tfcseg.run(other, out, MODEL, resume=True)
    shutil.copy(clip, other)
    assert first_frame(other, out)[1] == SAFE


def test_a_finished_run_says_so_and_is_not_touched(clip, finished):
    before = files(finished)
    with pytest.raises(FinishedError, match="holds a finished run; there is nothing to resume"):
        tfcseg.run(clip, finished, MODEL, resume=True)
    with pytest.raises(OutputError, match=r"threshold was 0\.8 and is now 0\.5"):
        tfcseg.run(clip, finished, MODEL, resume=True, threshold=0.5)
    with pytest.raises(OutputError, match=r"start was not given and is now 0\.1"):
        tfcseg.run(clip, finished, MODEL, resume=True, start_s=0.1)
    with pytest.raises(OutputError, match=r"alpha was 0\.55 and is now 0\.3, classes was not given and is now sky"):
        tfcseg.run(clip, finished, MODEL, resume=True, results=ResultOptions(alpha=0.3, classes=["sky"]))
    assert files(finished) == before


def test_what_a_stopped_stream_left_is_not_called_finished(clip, finished, tmp_path):
    left = shutil.copytree(finished, tmp_path / "left")
    (left / "report.json").unlink()
    before = files(left)
    for results in (ResultOptions(), ResultOptions(report=False, html=False)):
        with pytest.raises(OutputError, match=r"results of an unknown run, and nothing to resume"):
            tfcseg.run(clip, left, MODEL, resume=True, results=results)
    assert files(left) == before


def test_a_run_without_a_report_is_known_again(clip, tmp_path):
    results = ResultOptions(report=False, overlay=False, flow_consistency=False)
    tfcseg.run(clip, tmp_path / "out", MODEL, results=results)
    before = files(tmp_path / "out")
    with pytest.raises(FinishedError):
        tfcseg.run(clip, tmp_path / "out", MODEL, resume=True, results=results)
    with pytest.raises(OutputError, match=r"alpha was 0\.55 and is now 0\.3"):
        tfcseg.run(clip, tmp_path / "out", MODEL, resume=True, results=dataclasses.replace(results, alpha=0.3))
    other = write_video(tmp_path / clip.name, moving_images(FRAMES, (48, 64), seed=1))
    with pytest.raises(OutputError, match=r"input was [0-9a-f]{8}… and is now"):
        tfcseg.run(other, tmp_path / "out", MODEL, resume=True, results=results)
    assert files(tmp_path / "out") == before
    tfcseg.run(
        other, tmp_path / "out", MODEL, overwrite=True, results=ResultOptions(overlay=False, flow_consistency=False)
    )
    assert not (tmp_path / "out" / STATE_FOLDER).exists()


def test_an_unfinished_run_is_not_replaced_by_accident(clip, out, finished):
    before = files(out)
    with pytest.raises(OutputError, match=r"holds an unfinished run \(12 frames done\); use resume=True"):
        tfcseg.run(clip, out, MODEL)
    assert files(out) == before
    tfcseg.run(clip, out, MODEL, overwrite=True)
    assert_same_results(out, finished)


def test_a_run_that_saved_no_frame_can_be_replaced(clip, tmp_path, finished):
    out = tmp_path / "out"
    (out / STATE_FOLDER).mkdir(parents=True)
    RunState(out / STATE_FOLDER).begin({"mode": "tfc"})
    shutil.copytree(finished / "masks", out / "masks")
    with pytest.raises(OutputError, match=r"holds an unfinished run \(0 frames done\)"):
        tfcseg.run(clip, out, MODEL)
    tfcseg.run(clip, out, MODEL, overwrite=True)
    assert_same_results(out, finished)


def test_masks_of_others_are_not_said_to_be_replaceable(clip, tmp_path):
    (tmp_path / "masks").mkdir()
    theirs = tmp_path / "masks" / "00000000.png"
    cv2.imwrite(str(theirs), np.zeros((4, 4), np.uint8))
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(OutputError, match=r"00000000\.png' was not written by tfcseg and is kept; choose another"):
            tfcseg.run(clip, tmp_path, MODEL, **options)
    assert files(tmp_path) == {"masks/00000000.png": theirs.read_bytes()}


def test_a_run_that_was_killed_before_its_first_frame_is_not_in_the_way(clip, tmp_path, finished):
    out = tmp_path / "out"
    (out / STATE_FOLDER).mkdir(parents=True)
    RunState(out / STATE_FOLDER).begin({"mode": "tfc"})
    FrameTable(out / "frames.csv").close()
    (out / "masks").mkdir()
    tfcseg.run(clip, out, MODEL)
    assert_same_results(out, finished)


def test_streams_and_contradictions_are_usage_errors(clip, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for source in ("-", tmp_path / "pipe"):
        with pytest.raises(UsageError, match="a stream can be read only once"):
            tfcseg.run(source, tmp_path / "out", MODEL, resume=True)
    with pytest.raises(UsageError, match="give only one of them"):
        tfcseg.run(clip, tmp_path / "out", MODEL, resume=True, overwrite=True)
    assert not (tmp_path / "out").exists()


# --- what was damaged meanwhile ------------------------------------------------------------------------------------


def cut(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def append(path, data):
    path.write_bytes(path.read_bytes() + data)


@pytest.mark.parametrize(
    ("damage", "first"),
    [
        (lambda out, state: cut(out / "masks" / "00000010.png"), 8),
        (lambda out, state: (out / "masks" / "00000003.png").unlink(), 0),
        (lambda out, state: (out / "masks" / "00000002.png").write_bytes(b""), 0),
        (lambda out, state: (state / "overlay-00000008.mp4").unlink(), 8),
        (lambda out, state: cut(state / "at-00000012" / "page.npz"), 8),
        (lambda out, state: cut(out / "frames.csv", 0.9), 8),
        (lambda out, state: (out / "frames.csv").unlink(), 0),
        (lambda out, state: shutil.rmtree(state / "at-00000012"), 8),
        (lambda out, state: (state / ".tfcseg-0-video.mp4").write_bytes(b"left over"), 12),
        (lambda out, state: append(out / "frames.csv", b"12,0.4800"), 12),
    ],
)
def test_damage_costs_no_more_than_the_parts_from_there_on(clip, out, finished, damage, first):
    damage(out, out / STATE_FOLDER)
    assert first_frame(clip, out)[1] == first
    assert_same_results(out, finished)


@pytest.mark.parametrize(
    ("html", "limit", "reason"),
    [
        (True, 90_000, r"cannot write '.*page\.npz'"),
        (False, 20_000, r"overlay\.mp4: the encoder failed after .*"),
        (False, 40_000, r"overlay\.mp4: its parts cannot be joined"),
    ],
)
def test_a_full_disk_leaves_a_run_that_can_go_on(tmp_path, html, limit, reason):
    """A limit of the size of files acts as a full disk does, and is lifted again as one is tidied up."""
    noise = list(np.random.default_rng(0).integers(0, 256, (20, 96, 128, 3), np.uint8))
    source = write_video(tmp_path / "noise.mkv", [noise[0]] * 12 + noise)
    results = ResultOptions(html=html)
    tfcseg.run(source, tmp_path / "alone", MODEL, results=results)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OutputError, match=rf"{reason}: .*File too large; resume=True continues after the [1-9]"):
            tfcseg.run(source, tmp_path / "out", MODEL, results=results)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()  # an encoder that was left running would give a warning, which is an error here
    assert not (tmp_path / "out" / "overlay.mp4").exists()
    assert tfcseg.run(source, tmp_path / "out", MODEL, resume=True, results=results).speed.resumes == 1
    assert_same_results(tmp_path / "out", tmp_path / "alone")


# --- one run at a time ---------------------------------------------------------------------------------------------


def test_a_second_run_into_the_same_folder_is_refused_while_the_first_one_lives(clip, tmp_path, finished):
    out = tmp_path / "out"
    program = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from tfcseg.runs.outputs import folder_lock
        with folder_lock(Path({str(out)!r})):
            print("ready", flush=True)
            time.sleep(60)
    """)
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"ready\n"
        for options in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(OutputError, match=rf"another run is writing to .* \(process {holder.pid}\)"):
                tfcseg.run(clip, out, MODEL, **options)
        holder.kill()
    assert (out / STATE_FOLDER / LOCK_NAME).exists()
    tfcseg.run(clip, out, MODEL)  # the lock went with its process
    assert_same_results(out, finished)


def test_locks_leave_nothing_and_nest_in_other_folders(tmp_path):
    with folder_lock(tmp_path / "a"), folder_lock(tmp_path / "b") as state:
        assert [path.name for path in state.iterdir()] == [LOCK_NAME]
    assert list((tmp_path / "a").iterdir()) == []
    with folder_lock(tmp_path / "a"):
        pass


def test_a_full_disk_does_not_keep_from_locking(tmp_path):
    """It ended in a traceback, and the lock stayed."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # nothing can be written
    try:
        with folder_lock(tmp_path / "a"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "a").iterdir()) == []


# --- the command ---------------------------------------------------------------------------------------------------


def test_a_batch_skips_what_is_finished_and_continues_the_rest(clip, tmp_path, finished):
    weights = write_tiny_model(tmp_path / "tiny.safetensors")
    model = tfcseg.load_model(weights)
    sources = [shutil.copy(clip, tmp_path / f"{name}.mp4") for name in ("done", "half", "new")]
    (tmp_path / "bad.mp4").write_text("not a video")
    out = tmp_path / "out"
    tfcseg.run(sources[0], out / "done_tfcseg", model)
    before = files(out / "done_tfcseg")
    interrupt(sources[1], out / "half_tfcseg", model)
    done = call("run", sources[0], tmp_path / "bad.mp4", *sources[1:], "-o", out, "-m", weights, "--resume", "--json")
    assert done.returncode == 1
    assert "1 of 4 inputs were finished before" in done.stderr
    assert done.stderr.rindex("1 of 4 inputs failed") > done.stderr.rindex("written")
    assert files(out / "done_tfcseg") == before
    reports = json.loads(done.stdout)
    assert [Path(report["input"]["path"]).stem for report in reports] == ["done", "half", "new"]
    assert [report["speed"]["resumes"] for report in reports] == [0, 1, 0]
    for name in ("half", "new"):
        assert files(out / f"{name}_tfcseg" / "masks") == files(out / "done_tfcseg" / "masks")
    assert not (out / "bad_tfcseg").exists()
    again = call("run", sources[0], "-o", out / "done_tfcseg", "-m", weights, "--resume")
    assert (again.returncode, again.stdout) == (0, "")
    assert "there is nothing to resume" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_does_not_wait_for_an_idle_stdin(tmp_path, number):
    weights = write_tiny_model(tmp_path / "tiny.safetensors")
    stream = write_clip(tmp_path / "stream.mkv", 40).read_bytes()
    command = [sys.executable, "-m", "tfcseg", "run", "-", "-o", tmp_path / "out", "-m", weights, "--size", "32"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
    with interruptible(), subprocess.Popen([*map(str, command)], cwd=tmp_path, env=environment, **pipes) as process:
        has_frames = number == signal.SIGTERM  # the other one hears nothing at all of the video
        if has_frames:
            process.stdin.write(stream[: len(stream) // 2])
            process.stdin.flush()
        awaited = "out/masks/00000003.png" if has_frames else f"out/{STATE_FOLDER}/{LOCK_NAME}"
        wait_until((tmp_path / awaited).exists)
        time.sleep(0.5)
        started_s = time.monotonic()
        process.send_signal(number)
        process.wait(30)
        assert time.monotonic() - started_s < 20  # for ever, if it waited
        message = process.stderr.read().decode().strip()
    assert process.returncode == 130
    if has_frames:
        assert message.startswith("error: interrupted; complete masks and rows are kept")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"classes.json", "frames.csv", "masks"}
    else:
        assert message == "error: interrupted; nothing was written"
        assert not (tmp_path / "out").exists()


def wait_until(condition, timeout_s=60.0):
    end_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)
    assert condition()


def test_stopping_a_source_ends_a_wait_for_its_next_frame(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    stream = write_clip(tmp_path / "stream.mkv", 40).read_bytes()
    before = children()
    writer = threading.Thread(target=feed, args=(tmp_path / "pipe", stream[: len(stream) // 2]))
    writer.start()
    with open_frames(tmp_path / "pipe") as source:
        threading.Timer(0.5, source.stop).start()
        with pytest.raises(tfcseg.TfcsegError, match="killed by SIGKILL"):
            list(source)
    writer.join(10)
    assert children() == before


def feed(pipe, data):
    """Write ``data`` and then nothing more, until nobody reads any longer."""
    with pipe.open("wb", buffering=0) as file:
        file.write(data)
        reader = select.poll()
        reader.register(file, 0)  # only told when the other end is closed
        assert reader.poll(10_000)


# --- the parts of a video ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(1800, 89), Fraction(1)])
def test_joined_parts_are_one_even_video(tmp_path, rate):
    images = numbered_images(25)
    parts = []
    for first in range(0, 25, 8):  # the last one has a single frame
        parts.append(tmp_path / f"part-{first}.mp4")
        with VideoWriter(parts[-1], size=(48, 64), frame_rate=rate) as writer:
            for image in images[first : first + 8]:
                writer.write(image)
    target = tmp_path / os.fsdecode(b"a#b?c %03d\n'\xff.mp4")
    video_writer.join_parts(parts, target, rate)
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate, stream.start_time) == (25, rate, 0)
        times = [frame.pts * stream.time_base for frame in container.decode(stream)]
        assert times == [number / rate for number in range(25)]
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    frames = [frame.image for frame in read_frames(target)]
    assert [read_number(image) for image in frames] == list(range(25))
    pieces = [frame.image for part in parts for frame in read_frames(part)]
    assert all(np.array_equal(frame, piece) for frame, piece in zip(frames, pieces, strict=True))


@pytest.mark.parametrize(("interval", "frames"), [(1, 240), (4, 240), (7, 245), (1000, 1000)])
def test_parts_hold_whole_intervals(monkeypatch, interval, frames):
    monkeypatch.setattr(video_writer, "PART_FRAMES", 240)
    assert video_writer.part_length(interval) == frames


def test_fingerprints_follow_the_content(tmp_path):
    def fingerprint(given):
        return Source.of(given).fingerprint()

    path = tmp_path / "video.bin"
    data = bytearray(np.random.default_rng(0).bytes(5 << 20))
    path.write_bytes(data)
    whole = fingerprint(path)
    os.utime(path, (0, 0))
    assert fingerprint(path) == whole
    seen = {whole}
    for position in (0, len(data) - 1):
        changed = bytearray(data)
        changed[position] ^= 1
        path.write_bytes(changed)
        seen.add(fingerprint(path))
    path.write_bytes(data[:-1])
    seen.add(fingerprint(path))
    folder = tmp_path / "folder"
    folder.mkdir()
    seen.add(fingerprint(folder))
    for content in (b"one", b"two", b"three"):
        (folder / "a.png").write_bytes(content)
        seen.add(fingerprint(folder))
    (folder / "a.png").rename(folder / "b.png")
    seen.add(fingerprint(folder))
    assert len(seen) == 9
    assert [fingerprint(source) for source in ("-", tmp_path / "none", "https://example.org/a.mp4")] == [None] * 3
