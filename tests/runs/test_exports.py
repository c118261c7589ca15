"""Exports of runs: at their end, afterwards, and when they are stopped and go on."""

import json
import os
import re
import shutil
import threading
from collections import Counter

import cv2
import numpy as np
import pytest

import tfcseg
from tests.exports.test_annotations import read_coco, unzipped
from tests.helpers.command_line import call
from tests.helpers.media import LOSSLESS, folder_of_images, write_video
from tests.helpers.tiny_model import NAMES, build_tiny_model, moving_images, write_tiny_model
from tests.runs.test_resume import interrupt
from tfcseg.errors import DataError, FinishedError, OutputError, TfcsegError, UsageError
from tfcseg.media import writer as video_writer
from tfcseg.media.masks import read_label_video, read_mask, write_mask
from tfcseg.media.reader import read_frames
from tfcseg.runs.exporting import export_run
from tfcseg.runs.options import ResultOptions, RunOptions
from tfcseg.runs.pipeline import Listener, run_video

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FRAMES = 14
MODEL = build_tiny_model()
LASTING = ("coco.json", "cvat.zip", "yolo.zip", "labels.mkv", "areas.csv")
ALL = "coco,cvat,yolo,video,areas,matte"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("media") / "clip.mp4", moving_images(FRAMES, (48, 64)))


@pytest.fixture(scope="module")
def run_folder(clip, tmp_path_factory):
    """A finished run with masks and all exports."""
    out = tmp_path_factory.mktemp("runs") / "out"
    tfcseg.run(clip, out, MODEL, export=ALL, flow_consistency=False)
    return out


@pytest.fixture
def out(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "out")


def contents(folder, names=LASTING):
    return {name: (folder / name).read_bytes() for name in names}


def masks_of(folder):
    return [read_mask(path) for path in sorted((folder / "masks").iterdir())]


def test_a_run_tells_what_it_exports(clip, tmp_path):
    told = []
    results = ResultOptions(overlay=False, html=False, flow_consistency=False, export="areas,matte")
    listener = Listener(on_export=lambda *progress: told.append(progress))
    run_video(clip, tmp_path / "out", MODEL, RunOptions(results=results), listener)
    assert told[:FRAMES] == [("writing areas.csv", done, FRAMES) for done in range(1, FRAMES + 1)]
    assert told[FRAMES][0] == "writing mattes"
    assert told[-1][1] == told[-1][2]


def test_a_run_exports_its_masks(run_folder):
    masks = masks_of(run_folder)
    assert np.array_equal(list(read_label_video(run_folder / "labels.mkv")), masks)
    report = json.loads((run_folder / "report.json").read_text())
    written = {path.name for path in run_folder.iterdir()}
    assert set(report["outputs"].values()) == written - {".tfcseg"}
    seen = sorted({NAMES[label] for mask in masks for label in np.unique(mask)})
    assert {name for name in written if name.startswith("matte_")} == {
        f"matte_{name}.{kind}" for name in seen for kind in ("mp4", "webm")
    }
    assert any(note.startswith("yolo.zip: polygons cannot have holes") for note in report["warnings"])
    assert json.loads((run_folder / "coco.json").read_text())["categories"][4]["name"] == NAMES[4]


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1)])
def test_labels_of_a_row_or_column_become_a_video(tmp_path, size):
    source = write_video(
        tmp_path / "thin.mkv",
        [np.full((*size, 3), 90 * number, np.uint8) for number in range(3)],
        video=("-c:v", "png"),
    )
    tfcseg.run(source, tmp_path / "out", MODEL, export="video", flow_consistency=False)
    assert np.array_equal(list(read_label_video(tmp_path / "out" / "labels.mkv")), masks_of(tmp_path / "out"))


@pytest.mark.parametrize("how", ["-v", "-q"])
def test_what_a_format_loses_is_said_once(out, how):
    assert call("export", out, "--to", "yolo", "--overwrite", how).stderr.count("polygons cannot have holes") == 1


def test_exporting_afterwards_gives_the_same_files(out, run_folder):
    for name in LASTING:
        (out / name).unlink()
    before = (out / "report.json").read_bytes()
    export_run(out, ResultOptions(export=["coco", "cvat", "yolo", "video", "areas"]))
    assert contents(out) == contents(run_folder)
    assert (out / "report.json").read_bytes() == before
    assert not (out / ".tfcseg").exists()


@pytest.mark.parametrize("masks", [True, False])
def test_a_run_that_was_stopped_exports_the_same(clip, run_folder, tmp_path, monkeypatch, masks):
    monkeypatch.setattr(video_writer, "PART_FRAMES", 4)
    options = {"export": "coco,cvat,yolo,video,areas", "masks": masks, "flow_consistency": False, "html": False}
    interrupt(clip, tmp_path / "out", at=9, **options)
    assert not any((tmp_path / "out" / name).exists() for name in LASTING)
    tfcseg.run(clip, tmp_path / "out", MODEL, resume=True, **options)
    assert contents(tmp_path / "out") == contents(run_folder)
    assert (tmp_path / "out" / "masks").exists() == masks
    assert not (tmp_path / "out" / ".tfcseg").exists()


def test_labels_that_were_kept_for_exports_are_made_again_if_they_are_lost(clip, run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(video_writer, "PART_FRAMES", 4)
    options = {"export": "video", "masks": False, "flow_consistency": False, "html": False, "overlay": False}
    interrupt(clip, tmp_path / "out", at=9, **options)
    (tmp_path / "out" / ".tfcseg" / "labels" / "00000001.png").unlink()
    tfcseg.run(clip, tmp_path / "out", MODEL, resume=True, **options)
    names = ["labels.mkv", "classes.json"]  # what the values mean
    assert contents(tmp_path / "out", names) == contents(run_folder, names)


def test_an_export_that_fails_leaves_a_run_that_goes_on(clip, run_folder, tmp_path, monkeypatch):
    """Without masks, too: the labels are still there."""
    options = {"export": "video", "masks": False, "flow_consistency": False, "html": False}
    with monkeypatch.context() as patch:
        patch.setattr("tfcseg.exports.export.sync", lambda path: (_ for _ in ()).throw(OSError(28, "disk full")))
        with pytest.raises(OutputError, match=r"disk full; resume=True .* 14 saved frames"):
            tfcseg.run(clip, tmp_path / "out", MODEL, **options)
    assert not (tmp_path / "out" / "labels.mkv").exists()
    assert not (tmp_path / "out" / "report.json").exists()
    tfcseg.run(clip, tmp_path / "out", MODEL, resume=True, **options)
    assert contents(tmp_path / "out", ["labels.mkv"]) == contents(run_folder, ["labels.mkv"])
    with pytest.raises(FinishedError):
        tfcseg.run(clip, tmp_path / "out", MODEL, resume=True, **options)
    with pytest.raises(OutputError, match="export was video and is now video, areas"):
        tfcseg.run(clip, tmp_path / "out", MODEL, resume=True, **{**options, "export": "areas,video"})


def test_overwriting_removes_exports_but_not_what_others_call_so(clip, out):
    tfcseg.run(clip, out, MODEL, overwrite=True, flow_consistency=False, html=False)
    assert {path.name for path in out.iterdir()} == {
        *("overlay.mp4", "masks", "classes.json", "frames.csv", "report.json")
    }
    (out / "coco.json").write_text('{"info": {"description": "COCO 2017"}}')
    with pytest.raises(OutputError, match=r"coco\.json' was not written by tfcseg and is kept"):
        tfcseg.run(clip, out, MODEL, overwrite=True)


def test_frames_with_files_of_their_own_are_called_like_them(tmp_path):
    names = [f"img{number}.jpg" for number in range(8, 12)]  # in natural order: 8, 9, 10, 11
    folder_of_images(tmp_path / "in", moving_images(4, (32, 48)), names)
    options = {"flow_consistency": False, "html": False, "overlay": False}
    tfcseg.run(tmp_path / "in", tmp_path / "out", MODEL, export="coco,cvat,yolo", mask_names="source", **options)
    images = json.loads((tmp_path / "out" / "coco.json").read_text())["images"]
    assert [image["file_name"] for image in images] == names
    first = contents(tmp_path / "out", LASTING[:3])
    export_run(tmp_path / "out", ResultOptions(export="coco,cvat,yolo"), overwrite=True)
    assert contents(tmp_path / "out", LASTING[:3]) == first
    assert "SegmentationClass/img10.png" in unzipped(tmp_path / "out" / "cvat.zip")


def test_chosen_classes_and_colours_hold_everywhere(clip, tmp_path):
    (tmp_path / "mine.json").write_text('{"person": "#010203", "road": "#fefdfc"}')
    out, wanted = tmp_path / "out", {"export": "coco,areas,cvat,matte", "flow_consistency": False}
    wanted |= {"palette": tmp_path / "mine.json", "exclude": ["sky", "Tree"]}
    report = tfcseg.run(clip, out, MODEL, **wanted)
    coco, maps = read_coco_of(out)
    assert set(coco) == {"road", "person", "car"}
    assert coco["person"] == [1, 2, 3]
    for labels, mask in zip(maps, masks_of(out), strict=True):
        assert np.array_equal(labels, np.where(np.isin(mask, (1, 3, 4)), mask, 255))
    assert (out / "areas.csv").read_text().splitlines()[0] == "second,frames,road,person,car"
    assert b"road:254,253,252::" in unzipped(out / "cvat.zip")["labelmap.txt"]
    colours = {entry["name"]: entry["colour"] for entry in json.loads((out / "classes.json").read_text())}
    assert colours["person"] == [1, 2, 3]
    assert not any(name.startswith(("matte_sky", "matte_tree")) for name in report.outputs)
    assert "#010203" in (out / "report.html").read_text()
    shown = cv2.imread(str(out / "masks" / "00000000.png"), cv2.IMREAD_COLOR)[..., ::-1]
    mask = read_mask(out / "masks" / "00000000.png")
    assert (shown[mask == 1] == [254, 253, 252]).all()
    with pytest.raises(FinishedError):
        tfcseg.run(clip, out, MODEL, resume=True, **wanted)
    (tmp_path / "mine.json").write_text('{"person": "#010204"}')
    with pytest.raises(OutputError, match=r"palette was [0-9a-f]{8}… and is now [0-9a-f]{8}…;"):
        tfcseg.run(clip, out, MODEL, resume=True, **wanted)


def read_coco_of(folder):
    coco, maps = read_coco(folder / "coco.json", NAMES)
    return {category["name"]: category["color"] for category in coco.dataset["categories"]}, maps


def test_classes_and_exclude_are_one_rule():
    labels = MODEL.labels
    assert ResultOptions(classes="person,car", exclude="car").visible(labels).tolist() == [*[False] * 3, True, False]
    assert ResultOptions(exclude="car").visible(labels).tolist() == [*[True] * 4, False]
    assert ResultOptions().visible(labels).all()
    with pytest.raises(UsageError, match="all classes are excluded"):
        ResultOptions(classes="car", exclude="car").visible(labels)
    with pytest.raises(UsageError, match="no class 'cat'"):
        ResultOptions(exclude="cat").visible(labels)


# --- the commands --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def test_the_command_exports_a_run_and_says_what(out):
    for path in out.glob("matte_*"):
        path.unlink()
    done = call("export", out, "--to", "areas,matte", "--classes", "road", "--overwrite")
    assert (done.returncode, done.stderr) == (0, "")
    names = ["areas.csv", "matte_road.mp4", "matte_road.webm"]
    assert done.stdout.splitlines() == [str(out / name) for name in names]
    assert Counter(path.name for path in out.glob("matte_*")) == Counter(names[1:])
    assert (out / "areas.csv").read_text().splitlines()[0] == "second,frames,road"


def test_mattes_of_a_class_that_is_not_there(out):
    for path in (out / "masks").iterdir():
        write_mask(path, np.zeros((48, 64), np.uint8))
    done = call("export", out, "--to", "matte", "--classes", NAMES[1], "--overwrite")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "warning: no mattes were written: none of the classes is in the video\n"


def test_a_summary_counts_mattes(clip, tmp_path):
    weights = write_tiny_model(tmp_path / "tiny.safetensors")
    options = ("--no-overlay", "--no-html", "--export", "matte,areas")
    done = call("run", clip, "-o", tmp_path / "out", "-m", weights, *options)
    number = len([*(tmp_path / "out").glob("matte_*.mp4")])
    said = f"areas.csv, classes.json, frames.csv, masks, report.json, matte_*.mp4 and .webm ({number} mattes)"
    assert done.stderr.splitlines()[-1].endswith(f": {said}")


def test_mattes_of_other_classes_stay(out):
    """Also those of an earlier export: only what is written anew is replaced, or in the way."""
    before = {path.name: path.read_bytes() for path in out.glob("matte_*")}
    assert len(before) > 2
    (out / "matte_road.mp4").write_bytes(before["matte_sky.mp4"])
    (out / "matte_mine.mp4").write_text("of another program")
    done = call("export", out, "--to", "matte", "--classes", "road")
    assert f"{str(out / 'matte_road.mp4')!r} and 1 more already exist" in done.error
    assert call("export", out, "--to", "matte", "--classes", "road", "--overwrite").returncode == 0
    after = {path.name: path.read_bytes() for path in out.glob("matte_*")}
    assert after.pop("matte_mine.mp4") == b"of another program"
    assert after == before


def test_what_is_there_is_not_replaced_unasked(out):
    done = call("export", out, "--to", "coco,video")
    assert done.returncode == 1
    assert f"{str(out / 'coco.json')!r} and 1 more already exist; use --overwrite or rename what is there" in done.error
    (out / "coco.json").write_text('{"info": {"description": "COCO 2017"}}')
    for overwrite in ((), ("--overwrite",)):
        done = call("export", out, "--to", "coco,video", *overwrite)
        assert done.error == f"{str(out / 'coco.json')!r} was not written by tfcseg and is kept; rename it"
    assert (out / "coco.json").read_text() == '{"info": {"description": "COCO 2017"}}'


def test_mattes_find_the_source_or_say_what_is_missing(clip, out, tmp_path):
    report = json.loads((out / "report.json").read_text())
    report["input"]["path"] = "gone.mp4"
    (out / "report.json").write_text(json.dumps(report))
    matte = ("--to", "matte", "--classes", "road", "--overwrite")
    done = call("export", out, *matte)
    assert done.returncode == 1
    where = f"{str(out)!r}, a folder above it or the current one"
    assert f"'gone.mp4' is not in {where}, and mattes need the source's pixels; give it with --source" in done.error
    longer = write_video(tmp_path / "longer.mp4", moving_images(FRAMES + 1, (48, 64)))
    done = call("export", out, *matte, "--source", longer)
    assert done.returncode == 1
    assert done.error.endswith(f"has more than the {FRAMES} frames of the masks; is it the same video?")
    assert call("export", out, *matte, "--source", clip).returncode == 0
    shutil.copy(clip, out / "source.mp4")  # what --copy-source writes
    assert call("export", out, *matte).returncode == 0


def test_mattes_of_odd_size_are_made_from_the_copy_of_the_source(tmp_path):
    clip = write_video(tmp_path / "clip.mkv", moving_images(3, (47, 63)), video=LOSSLESS)
    out = tmp_path / "out"
    tfcseg.run(clip, out, MODEL, export="matte", copy_source=True, flow_consistency=False)
    mattes = sorted(path.name for path in out.glob("matte_*"))
    clip.rename(tmp_path / "elsewhere.mkv")
    done = call("export", out, "--to", "matte", "--overwrite")
    assert (done.returncode, done.stderr) == (0, "")
    assert mattes == sorted(path.name for path in out.glob("matte_*"))


def test_mattes_of_a_stream_of_odd_size_are_made_from_its_copy(tmp_path):
    clip, pipe = write_video(tmp_path / "clip.mkv", moving_images(3, (47, 63)), video=LOSSLESS), tmp_path / "pipe"
    os.mkfifo(pipe)
    sender = threading.Thread(target=pipe.write_bytes, args=(clip.read_bytes(),))
    sender.start()
    tfcseg.run(pipe, tmp_path / "out", MODEL, export="matte", copy_source=True, flow_consistency=False)
    sender.join()
    assert next(read_frames(next((tmp_path / "out").glob("matte_*.webm")))).image.shape[:2] == (47, 63)


@pytest.mark.parametrize("given", ["../in/clip.mp4", "in/clip.mp4", "clip.mp4"])
def test_mattes_find_the_source_from_anywhere(clip, out, tmp_path, monkeypatch, given):
    """As it was given to the run, from wherever that was: inside its folder, above it, or where its user still is."""
    (tmp_path / "in").mkdir()
    shutil.copy(clip, tmp_path / "in")
    report = json.loads((out / "report.json").read_text())
    report["input"]["path"] = given
    (out / "report.json").write_text(json.dumps(report))
    monkeypatch.chdir(tmp_path / "in")
    done = call("export", out, "--to", "matte", "--classes", "road", "--overwrite")
    assert (done.returncode, done.stderr) == (0, "")
    assert call("export", "../out", "--to", "matte", "--classes", "road", "--overwrite").returncode == 0


def test_a_video_of_the_same_name_elsewhere_is_not_taken_for_the_source(clip, out, tmp_path, monkeypatch):
    shutil.copy(clip, tmp_path)
    report = json.loads((out / "report.json").read_text())
    report["input"]["path"] = "clip.mp4"
    (out / "report.json").write_text(json.dumps(report))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write_video(tmp_path / "elsewhere" / "clip.mp4", moving_images(FRAMES - 1, (48, 64)))
    assert call("export", out, "--to", "matte", "--classes", "road", "--overwrite").returncode == 0


def test_a_run_without_a_report_needs_a_frame_rate(out):
    wanted = (out / "areas.csv").read_bytes()
    (out / "report.json").unlink()
    done = call("export", out, "--to", "areas", "--overwrite")
    assert done.returncode == 2
    assert "no report.json that says its frame rate; give it with --fps" in done.error
    assert call("export", out, "--to", "areas", "--overwrite", "--fps", 25).returncode == 0
    assert (out / "areas.csv").read_bytes() == wanted


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda out: (out / "masks" / "00000003.png").unlink(), "holds 13 masks, of 14 frames"),
        (lambda out: shutil.rmtree(out / "masks"), "holds 0 masks, of 14 frames"),
        (lambda out: (out / "classes.json").unlink(), r"classes\.json: no such file"),
        (lambda out: (out / "classes.json").write_text('[{"index": 0}]'), "is not a list of classes"),
        (lambda out: (out / "classes.json").write_text('{"sky": 0}'), "which is none of 1 classes"),
        (lambda out: (out / "classes.json").write_text("{"), "not valid JSON"),
        (lambda out: (out / "report.json").write_text("[]"), "not an object"),
        (lambda out: (out / "report.json").write_text("{}"), "has no facts about an input"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_one_line(out, spoil, words):
    before = {path.name for path in out.iterdir()}
    spoil(out)
    with pytest.raises(DataError, match=words) as caught:
        export_run(out, ResultOptions(export="areas"), overwrite=True)
    assert len(str(caught.value).splitlines()) == 1
    assert not out.exists() or {path.name for path in out.iterdir()} <= before


def test_an_unfinished_run_is_finished_first(clip, tmp_path):
    interrupt(clip, tmp_path / "out", at=9, safe=0)
    with pytest.raises(DataError, match="holds an unfinished run"):
        export_run(tmp_path / "out", ResultOptions(export="areas"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--export", "coc"], "no format 'coc'; did you mean coco?"),
        (["--exclude", "cat"], "no class 'cat'"),
        (["--palette", "none.json"], "none.json: no such file"),
    ],
)
def test_senseless_options_are_refused_before_any_work(clip, weights, tmp_path, options, words):
    done = call("run", clip, "-m", weights, "-o", tmp_path / "out", *options)
    assert done.returncode == 2
    assert words in done.error
    assert not (tmp_path / "out").exists()


def test_frames_whose_names_are_no_utf8_are_refused_by_cvat_and_yolo(tmp_path):
    """They ended the finished run with a traceback."""
    folder_of_images(tmp_path / "in", moving_images(2, (32, 48)), ["\udcff.png", "b.png"])
    for kind in ("cvat", "yolo"):
        expected = f"{kind} lists names in UTF-8, one per line, not '\\udcff'; rename"
        with pytest.raises(UsageError, match=re.escape(expected)):
            tfcseg.run(tmp_path / "in", tmp_path / "out", MODEL, export=kind)
    assert not (tmp_path / "out").exists()


def test_frames_that_cvat_and_yolo_cannot_tell_apart_are_refused(tmp_path):
    """They know frames by their files' names without suffix."""
    folder_of_images(tmp_path / "in", moving_images(2, (32, 48)), ["a.png", "a.bmp"])
    for name in ("cvat", "yolo"):
        with pytest.raises(UsageError, match=f"{name} cannot tell two frames called 'a' apart"):
            tfcseg.run(tmp_path / "in", tmp_path / "out", MODEL, export=["coco", name])
    assert not (tmp_path / "out").exists()
    tfcseg.run(tmp_path / "in", tmp_path / "out", MODEL, export="coco")
    with pytest.raises(UsageError, match="cvat cannot tell"):
        export_run(tmp_path / "out", ResultOptions(export="cvat"))


@pytest.mark.parametrize("name", ["cvat", "yolo"])
def test_frames_whose_names_have_several_lines_are_refused_where_there_is_a_list_of_them(tmp_path, name):
    folder_of_images(tmp_path / "in", moving_images(2, (32, 48)), ["a.png", "b\nc.png"])
    with pytest.raises(UsageError, match=rf"{name} lists names in UTF-8, one per line, not 'b\\nc'; rename"):
        tfcseg.run(tmp_path / "in", tmp_path / "out", MODEL, export=name)
    assert not (tmp_path / "out").exists()


def test_a_package_that_is_missing_is_named(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("tfcseg.exports.export.importlib.util.find_spec", lambda name: None)
    with pytest.raises(TfcsegError, match=r"pip install 'tfcseg\[coco\]'"):
        tfcseg.run(clip, tmp_path / "out", MODEL, export="coco")
    assert not (tmp_path / "out").exists()
