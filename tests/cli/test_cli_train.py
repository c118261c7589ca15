"""``tfcseg train`` as a user calls it, on folders that are made here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import vspw_fixture as vspw
from tests.helpers.command_line import interruptible
from tests.helpers.media import run_ffmpeg
from tests.helpers.tiny_model import write_tiny_model
from tests.helpers.tiny_teacher import write_teacher
from tfcseg import cli
from tfcseg.cli.train import describe
from tfcseg.errors import UsageError
from tfcseg.machine import available_cores, has_bfloat16
from tfcseg.model.config import ModelConfig
from tfcseg.runs.outputs import folder_lock
from tfcseg.training.options import TrainRequest
from tfcseg.training.run import plan_training, training_precision
from tfcseg.weights.loading import load_model, read_card
from tfcseg.weights.tensor_file import read_tensor_file

QUICK = ("--batch", "1", "--crop", "64", "--precision", "fp32", "--workers", "0", "--threads", "1")


@pytest.fixture(scope="module")
def work():
    """A folder that is gone afterwards: a checkpoint has 50 MB."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def vspw_root(work):
    return make_root(work / "street")


def make_root(root):
    vspw.make_vspw(root, {"0_hills": 6, "1_road": 5})
    (root / "train.txt").write_text("0_hills\n")
    (root / "val.txt").write_text("1_road\n")
    return root


@pytest.fixture(scope="module")
def photos(work):
    folder = work / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(4):
        blocks = rng.choice([30, 200], (3, 4, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{n}.png"), cv2.resize(blocks, (120, 90), interpolation=cv2.INTER_NEAREST))
    run_ffmpeg(
        *["-f", "lavfi", "-i", "testsrc2=size=120x90:rate=15:duration=0.4", "-pix_fmt", "yuv420p"], folder / "clip.mp4"
    )
    return folder


@pytest.fixture(scope="module")
def teacher(work):
    return write_teacher(work / "colours.tflite")


@pytest.fixture
def call(monkeypatch, capfd):
    """Runs the program with arguments; (exit code, stdout, stderr)."""
    handler = signal.getsignal(signal.SIGTERM)
    threads = torch.get_num_threads()
    monkeypatch.setenv("COLUMNS", "300")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["tfcseg", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capfd.readouterr()

    yield call
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


# ---------------------------------------------------------------------------------------------------------- supervised


def test_a_vspw_folder_is_trained_on(call, work):
    """Bad data stops it first; left out, it trains, says how it goes, and does not start over."""
    root, output = make_root(work / "dama\nged"), work / "supervised"
    vspw.cut_file(vspw.image_path(root, "1_road", 166))
    command = ("train", root, "-o", output, "--steps", 2, *QUICK)

    code, out, err = call(*command)
    assert code == 1
    assert out == ""
    assert err == (
        f"error: {root.parent}/dama ged: 1_road/00000166: image the image is cut off; repair them or train with "
        "--skip-bad\n"
    )
    assert not output.exists()

    code, out, err = call(*command, "--skip-bad", "--name", "street-1", "--licence", "CC BY 4.0", "--json")
    assert code == 0
    assert "warning: skipped: 1_road/00000166: image the image is cut off\n" in err
    assert "warning: mit_b0 starts from random weights, the paper's from ImageNet's; see --init\n" in err
    assert "step 2/2  seg loss " in err
    assert "img/s  0:00:00 left" in err
    result = json.loads(out)
    assert result["name"] == "street-1"
    assert result["stage"] == "tfc"
    assert result["steps"] == 2
    assert 0 <= result["best_miou"] <= 100
    assert result["weights"] == str(output / "best.safetensors")
    assert sorted(path.name for path in output.iterdir()) == [
        "best.safetensors",
        "checkpoint.pt",
        "last.safetensors",
        "log.jsonl",
    ]
    log = (output / "log.jsonl").read_text()
    assert {"seg", "bce", "lr", "images_per_s", "eta_s"} < json.loads(log.splitlines()[0]).keys()

    card = load_model(output / "best.safetensors", device="cpu").card
    assert card.name == "street-1"
    assert card.config == ModelConfig("mit_b0", 256, 124), "the paper's"
    assert len(card.labels) == 124
    assert card.trained_on == "supervised on dama ged (1 video)"
    assert card.labels.name == "dama ged", "a line end was told as a damaged card"
    assert card.licence == "CC BY 4.0"
    assert card.description == "stage tfc: 2 steps of 1 samples of 64 px, learning rate 6e-05, seed 0"
    assert card.created_with.startswith("tfcseg ")

    code, _, err = call(*command, "--skip-bad", "-q")
    assert code == 0
    assert "random weights" not in err
    assert (output / "log.jsonl").read_text() == log, "it was finished: nothing is trained again"

    code, _, err = call(*command, "--skip-bad", "--lr", "0.5", "-q")
    assert code == 1
    assert err.splitlines()[-1] == (
        f"error: {output}/checkpoint.pt has other options or data (learning_rate 6e-05, now 0.5); "
        "train into another folder"
    )
    code, _, err = call(
        *command, "--skip-bad", "--crop", "96", "--size", "240", "-q"
    )  # of one option given twice the last
    assert code == 1
    assert "(crop 64, now 96; short_side_px 480, now 240)" in err, "the card would say so of all steps"


# ------------------------------------------------------------------------------------------------------------ distilled


def test_teachers_train_an_image_network_and_then_clips(call, work, photos, teacher):
    image, clips = work / "image", work / "clips"
    code, out, err = call("train", photos, "--teachers", teacher, "-o", image, "--steps", 1, *QUICK)
    assert (code, out) == (0, "")
    assert "backbone: ImageNet; then distilled from colours on 3 photos and 1 video clip" in err
    assert len(list((image / "labels" / "stills").glob("*.npy"))) == 4
    card = read_card(image / "best.safetensors")
    assert card.name == "image"
    assert card.labels.name == "ade31"
    assert card.description.startswith("stage image: 1 steps")
    assert not card.config.repairs, "the sparse attention is still random"

    refine = ("--init", image / "best.safetensors", "--cache", image / "labels", "-q", "--folder-weight", f"{photos}=3")
    code, out, err = call("train", photos, "--teachers", teacher.parent, "-o", clips, "--steps", 1, *refine, *QUICK)
    assert (code, out) == (0, "")
    assert "error" not in err
    card = read_card(clips / "best.safetensors")
    assert card.description.startswith("stage tfc: 1 steps")
    assert card.config.repairs
    assert card.description.endswith(", photos 3 times as often")
    assert card.trained_on == (
        "backbone: ImageNet; then distilled from colours on 3 photos and 1 video clip; "
        "then distilled from colours on 3 photos and 1 video clip"
    )
    assert not (clips / "labels").exists(), "labels came from the cache"

    repairing = (*refine[2:], "--init", clips / "last.safetensors", "--stage", "attention")
    code, out, err = call("train", photos, "--teachers", teacher, "-o", work / "a", "--steps", 2, *repairing, *QUICK)
    assert (code, out) == (0, "")
    before, after = (read_tensor_file(folder / "last.safetensors").tensors for folder in (clips, work / "a"))
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed
    assert all(name.startswith("update.") for name in changed), "mode image stays as it is"


def test_two_kinds_of_teachers_train_another_backbone(call, work, photos, teacher):
    """The second model starts from the first's classes as far as it knows them."""
    (work / "others").mkdir()
    voc = write_teacher(work / "others" / "voc.tflite", classes=21)
    first, second, third = work / "first", work / "second", work / "third"
    assert call("train", photos, "--teachers", teacher, "-o", first, "--steps", 1, *QUICK)[0] == 0
    both = (
        "--teachers",
        teacher,
        "--teachers",
        voc,
        "--cache",
        work / "both",
        "--stage",
        "image",
        "--steps",
        1,
        *QUICK,
    )
    assert call("train", photos, *both, "--init", first / "last.safetensors", "-o", second, "--lr", 1e-9)[0] == 0
    card = read_card(second / "last.safetensors")
    assert (card.labels.name, card.config.num_classes) == ("scenes", 51)
    old, new = (load_file(path / "last.safetensors") for path in (first, second))
    rows = "decode_head.classifier.weight"
    assert torch.allclose(new[rows][:32].float(), old[rows].float(), atol=1e-3), "classes of the same name"
    assert new[rows][32:].abs().sum() > 0
    assert call("train", photos, *both, "--backbone", "mit_b0", "--embed-dim", 32, "-o", third)[0] == 0
    card = read_card(third / "last.safetensors")
    assert (card.config.embed_dim, card.config.ffn_dim) == (32, 128)
    assert card.trained_on == "distilled from colours, voc on 3 photos and 1 video clip"


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.fixture(scope="module")
def places(work, vspw_root, photos, teacher):
    """What the arguments below name."""
    other, bad, notes = work / "other", work / "bad_photos", work / "notes"
    vspw.make_vspw(other, {"0_hills": 2})
    for folder in (bad, notes):
        folder.mkdir()
    (bad / "whole.png").write_bytes((photos / "0.png").read_bytes())
    (bad / "cut.png").write_bytes((photos / "0.png").read_bytes()[:50])
    (bad / "broken.mp4").write_bytes((photos / "clip.mp4").read_bytes()[:200])
    (notes / "notes.txt").touch()
    (work / "file").touch()
    (work / "old.safetensors").touch()
    return {
        "OUT": work / "refused",
        "ROOT": vspw_root,
        "OTHER": other,
        "PHOTOS": photos,
        "BAD": bad,
        "NOTES": notes,
        "TEACHER": teacher,
        "VOC": write_teacher(notes / "voc.tflite", classes=21),
        "TINY": write_tiny_model(work / "tiny.safetensors"),
        "FILE": work / "file",
        "NOWHERE": work / "nowhere",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("NOWHERE -o OUT", 1, "NOWHERE does not exist; give a VSPW folder, or images and videos with --teachers"),
        ("PHOTOS -o OUT", 2, "PHOTOS is not a VSPW folder (label_num_dic_final.json and data/); images and videos"),
        ("ROOT OTHER -o OUT", 2, "one VSPW folder at a time, not 2"),
        ("ROOT -o OUT --teachers TEACHER", 2, "ROOT is a VSPW folder, which has labels; leave --teachers out"),
        ("OTHER -o OUT", 1, "OTHER/train.txt: lists no videos"),
        ("ROOT -o OUT --stage both", 2, "no stage 'both'; there are image, tfc"),
        ("ROOT -o OUT --steps 0", 2, "error: --steps 0 is less than 1"),
        ("ROOT -o OUT --checkpoint-every 0", 2, "error: --checkpoint-every 0 is less than 1"),
        ("ROOT -o OUT --lr -1", 2, "error: --lr -1 is not between 1e-12 and 1"),
        ("ROOT -o OUT --crop 100", 2, "--crop 100 is not a multiple of 32"),
        ("ROOT -o OUT --size 16", 2, "size 16 is not between 32 and 4096"),
        ("ROOT -o OUT --size 4097", 2, "size 4097 is not between 32 and 4096"),
        ("PHOTOS -o OUT --teachers TEACHER --size 240", 2, "--size is for VSPW folders only"),
        ("PHOTOS -o OUT --teachers TEACHER --folder-weight PHOTOS", 2, "should be FOLDER=WEIGHT, with a weight above"),
        ("PHOTOS -o OUT --teachers TEACHER --folder-weight PHOTOS=0", 2, "PHOTOS=0: should be FOLDER=WEIGHT"),
        ("PHOTOS -o OUT --teachers TEACHER --folder-weight NOTES=2", 2, "NOTES is not among the data"),
        ("ROOT -o OUT --folder-weight ROOT=2", 2, "--folder-weight needs --teachers"),
        ("ROOT -o OUT --precision fp16", 2, "no training precision 'fp16'; there are auto, fp32, bf16"),
        ("ROOT -o OUT --device cuda:77", 2, "device 'cuda:77' is not available"),
        ("ROOT -o OUT --device tpu", 2, "no device 'tpu'"),
        ("ROOT -o OUT --backbone resnet", 2, "no backbone 'resnet'; there are efficientnet_lite0, mosaic, mit_b0"),
        ("ROOT -o OUT --init NOTES", 1, "NOTES is a folder without model.safetensors or pytorch_model.bin"),
        ("ROOT -o OUT --init TINY --backbone mit_b1", 2, "--init TINY has backbone efficientnet_lite0; leave"),
        ("ROOT -o OUT --init NOWHERE.safetensors", 1, "no weights file NOWHERE.safetensors"),
        ("ROOT -o FILE/run", 1, "cannot write to folder 'FILE/run': Not a directory"),
        ("PHOTOS -o OUT --teachers NOWHERE", 2, "--teachers NOWHERE: no such .tflite file"),
        ("PHOTOS -o OUT --teachers PHOTOS", 2, "--teachers PHOTOS: no such .tflite file, or none in this folder"),
        ("PHOTOS -o OUT --teachers TEACHER --stage tfc", 2, "stage tfc starts from an image network"),
        ("ROOT -o OUT --stage attention", 2, "stage attention starts from an image network; give one of --stage image"),
        ("ROOT -o OUT --init TINY --stage attention --bce-weight 0", 2, "--bce-weight needs --stage tfc"),
        ("ROOT -o OUT --init TINY --stage attention", 2, "TINY lacks 119 of the data's 124, such as 'wall'"),
        ("PHOTOS -o OUT --teachers TEACHER --init TINY --stage attention", 2, "TINY lacks 27 of the data's 32, such"),
        (
            "PHOTOS -o OUT --teachers TEACHER --embed-dim 20",
            2,
            "--embed-dim 20 is not a multiple of 8, the attention's",
        ),
        ("ROOT -o OUT --bce-weight -1", 2, "--bce-weight -1 is not between 0 and 100"),
        ("ROOT -o OUT --stage image --bce-weight 0", 2, "--bce-weight needs --stage tfc"),
        ("ROOT -o OUT --cache NOTES", 2, "--cache needs --teachers, whose labels it keeps"),
        ("ROOT -o OUT --init X --embed-dim 64", 2, "--embed-dim is set by the model given with --init; leave it out"),
        ("PHOTOS -o PHOTOS/run --teachers TEACHER", 2, "--output PHOTOS/run is inside the data (PHOTOS)"),
        ("PHOTOS -o OUT --cache PHOTOS --teachers TEACHER", 2, "--cache PHOTOS is inside the data (PHOTOS)"),
        ("PHOTOS -o OUT --teachers VOC", 1, "objects only; add one of ADE20K's 32 classes"),
        ("PHOTOS -o OUT --teachers FILE", 1, "FILE is not a TensorFlow Lite network"),
        ("NOTES -o OUT --teachers TEACHER", 1, "no images or videos below NOTES"),
        ("BAD -o OUT --teachers TEACHER", 1, "damaged files: BAD/cut.png: the image is cut off; BAD/broken.mp4: "),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(call, places, arguments, code, words):
    def fill(text):
        for name, place in sorted(places.items(), key=lambda item: -len(item[0])):
            text = text.replace(name, str(place))
        return text

    found, out, err = call("train", *fill(arguments).split())
    lines = [line for line in err.splitlines() if "XNNPACK" not in line]  # the interpreter's own greeting
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert fill(words) in lines[0]
    assert (found, out) == (code, "")
    assert not places["OUT"].exists() or list(places["OUT"].iterdir()) == []


def test_a_name_that_fits_no_card_is_refused(call, vspw_root, work):
    code, _, err = call("train", vspw_root, "-o", work / "named", "--name", "x" * 101)
    assert (code, err) == (2, "error: --name must be one line of 1 to 100 characters\n")


def test_what_others_use_is_not_written_to(call, vspw_root, work):
    """Two trainings wrote into each other's checkpoints, and one over the model that it had started from."""
    output = work / "used"
    with folder_lock(output):
        code, _, err = call("train", vspw_root, "-o", output, "--steps", 1, *QUICK)
    assert code == 1
    assert err.startswith(f"error: another run is writing to '{output}' (process {os.getpid()}); wait for it or")
    write_tiny_model(output / "last.safetensors")
    code, _, err = call("train", vspw_root, "-o", output, "--init", output / "last.safetensors", *QUICK)
    assert (code, "is the input" in err) == (2, True)
    assert [path.name for path in output.iterdir()] == ["last.safetensors"]


def test_a_missing_option_is_a_usage_error(call, vspw_root):
    code, _, err = call("train", vspw_root)
    assert code == 2
    assert "missing option '--output'" in err


def test_help_is_complete_and_needs_no_torch():
    code = "import sys; from tfcseg.cli import main; sys.argv = ['tfcseg', 'train', '--help']\n"
    code += "try: main()\nfinally: assert 'torch' not in sys.modules"
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for option in ("--output", "--teachers", "--stage", "--init", "--steps", "--precision", "--skip-bad", "--json"):
        assert option in done.stdout
    assert "tfcseg train photos --teachers teachers -o img --steps 1 --batch 1" in done.stdout


# --------------------------------------------------------------------------------------------------------- interrupted


def test_ctrl_c_saves_a_checkpoint_and_leaves_with_130(work, vspw_root):
    output = work / "interrupted"
    command = [sys.executable, "-m", "tfcseg", "train", vspw_root, "-o", output, "--steps", 1000, *QUICK]
    with interruptible():
        process = subprocess.Popen(
            [str(word) for word in [*command, "--checkpoint-every", 1]], stderr=subprocess.PIPE, text=True
        )
    try:
        deadline = time.monotonic() + 300
        while not (output / "checkpoint.pt").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    last = f"error: interrupted; progress is kept in {output}; run the same command again to continue"
    assert err.splitlines()[-1] == last
    state = torch.load(output / "checkpoint.pt", weights_only=True)
    assert 1 <= state["step"] < 1000
    assert not (output / ".checkpoint.pt.part").exists()


def test_ctrl_c_while_labelling_processes_start_is_one_line(work, photos, teacher):
    """The terminal sends it to all processes; those that still imported modules told where they were."""
    output = work / "starting"
    command = [sys.executable, "-m", "tfcseg", "train", photos, "--teachers", teacher, "--backbone", "mit_b0"]
    with interruptible():
        process = subprocess.Popen(
            [str(word) for word in [*command, "-o", output, "--steps", 1, *QUICK]],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        while len(children.read_text().split()) < 2:  # one only counts what others leave behind
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert [line for line in err.splitlines() if "XNNPACK" not in line] == [
        f"error: interrupted; progress is kept in {output}; run the same command again to continue"
    ], err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_signal_to_all_processes_is_no_crash_of_workers(work, vspw_root, number, is_late):
    output = work / f"all-{number}-{is_late}"
    command = [sys.executable, "-m", "tfcseg", "train", vspw_root, "-o", output, "--steps", 1000, *QUICK]
    with interruptible():
        process = subprocess.Popen(
            [str(word) for word in [*command, "--workers", 2, "--checkpoint-every", 1]],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        deadline = time.monotonic() + 300
        while not (output / "checkpoint.pt").exists() if is_late else len(workers.read_text().split()) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    last = f"error: interrupted; progress is kept in {output}; run the same command again to continue"
    assert (process.returncode, err.splitlines()[-1]) == (130, last)
    assert "Traceback" not in err


# ---------------------------------------------------------------------------------------------------- machine and words


def test_bfloat16_is_recognised_by_the_processors_flags(tmp_path):
    info = tmp_path / "cpuinfo"
    for flags, expected in {"avx512f avx512_bf16": True, "amx_bf16 amx_tile": True, "avx2 avx512f": False}.items():
        info.write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse\nbugs\t\t: none\n")
        assert has_bfloat16(info) is expected
    assert has_bfloat16(tmp_path / "none") is False


def test_precision_follows_the_hardware():
    cpu = torch.device("cpu")
    assert training_precision("auto", cpu) is (torch.bfloat16 if has_bfloat16() else torch.float32)
    assert training_precision("bf16", cpu) is torch.bfloat16
    assert training_precision("auto", torch.device("mps")) is torch.float32
    with pytest.raises(UsageError):
        training_precision("int8", cpu)


def test_plans_fill_in_the_defaults(vspw_root, photos, teacher, tmp_path):
    supervised = plan_training(TrainRequest(data=[vspw_root], output=tmp_path))
    assert (supervised.options.stage, supervised.options.crop, supervised.options.learning_rate) == ("tfc", 480, 6e-5)
    assert (supervised.workers, supervised.validate_every) == (1, supervised.options.steps // 10)
    assert 1 <= supervised.threads <= available_cores()
    distilled = plan_training(TrainRequest(data=[photos], teachers=[teacher.parent], output=tmp_path, steps=100))
    assert (distilled.options.stage, distilled.options.crop, distilled.validate_every) == ("image", 448, 50)
    assert distilled.teachers == [teacher]
    assert distilled.cache == tmp_path / "labels"


def test_processes_of_one_machine_share_its_cores(vspw_root, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(available_cores()))
    assert plan_training(TrainRequest(data=[vspw_root], output=tmp_path)).threads == max(
        1, available_cores() // max(2, available_cores())
    )


def test_a_record_is_told_in_one_line():
    record = {"step": 40, "steps": 3200, "seg": 1.59532, "bce": 0.25, "lr": 4e-4, "images_per_s": 8.09, "eta_s": 5425}
    assert describe(record) == "step 40/3200  seg loss 1.5953  bce loss 0.2500  lr 4.00e-04  8.1 img/s  1:30:25 left"
    validation = {"step": 400, "validation_miou": 45.123, "best": 46.0}
    assert describe(validation) == "step 400  validation mIoU 45.12 (best 46.00)"
