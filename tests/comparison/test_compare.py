"""``tfcseg compare`` as a user calls it: on a short video, and on a synthetic VSPW folder."""

import itertools
import json
from collections import defaultdict

import numpy as np
import PIL.Image
import pytest

from tests.helpers import vspw_fixture as fixture
from tests.helpers.command_line import call
from tests.helpers.media import LOSSLESS, write_video
from tests.helpers.tiny_model import moving_images, write_tiny_model
from tests.helpers.vspw_fixture import make_vspw, write_predictions
from tfcseg.comparison import compare
from tfcseg.comparison.plan import Plan, count_gflops
from tfcseg.inference.options import checked_options
from tfcseg.media.images import read_image
from tfcseg.media.masks import read_mask
from tfcseg.media.reader import open_frames, probe, read_frames
from tfcseg.media.source import Source
from tfcseg.weights.loading import load_model

FRAMES, RATE = 12, 5
KEYS = {
    *("schema", "tfcseg", "kind", "input", "model", "options", "device", "device_name", "precision", "threads"),
    *("versions", "resolution", "modes", "ratio_of", "flops", "differences"),
    *("outputs", "is_incomplete", "skipped", "warnings"),
}
VIDEO_METRICS = {
    *(
        "flow_consistency",
        "label_change",
        "agreement",
        "updated_fraction",
        "fps",
        "model_fps",
        "keyframe_ms",
        "non_keyframe_ms",
    ),
    *("gflops_per_frame", "gflops_keyframe", "gflops_non_keyframe"),
}
SCORES = {"miou", "miou_all", "wiou", "vc8", "vc16", "flow_consistency", "label_change"}
TO_VSPW = {"sky": "sky", "road": "grass", "tree": "tree", "person": "person", "car": "car"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Blobs, half of which move, at an odd size."""
    path = tmp_path_factory.mktemp("media") / "street.mkv"
    return write_video(path, moving_images(FRAMES, (45, 71)), rate=str(RATE), video=LOSSLESS)


@pytest.fixture(scope="module")
def out(clip, weights, tmp_path_factory):
    """Folder of a comparison."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    done = call("compare", clip, "-m", weights, "-o", folder, "--json", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == json.loads((folder / "compare.json").read_text())
    return folder


@pytest.fixture(scope="module")
def compared(out):
    return json.loads((out / "compare.json").read_text())


def masks(folder):
    return np.stack([read_mask(path) for path in sorted((folder / "masks").iterdir())])


def result_of(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# --------------------------------------------------------------------------------------------------------- a video


def test_an_interrupted_comparison_leaves_nothing(clip, weights, tmp_path):
    def stop(mode, done, total):
        if (mode, done) == ("tfc", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare.compare_video(clip, tmp_path / "out", weights, on_progress=stop)
    assert not (tmp_path / "out").exists()


def test_says_what_was_compared_and_where(compared, clip):
    assert set(compared) == KEYS
    assert compared["kind"] == "video"
    assert compared["input"]["path"] == str(clip)
    assert compared["input"]["frames"] == FRAMES
    assert compared["resolution"] == {"source": [45, 71], "network": [64, 96]}
    assert compared["options"]["modes"] == ["image", "reuse", "tfc"]
    assert compared["options"]["keyframe_interval"] == 4
    assert compared["device"] == "cpu"
    assert compared["precision"] in ("float32", "bfloat16")
    assert set(compared["versions"]) == {"python", "torch", "numpy", "opencv", "av"}
    assert all(set(numbers) == VIDEO_METRICS for numbers in compared["modes"].values())


def test_numbers_are_those_of_the_real_command(compared, out):
    for mode, numbers in compared["modes"].items():
        report = json.loads((out / mode / "report.json").read_text())
        assert report["options"]["mode"] == mode
        for name in ("fps", "model_fps", "keyframe_ms"):
            assert numbers[name] == pytest.approx(report["speed"][name], abs=1e-3)
        for name in ("flow_consistency", "label_change"):
            assert numbers[name] == pytest.approx(100 * report["stability"][name], abs=1e-3)
        assert (out / mode / "overlay.mp4").exists()
    assert compared["modes"]["image"]["non_keyframe_ms"] is None


def test_agreement_is_the_share_of_pixels_with_the_label_of_the_first_mode(compared, out):
    assert compared["ratio_of"] == ["tfc", "image"]
    found = {mode: masks(out / mode) for mode in compared["modes"]}
    expected = {mode: 100 * (found[mode] == found["image"]).mean() for mode in found} | {"image": None}
    assert {mode: numbers["agreement"] for mode, numbers in compared["modes"].items()} == pytest.approx(
        expected, abs=1e-4
    )
    assert expected["tfc"] < 100


def test_flops_follow_the_interval(compared):
    image, reuse, tfc = (compared["modes"][mode] for mode in ("image", "reuse", "tfc"))
    # A keyframe leaves something for the frames after it, which the image network alone need not compute.
    assert image["gflops_per_frame"] == image["gflops_keyframe"] <= tfc["gflops_keyframe"]
    assert reuse["gflops_keyframe"] == tfc["gflops_keyframe"]
    assert reuse["gflops_non_keyframe"] <= tfc["gflops_non_keyframe"] < tfc["gflops_keyframe"]
    mean = (tfc["gflops_keyframe"] + 3 * tfc["gflops_non_keyframe"]) / 4
    assert tfc["gflops_per_frame"] == pytest.approx(mean, rel=1e-4)
    assert "MSDA" in compared["flops"]["not_counted"]
    assert compared["flops"]["frames"] == 12


def test_side_by_side_shows_original_image_and_tfc(out):
    video = probe(out / "side_by_side.mp4")
    assert (video.height, video.width) == (46, 3 * 71 + 2 * 2 + 1)  # panels and gaps, padded to even sides
    assert len(list(read_frames(out / "side_by_side.mp4"))) == FRAMES


def test_pictures_show_where_the_modes_differ_most(compared, out, clip):
    frames = [frame.image for frame in read_frames(clip)]
    image, tfc = masks(out / "image"), masks(out / "tfc")
    differing = 100 * (image != tfc).mean(axis=(1, 2))
    found = compared["differences"]
    assert max(differing) in [pytest.approx(entry["differing"], abs=1e-4) for entry in found]
    assert 2 <= len(found) <= 6
    for one, other in itertools.pairwise(found):
        assert other["frame"] - one["frame"] >= RATE
    for entry in found:
        assert entry["differing"] == pytest.approx(differing[entry["frame"]], abs=1e-4)
        picture = np.array(PIL.Image.open(out / entry["picture"]))
        panels = [picture[:, left : left + 71].astype(int) for left in range(0, 4 * 73, 73)]
        assert np.array_equal(panels[0], frames[entry["frame"]])
        assert np.abs(panels[1] - panels[0]).max() > 20  # tinted
        is_red = (panels[3] == (255, 64, 48)).all(axis=-1)
        assert np.array_equal(is_red, image[entry["frame"]] != tfc[entry["frame"]])


def test_the_table_has_a_column_per_mode(clip, weights, tmp_path):
    command = [
        "compare",
        clip,
        "-m",
        weights,
        "-o",
        tmp_path / "out",
        "--modes",
        "tfc,image",
        "--end",
        1,
        "--no-flow-consistency",
    ]
    done = call(*command)
    assert done.returncode == 0, done.stderr
    heading, *lines = done.stdout.splitlines()[1:]
    assert heading.split() == ["image", "tfc", "tfc", "to", "image"]
    titles = {line[:25].strip() for line in lines}
    assert {"label change (%)", "fps end to end", "fps model only", "ms per keyframe", "GFLOPs per frame"} <= titles
    assert not any(title.startswith("flow consistency") for title in titles)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "compare.json" in done.stderr


def test_charts_of_frames_too_small_for_the_flow_have_label_change(weights, tmp_path):
    clip = write_video(tmp_path / "small.mp4", moving_images(9, (10, 40)))
    done = call("compare", clip, "-m", weights, "-o", tmp_path / "out", "--modes", "image", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert '"label_change"' in (tmp_path / "out" / "compare.html").read_text()


def test_correlations_are_compared_side_by_side(clip, weights, tmp_path):
    command = ["compare", clip, "-m", weights, "-o", tmp_path / "out", "--modes", "image,reuse,tfc-paper,tfc"]
    done = call(*command, "--correlation", "aligned", "--end", 1.2, "--no-flow-consistency")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == [*("image", "reuse", "tfc-paper", "tfc"), *("tfc", "to", "image")]
    assert max(map(len, done.stdout.splitlines())) <= 80
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["options"]["modes"] == list(found["modes"]) == ["image", "reuse", "tfc-paper", "tfc"]
    for mode, wanted in {"reuse": "aligned", "tfc-paper": "paper", "tfc": "aligned"}.items():
        report = json.loads((tmp_path / "out" / mode / "report.json").read_text())
        assert report["options"]["correlation"] == wanted
    assert found["modes"]["tfc-paper"]["gflops_non_keyframe"] != found["modes"]["tfc"]["gflops_non_keyframe"]
    assert found["modes"]["reuse"]["updated_fraction"] == 0
    page = (tmp_path / "out" / "compare.html").read_text()
    assert '<th scope="col" class="num series-tfc-paper">tfc-paper</th>' in page


def test_interval_1_is_the_image_mode(clip, weights, tmp_path):
    command = ["compare", clip, "-m", weights, "-o", tmp_path / "out", "--modes", "image,tfc", "--json"]
    found = result_of(call(*command, "--keyframe-interval", 1, "--end", 1))
    image, tfc = found["modes"]["image"], found["modes"]["tfc"]
    assert tfc["agreement"] == 100
    assert tfc["gflops_per_frame"] == image["gflops_per_frame"]
    assert found["modes"]["image"]["label_change"] == found["modes"]["tfc"]["label_change"]
    assert found["differences"] == []
    assert not (tmp_path / "out" / "differences").exists()


def test_options_reach_the_network(clip, weights, tmp_path):
    wanted = {
        **{"keyframe_interval": 3, "threshold": 0.5, "size": 96, "correlation": "paper", "half_size_share": 0.5},
    }
    options = itertools.chain(*((f"--{name.replace('_', '-')}", value) for name, value in wanted.items()))
    command = [
        "compare",
        clip,
        "-m",
        weights,
        "-o",
        tmp_path / "out",
        "--modes",
        "tfc",
        "--end",
        0.6,
        "--no-flow-consistency",
    ]
    found = result_of(call(*command, *options, "--json"))
    report = json.loads((tmp_path / "out" / "tfc" / "report.json").read_text())
    for name, value in wanted.items():
        assert found["options"][name] == report["options"][name] == value
    assert found["resolution"]["network"] == [96, 160]


# ------------------------------------------------------------------------------------------------------ a baseline


def test_masks_of_another_program_stand_for_the_image_mode(out, compared, clip, weights, tmp_path):
    command = ["compare", clip, "-m", weights, "-o", tmp_path / "out", "--baseline", out / "image" / "masks", "--json"]
    found = result_of(call(*command, "--modes", "image,tfc"))
    assert found["options"]["baseline"] == str(out / "image" / "masks")
    own = compared["modes"]["image"]
    # Here the masks are those of the image mode, so that everything but speed is known.
    assert found["modes"]["image"] == pytest.approx(
        {key: own[key] for key in ("flow_consistency", "label_change", "agreement")}
    )
    assert found["modes"]["tfc"]["agreement"] == compared["modes"]["tfc"]["agreement"]
    assert not (tmp_path / "out" / "image").exists()


@pytest.mark.parametrize("part", [("--start", 0.5), ("--end", 1), ("--start", 0.5, "--end", 1.5)])
def test_masks_of_the_whole_video_are_a_baseline_for_a_part(part, out, clip, weights, tmp_path):
    """The masks are those of mode image, which labels every frame on its own: so no pixel differs from theirs."""
    quick = ("--modes", "image", "--no-flow-consistency", "-q")
    assert call("compare", clip, "-m", weights, "-o", tmp_path / "alone", *part, *quick).returncode == 0
    for given in (out / "image", tmp_path / "alone" / "image" / "masks"):  # of the whole video, of the part
        command = ["compare", clip, "-m", weights, "-o", tmp_path / "out", *part, "--baseline", given, "--overwrite"]
        found = result_of(
            call(*command, "--modes", "reuse", "--keyframe-interval", 1, "--no-flow-consistency", "--json")
        )
        assert found["modes"]["reuse"]["agreement"] == 100


def test_progress_counts_the_part_that_is_compared(out, clip, weights, tmp_path):
    told = defaultdict(list)
    plan = Plan(("reuse",), out / "image", flow_consistency=False)
    compare.compare_video(
        *(clip, tmp_path / "out", weights, plan),
        start_s=0.4,
        end_s=1,
        on_progress=lambda task, done, total: told[task].append((done, total)),
    )
    assert told["baseline"] == [(0, 3), (1, 3), (2, 3)]
    assert told["reuse"] == [(1, 3), (2, 3), (3, 3)]


def test_which_masks_a_part_has_is_found_in_one_pass(out, clip, monkeypatch):
    opened = []
    monkeypatch.setattr(
        compare, "open_frames", lambda *given, **part: opened.append(part) or open_frames(*given, **part)
    )
    found = compare._masks_of(Plan(baseline=out / "image"), Source.of(clip), 0.4, 1.0)
    assert [path.name for path in found] == [f"{index:08d}.png" for index in (2, 3, 4)]
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "00000011.png").unlink(), "one per frame"),
        (lambda folder: fixture.put_value(folder / "00000003.png", 77), "00000003.png' has the value 77"),
        (lambda folder: fixture.make_smaller(folder / "00000003.png"), "00000003.png' is 69×43, the video is 71×45"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no PNG files in this folder"),
    ],
)
def test_a_baseline_that_does_not_fit_is_refused_before_the_runs(out, clip, weights, tmp_path, spoil, said):
    folder = tmp_path / "masks"
    folder.mkdir()
    for path in (out / "image" / "masks").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    spoil(folder)
    done = call("compare", clip, "-m", weights, "-o", tmp_path / "out", "--baseline", folder, "--no-flow-consistency")
    assert done.returncode == 1
    assert said in done.error
    assert not (tmp_path / "out").exists()


def test_the_run_of_a_model_of_other_classes_is_no_baseline(out, clip, weights, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "masks").symlink_to(out / "image" / "masks")
    text = (out / "image" / "classes.json").read_text()
    (run / "classes.json").write_text(text.replace("road", "sea"))
    command = ["compare", clip, "-m", weights, "-o", tmp_path / "out", "--no-flow-consistency", "--baseline"]
    done = call(*command, run)
    assert done.returncode == 1
    assert "classes.json: 1 is 'sea', but 'road' of tiny" in done.error
    assert not (tmp_path / "out").exists()
    assert call(*command, run / "masks").returncode == 0


# ---------------------------------------------------------------------------------------------------- a VSPW folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_vspw(tmp_path_factory.mktemp("data") / "vspw", {"0_hills": 18, "1_road": 9}, size=(48, 64))


@pytest.fixture(scope="module")
def label_map(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "map.json"
    path.write_text(json.dumps(TO_VSPW))
    return path


def test_a_vspw_folder_is_scored_in_every_mode(root, label_map, weights, tmp_path):
    options = ["-m", weights, "--label-map", label_map, "--json"]
    done = call("compare", root, *options, "-o", tmp_path / "out", "--modes", "image,tfc")
    found = result_of(done)
    assert set(found) == KEYS
    assert found["kind"] == "vspw"
    assert (found["input"]["videos"], found["input"]["frames"]) == (2, 27)
    for mode, numbers in found["modes"].items():
        assert set(numbers) == SCORES | {key for key in VIDEO_METRICS if "fps" in key or "gflops" in key}
        own = json.loads((tmp_path / "out" / mode / "eval.json").read_text())
        assert own["mode"] == mode
        assert all(numbers[score] == pytest.approx(own[score], abs=1e-5) for score in SCORES)
    alone = result_of(call("eval", root, *options))
    assert all(found["modes"]["tfc"][score] == pytest.approx(alone[score], abs=1e-5) for score in SCORES)
    assert found["modes"]["tfc"]["vc8"] != found["modes"]["image"]["vc8"]


def test_arithmetic_of_a_vspw_folder_is_counted_on_whole_intervals(root, label_map, weights, tmp_path):
    """Adaptive keyframes are up to 16 frames apart; of one video, consecutive intervals count."""
    options = ["-m", weights, "--label-map", label_map, "--limit", 1, "--modes", "tfc", "--json"]
    done = call("compare", root, *options, "--sides", "both", "--keyframes", "adaptive", "-o", tmp_path / "out")
    model = load_model(weights, device="cpu")
    images = [read_image(path) for path in sorted((root / "data" / "0_hills" / "origin").iterdir())]
    wanted = count_gflops(model, checked_options(model, sides="both", keyframes="adaptive"), [images[:16], images[16:]])
    found = result_of(done)["modes"]["tfc"]
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-6)


def test_predictions_of_another_program_are_the_baseline_of_a_vspw_folder(root, label_map, weights, tmp_path):
    baseline = write_predictions(root, tmp_path / "predictions")
    options = [
        "-m",
        weights,
        "--label-map",
        label_map,
        "--baseline",
        baseline,
        "--modes",
        "tfc",
        "--no-flow-consistency",
    ]
    done = call("compare", root, *options, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["modes"]["image"]["miou"] == found["modes"]["image"]["vc16"] == 100
    assert (tmp_path / "out" / "baseline" / "eval.json").exists()
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["baseline", "tfc", "tfc", "to", "baseline"]
    titles = [line.split("  ")[0] for line in lines]
    assert titles.index("mIoU (%)") < titles.index("VC8 (%)")


def test_runs_of_the_model_are_the_baseline_of_a_vspw_folder(root, label_map, weights, tmp_path):
    """The label map is for their classes, too."""
    quick = ("-m", weights, "--no-flow-consistency", "-q")
    for video in ("0_hills", "1_road"):
        frames, named = root / "data" / video / "origin", ("--mask-names", "source", "--mode", "image")
        assert call("run", frames, *quick, *named, "--no-overlay", "-o", tmp_path / "runs" / video).returncode == 0
    command = ["compare", root, *quick, "--label-map", label_map, "--keyframe-interval", 1, "--json"]
    done = call(*command, "--baseline", tmp_path / "runs", "--modes", "tfc-paper", "-o", tmp_path / "out")
    baseline, own = result_of(done)["modes"].values()
    assert baseline["miou"] == own["miou"] > 0
    for path in (tmp_path / "runs").glob("*/classes.json"):
        path.write_text(path.read_text().replace("person", "thing"))
    done = call(*command, "--baseline", tmp_path / "runs", "-o", tmp_path / "other")
    assert done.returncode == 1
    assert "one is for tiny's; score both with tfcseg eval, each with its own --label-map" in done.error
    assert not (tmp_path / "other").exists()


def test_missing_data_of_a_vspw_folder_fails_unless_it_is_accepted(label_map, weights, tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_hills": 9, "1_road": 9}, size=(48, 64))
    fixture.lose_video(root, "1_road")
    options = ["-m", weights, "--label-map", label_map, "--modes", "image", "--no-flow-consistency", "-q"]
    done = call("compare", root, *options, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "missing video" in done.error
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["is_incomplete"]
    assert call("compare", root, *options, "-o", tmp_path / "out", "--overwrite", "--skip-bad").returncode == 0


# --------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--modes", "image,fast"], "no mode 'fast'"),
        (["--modes", "image,tfc-papr"], "did you mean tfc-paper"),
        (["--modes", "tfc,tfc"], "twice"),
        (["--modes", "image", "--baseline", "{clip}"], "another mode"),
        (["--modes", "image,tfc-paper", "--sides", "both"], "are for mode tfc"),
        (["--modes", "image,reuse", "--keyframes", "adaptive"], "are for mode tfc"),
        (["--frames", "2,many"], "--frames"),
        (["--limit", "1"], "--limit is for VSPW folders"),
        (["--start", "2", "--end", "1"], "--end"),
        (["--protocol", "loose"], "no protocol"),
    ],
)
def test_senseless_options_are_refused_before_any_work(clip, tmp_path, options, said):
    options = [option.format(clip=clip) for option in options]
    done = call("compare", clip, "-m", tmp_path / "none.safetensors", "-o", tmp_path / "out", *options)
    assert done.returncode == 2
    assert said in done.error
    assert not (tmp_path / "out").exists()


def test_options_of_videos_are_refused_for_a_vspw_folder(root, tmp_path):
    done = call("compare", root, "--start", 1, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "--start is for videos" in done.error


def test_frames_of_a_vspw_folder_are_refused_with_the_name_of_a_clip(root, tmp_path):
    done = call("compare", root, "--frames", "1,3", "-o", tmp_path / "out.png")
    assert done.returncode == 2
    assert done.error.startswith("--frames needs one video, but")
    assert done.error.endswith(f"give one of it: '{root}/data/<video>/origin'")


def test_a_stream_cannot_be_read_twice(tmp_path):
    done = call("compare", "-", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "save it to a file" in done.error


def test_a_failure_leaves_nothing_behind(clip, tmp_path):
    done = call("compare", clip, "-m", tmp_path / "none.safetensors", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "none.safetensors" in done.error
    assert not (tmp_path / "out").exists()


def test_results_are_not_replaced_without_being_asked(out, compared, clip, weights, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    done = call("compare", clip, "-m", weights, "-o", out)
    assert done.returncode == 1
    assert "--overwrite" in done.error
    # Results of a run alone are protected as well.
    (tmp_path / "tfc").mkdir()
    (tmp_path / "tfc" / "report.json").write_text("mine")
    done = call("compare", clip, "-m", weights, "-o", tmp_path)
    assert done.returncode == 1
    assert "--overwrite" in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["tfc"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("wrong", [["-m", "none.safetensors"], ["--keyframe-interval", "0"], ["--start", "1000"]])
def test_results_stay_until_what_replaces_them_is_sure_to_come(wrong, clip, weights, tmp_path):
    (tmp_path / "tfc" / "masks").mkdir(parents=True)
    for name in ("compare.json", "tfc/report.json", "reuse-aligned/report.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"old")
    before = set(tmp_path.rglob("*"))
    done = call("compare", clip, "-m", weights, "-o", tmp_path, "--modes", "image,tfc", "--overwrite", *wrong)
    assert done.returncode in (1, 2)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("said", ["no image of split 'val' can be read", "map.json: no such file"])
def test_results_of_a_vspw_folder_stay_until_all_is_scored(said, weights, tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_hills": 3}, size=(48, 64))
    if said.startswith("no image"):
        for image in root.glob("data/*/origin/*"):
            image.unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "compare.json").write_text("old")
    options = ["-m", weights, "--label-map", tmp_path / "map.json", "--overwrite"]
    done = call("compare", root, "-o", tmp_path / "out", *options)
    assert done.returncode == 1
    assert said in done.error
    assert (tmp_path / "out" / "compare.json").read_text() == "old"


def test_overwriting_removes_what_the_new_comparison_does_not_make(clip, weights, tmp_path):
    folder = tmp_path / "out"
    (folder / "differences").mkdir(parents=True)
    (folder / "reuse-aligned").mkdir()
    for name in ("differences/frame_00000009.png", "reuse-aligned/report.json", "notes.txt"):
        (folder / name).write_bytes(b'{"tfcseg": "0.1.0"}' if name.endswith("report.json") else b"old")
    command = ["compare", clip, "-m", weights, "-o", folder, "--modes", "tfc", "--end", 0.4, "--no-flow-consistency"]
    assert call(*command, "--overwrite").returncode == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["compare.html", "compare.json", "notes.txt", "side_by_side.mp4", "tfc"]


def test_the_video_itself_is_never_replaced(clip, weights, tmp_path):
    source = tmp_path / "side_by_side.mp4"
    source.write_bytes(clip.read_bytes())
    done = call("compare", source, "-m", weights, "-o", tmp_path, "--overwrite")
    assert done.returncode == 2
    assert "is the input" in done.error
    assert source.read_bytes() == clip.read_bytes()
