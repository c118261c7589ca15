"""What a batch is of, and where its results go: every input once, whatever it is called and in whichever order."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.command_line import call
from tests.helpers.media import folder_of_images, numbered_images, write_clip
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.errors import UsageError
from tfcseg.runs.inputs import Inputs, find_inputs, output_folders

QUICK = ("--no-overlay", "--no-flow-consistency", "--no-html", "--size", "32", "-q")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def clip(path, frames):
    """A clip that differs from others by its number of frames."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return str(write_clip(path, frames))


def frames_done(out):
    """Name of each result folder -> how many frames its run decoded."""
    return {
        path.parent.name: json.loads(path.read_text())["input"]["frames_decoded"] for path in out.rglob("report.json")
    }


def changed(out):
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


# --- every input once ----------------------------------------------------------------------------------------------


def test_a_batch_in_another_order_and_with_others_does_only_what_is_new(here, weights):
    sources = [clip(f"{folder}/clip.mp4", frames) for folder, frames in (("x", 2), ("y", 3))]
    assert call("run", *sources, "-o", "outs", "-m", weights, *QUICK).returncode == 0
    assert frames_done(Path("outs")) == {"x_clip_tfcseg": 2, "y_clip_tfcseg": 3}
    before = changed(Path("outs"))
    more = [clip("x2/clip.mp4", 4), *sources, "./x/../x/clip.mp4"]
    done = call("run", *more, "-o", "outs", "-m", weights, "--resume", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "./x/../x/clip.mp4: is named twice; it is processed once" in done.stderr
    assert frames_done(Path("outs")) == {"x_clip_tfcseg": 2, "y_clip_tfcseg": 3, "x2_clip_tfcseg": 4}
    assert changed(Path("outs")).items() > before.items()


def test_what_was_done_under_a_shorter_name_is_found(here, weights):
    """Alone among others, a clip needs no more than its own name; beside one of the same name it does."""
    first = [clip("x/clip.mp4", 2), clip("x/other.mp4", 3)]
    assert call("run", *first, "-o", "outs", "-m", weights, *QUICK).returncode == 0
    before = changed(Path("outs"))
    second = [clip("y/clip.mp4", 4), *first]
    for sources in (second, second[::-1]):
        assert call("run", *sources, "-o", "outs", "-m", weights, "--resume", *QUICK).returncode == 0
        assert frames_done(Path("outs")) == {"clip_tfcseg": 2, "other_tfcseg": 3, "y_clip_tfcseg": 4}
    assert changed(Path("outs")).items() > before.items()


def test_a_folder_that_holds_another_input_is_left_alone(here, weights):
    clip("x/clip.mp4", 2), clip("y/clip.mp4", 3), clip("x/a.mp4", 4), clip("y/b.mp4", 5)
    assert call("run", "x/clip.mp4", "x/a.mp4", "-m", weights, *QUICK).returncode == 0
    assert call("run", "y/clip.mp4", "y/b.mp4", "-m", weights, "--resume", *QUICK).returncode == 0
    assert frames_done(here) == {"clip_tfcseg": 2, "a_tfcseg": 4, "y_clip_tfcseg": 3, "b_tfcseg": 5}


def test_copies_under_two_names_are_two_inputs(here, weights):
    clip("x/clip.mp4", 2)
    shutil.copytree("x", "y")
    for sources in (("x/clip.mp4", "y/clip.mp4"), ("y/clip.mp4", "x/clip.mp4")):
        assert call("run", *sources, "-o", "outs", "-m", weights, "--resume", *QUICK).returncode == 0
        assert frames_done(Path("outs")) == {"x_clip_tfcseg": 2, "y_clip_tfcseg": 2}


def test_other_options_are_refused_where_the_run_is(here, weights):
    sources = [clip("x/clip.mp4", 2), clip("y/clip.mp4", 3)]
    assert call("run", *sources, "-o", "outs", "-m", weights, *QUICK).returncode == 0
    before = changed(Path("outs"))
    done = call("run", *sources, "-o", "outs", "-m", weights, "--resume", *QUICK, "--classes", "sky")
    assert done.returncode == 1
    refused = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(refused) == 2
    assert all("classes was not given and is now sky; use the same" in line for line in refused)
    assert changed(Path("outs")) == before


def test_folders_of_frames_of_the_same_name(here, weights):
    for name, count in (("goat", 2), ("libby", 3)):
        folder_of_images(here / name / "images", numbered_images(count), [f"{n}.png" for n in range(count)])
    assert call("run", "goat/images", "-o", "one", "-m", weights, *QUICK).returncode == 0
    done = call("run", "libby/images", "-o", "one", "-m", weights, "--resume", *QUICK)
    assert done.returncode == 1
    assert "input was" in done.error
    assert call("run", "goat/images/", "libby/images/", "-o", "outs", "-m", weights, *QUICK).returncode == 0
    assert frames_done(Path("outs")) == {"goat_images_tfcseg": 2, "libby_images_tfcseg": 3}


# --- names ---------------------------------------------------------------------------------------------------------

PARTS = st.sampled_from(["a", "b", "a_b", "A", "a.b", "a_b.mp4", "b.mp4", "b.mov", "B.MP4"])
PATHS = st.lists(st.lists(PARTS, min_size=1, max_size=4).map("/".join), min_size=2, max_size=12, unique=True)


@settings(deadline=None)
@given(PATHS, st.randoms())
def test_folders_differ_and_do_not_depend_on_the_order(paths, random):
    folders = dict(zip(paths, output_folders(Inputs(tuple(paths), True), None, resume=False), strict=True))
    assert len({str(folder).casefold() for folder in folders.values()}) == len(paths)
    assert all(len(folder.parts) == 1 for folder in folders.values())
    random.shuffle(paths)
    again = dict(zip(paths, output_folders(Inputs(tuple(paths), True), None, resume=False), strict=True))
    assert again == folders


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["x/a.mp4", "y/b.mp4"], ["a", "b"]),
        (["x/a.mp4", "y/a.mp4", "y/b.mp4"], ["x_a", "y_a", "b"]),
        (["u/x/a.mp4", "v/x/a.mp4"], ["u_x_a", "v_x_a"]),
        (["x/a.mp4", "x/a.mov"], ["a.mp4", "a.mov"]),
        (["v1.2", "v1.3"], ["v1.2", "v1.3"]),
        (["-", "stdin.mp4"], ["-", "here_stdin"]),
    ],
)
def test_folders_carry_as_much_of_the_path_as_tells_them_apart(tmp_path, monkeypatch, sources, names):
    monkeypatch.chdir(tmp_path)
    for source in sources:
        if "." in source and "/" not in source and not source.endswith(".mp4"):
            Path(source).mkdir()
    folders = output_folders(find_inputs(sources), Path("out"), resume=False)
    wanted = [name.replace("here", tmp_path.name) for name in names]
    assert [str(folder) for folder in folders] == [f"out/{name}_tfcseg" for name in wanted]


def test_names_too_long_for_a_folder_are_not_made_longer(tmp_path):
    deep = tmp_path.joinpath(*["d" * 120] * 3)
    sources = (str(deep / "x" / "clip.mp4"), str(deep / "y" / "clip.mp4"), str(deep / "y" / "clip.mov"))
    folders = output_folders(Inputs(sources, True), None, resume=False)
    assert [str(folder) for folder in folders] == ["x_clip_tfcseg", "y_clip.mp4_tfcseg", "clip.mov_tfcseg"]


# --- folders and patterns ------------------------------------------------------------------------------------------


def test_a_folder_of_videos_stands_for_them(here, weights):
    for name, frames in (("clip10.mp4", 2), ("clip2.MOV", 3), (".hidden.mp4", 4)):
        clip(f"videos/{name}", frames)
    folder_of_images(here / "videos", numbered_images(2), ["clip2.jpg", "clip10.jpg"])
    Path("videos/notes.txt").write_text("no video")
    found = find_inputs(["videos"])
    assert found.sources == ("videos/clip2.MOV", "videos/clip10.mp4")
    done = call("run", "videos/", "-o", "outs", "-m", weights, *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    note = "videos/: treated as a folder of videos; skipped in it: 2 pictures; name these, too, to run them"
    assert done.stderr == f"warning: {note}\n"
    assert [Path(report["input"]["path"]).name for report in json.loads(done.stdout)] == ["clip2.MOV", "clip10.mp4"]
    assert frames_done(Path("outs")) == {"clip2_tfcseg": 3, "clip10_tfcseg": 2}


def test_a_folder_of_folders_stands_for_them(here):
    for name in ("goat", "libby", "goat_tfcseg"):
        folder_of_images(here / "data" / name, numbered_images(2), ["0.png", "1.png"])
    clip("data/more/clip.mp4", 2)
    Path("data/empty").mkdir()
    assert find_inputs(["data"]).sources == ("data/goat", "data/libby", "data/more/clip.mp4")
    assert find_inputs(["data"]).is_batch


def test_a_folder_of_images_stays_one_input(here):
    folder_of_images(here / "frames", numbered_images(3), ["0.png", "1.png", "2.png"])
    clip("frames/overlay.mp4", 2)
    note = "frames: treated as a folder of pictures; skipped in it: 1 video; name these, too, to run them"
    assert find_inputs(["frames"]) == Inputs(("frames",), False, (note,))
    Path("empty").mkdir()
    assert find_inputs(["empty"]) == Inputs(("empty",), False)


def test_folders_beside_videos_or_pictures_are_not_left_out_without_a_word(here):
    clip("videos/clip.mp4", 2), clip("videos/more/clip.mp4", 2), clip("videos/clip_tfcseg/overlay.mp4", 2)
    folder_of_images(here / "videos" / "frames", numbered_images(1), ["0.png"])
    Path("videos/empty").mkdir()
    Path("videos/frames/again").symlink_to("..")
    found = find_inputs(["videos"])
    assert found.sources == ("videos/clip.mp4",)
    note = "videos: treated as a folder of videos; skipped in it: 2 folders; name these, too, to run them"
    assert found.notes == (note,)
    found = find_inputs(["videos/frames"])
    assert found.sources == ("videos/frames",)
    assert "a folder of pictures; skipped in it: 1 folder;" in found.notes[0]


def test_results_of_runs_are_no_inputs_of_a_folder(here, weights):
    clip("clip.mp4", 2)
    for folder in (".", "out"):
        assert call("run", "clip.mp4", "-o", folder, "-m", weights, "--size", "32", "--side-by-side").returncode == 0
    found = find_inputs(["."])
    assert found.sources == ("./clip.mp4",)
    assert found.notes == (".: 2 results of tfcseg left out, such as overlay.mp4",)
    assert find_inputs(["./overlay.mp4", "masks"]).sources == ("./overlay.mp4", "masks")  # named by the user
    Path("clip.mp4").rename("more.mp4"), clip("out/overlay.mp4", 2)  # a file of another program
    found = find_inputs(["out"])
    assert found.sources == ("out/overlay.mp4",)
    Path("data").mkdir(), Path("out").rename("data/out"), Path("masks").rename("data/masks")
    folder_of_images(here / "data" / "frames", numbered_images(2), ["0.png", "1.png"])
    found = find_inputs(["data"])
    assert found.sources == ("data/frames", "data/out/overlay.mp4")
    assert "data/masks: 2 results of tfcseg left out, such as 00000000.png" in found.notes


def test_patterns_that_the_shell_left_alone(here, weights):
    for name, frames in (("a10.mp4", 2), ("a2.mp4", 3), ("b.mp4", 4)):
        clip(f"videos/{name}", frames)
    assert find_inputs(["videos/a*.mp4"]).sources == ("videos/a2.mp4", "videos/a10.mp4")
    assert find_inputs(["**/b.mp4"]) == Inputs(("videos/b.mp4",), False)
    assert find_inputs([f"{here}/videos/[ab].mp4"]).sources == (f"{here}/videos/b.mp4",)
    shutil.copy("videos/b.mp4", "videos/[ab].mp4")  # a name and no pattern
    assert find_inputs(["videos/[ab].mp4"]).sources == ("videos/[ab].mp4",)
    done = call("run", "videos/c*.mp4", "-o", "outs", "-m", weights, *QUICK)
    assert done.returncode == 1
    assert done.error.startswith("videos/c*.mp4: ")
    assert not Path("outs").exists()


def test_a_list_of_inputs_from_a_file_or_stdin(here, weights):
    sources = [clip(f"{folder}/a b.mp4", frames) for folder, frames in (("x", 2), ("y", 3))]
    Path("list.txt").write_text("\n".join([*sources, "", sources[0]]) + "\n")
    options = ("-m", weights, *QUICK)
    done = call("run", "--inputs", "list.txt", "-o", "file", *options)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "tfcseg", "run", "--inputs", "-", "-o", "stdin", *options]
    data = "\0".join(sources).encode()
    told = subprocess.run([*map(str, command)], input=data, capture_output=True, check=False)
    assert told.returncode == 0, told.stderr.decode()
    for out in ("file", "stdin"):
        assert frames_done(Path(out)) == {"x_a b_tfcseg": 2, "y_a b_tfcseg": 3}
    Path("one.txt").write_text(sources[0])
    assert call("run", "--inputs", "one.txt", "-o", "one", "-m", weights, *QUICK).returncode == 0
    assert frames_done(Path("one")) == {"a b_tfcseg": 2}
    Path("none.txt").write_text("\n \n")
    assert call("run", "--inputs", "none.txt").error == "none.txt: the list of inputs is empty"
    assert "cannot be read: No such file" in call("run", "--inputs", "gone.txt").error
    assert call("run").returncode == 2


def test_nothing_is_no_input(here):
    with pytest.raises(UsageError, match="an input is empty"):
        find_inputs(["a.mp4", ""])
    assert list(here.iterdir()) == []
