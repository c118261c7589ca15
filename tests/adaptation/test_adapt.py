"""``tfcseg adapt`` on a tiny network and clips of a few frames."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.command_line import call, interruptible
from tests.helpers.media import folder_of_images, write_video
from tests.helpers.segformer_reference import build_reference
from tests.helpers.tiny_model import moving_images, write_tiny_model
from tfcseg import segment
from tfcseg.adaptation.adapt import _is_better, adapt, work_folder
from tfcseg.adaptation.own_labels import Part, split_videos
from tfcseg.errors import UsageError
from tfcseg.training.options import AdaptOptions
from tfcseg.training.run import TrainListener
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.loading import load_model, read_card, save_model
from tfcseg.weights.tensor_file import read_tensor_file

CPU = ("--device", "cpu", "--precision", "fp32")
QUICK = AdaptOptions(size=32, steps=3)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A model whose weights need single precision, and two clips."""
    folder = tmp_path_factory.mktemp("adapt")
    write_tiny_model(folder / "tiny.safetensors")
    write_video(folder / "a.mp4", moving_images(26, (48, 64)), rate="15")
    write_video(folder / "b.mp4", moving_images(24, (48, 64), seed=3), rate="15")
    return folder


@pytest.fixture(scope="module")
def adapted(work):
    output = work / "whole" / "mine.safetensors"
    done = call(
        *("adapt", work / "a.mp4", work / "b.mp4", "-m", work / "tiny.safetensors", "-o", output, *CPU, "--json"),
        *("--size", 32, "--steps", 3),
    )
    assert done.returncode == 0, done.stderr
    return output, json.loads(done.stdout), done.stderr


def test_the_network_stays_and_the_card_says_what_was_measured(work, adapted):
    output, found, told = adapted
    assert found["model"]["name"] == "tiny"
    assert found["videos"] == 2
    assert found["steps"] == 3
    assert found["measured_on"] == "24 frames of 2 videos, not trained on"
    assert "step 3/3  repair loss" in told
    card = read_card(output)
    assert card.name == "mine"
    assert list(card.config.evidence) == found["curve"]
    assert card.config.repairs
    assert card.config.defaults.threshold == 0.8
    assert card.trained_on == "nothing: random numbers; then TFC adapted on 2 videos without labels"
    assert card.measured["settings"] == "short side 32 px, its own labels as targets"
    assert card.measured["tfc_agreement"] == found["after"]["tfc"]["agreement"]
    assert card.measured["tfc_vc8_before"] == found["before"]["tfc"]["vc8"]
    assert found["after"]["image"]["agreement"] == 100
    assert found["before"]["image"] == found["after"]["image"]

    old, new = (read_tensor_file(path).tensors for path in (work / "tiny.safetensors", output))
    assert old.keys() == new.keys()
    other = {name for name in old if not torch.equal(old[name], new[name])}
    assert all(name.startswith("update.") for name in other)
    assert bool(other) == found["keeps_attention"]
    clip = moving_images(3, (48, 64), seed=9)
    before, after = (
        [frame.labels for frame in segment(clip, path, mode="image")] for path in (work / "tiny.safetensors", output)
    )
    assert np.array_equal(before, after)
    assert list(output.parent.iterdir()) == [output], "nothing else is left"


def test_single_precision_is_kept_where_half_would_change_the_network(work, tmp_path):
    network = load_model(work / "tiny.safetensors", device="cpu", precision="fp32", fold=False)

    with torch.no_grad():
        network.network.decode_head.classifier.weight.mul_(1 + 2**-20)
    save_model(tmp_path / "fine.safetensors", network.network, network.card, dtype=torch.float32)
    stages = set()
    listener = TrainListener(lambda stage, done, total: stages.add(stage))
    job = ([work / "a.mp4"], tmp_path / "fine.safetensors", tmp_path / "out.safetensors", AdaptOptions(32, steps=0))
    adapt(*job, listener=listener)
    assert stages == {"fitting the curve", "measuring"}, "nothing is labelled that is not trained on"
    old, new = (read_tensor_file(tmp_path / name).tensors for name in ("fine.safetensors", "out.safetensors"))
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_a_published_segformer_is_adapted(work, tmp_path):
    build_reference("b0", embed_dim=16).save_pretrained(tmp_path / "segformer")
    adapt([work / "a.mp4"], tmp_path / "segformer", tmp_path / "mine.safetensors", replace(QUICK, steps=1))
    clip = moving_images(2, (48, 64), seed=9)
    before, after = (
        [frame.labels for frame in segment(clip, tmp_path / name, mode="image", size=32)]
        for name in ("segformer", "mine.safetensors")
    )
    assert np.array_equal(before, after)
    assert read_card(tmp_path / "mine.safetensors").licence == "not stated"


def test_attention_that_no_point_would_use_is_not_trained(work, tmp_path):
    start = load_model(work / "tiny.safetensors", device="cpu", fold=False)
    config = replace(start.card.config, defaults=replace(start.card.config.defaults, threshold=0.0))
    start.network.config = config
    save_model(tmp_path / "start.safetensors", start.network, replace(start.card, config=config))
    output = tmp_path / "out.safetensors"
    done = call("adapt", work / "a.mp4", "-m", tmp_path / "start.safetensors", "-o", output, *CPU, "--size", 32)
    assert done.returncode == 0, done.stderr
    assert "warning: the sparse attention is not trained: the model's threshold is 0" in done.stderr
    assert "step " not in done.stderr
    assert read_card(output).description == "tiny, its evidence curve fitted"


def test_an_interrupted_adaptation_goes_on_to_the_same_file(work, adapted, tmp_path):
    output = tmp_path / "mine.safetensors"

    def stop(stage, done, total):
        if (stage, done) == ("training", 2):
            os.kill(os.getpid(), signal.SIGINT)

    job = ([work / "a.mp4", work / "b.mp4"], work / "tiny.safetensors", output, QUICK)
    cpu = DeviceOptions("cpu", "fp32")
    with interruptible(), pytest.raises(KeyboardInterrupt):
        adapt(*job, device=cpu, listener=TrainListener(stop))
    assert not output.exists()
    assert (work_folder(output) / "training" / "checkpoint.pt").exists()

    other = call("adapt", work / "a.mp4", "-m", work / "tiny.safetensors", "-o", output, *CPU, "--size", 32)
    assert other.returncode == 2
    assert other.error == (
        f"{work_folder(output)} holds an unfinished adaptation of other videos, options, precision or another model; "
        "use --overwrite to start again"
    )
    with pytest.raises(UsageError, match="holds an unfinished adaptation"):
        adapt(*job, device=DeviceOptions("cpu", "bf16"))
    steps = []
    adapt(*job, device=cpu, listener=TrainListener(lambda stage, done, total: steps.append((stage, done))))
    assert [done for stage, done in steps if stage == "training"] == [3]
    assert not [stage for stage, _ in steps if stage in {"labelling", "fitting the curve"}]
    assert output.read_bytes() == adapted[0].read_bytes()


def test_changed_videos_are_no_basis_to_go_on(work, tmp_path):
    """A folder stays as large when its frames are replaced."""

    def interrupt(*progress):
        raise KeyboardInterrupt

    names = [f"{number:02d}.png" for number in range(24)]
    arguments = ([tmp_path / "frames"], work / "tiny.safetensors", tmp_path / "mine.safetensors", QUICK)
    folder_of_images(tmp_path / "frames", moving_images(24, (48, 64)), names)
    with pytest.raises(KeyboardInterrupt):
        adapt(*arguments, device=DeviceOptions(*CPU[1::2]), listener=TrainListener(on_progress=interrupt))
    folder_of_images(tmp_path / "frames", moving_images(24, (48, 64), seed=3), names)
    with pytest.raises(UsageError, match="unfinished adaptation of other videos"):
        adapt(*arguments, device=DeviceOptions(*CPU[1::2]))


def test_other_videos_may_measure(work, tmp_path):
    output = tmp_path / "cur\nve.safetensors"  # no name for a card, which was told after all work
    images = folder_of_images(tmp_path / "frames", moving_images(14, (48, 64), seed=5), [f"{i}.png" for i in range(14)])
    done = call(
        *("adapt", work / "a.mp4", "-m", work / "tiny.safetensors", "-o", output, "--validate", images, *CPU),
        *("--steps", 0, "--size", 32),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/cur ve.safetensors\n"
    assert "on 14 frames of 1 video, not trained on" in done.stderr
    card = read_card(output)
    assert (card.name, card.config.defaults.threshold) == ("cur ve", 0.8)
    again = call("adapt", work / "a.mp4", "-m", work / "tiny.safetensors", "-o", output, *CPU)
    assert again.returncode == 1
    assert "use --overwrite" in again.error
    itself = call("adapt", work / "a.mp4", "-m", output, "-o", output, "--overwrite", *CPU)
    assert (itself.returncode, "is the input" in itself.error) == (2, True)


def test_bad_input_is_told_in_one_line(work, tmp_path):
    short = write_video(tmp_path / "short.mp4", moving_images(20, (48, 64)), rate="15")
    picture = write_video(tmp_path / "picture.mp4", moving_images(1, (48, 64)), rate="15")
    (tmp_path / "text.mp4").write_text("no video")
    base = ("-m", work / "tiny.safetensors", *CPU)
    for words, code, message in (
        ((work / "a.mp4", "-o", tmp_path / "out"), 2, "is not a weights file; give a name that ends in .safetensors"),
        (("-", "-o", tmp_path / "o.safetensors"), 2, "-: can be read only once, but adapt reads every video"),
        ((short, "-o", tmp_path / "o.safetensors"), 1, "short.mp4 has 20 frames; give videos of 24 or more"),
        ((picture, "-o", tmp_path / "o.safetensors"), 1, "picture.mp4 has 1 frame; give videos of 24 or more"),
        ((tmp_path / "text.mp4", "-o", tmp_path / "o.safetensors"), 1, "text.mp4"),
        ((tmp_path / "none.mp4", "-o", tmp_path / "o.safetensors"), 1, "none.mp4"),
        (("none", "--validate", "no", "-o", tmp_path / "o.safetensors"), 1, "none: cannot be read: No such file"),
        ((work / "a.mp4", "-o", tmp_path / "o.safetensors", "--steps", "-1"), 2, "steps -1 is not between"),
        ((work / "a.mp4", "-o", tmp_path / "o.safetensors", "--validate", work / "a.mp4"), 2, "is also trained on"),
        ((work / "a.mp4", "-o", tmp_path / "o.safetensors", "-m", tmp_path / "x.safetensors"), 1, "x.safetensors"),
    ):
        done = call("adapt", *base, *words)
        assert done.returncode == code, done.stderr
        assert message in done.error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["picture.mp4", "short.mp4", "text.mp4"]


def test_the_end_of_every_video_measures(work):
    teaching, measuring = split_videos([work / "a.mp4"], [])
    assert [(part.start, part.stop) for part in teaching + measuring] == [(0, 14), (14, 26)]
    assert len(list(measuring[0].frames())) == 12
    long = Part(work / "a.mp4", 0, 100, 15.0)
    assert [(part.start, part.stop) for part in long.excerpts(3, 10)] == [(0, 10), (45, 55), (90, 100)]
    assert [(part.start, part.stop) for part in long.excerpts(9, 60)] == [(0, 60)]


@pytest.mark.parametrize(("old", "new", "keeps"), [(90.0, 90.1, True), (90.0, 90.0, False), (90.0, 89.0, False)])
def test_attention_stays_only_if_it_brings_labels_closer(old, new, keeps):
    assert _is_better({"agreement": old}, {"agreement": new}) is keeps
