"""Python as its users write it: the documented examples, and what they may rely on."""

import asyncio
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tfcseg
from tests.helpers.media import write_clip
from tests.helpers.tiny_model import build_tiny_model, moving_images, write_tiny_model
from tfcseg.errors import UsageError, in_python_words

GUIDE = Path(__file__).parents[2] / "assets" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
MODEL = build_tiny_model()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "street.mp4", 5)


def labels(frames):
    return [frame.labels for frame in frames]


def same(ours, theirs):
    return len(ours) == len(theirs) and all((one == other).all() for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[-2][:40])
def test_every_example_of_the_guide_runs(block, clip, tmp_path, monkeypatch, capsys):
    if "supervision" in block:
        pytest.importorskip("supervision")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "street.mp4").symlink_to(clip)
    exec(compile(block, "python.md", "exec"), {})


def test_a_path_is_its_frames(clip, tmp_path):
    weights = write_tiny_model(tmp_path / "tiny.safetensors")
    model = tfcseg.load_model(weights)
    wanted = labels(tfcseg.segment(tfcseg.read_frames(clip), model))
    for given in (str(clip), Path(clip)):
        assert same(labels(tfcseg.segment(given, model)), wanted)
    assert same(labels(tfcseg.segment(clip, weights, device="CPU".lower())), wanted)
    assert len(list(tfcseg.segment(clip, model, end_s=0.1))) < len(wanted)
    with pytest.raises(tfcseg.InputError, match="nothing"):
        next(tfcseg.segment(tmp_path / "nothing.mp4", model))
    with pytest.raises(tfcseg.WeightsError, match="did you mean tfc-lite0"):
        tfcseg.segment(clip, "tfc-light0")


def test_arrays_come_one_by_one_or_together():
    images = moving_images(3, (32, 48))
    wanted = labels(tfcseg.segment(images, MODEL))
    assert same(labels(tfcseg.segment(np.stack(images), MODEL)), wanted)
    assert same(labels(tfcseg.segment(images[0], MODEL)), wanted[:1])
    assert same(labels(tfcseg.segment((np.ascontiguousarray(i[..., ::-1])[..., ::-1] for i in images), MODEL)), wanted)
    with pytest.raises(UsageError, match="start_s and end_s"):
        tfcseg.segment(images, MODEL, start_s=1)
    for given in (None, 2.5):
        with pytest.raises(UsageError, match=f"frames are {type(given).__name__}; give a path"):
            tfcseg.segment(given, MODEL)
    with pytest.raises(TypeError, match="no option 'treshold'; did you mean threshold"):
        tfcseg.segment(images, MODEL, treshold=0.5)
    with pytest.raises(TypeError, match=r"no option 'fps'; there are .* start_s, end_s, device, .* mode, "):
        tfcseg.segment(images, MODEL, fps=5)
    with pytest.raises(TypeError, match="no option 'start'; did you mean start_s"):
        tfcseg.segment(images, MODEL, start=5)
    assert same(
        labels(tfcseg.segment(images, MODEL, mode="IMAGE")), labels(tfcseg.segment(images, MODEL, mode="image"))
    )


@pytest.mark.parametrize("latency", ["normal", "low"])
def test_a_buffer_may_be_used_again(latency):
    images = moving_images(6, (32, 48))

    def reused():
        buffer = np.empty_like(images[0])
        for image in images:
            buffer[:] = image
            yield buffer

    found = list(tfcseg.segment(reused(), MODEL, latency=latency))
    assert same(labels(found), labels(tfcseg.segment(images, MODEL, latency=latency)))
    assert same([frame.image for frame in found], images)


def test_threads_share_a_model():
    videos = [moving_images(5, (32, 48), seed=seed) for seed in range(3)]
    wanted = [labels(tfcseg.segment(images, MODEL)) for images in videos]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda images: labels(tfcseg.segment(images, MODEL)), videos))
    for ours, theirs in zip(found, wanted, strict=True):
        assert same(ours, theirs)


def test_threads_share_the_frames_of_a_video():
    images = moving_images(12, (32, 48))
    frames = tfcseg.segment(images, MODEL)
    with ThreadPoolExecutor(3) as pool:
        parts = [part.result() for part in [pool.submit(lambda: [frame.index for frame in frames]) for _ in range(3)]]
    assert sorted(index for part in parts for index in part) == list(range(12))


def test_asyncio_goes_on_meanwhile():
    images = moving_images(5, (32, 48))

    async def both():
        async def read(seed):
            return [frame.labels async for frame in tfcseg.segment(moving_images(5, (32, 48), seed=seed), MODEL)]

        return await asyncio.gather(read(0), read(1))

    first, second = asyncio.run(both())
    assert same(first, labels(tfcseg.segment(images, MODEL)))
    assert not same(second, first)


def test_what_is_left_early_is_freed(clip):
    with tfcseg.segment(clip, MODEL) as frames:
        next(frames)
    frames.close()
    assert list(frames) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tfcseg-read-ahead")]


def test_several_sources_have_a_folder_each(clip, tmp_path):
    other = write_clip(tmp_path / "other.mp4", 2)
    options = {"flow_consistency": False, "overlay": False, "html": False}
    reports = tfcseg.run([clip, other], tmp_path / "outs", MODEL, mode="Image", **options)
    assert [report.input.frames_decoded for report in reports.values()] == [5, 2]
    assert sorted(path.name for path in (tmp_path / "outs").iterdir()) == ["other_tfcseg", "street_tfcseg"]
    with pytest.raises(tfcseg.BatchError, match=r"1 of 2 inputs failed: .*missing\.mp4: ") as failure:
        tfcseg.run([other, tmp_path / "missing.mp4"], tmp_path / "more", MODEL, **options)
    assert list(failure.value.reports) == [str(other)]
    assert isinstance(failure.value.failures[str(tmp_path / "missing.mp4")], tfcseg.InputError)


def test_run_takes_options_of_results_by_name(clip, tmp_path):
    report = tfcseg.run(clip, tmp_path / "out", MODEL, classes=["SKY", "road"], masks=False, flow_consistency=False)
    assert "masks" not in report.outputs
    with pytest.raises(UsageError, match="no class 'skyy'"):
        tfcseg.run(clip, tmp_path / "no", MODEL, classes="skyy")
    with pytest.raises(TypeError, match="no option 'mask'; did you mean masks"):
        tfcseg.run(clip, tmp_path / "no", MODEL, mask=False)
    with pytest.raises(TypeError, match=r"run\(\) has no option 'start'; did you mean start_s\?"):
        tfcseg.run(clip, tmp_path / "no", MODEL, start=1)
    with pytest.raises(UsageError, match="named like a file"):
        tfcseg.run(clip, tmp_path / "no.mp4", MODEL)


def test_a_palette_may_be_a_dict(clip, tmp_path):
    options = {"flow_consistency": False, "html": False}
    tfcseg.run(clip, tmp_path / "out", MODEL, palette={"Sky": "#010203"}, **options)
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert [each["colour"] for each in classes if each["name"] == "sky"] == [[1, 2, 3]]
    with pytest.raises(tfcseg.FinishedError):
        tfcseg.run(clip, tmp_path / "out", MODEL, palette={"sky": "010203"}, resume=True, **options)
    wrong = {
        "palette: no class 'skyy' in label set .*; did you mean sky?": {"skyy": "#010203"},
        "palette: no class '5' in": {5: "#010203"},
        r"palette: \(1, 2, 3\) is not a colour for 'sky'": {"sky": (1, 2, 3)},
        "palette is 5; give a JSON file, or a dict": 5,
    }
    for said, palette in wrong.items():
        with pytest.raises(UsageError, match=said):
            tfcseg.run(clip, tmp_path / "no", MODEL, palette=palette, **options)


def test_values_of_other_types_are_one_line(clip, tmp_path):
    for given in (None, 2.5):
        with pytest.raises(UsageError, match=f"source is {type(given).__name__}; give paths"):
            tfcseg.run(given, tmp_path / "no", MODEL)
    for name, value in {"start_s": "1", "end_s": "0:01"}.items():
        with pytest.raises(UsageError, match=f"^{name} is '{value}', not a number of seconds$"):
            next(tfcseg.segment(clip, MODEL, **{name: value}))
        with pytest.raises(UsageError, match=f"^{name} is '{value}', not a number of seconds$"):
            tfcseg.run(clip, tmp_path / "no", MODEL, **{name: value})
    with pytest.raises(UsageError, match="2 is no name of a class"):
        tfcseg.run(clip, tmp_path / "no", MODEL, classes=[2])
    assert not (tmp_path / "no").exists()


def test_messages_advise_arguments_and_not_options_of_a_command(clip, tmp_path):
    out = tmp_path / "out"
    tfcseg.run(clip, out, MODEL, flow_consistency=False, overlay=False, html=False)
    advice = "use overwrite=True or choose another output; resume=True skips what is finished"
    with pytest.raises(tfcseg.OutputError, match=advice):
        tfcseg.run(clip, out, MODEL)
    with pytest.raises(UsageError, match="resume=True continues what overwrite=True removes"):
        tfcseg.run(clip, out, MODEL, resume=True, overwrite=True)
    calls = {"run": lambda source: tfcseg.run(source, out, MODEL), "segment": lambda s: next(tfcseg.segment(s, MODEL))}
    for call in calls.values():
        with pytest.raises(tfcseg.TfcsegError, match="allow_network=True"):
            call("http://127.0.0.1:1/a.mp4")
    said = r'^a smaller size or device="cpu"; see tfcseg doctor --json$'
    with pytest.raises(tfcseg.TfcsegError, match=said), in_python_words():
        raise tfcseg.TfcsegError("a smaller --size or --device cpu; see tfcseg doctor --json")
