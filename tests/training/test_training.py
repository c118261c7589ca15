"""The training loop on networks and pictures small enough to train in a second."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers.tiny_model import NAMES, build_tiny_network, tiny_card
from tests.helpers.tiny_training import SIDE, ColouredClips, build_trainer, run, step_records
from tests.helpers.two_processes import TOGETHER
from tfcseg.errors import DataError, InputError, OutputError, TfcsegError, WeightsError
from tfcseg.training.datasets import SampleStream, StillSource, Weighted
from tfcseg.training.labelling import Taught
from tfcseg.training.loop import Float32Conv2d, use_float32_depthwise
from tfcseg.training.networks import trained_card
from tfcseg.training.objective import validation_miou
from tfcseg.training.recipes import Material, TrainOptions, attention_options
from tfcseg.weights.loading import load_model
from tfcseg.weights.model_card import parse_card

TESTS = Path(__file__).parents[1]


@pytest.fixture
def folder():
    """A folder that is gone afterwards: a checkpoint has 50 MB."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "run"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def differing(one, other):
    return [name for name in one if not torch.equal(one[name], other[name])]


# ------------------------------------------------------------------------------------------------------------ learning


def test_the_image_network_learns(folder):
    trainer, records = build_trainer(folder, steps=10, learning_rate=3e-3)
    best = run(trainer)
    losses = [record["seg"] for record in step_records(records)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert records[-1]["validation_miou"] == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("hard", [False, True])
def test_clips_are_learned_with_both_losses(folder, hard):
    trainer, records = build_trainer(folder, stage="tfc", steps=4, hard=hard, learning_rate=3e-3)
    before = tensors(trainer.network)
    run(trainer)
    steps = step_records(records)
    assert np.mean([step["seg"] for step in steps[-2:]]) < 0.85 * steps[0]["seg"]
    assert all(0 < step["bce"] < 10 for step in steps)
    changed = differing(before, trainer.network.state_dict())
    for part in ("backbone.stages.4", "decode_head.classifier", "update.attention", "update.ffn_out"):
        assert any(name.startswith(part) for name in changed), part


def test_the_image_stage_leaves_the_update_layer_alone(folder):
    trainer, _ = build_trainer(folder, steps=2)
    before = tensors(trainer.network)
    run(trainer)
    changed = differing(before, trainer.network.state_dict())
    assert not any(name.startswith("update.") for name in changed)
    assert any(name.startswith("backbone.stages.0") for name in changed)
    assert any(name.endswith("running_mean") for name in changed)


def test_norms_keep_their_statistics_when_told(folder):
    trainer, _ = build_trainer(folder, stage="tfc", steps=2, train_norms=False)
    before = tensors(trainer.network)
    run(trainer)
    statistics = [name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    changed = differing(before, trainer.network.state_dict())
    assert statistics
    assert not set(statistics) & set(changed)
    assert not set(statistics) & set(differing(before, trainer.average.state_dict()))
    assert any(name.endswith("norm.weight") for name in changed)


def test_stage_attention_trains_the_attention_alone(folder):
    options = attention_options(steps=3, batch=2)
    trainer, records = build_trainer(folder, **asdict(replace(options, crop=SIDE)))
    before = tensors(trainer.network)
    run(trainer)
    changed = differing(before, trainer.network.state_dict())
    assert changed
    assert all(name.startswith("update.") for name in changed)
    assert not set(differing(before, trainer.average.state_dict())) - set(changed)
    assert all(record["repair"] > 0 for record in step_records(records))


def test_rates_warm_up_and_fall(folder):
    trainer, records = build_trainer(folder, steps=4, learning_rate=1e-3, warmup_steps=2, head_rate_scale=5.0)
    run(trainer)
    assert [record["lr"] for record in step_records(records)] == pytest.approx([5e-4, 7.5e-4, 5e-4, 2.5e-4])
    rates = {group["scale"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert rates == pytest.approx({1.0: 2.5e-4, 5.0: 1.25e-3})


def test_norms_and_biases_do_not_decay(folder):
    trainer, _ = build_trainer(folder, stage="tfc", weight_decay=0.3)
    for group in trainer.optimizer.param_groups:
        assert group["weight_decay"] == (0.3 if group["params"][0].dim() > 1 else 0.0)
        assert len({parameter.dim() > 1 for parameter in group["params"]}) == 1


def test_a_loss_that_is_no_number_stops_training(folder):
    trainer, _ = build_trainer(folder)
    nn.init.constant_(trainer.network.decode_head.classifier.bias, float("nan"))
    with pytest.raises(TfcsegError, match="the loss is nan at step 0: start again with a lower --lr"):
        run(trainer)


# ----------------------------------------------------------------------------------------------------- log and weights


def test_the_log_holds_means_of_its_interval(folder):
    each, fine = build_trainer(folder / "1", steps=3)
    run(each)
    mean, coarse = build_trainer(folder / "2", steps=3)
    run(mean, log_every=2)
    losses = [record["seg"] for record in step_records(fine)]
    assert [record["step"] for record in step_records(coarse)] == [2, 3]
    expected = [np.mean(losses[:2]), losses[2]]
    assert [record["seg"] for record in step_records(coarse)] == pytest.approx(expected, abs=1e-4)


def test_the_log_is_json_lines_of_what_is_reported(folder):
    trainer, records = build_trainer(folder, steps=3)
    run(trainer, validate_every=2)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [{key: value for key, value in line.items() if key != "time"} for line in lines] == records
    assert [record["step"] for record in records if "validation_miou" in record] == [2, 3]
    for record in step_records(records):
        assert record.keys() == {"step", "steps", "seg", "lr", "images_per_s", "eta_s"}
        assert record["images_per_s"] > 0
    assert step_records(records)[-1]["eta_s"] == 0


def test_an_error_leaves_no_averaged_weights_in_the_network(folder, monkeypatch):
    trainer, _ = build_trainer(folder, steps=1)
    folder.mkdir()
    own = tensors(trainer.network)
    trainer.average.decode_head.classifier.bias += 1

    def fail(path, network, *others, **named):
        assert differing(own, network.state_dict()) == ["decode_head.classifier.bias"]
        raise DataError("no labelled pixel")

    monkeypatch.setattr("tfcseg.training.loop.save_model", fail)
    with pytest.raises(DataError):
        trainer._validate()
    assert differing(own, trainer.network.state_dict()) == []


def test_a_card_takes_the_end_of_a_long_history(tmp_path):
    """Training failed at the start, and called the card damaged."""
    start = replace(tiny_card(), trained_on="first; then " + "many photos; then " * 110)
    material = Material([], [], ColouredClips(1), start.labels, "supervised on streets")
    options = TrainOptions("image", steps=1, batch=1, learning_rate=1e-3)
    assert trained_card(start, material, options, name="streets", licence=None).licence == start.licence
    card = trained_card(start, material, options, name="streets", licence="CC BY 4.0,\nby many")
    assert parse_card(card.to_metadata(), tmp_path / "best.safetensors") == card
    assert (card.trained_on[-22:], card.licence) == (" supervised on streets", "CC BY 4.0, by many")


def test_the_best_is_the_average_and_can_be_loaded(folder):
    trainer, _ = build_trainer(folder, steps=3)
    run(trainer)
    assert differing(trainer.average.state_dict(), trainer.network.state_dict()), "an average lags behind"
    for file in ("best.safetensors", "last.safetensors"):
        loaded = load_model(folder / file, device="cpu", fold=False)
        assert loaded.labels.names == NAMES
        for name, tensor in loaded.network.state_dict().items():
            assert torch.allclose(tensor, trainer.average.state_dict()[name], rtol=1e-3, atol=1e-6), name


def test_worse_weights_do_not_replace_the_best(folder):
    trainer, _ = build_trainer(folder, steps=1)
    trainer.best = 99.9
    assert run(trainer) == 99.9
    assert (folder / "last.safetensors").exists()
    assert not (folder / "best.safetensors").exists()


def test_validation_counts_classes_of_all_frames():
    samples = ColouredClips(3, frames=2)

    def right(sample):
        return sample.labels.float()

    def half_right(sample):
        logits = sample.labels.float()
        logits[1] = logits[1].roll(1, dims=0)
        return logits

    assert validation_miou(right, samples, len(NAMES)) == 1.0
    assert 0.2 < validation_miou(half_right, samples, len(NAMES)) < 0.45  # half of the pixels: IoU about 1/3
    hard = ColouredClips(3, frames=2, hard=True)
    assert validation_miou(lambda sample: samples[0].labels * 0.0 + 1, hard, len(NAMES)) < 0.1


def test_validation_needs_labels():
    class Unlabelled(ColouredClips):
        def __getitem__(self, number):
            sample = super().__getitem__(number)
            return sample._replace(labels=torch.zeros_like(sample.labels))

    with pytest.raises(DataError, match="no labelled pixel"):
        validation_miou(lambda sample: sample.labels.float(), Unlabelled(2), len(NAMES))


def test_bad_data_in_a_worker_process_is_one_line(folder):
    missing = Taught(folder / "gone.jpg", folder / "gone.npy")
    stream = SampleStream([StillSource(Weighted([missing]), 64)], [1], count=100, seed=0)
    trainer, _ = build_trainer(folder, train=stream, workers=1)
    with pytest.raises(InputError) as caught:
        run(trainer)
    assert str(caught.value) == f"{missing.source}: the image cannot be read: No such file or directory"


# ------------------------------------------------------------------------------------------------------------ resuming


def interrupt_at(step):
    """A listener that presses Ctrl-C during a step."""

    def on_step(done, total):
        if done == step:
            os.kill(os.getpid(), signal.SIGINT)

    return on_step


def test_a_resumed_run_equals_an_uninterrupted_one(folder):
    """Bit for bit, dropout and all, even though the second start drew another network."""
    whole, expected = build_trainer(folder / "whole", stage="tfc", steps=5)
    run(whole)
    handler = signal.getsignal(signal.SIGINT)
    stopped, before = build_trainer(folder / "parts", stage="tfc", steps=5, on_step=interrupt_at(3))
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    assert signal.getsignal(signal.SIGINT) is handler
    resumed, after = build_trainer(folder / "parts", stage="tfc", steps=5, network_seed=1)
    run(resumed)
    assert [record["step"] for record in step_records(before)] == [1, 2, 3]
    losses = ("seg", "bce", "lr", "step")
    assert [[r[key] for key in losses] for r in step_records(before + after)] == [
        [r[key] for key in losses] for r in step_records(expected)
    ]
    assert differing(whole.network.state_dict(), resumed.network.state_dict()) == []
    assert differing(whole.average.state_dict(), resumed.average.state_dict()) == []
    assert resumed.best == whole.best


def test_a_finished_run_has_nothing_left_to_do(folder):
    trainer, _ = build_trainer(folder, steps=1)
    best = run(trainer)
    again, records = build_trainer(folder, steps=1)
    assert run(again) == best
    assert records == []


def test_a_run_with_other_options_is_refused(folder):
    run(build_trainer(folder, steps=1)[0])
    trainer, _ = build_trainer(folder, steps=3, learning_rate=0.1)
    with pytest.raises(WeightsError, match=r"other options or data \(steps 1, now 3; learning_rate 0\.001, now 0\.1\)"):
        run(trainer)


def test_a_run_on_other_data_is_refused(folder):
    run(build_trainer(folder, steps=1)[0])
    trainer, _ = build_trainer(folder, steps=1)
    trainer.card = replace(trainer.card, trained_on="other photos")
    with pytest.raises(WeightsError, match=r"trained_on nothing: random numbers, now other photos"):
        run(trainer)


def test_a_run_of_another_network_is_refused(folder):
    run(build_trainer(folder, steps=1)[0])
    trainer, _ = build_trainer(folder, steps=1)
    trainer.network.decode_head.classifier = nn.Conv2d(16, 9, 1)
    with pytest.raises(WeightsError, match="belongs to a network of another kind"):
        run(trainer)


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def plain_pickle(path, marker):
    path.write_bytes(pickle.dumps({"format": "tfcseg-checkpoint-2", "network": Payload(marker)}))


def torch_pickle(path, marker):
    torch.save({"format": "tfcseg-checkpoint-2", "network": Payload(marker)}, path)


def other_content(path, marker):
    torch.save({"model": torch.zeros(3)}, path)


def bare_tensor(path, marker):
    torch.save(torch.zeros(3), path)


def text_file(path, marker):
    path.write_text("no checkpoint at all")


@pytest.mark.parametrize("write", [plain_pickle, torch_pickle, other_content, bare_tensor, text_file])
def test_a_foreign_checkpoint_is_refused_and_runs_nothing(folder, write):
    folder.mkdir()
    marker = folder / "executed"
    write(folder / "checkpoint.pt", marker)
    trainer, _ = build_trainer(folder)
    with pytest.raises(WeightsError, match="is not a tfcseg checkpoint") as caught:
        run(trainer)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_a_truncated_checkpoint_is_refused(folder):
    run(build_trainer(folder, steps=1)[0])
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="or a damaged one"):
        run(build_trainer(folder, steps=1)[0])


def test_a_full_disk_is_named(folder):
    folder.mkdir()
    (folder / ".checkpoint.pt.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"^cannot write '.*checkpoint\.pt': No space left on device"):
        build_trainer(folder)[0].save_checkpoint()
    assert list(folder.iterdir()) == []
    (folder / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"^cannot write '.*log\.jsonl': No space left on device"):
        run(build_trainer(folder, steps=1)[0])


def test_a_full_disk_is_named_in_the_middle_of_a_large_checkpoint(folder):
    """Torch's archive then fails by itself, and its error says nothing of the disk."""
    trainer = build_trainer(folder)[0]
    trainer.best = {"filler": torch.zeros(1 << 22)}
    folder.mkdir(exist_ok=True)
    (folder / ".checkpoint.pt.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"^cannot write '.*checkpoint\.pt': No space left on device"):
        trainer.save_checkpoint()


def test_checkpoints_appear_only_when_complete(folder):
    trainer, _ = build_trainer(folder, steps=2)
    run(trainer, checkpoint_every=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors",
        "checkpoint.pt",
        "last.safetensors",
        "log.jsonl",
    ]


def test_a_checkpoint_is_on_disk_before_it_replaces_the_one_before(folder, monkeypatch):
    flushed, fsync = [], os.fsync

    def record(number):
        flushed.append(os.fstat(number).st_ino)
        fsync(number)

    monkeypatch.setattr(os, "fsync", record)
    trainer, _ = build_trainer(folder, steps=1)
    run(trainer)
    assert flushed == [(folder / "checkpoint.pt").stat().st_ino]


# -------------------------------------------------------------------------------------------------- depthwise gradients


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(5, 1, 1), (5, 2, 1), (3, 2, 1), (3, 1, 2)])
def test_slow_depthwise_convolutions_compute_in_float32(kernel, stride, dilation):
    """The weight gradient is a sum over all positions, which bfloat16 would round."""
    layer = nn.Conv2d(4, 4, kernel, stride=stride, padding=kernel // 2 * dilation, dilation=dilation, groups=4)
    network = nn.Sequential(layer)
    image = torch.randn(2, 4, 40, 40, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    expected = network(image)
    expected.square().sum().backward()
    exact = layer.weight.grad.clone()
    network.zero_grad()
    use_float32_depthwise(network)
    assert type(layer) is Float32Conv2d
    assert torch.equal(network(image), expected), "without autocast nothing changes"
    with torch.autocast("cpu", torch.bfloat16):
        y = network(image)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, expected.bfloat16())
    y.float().square().sum().backward()
    assert torch.allclose(layer.weight.grad, exact, rtol=0.02, atol=0.01 * exact.abs().max().item())


def test_only_depthwise_convolutions_are_replaced_and_nothing_is_renamed():
    network = build_tiny_network()
    before = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    kinds = {name: (module.groups, module.in_channels) for name, module in convolutions(network)}
    use_float32_depthwise(network)
    assert {name: tensor.data_ptr() for name, tensor in network.state_dict().items()} == before
    for name, module in convolutions(network):
        groups, channels = kinds[name]
        is_slow = module.kernel_size != (3, 3) or module.stride != (1, 1)
        assert isinstance(module, Float32Conv2d) == (groups == channels > 1 and is_slow), name


def convolutions(network):
    return [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]


# ----------------------------------------------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def processes():
    """What two processes of batch 2 under torchrun and one process of batch 4 made of the same samples."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        done = subprocess.run(
            [*command, str(TESTS / "helpers" / "two_processes.py"), name, "2"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}:{TESTS.parent}"},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        ranks = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
        log = (folder / "run" / "log.jsonl").read_text().splitlines()
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        trainer, records = build_trainer(folder / "one", batch=4, **TOGETHER)
        run(trainer)
        torch.set_num_threads(before)
        yield ranks, log, trainer, records


def test_two_processes_have_the_loss_of_one_with_the_doubled_batch(processes):
    ranks, _, _, records = processes
    expected, found = step_records(records), step_records(ranks[0]["records"])
    assert len(found) == len(expected) == 2
    for key in ("seg", "bce"):
        assert found[0][key] == pytest.approx(expected[0][key], abs=1e-5)
        # Steps of 1e-3 on weights that differ in their last bits.
        assert [record[key] for record in found] == pytest.approx([record[key] for record in expected], abs=2e-4)


def test_two_processes_end_with_the_weights_of_one(processes):
    """Within 1e-5 after moving by about 1e-3.

    AdamW makes full steps of rounding errors where the true gradient is 0 (softmax does not see a key's bias): a few
    in ten thousand weights may differ by more.
    """
    ranks, _, trainer, _ = processes
    ours, start = ranks[0]["network"], build_tiny_network("mit_b0").state_dict()
    expected = trainer.network.state_dict()
    floats = [name for name in expected if expected[name].is_floating_point()]
    difference = torch.cat([(ours[name] - expected[name]).flatten() for name in floats]).abs()
    moved = torch.cat([(start[name] - expected[name]).flatten() for name in floats]).abs()
    assert moved.median() > 5e-4
    assert (difference <= 1e-5).double().mean() > 0.999
    assert difference.norm() < 1e-2 * moved.norm()
    for name in set(expected) - set(floats):
        assert torch.equal(ours[name], expected[name]), name


def test_both_processes_have_the_same_weights(processes):
    ranks, _, _, _ = processes
    assert differing(ranks[0]["network"], ranks[1]["network"]) == []


def test_only_the_first_process_talks(processes):
    ranks, log, _, _ = processes
    assert ranks[1]["records"] == []
    assert len(log) == len(ranks[0]["records"]) == 3


def test_the_first_process_goes_first(processes):
    ranks, _, _, _ = processes
    assert ranks[0]["order"] == 0
