"""``tfcseg research ablate``: variants of the network, and the table as a user gets it."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers import vspw_fixture as fixture
from tests.helpers.command_line import call
from tests.helpers.tiny_model import (
    BACKBONES,
    build_tiny_model,
    build_tiny_network,
    halving_threshold,
    moving_clip,
    moving_images,
    tiny_card,
    write_tiny_model,
)
from tests.helpers.vspw_fixture import make_vspw
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.options import checked_options
from tfcseg.model.correlation import similarity
from tfcseg.model.options import CORRELATIONS, PAPER_OPTIONS
from tfcseg.research.ablate import AblatedSegmenter, Scope, ablate, directions
from tfcseg.research.paper import PAPER, Variant, build_rows, row_names
from tfcseg.weights.loading import save_model

TO_VSPW = {"sky": "sky", "road": "grass", "tree": "tree", "person": "person", "car": "car"}
ROWS = [
    *("image", "reuse", "interpolation", "hard", "weight-0.1", "weight-0.9", "msda-0.5", "msda-0.8", "msda-1.0"),
    *("tfc", "level-1", "interval-5", "interval-6", "interval-7", "interval-8", "interval-9"),
    *("aligned", "both", "adaptive", "larger", "past"),
]
OPTIONS = replace(PAPER_OPTIONS, size=64)
PLAIN = Variant(weight=0.0, updates=False)


# ---------------------------------------------------------------------------------------------------- the network


@pytest.fixture(scope="module", params=BACKBONES)
def network(request):
    return build_tiny_network(request.param).fold()


@pytest.fixture(scope="module")
def clip():
    return moving_clip(4)


@pytest.fixture(scope="module")
def threshold(network, clip):
    """Below it lie about half of the points."""
    return halving_threshold(results(network, clip, "paper", 0.0).similarity)


@torch.inference_mode()
def results(network, clip, correlation, threshold):
    _, memory = network.keyframe(clip[:1])
    return network.non_keyframes(clip[1:], memory, replace(PAPER_OPTIONS, correlation=correlation, threshold=threshold))


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_with_all_steps_it_is_the_network_bit_for_bit(network, clip, threshold, correlation):
    own = results(network, clip, correlation, threshold)
    ablated = results(AblatedSegmenter(network, Variant()), clip, correlation, threshold)
    assert torch.equal(ablated.logits, own.logits)
    assert torch.equal(ablated.similarity, own.similarity)
    assert torch.equal(ablated.updated_fraction, own.updated_fraction)
    assert 0.2 < own.updated_fraction.mean() < 0.8


@pytest.mark.parametrize("correlation", CORRELATIONS)
@torch.inference_mode()
def test_with_no_step_it_is_plain_reuse_bit_for_bit(network, clip, correlation):
    _, memory = network.keyframe(clip[:1])
    own = network.non_keyframes(clip[1:], memory, replace(PAPER_OPTIONS, mode="reuse", correlation=correlation))
    ablated = results(AblatedSegmenter(network, PLAIN), clip, correlation, 0.9)
    assert torch.equal(ablated.logits, own.logits)
    assert torch.equal(ablated.similarity, own.similarity)
    assert not ablated.updated_fraction.any()


def test_weights_are_what_their_names_say(network, clip, threshold):
    def logits(weight):
        variant = Variant(weight=weight, updates=False)
        return results(AblatedSegmenter(network, variant), clip, "paper", threshold).logits

    reused, kept, w = logits(0.0), logits(1.0), results(network, clip, "paper", 0.0).similarity[:, None]
    torch.testing.assert_close(logits("soft"), w.clamp(0, 1) * kept + (1 - w.clamp(0, 1)) * reused)
    assert torch.equal(logits("hard"), torch.where(w >= threshold, kept, reused))
    torch.testing.assert_close(logits(0.1), 0.1 * kept + 0.9 * reused)
    with torch.inference_mode():
        assert torch.equal(kept, network.keyframe(clip[:1])[0].expand_as(kept))


def test_points_are_updated_from_what_was_not_interpolated(network, clip, threshold):
    reused = results(AblatedSegmenter(network, PLAIN), clip, "paper", threshold)
    updated = results(AblatedSegmenter(network, Variant(weight=0.0)), clip, "paper", threshold)
    full = results(network, clip, "paper", threshold)
    is_below = (full.similarity < threshold)[:, None].expand_as(full.logits)
    assert torch.equal(updated.updated_fraction, full.updated_fraction)
    assert torch.equal(updated.logits[~is_below], reused.logits[~is_below])
    for other in (reused, full):
        assert (updated.logits - other.logits)[is_below].abs().mean() > 1e-3


@torch.inference_mode()
def test_level_1_replaces_only_what_is_compared(network, clip, threshold):
    ablated = AblatedSegmenter(network, Variant(level=1))
    found = results(ablated, clip, "paper", threshold)
    x1, _ = network.backbone.encode_low(clip)
    projected = network.decode_head.project(x1, 0)
    wanted = similarity(projected[:1].expand(3, -1, -1, -1), projected[1:])[:, 0]
    torch.testing.assert_close(found.similarity, wanted)
    assert (found.similarity - results(network, clip, "paper", threshold).similarity).abs().mean() > 1e-2
    aligned = results(ablated, clip, "aligned", threshold).shift
    assert torch.equal(aligned.rows, results(network, clip, "aligned", threshold).shift.rows)


def test_with_all_steps_at_two_sizes_it_is_the_method():
    model = build_tiny_model(keyframe_interval=3)
    options = checked_options(model, sides="one", half_size_share=0.5, size=128)
    images = moving_images(3)
    ablated = replace(model, network=AblatedSegmenter(model.network, Variant()))
    for result, wanted in zip(*(IntervalNetwork(each, options).run(images) for each in (ablated, model)), strict=True):
        assert (result.labels == wanted.labels).all()


def test_the_second_size_has_a_row_if_it_has_a_share():
    rows = {row.name: row.options for row in build_rows(replace(OPTIONS, half_size_share=0.5, keyframe_scale=1.18))}
    assert (rows["image"].half_size_share, rows["one-size"].half_size_share) == (0.5, 0)
    assert rows["image"].keyframe_scale == rows["one-size"].keyframe_scale == rows["larger"].keyframe_scale == 1.18
    assert rows["adaptive"].keyframe_scale == 1
    assert "one-size" not in [row.name for row in build_rows(OPTIONS)]


# ------------------------------------------------------------------------------------------------------- directions


def test_directions_are_signs_of_steps_at_the_papers_precision():
    rows = {row.name: row for row in build_rows(OPTIONS)}
    base = {"miou": 70.0, "vc8": 90.0, "vc16": None}
    # The paper: mIoU -1.4, VC8 +1.6, VC16 +1.4.
    assert directions(rows["reuse"], {"miou": 69.0, "vc8": 89.0, "vc16": 80.0}, base) == {
        "miou": "agrees",
        "vc8": "differs",
    }
    assert directions(rows["reuse"], {"miou": 70.04, "vc8": 90.2, "vc16": None}, base) == {
        "miou": "unclear",
        "vc8": "agrees",
    }
    # The paper's mIoU stays at interval 5.
    assert directions(rows["interval-5"], {"miou": 70.01, "vc8": 90.0}, base) == {"miou": "agrees", "vc8": "unclear"}
    assert directions(rows["image"], base, {}) == {}


def test_rows_build_on_rows_before_them():
    for interval in (3, 4, 7):
        rows = build_rows(replace(OPTIONS, keyframe_interval=interval, correlation="aligned"))
        names = [row.name for row in rows]
        assert all(row.builds_on in names[:index] for index, row in enumerate(rows) if row.builds_on)
        assert set(names) <= set(row_names())
        assert set(PAPER) <= set(row_names())
        assert [name for name in names if name.startswith("interval")] == [
            f"interval-{n}" for n in range(max(4, interval + 1), 10)
        ]
        assert all(row.options.correlation == "aligned" for row in rows)
        assert names[-4:] == ["both", "adaptive", "larger", "past"]
        assert {row.name for row in rows if row.options.sides == "both"} == set(names[-4:-1])
        assert {row.name for row in rows if row.options.sides == "past"} == {"past"}
        assert [row.name for row in rows if row.options.keyframe_scale > 1] == ["larger", "past"]
        assert "aligned" not in names


# ------------------------------------------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_vspw(tmp_path_factory.mktemp("data") / "vspw", {"0_hills": 18}, size=(48, 64))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "others.safetensors", seed=1)


@pytest.fixture(scope="module")
def options(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "map.json"
    path.write_text(json.dumps(TO_VSPW))
    return ["-m", weights, "--label-map", path]


@pytest.fixture(scope="module")
def file(root, options, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "ablation.json"
    done = call("research", "ablate", root, *options, "-o", path, "--json", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == json.loads(path.read_text())
    return path


@pytest.fixture(scope="module")
def content(file):
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def rows(content):
    return {row["name"]: row for row in content["rows"]}


def scores(root, options, *more):
    done = call("eval", root, *options, "--json", "--no-flow-consistency", *more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_rows_with_the_papers_settings(content, rows):
    assert list(rows) == ROWS
    assert (content["kind"], content["input"]["name"], content["input"]["frames"]) == ("ablation", "vspw", 18)
    assert content["resolution"] == {"source": [48, 64], "network": [64, 96]}
    paper = {"correlation": "paper", "keyframe_interval": 4, "threshold": 0.8}
    assert paper.items() <= content["options"].items()
    assert content["without_bce"] is None
    assert rows["tfc"]["paper"] == {"miou": 32.9, "vc8": 85.3, "vc16": 80.0}
    assert rows["interval-9"]["keyframe_interval"] == 9
    assert rows["msda-0.5"]["threshold"] == 0.5


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ("image", ["--mode", "image"]),
        ("reuse", ["--mode", "reuse"]),
        ("tfc", []),
        ("interval-6", ["--keyframe-interval", 6]),
        ("aligned", ["--correlation", "aligned"]),
    ],
)
def test_rows_of_the_method_score_as_eval_does(rows, root, options, row, wanted):
    own = scores(root, options, *wanted)
    assert {key: rows[row][key] for key in ("miou", "miou_all", "vc8", "vc16")} == pytest.approx(
        {key: own[key] for key in ("miou", "miou_all", "vc8", "vc16")}, abs=1e-5
    )


def test_points_are_counted_where_they_are_recomputed(rows):
    updated = {name: row["updated_fraction"] for name, row in rows.items()}
    assert updated["image"] is None
    assert all(updated[name] == 0 for name in ("reuse", "interpolation", "hard", "weight-0.1", "weight-0.9"))
    assert updated["msda-0.5"] <= updated["msda-0.8"] < updated["msda-1.0"] <= 100
    assert updated["msda-0.8"] > 0
    assert updated["tfc"] == updated["msda-0.8"]


def test_several_threads_measure_the_same(root, weights, options, rows, torch_threads):
    torch_threads(3)
    found = ablate(root, weights, scope=Scope(label_map=options[-1]), rows=["tfc"])
    row = next(row for row in found.rows if row.name == "tfc")
    assert row.updated_fraction == pytest.approx(rows["tfc"]["updated_fraction"], abs=0.2)


def test_every_row_is_something_else(rows):
    # At the tiny network's size, 1.2 times as much is rounded to the same.
    others = [row for name, row in rows.items() if name != "larger"]
    seen = {(row["miou"], row["vc8"], row["vc16"]) for row in others}
    assert len(seen) >= len(others) - 1


def test_directions_are_told_against_the_row_built_on(rows):
    for name, row in rows.items():
        base = rows.get(row["builds_on"] or "")
        for key, told in row["directions"].items():
            ours = np.sign(round(row[key] - base[key], 1))
            theirs = np.sign(round(PAPER[name][key] - PAPER[row["builds_on"]][key], 1))
            assert told == ("agrees" if ours == theirs else "differs" if ours * theirs else "unclear")
    assert set(rows["reuse"]["directions"]) == {"miou", "vc8", "vc16"}
    assert set(rows["level-1"]["directions"]) == {"miou"}
    assert rows["image"]["directions"] == {}


def test_weights_without_l_bce_have_a_row(root, options, others, tmp_path):
    command = ["research", "ablate", root, *options, "--without-bce", others, "--rows", "tfc,without-bce", "--json"]
    done = call(*command)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    full, without = found["rows"]
    own = scores(root, ["-m", others, *options[2:]], "--correlation", "paper")
    assert without["vc8"] == pytest.approx(own["vc8"], abs=1e-5)
    assert without["miou"] != full["miou"]
    assert set(without["directions"]) == {"vc8"}
    assert found["without_bce"]["sha256"] != found["model"]["sha256"]


def test_the_models_own_settings(root, options, tmp_path):
    card = tiny_card(keyframe_interval=3)
    network = build_tiny_network()
    config = network.config = replace(card.config, defaults=replace(card.config.defaults, correlation="aligned"))
    path = tmp_path / "own.safetensors"
    save_model(path, network, replace(card, config=config))
    command = [
        "research",
        "ablate",
        root,
        "-m",
        path,
        *options[2:],
        "--settings",
        "model",
        "--rows",
        "tfc,interval-4",
    ]
    done = call(*command, "--threshold", 0.7, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    wanted = {"correlation": "aligned", "keyframe_interval": 3, "threshold": 0.7}
    assert wanted.items() <= found["options"].items()
    plain, longer = found["rows"]
    assert plain["vc8"] == pytest.approx(scores(root, ["-m", path, *options[2:]], "--threshold", 0.7)["vc8"], abs=1e-5)
    assert longer["keyframe_interval"] == 4


def test_the_table_shows_both_sides(root, options, tmp_path):
    done = call(
        "research", "ablate", root, *options, "--rows", "image,reuse,msda-1.0,aligned,tfc", "-o", tmp_path / "a.json"
    )
    assert done.returncode == 0, done.stderr
    assert "paper correlation, keyframe interval 4, threshold 0.8" in done.stdout
    (reuse,) = (line for line in done.stdout.splitlines() if line.startswith(" feature reuse"))
    assert re.search(r"31\.5 +84\.3 +78\.7 +mIoU [✓✗~], VC8 [✓✗~], VC16 [✓✗~]$", reuse)
    assert "…" not in done.stdout  # nothing was cut at 80 columns
    assert done.stderr == f"written: {tmp_path / 'a.json'}\n"


def test_missing_data_fails_unless_it_is_accepted(options, tmp_path):
    root = make_vspw(tmp_path / "vspw", {"0_hills": 9, "1_road": 9}, size=(48, 64))
    fixture.lose_frame(root, "0_hills", 169)
    fixture.lose_masks(root, "1_road")
    command = ["research", "ablate", root, *options, "--rows", "tfc", "-q", "--overwrite", "-o", tmp_path / "a.json"]
    done = call(*command)
    assert done.returncode == 1
    assert "no masks (1)" in done.error
    assert call(*command, "--skip-bad").returncode == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["is_incomplete"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rows", "tfc,hrad"], "no row 'hrad'; did you mean hard?"),
        (["--rows", ""], "the argument after '--rows' is empty"),
        (["--rows", "without-bce"], "give them with --without-bce"),
        (["--rows", "tfc,interval-4"], "row interval-4 is the same as row tfc, or has a shorter interval"),
        (["--keyframe-interval", "1"], "leaves no frames between keyframes; give 2 or more"),
        (["--settings", "papers"], "no settings 'papers'; did you mean paper?"),
        (["--threshold", "2"], "threshold 2 is not between 0 and 1"),
        (["--correlation", "non"], "no correlation 'non'"),
        (["-o", "{root}/a.json"], "is the input"),
    ],
)
def test_senseless_options_are_refused_before_any_work(root, options, given, said):
    done = call("research", "ablate", root, *options, *(word.format(root=root) for word in given))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.error


def test_other_classes_cannot_have_been_trained_alike(root, options, tmp_path):
    card, network = tiny_card(), build_tiny_network()
    path = tmp_path / "other.safetensors"
    save_model(path, network, replace(card, labels=replace(card.labels, names=("a", "b", "c", "d", "e"))))
    done = call("research", "ablate", root, *options, "--without-bce", path)
    assert done.returncode == 1
    assert "have other classes than tiny" in done.error


def test_results_are_not_replaced_without_being_asked(root, options, file):
    before = file.read_bytes()
    done = call("research", "ablate", root, *options, "-o", file)
    assert done.returncode == 1
    assert "--overwrite" in done.error
    assert file.read_bytes() == before


def test_no_data_is_said(options, tmp_path):
    done = call("research", "ablate", tmp_path / "nothing", *options)
    assert done.returncode == 1
    assert "no such folder" in done.error
