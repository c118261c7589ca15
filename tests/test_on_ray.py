"""Videos on a real cluster of two workers: the results are those of one process, whoever dies."""

import dataclasses
import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

import tfcseg
from tests.cli.test_cli_eval import TO_VSPW
from tests.helpers.command_line import call
from tests.helpers.live_sender import closed_port
from tests.helpers.media import write_uneven, write_video
from tests.helpers.tiny_model import moving_images, write_tiny_model
from tests.helpers.vspw_fixture import lose_frame, make_vspw, write_predictions
from tests.runs.test_resume_after_kill import assert_same_results
from tfcseg.cli.evaluate import _prediction_source
from tfcseg.errors import DataError, UsageError
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.media import writer as video_writer
from tfcseg.runs import batch
from tfcseg.runs.batch import run_on_ray
from tfcseg.runs.options import RunOptions
from tfcseg.runs.pipeline import Listener
from tfcseg.workers import WorkerOptions, ray_workers

ray = pytest.importorskip("ray", reason="Ray is not installed")

PART_FRAMES = 4
FRAMES = 70
"""Two sections of eight parts, and some frames."""
CREW = WorkerOptions(ray="local", worker_cores=1)
OPTIONS = RunOptions()


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two cores, for all tests of this module."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    except (RuntimeError, OSError) as error:  # a sandbox without the sockets or processes that a cluster needs
        pytest.skip(f"Ray cannot start a cluster here: {error}")
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [write_video(folder / f"{n}.mp4", moving_images(6 + n, (48, 64), seed=n)) for n in range(3)]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    images = moving_images(FRAMES, (48, 64))
    images[30:34] = images[30:31] * 4  # pictures that are shown again, across the end of a section
    return write_video(tmp_path_factory.mktemp("long") / "long.mp4", images)


@pytest.fixture
def short_parts(monkeypatch):
    """Parts so short that two workers share a clip."""
    monkeypatch.setattr(video_writer, "PART_FRAMES", PART_FRAMES)
    monkeypatch.setattr(batch, "PART_FRAMES", PART_FRAMES)


def share(clips, base, weights, options=OPTIONS, on_frame=lambda frame, info: None):
    """Outcomes by name of the clip."""
    places = [(str(clip), base / clip.stem) for clip in clips]
    found = run_on_ray(places, weights, options, CREW, Listener(on_frame))
    return {Path(each.source).stem: each for each in found}


def workers():
    """Process ids of the cluster's workers that have a job. Other clusters may run on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents = {parent_of(path), parent_of(path.parent / str(parent_of(path)))}
            if os.getpid() in parents and (path / "cmdline").read_bytes().startswith(b"ray::_Worker"):
                found.append(int(path.name))
        except OSError:  # it has just ended
            continue
    return found


def parent_of(process):
    """Process id of the one that started the process of this folder of /proc."""
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def test_results_are_those_of_one_process(clips, weights, cluster, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    log = tmp_path / "log.jsonl"
    done = call(
        *("run", *clips, bad, "-o", tmp_path / "shared", "-m", weights, "--side-by-side", "--log-file", log),
        *("--ray", cluster, "--worker-cores", 1),
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "1 of 4 inputs failed" in done.stderr
    assert done.stderr.count("bad.mp4") == 2  # when it failed, and in the table
    assert log.read_text().count('"status": "done"') == 3
    for clip in clips:
        shared, alone = (tmp_path / folder / f"{clip.stem}_tfcseg" for folder in ("shared", "alone"))
        tfcseg.run(clip, alone, weights, side_by_side=True)
        assert_same_results(shared, alone)
        for name in ("overlay.mp4", "side_by_side.mp4", "classes.json"):
            assert (shared / name).read_bytes() == (alone / name).read_bytes()


def test_a_run_goes_on_when_its_worker_dies(weights, tmp_path):
    clip = write_video(tmp_path / "clip.mp4", moving_images(600, (48, 64)))
    out = tmp_path / "shared" / "clip"
    killed = []

    def kill():
        deadline = time.monotonic() + 300
        while not killed and time.monotonic() < deadline:
            if (out / ".tfcseg" / "state.json").exists() and len(list((out / "masks").glob("*.png"))) > 250:
                killed.append(int((out / ".tfcseg" / "lock").read_text()))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    options = dataclasses.replace(OPTIONS, results=tfcseg.ResultOptions(flow_consistency=False))
    found = share([clip], tmp_path / "shared", weights, options)["clip"]
    thread.join()
    assert killed
    assert found.error is None
    assert found.report.speed.resumes == 1
    tfcseg.run(clip, tmp_path / "alone" / "clip", weights, results=options.results)
    assert_same_results(out, tmp_path / "alone" / "clip")


@pytest.mark.parametrize("options", [{}, {"sides": "past"}, {"sides": "one"}], ids=["both sides", "past", "one side"])
def test_workers_share_a_long_video(long_clip, weights, short_parts, tmp_path, options):
    wanted = dataclasses.replace(OPTIONS, inference=tfcseg.InferenceOptions(**options))
    seen = []
    found = share([long_clip], tmp_path, weights, wanted, on_frame=lambda frame, info: seen.append(frame))["long"]
    assert found.error is None
    assert len(seen) == FRAMES  # it was drawn here
    tfcseg.run(long_clip, tmp_path / "alone", weights, **options)
    assert_same_results(tmp_path / "long", tmp_path / "alone")


@pytest.mark.slow
def test_a_shared_video_survives_a_worker_and_can_be_resumed(long_clip, weights, short_parts, tmp_path, capsys):
    seen = []

    def stop(frame, info):
        seen.append(frame.index)
        if frame.index == 3:
            os.kill(workers()[0], signal.SIGKILL)
        if frame.index == 39:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        share([long_clip], tmp_path, weights, on_frame=stop)
    resumed = dataclasses.replace(OPTIONS, resume=True)
    found = share([long_clip], tmp_path, weights, resumed, on_frame=lambda frame, info: seen.append(frame.index))
    assert found["long"].report.speed.resumes == 1
    assert capsys.readouterr().out == ""
    assert seen[40] in (28, 32, 36)  # the last parts may not have been safe yet
    tfcseg.run(long_clip, tmp_path / "alone", weights)
    assert_same_results(tmp_path / "long", tmp_path / "alone")


@pytest.mark.slow
def test_uneven_times_are_read_alike(weights, short_parts, tmp_path):
    kept = [number for number in range(60) if number % 7 != 3 and not 20 < number < 26]
    clip = write_uneven(tmp_path / "uneven.mkv", kept)
    found = share([clip], tmp_path, weights, dataclasses.replace(OPTIONS, start_s=0.2))["uneven"]
    assert found.error is None
    tfcseg.run(clip, tmp_path / "alone", weights, start_s=0.2)
    assert_same_results(tmp_path / "uneven", tmp_path / "alone")


def test_scores_are_those_of_one_process(weights, cluster, tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_a": 18, "1_b": 9, "2_c": 5}, size=(48, 64))
    lose_frame(root, "1_b", 170)
    (tmp_path / "map.json").write_text(json.dumps(TO_VSPW))
    command = ["eval", root, "-m", weights, "--label-map", tmp_path / "map.json", "--skip-bad", "--json"]
    alone = call(*command, "--save-masks", tmp_path / "alone")
    shared = call(*command, "--save-masks", tmp_path / "shared", "--ray", cluster, "--worker-cores", 1)
    assert shared.returncode == alone.returncode == 0, shared.stderr
    results = [json.loads(done.stdout) for done in (shared, alone)]
    assert results[0] | {"speed": None} == results[1] | {"speed": None}
    assert results[0]["speed"].keys() == results[1]["speed"].keys()
    assert all((results[0]["speed"][name] is None) == (value is None) for name, value in results[1]["speed"].items())
    masks = {folder: sorted((tmp_path / folder).rglob("*.png")) for folder in ("alone", "shared")}
    pairs = [*zip(*masks.values(), strict=True)]
    assert len(pairs) > 25
    assert all(one.read_bytes() == other.read_bytes() for one, other in pairs)


def test_what_is_wrong_with_a_data_set_is_said_as_by_one_process(weights, tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_a": 3, "1_b": 2}, size=(48, 64))
    predictions = write_predictions(root, tmp_path / "predictions")
    next((predictions / "1_b").glob("*.png")).write_text("no picture")
    with pytest.raises(DataError, match=r"1_b.*\.png"):
        evaluate(root, partial(_prediction_source, predictions, None), workers=CREW)


def test_what_cannot_be_done_elsewhere_is_refused(weights):
    with pytest.raises(UsageError, match="can be read only once"):
        share([Path("-")], Path(), weights)
    with ray_workers(CREW, dict, uses_gpu=False) as crew:
        assert len(crew) == 2


def test_nobody_at_the_address_is_said_at_once(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        closed_port() as port,
        pytest.raises(UsageError, match=r"^no Ray cluster at '127\..*Connection refused\); give HOST:PORT"),
        ray_workers(WorkerOptions(ray=f"127.0.0.1:{port}"), dict, uses_gpu=False),
    ):
        pass
