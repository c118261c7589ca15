"""Teachers' labels: found media, cache, time. The teachers here are real, tiny TensorFlow Lite networks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.media import run_ffmpeg, write_clip, write_rotated
from tests.helpers.tiny_teacher import BACKGROUND, BLUE, GREEN, RED, write_teacher
from tfcseg.errors import DataError, OutputError, TfcsegError
from tfcseg.media.images import read_image
from tfcseg.media.reader import read_frames
from tfcseg.training.labelling import (
    CLIP_SIDE_PX,
    STEADY_REACH,
    alone_in,
    find_media,
    label_media,
    save_frame,
    save_labels,
    save_rows,
    steadied,
    steady_labels,
)
from tfcseg.training.teachers import GRID, Teacher, soft_labels, teacher_files

COLOURS = {RED: (200, 30, 30), GREEN: (30, 200, 30), BLUE: (30, 30, 200), BACKGROUND: (110, 110, 110)}
QUARTERS = ((RED, GREEN), (BLUE, BACKGROUND))


def quartered(height=90, width=120):
    """(H, W, 3) RGB whose quarters are the four colours of QUARTERS."""
    image = np.zeros((height, width, 3), np.uint8)
    for i, row in enumerate(QUARTERS):
        for j, label in enumerate(row):
            image[i * height // 2 : (i + 1) * height // 2, j * width // 2 : (j + 1) * width // 2] = COLOURS[label]
    return image


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return path


def quarter_labels(soft):
    """The class in the middle of each quarter of (GRID, GRID, K)."""
    places = (GRID // 4, 3 * GRID // 4)
    return tuple(tuple(int(soft[y, x].argmax()) for x in places) for y in places)


@pytest.fixture
def teacher(tmp_path):
    return write_teacher(tmp_path / "teacher.tflite")


# ------------------------------------------------------------------------------------------------------------ teachers


@pytest.mark.parametrize("size", [128, 192, 256])
def test_a_teacher_sees_the_whole_image(tmp_path, size):
    probabilities = Teacher(write_teacher(tmp_path / "t.tflite", size=size)).probabilities(quartered())
    assert probabilities.shape == (GRID, GRID, 32)
    assert probabilities.sum(-1) == pytest.approx(np.ones((GRID, GRID)), abs=1e-5)
    assert quarter_labels(probabilities) == QUARTERS
    labels = probabilities.argmax(-1)
    # The borders between the quarters lie in the middle.
    assert labels[GRID // 2 - 3, 10] == RED
    assert labels[GRID // 2 + 3, 10] == BLUE
    assert labels[10, GRID // 2 - 3] == RED
    assert labels[10, GRID // 2 + 3] == GREEN


def test_crops_see_small_things(teacher):
    """Corner crops are put back where they came from."""
    assert quarter_labels(soft_labels([Teacher(teacher)], quartered(), tiles=True)) == QUARTERS


def test_soft_labels_are_the_mean_of_the_teachers(tmp_path, teacher):
    """Where one of two teachers says background, both classes get half."""
    timid = Teacher(write_teacher(tmp_path / "timid.tflite", bias=100_000))
    together = soft_labels([Teacher(teacher), timid], quartered(), tiles=False)
    assert together.dtype == np.uint8
    assert together[GRID // 4, GRID // 4, [RED, BACKGROUND]] == pytest.approx([128, 128], abs=1)
    assert together[-9, -9, BACKGROUND] == 255


def test_a_file_that_is_no_network_is_named(tmp_path):
    (tmp_path / "notes.tflite").write_text("these are notes, and long enough to be read as a header")
    with pytest.raises(DataError, match=r"notes\.tflite is not a TensorFlow Lite network") as caught:
        Teacher(tmp_path / "notes.tflite")
    assert "\n" not in str(caught.value)


def test_a_network_with_coarse_labels_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"small\.tflite does not take 8-bit RGB, or has no logits"):
        Teacher(write_teacher(tmp_path / "small.tflite", size=64))


def test_hidden_files_are_no_teachers(tmp_path, teacher):
    (tmp_path / "._teacher.tflite").write_bytes(b"what macOS writes beside files on other disks")
    assert teacher_files([tmp_path]) == [teacher]


# --------------------------------------------------------------------------------------------------------------- media


def test_media_are_found_in_folders_and_as_files(tmp_path):
    hidden = ("a/._1.jpg", "b/.thumbnails/normal/1.png", "a/.Trash-1000/clip.mp4")
    for name in ("b/2.JPG", "b/1.png", "a/clip.mp4", "a/notes.txt", *hidden, "c.webp", "b/3.tif", "a/tape.mts"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "folder.jpg").mkdir()
    found = find_media([tmp_path / "b", tmp_path / "c.webp", tmp_path / "a"])
    wanted = ["b/1.png", "b/2.JPG", "b/3.tif", "c.webp", "a/clip.mp4", "a/tape.mts"]
    assert found == [tmp_path / name for name in wanted]
    root = tmp_path / "b" / ".thumbnails"
    assert find_media([root]) == [root / "normal" / "1.png"], "a folder that is named is read"


def test_files_that_several_roots_hold_are_found_once(tmp_path, monkeypatch):
    """Else two processes would write the same labels."""
    (tmp_path / "halls").mkdir()
    for name in ("1.png", "halls/2.png"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    found = find_media([tmp_path, Path("halls"), tmp_path / "1.png"])
    assert [path.resolve() for path in found] == [tmp_path / "1.png", tmp_path / "halls" / "2.png"]


def test_a_folder_without_media_is_named(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=f"no images or videos below {tmp_path}"):
        find_media([tmp_path])


# --------------------------------------------------------------------------------------------------------------- cache


def test_labels_are_made_once_and_a_killed_run_goes_on(tmp_path, teacher):
    images = [write_image(tmp_path / "photos" / f"{n}.png", quartered(90 + n)) for n in range(3)]
    broken = tmp_path / "photos" / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:40])
    cache, told = tmp_path / "cache", []

    def label(paths):
        told.clear()
        return label_media(paths, [teacher], cache, progress=lambda *counts: told.append(counts))

    stills = label([*images, broken])
    assert [still.source for still in stills] == images, "what cannot be read is left out"
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for still in stills:
        soft = np.load(still.labels)
        assert soft.shape == (GRID, GRID, 32)
        assert quarter_labels(soft) == QUARTERS

    assert label(images) == stills
    assert told == [], "everything was there: nothing is labelled and no process started"

    # A killed run leaves a label under its temporary name: it does not count.
    kept = [stills[0].labels.stat().st_mtime_ns, stills[2].labels.stat().st_mtime_ns]
    stills[1].labels.rename(stills[1].labels.with_suffix(".part"))
    assert label(images) == stills
    assert told == [(1, 1)]
    assert kept == [stills[0].labels.stat().st_mtime_ns, stills[2].labels.stat().st_mtime_ns]


def test_a_killed_labelling_process_is_told_in_one_line_and_labels_are_kept(tmp_path, teacher):
    images = [write_image(tmp_path / "photos" / f"{n}.png", quartered(90 + n)) for n in range(12)]

    def kill(done, total):
        for process in active_children():
            process.kill()

    with pytest.raises(TfcsegError, match="labelling processes was killed"):
        label_media(images, [teacher], tmp_path / "cache", progress=kill)
    kept = len([*(tmp_path / "cache" / "stills").glob("*.npy")])
    told = []
    assert len(label_media(images, [teacher], tmp_path / "cache", progress=lambda *counts: told.append(counts))) == 12
    assert told[-1][1] == 12 - kept < 12


def test_an_interrupt_does_not_wait_for_the_rest_of_a_video(tmp_path, teacher):
    image = write_image(tmp_path / "1.png", quartered())
    video = write_clip(tmp_path / "2.mp4", 400, size=(64, 48), rate="15")

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_media([image, video], [teacher], tmp_path / "cache", progress=interrupt)
    assert not [*tmp_path.glob("cache/clips/*/labels.npy*")]
    assert len(list(tmp_path.glob("cache/clips/*/*.jpg"))) < 400


def test_workers_end_with_a_killed_training(tmp_path, teacher):
    """They stayed forever, since they ignore SIGTERM, and labelled beside the next training."""
    video = write_clip(tmp_path / "1.mp4", 400, size=(64, 48), rate="15")
    program = "import sys; from pathlib import Path; from tfcseg.training.labelling import label_media\n"
    program += "video, teacher, cache = map(Path, sys.argv[1:]); label_media([video], [teacher], cache)"
    command = [sys.executable, "-c", program, video, teacher, tmp_path / "cache"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True) as run:
        wait_until(lambda: any(tmp_path.glob("cache/clips/*/*.jpg")))
        run.kill()
    try:
        wait_until(lambda: not is_alive(run.pid), timeout_s=10)
        assert not any(tmp_path.glob("cache/clips/*/labels.npy"))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)


@pytest.mark.slow
def test_two_trainings_share_a_cache(tmp_path, teacher):
    """The second one to finish a video failed: its labels had been given their name by the first."""
    for number in range(2):
        write_image(tmp_path / "media" / f"{number}.png", quartered(90 + number))
    write_clip(tmp_path / "media" / "clip.mp4", 200, size=(64, 48), rate="15")
    program = (
        "import sys; from pathlib import Path; from tfcseg.training.distilled import distilled_material\n"
        "from tfcseg.training.recipes import TrainOptions\n"
        "options = TrainOptions('image', steps=1, batch=1, learning_rate=1e-3)\n"
        "media, teacher, cache = map(Path, sys.argv[1:]); distilled_material([media], [teacher], cache, options)"
    )
    command = [sys.executable, "-c", program, tmp_path / "media", teacher, tmp_path / "cache"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as first:
        wait_until(lambda: any(tmp_path.glob("cache/clips/*/*.jpg")))
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    assert first.returncode == 0


def test_who_waits_for_another_training_is_told(tmp_path):
    notes = []
    program = "import sys; from pathlib import Path; from tfcseg.training.labelling import alone_in\n"
    program += "with alone_in(Path(sys.argv[1]), print): print('in', flush=True); input()"
    command = [sys.executable, "-c", program, tmp_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], **pipes) as other:
        assert other.stdout.readline() == b"in\n"

        def note(text):
            notes.append(text)
            other.stdin.write(b"go on\n")
            other.stdin.flush()

        with alone_in(tmp_path, note):
            assert notes == [f"another training labels into {tmp_path}; this one continues after it"]
    with alone_in(tmp_path, notes.append):
        assert len(notes) == 1


def test_a_cache_that_is_no_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    said = r"^cannot keep labels in folder '.*file': File exists; choose another one$"
    with pytest.raises(OutputError, match=said), alone_in(tmp_path / "file", print):
        pass


def is_alive(group):
    """Whether any process of a group is there."""
    with suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def wait_until(condition, timeout_s=60.0):
    end_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)
    assert condition()


def test_a_full_disk_is_named(tmp_path):
    for name in (".labels.npy.part", "00000.jpg"):
        (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"^cannot write '.*labels\.npy': No space left on device"):
        save_labels(tmp_path / "labels.npy", np.zeros((GRID, GRID, 32), np.uint8))
    with pytest.raises(OutputError, match=r"^cannot write '.*00000\.jpg': No space left on device"):
        save_frame(tmp_path, 0, b"jpeg")
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    save_labels(tmp_path / "labels.npy", labels.transpose(2, 0, 1))
    assert np.array_equal(np.load(tmp_path / "labels.npy"), labels.transpose(2, 0, 1))


def test_frames_of_a_very_long_video_are_in_order(tmp_path, teacher):
    video = write_clip(tmp_path / "1.mp4", 2, size=(64, 48), rate="15")
    (clip,) = label_media([video], [teacher], tmp_path / "cache")
    for number in (99_999, 100_000):
        clip.frames[0].with_name(f"{number:05d}.jpg").touch()
    (again,) = label_media([video], [teacher], tmp_path / "cache")
    assert [int(path.stem) for path in again.frames] == [0, 1, 99_999, 100_000]


def test_labels_are_those_of_the_content(tmp_path, teacher):
    """Whatever it is called, and also if another file of the same size is in its place."""
    photo, moved = tmp_path / "photo.bmp", tmp_path / "elsewhere" / "photo.bmp"
    write_image(photo, quartered())

    def label(*images, teachers=(teacher,)):
        return [each.labels for each in label_media(images, list(teachers), tmp_path / "cache")]

    (first,) = label(photo)
    moved.parent.mkdir()
    shutil.copyfile(photo, moved)
    assert label(moved, photo) == [first, first]
    size = photo.stat().st_size
    write_image(photo, quartered()[:, ::-1])
    assert photo.stat().st_size == size
    (second,) = label(photo)
    assert np.load(second)[GRID // 4, GRID // 4].argmax() == np.load(first)[GRID // 4, -GRID // 4].argmax()
    other = write_teacher(tmp_path / "other.tflite", bias=50)
    assert len({first, second, *label(moved, teachers=[other]), *label(moved, teachers=[teacher, other])}) == 4


def test_copies_are_labelled_once(tmp_path, teacher):
    """Two processes that wrote the same file at the same time failed."""
    image = write_image(tmp_path / "photo.png", quartered())
    links = [tmp_path / f"{number}.png" for number in range(4)]
    for link in links:
        link.symlink_to(image)
    told = []
    labelled = label_media([image, *links], [teacher], tmp_path / "cache", progress=lambda *counts: told.append(counts))
    assert [each.source for each in labelled] == [image, *links]
    assert told == [(1, 1)]


def test_videos_become_frames_at_15_hz(tmp_path, teacher):
    video = tmp_path / "red.mp4"
    run_ffmpeg(*["-f", "lavfi", "-i", "color=red:size=720x400:rate=30:duration=0.4", "-pix_fmt", "yuv420p"], video)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    clips = label_media([video, empty], [teacher], tmp_path / "cache")
    (clip,) = clips  # of the empty one there is nothing to train on
    assert len(clip.frames) == 6, "0.4 s at 15 Hz"
    frame = cv2.imread(str(clip.frames[0]))
    assert min(frame.shape[:2]) == CLIP_SIDE_PX
    labels = np.load(clip.labels)
    assert labels.shape == (6, GRID, GRID, 32)
    assert (labels.argmax(-1) == RED).all()


# ---------------------------------------------------------------------------------------------------------------- time


def moving_clip(frames=5, step=3, seed=0):
    """Textured frames (2·GRID, 2·GRID, 3) that shift by ``step`` grid cells, their true labels and noisy ones."""
    rng = np.random.default_rng(seed)
    wide = GRID + step * frames
    texture = cv2.GaussianBlur(rng.normal(size=(2 * GRID, 2 * wide)), (0, 0), 2.0)
    texture = np.uint8(np.clip(128 + 60 * texture / texture.std(), 0, 255))
    region = cv2.GaussianBlur(rng.normal(size=(GRID, wide)), (0, 0), 5) > 0
    images, truth, noisy = [], [], []
    for t in range(frames):
        left = step * t
        images.append(np.repeat(texture[:, 2 * left : 2 * (left + GRID), None], 3, -1))
        here = 0.3 + 0.4 * region[:, left : left + GRID]
        doubt = np.clip(here + rng.normal(0, 0.12, here.shape), 0, 1)
        truth.append(np.stack([1 - here, here], -1) * 255)
        noisy.append(np.stack([1 - doubt, doubt], -1) * 255)
    return images, np.stack(truth), np.rint(noisy).astype(np.uint8)


def test_steadied_labels_are_nearer_to_the_truth():
    """Averaging along the motion removes noise; averaging in place would smear what moves."""
    images, truth, noisy = moving_clip()
    steadied = steady_labels(images, noisy)
    assert steadied.shape == noisy.shape
    assert steadied.dtype == np.uint8

    def error(labels):
        inner = (slice(None), slice(8, -8), slice(24, -24))
        return np.abs(labels[inner].astype(float) - truth[inner]).mean()

    in_place = np.stack([noisy[max(0, t - 2) : t + 3].mean(0) for t in range(len(noisy))])
    assert error(steadied) < 0.7 * error(noisy)
    assert error(steadied) < 0.7 * error(in_place)


def test_many_classes_are_steadied_like_few():
    """As many as ADE20K has: more than OpenCV takes at once."""
    images, _, noisy = moving_clip(frames=4)
    many, few = np.tile(noisy, 150 // noisy.shape[3]), np.tile(noisy, 10)
    assert many.shape[3] - 128 > 4  # OpenCV interpolates up to four more finely
    assert np.array_equal(steady_labels(images, many)[..., -2:], steady_labels(images, few)[..., -2:])


def test_what_was_hidden_keeps_its_own_labels():
    """A square passes over a background: where it uncovers something, flow there and back disagrees."""
    rng = np.random.default_rng(3)
    texture = cv2.GaussianBlur(rng.normal(size=(2, 2 * GRID, 2 * GRID)).transpose(1, 2, 0), (0, 0), 3.0)
    texture = np.uint8(np.clip(128 + 60 * texture / texture.std(), 0, 255))
    images, labels = [], np.zeros((5, GRID, GRID, 2), np.uint8)
    for t in range(5):
        left = 30 + 8 * t  # in grid cells; a frame's pixels are half a cell
        image = texture[..., 0].copy()
        image[80:180, 2 * left : 2 * left + 60] = texture[80:180, 60:120, 1]
        images.append(np.repeat(image[..., None], 3, -1))
        labels[t, ..., 0] = 255
        labels[t, 40:90, left : left + 30] = (0, 255)
    steadied = steady_labels(images, labels)
    wrong = (steadied.argmax(-1) != labels.argmax(-1)).mean((1, 2))
    assert wrong.max() < 0.012


def test_steadying_holds_a_few_frames_however_long_the_video_is():
    """Frame by frame comes what the whole gives, and of what was taken in, little is kept."""
    images, _, noisy = moving_clip(frames=9, step=2)
    taken, found = [], []

    def labelled():
        for image, labels in zip(images, noisy, strict=True):
            taken.append(weakref.ref(copy := labels.copy()))
            yield image, copy
            del copy

    for labels in steadied(labelled()):
        found.append(labels)
        assert sum(each() is not None for each in taken) <= 2 * STEADY_REACH + 2
    assert np.array_equal(found, steady_labels(images, noisy))


def test_rows_are_written_as_they_come(tmp_path):
    path = tmp_path / "labels.npy"
    rows = np.random.default_rng(0).integers(0, 256, (1234, 20, 30), np.uint8)

    def some():
        for number, row in enumerate(rows):
            assert not path.exists()
            assert number < 500 or (tmp_path / ".labels.npy.part").stat().st_size > 0
            yield row

    save_rows(path, some())
    assert np.array_equal(np.load(path), rows)
    assert np.array_equal(np.load(path, mmap_mode="r"), rows)
    assert [each.name for each in tmp_path.iterdir()] == ["labels.npy"]
    save_rows(tmp_path / "none.npy", iter(()))
    assert not (tmp_path / "none.npy").exists()


def test_labels_that_cannot_be_written_are_one_line(tmp_path):
    for save, labels in ((save_labels, np.zeros((2, 2, 3), np.uint8)), (save_rows, np.zeros((1, 2, 2, 3), np.uint8))):
        with pytest.raises(OutputError, match=r"^cannot write '.*labels\.npy': No such file or directory"):
            save(tmp_path / "gone" / "labels.npy", labels)


def test_frames_are_those_that_a_run_sees(tmp_path, teacher):
    """A video that was filmed upright with a turned camera, at 30 frames per second: every second frame, upright."""
    plain = write_clip(tmp_path / "plain.mp4", 12, size=(64, 48), rate="30")
    video = write_rotated(tmp_path / "turned.mp4", plain, 90)
    (clip,) = label_media([video], [teacher], tmp_path / "cache")
    wanted = [frame.image for frame in read_frames(video)][::2]
    for path, image in zip(clip.frames, wanted, strict=True):
        assert np.abs(read_image(path).astype(int) - image).mean() < 4


def test_a_single_frame_stays_as_it_is():
    labels = np.random.default_rng(0).integers(0, 256, (1, GRID, GRID, 3), dtype=np.uint8)
    assert np.array_equal(steady_labels([np.zeros((60, 80, 3), np.uint8)], labels), labels)


def test_names_that_are_no_utf8_are_read_like_others(tmp_path, teacher):
    """OpenCV crashes when it is given such a name."""
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    image = write_image(tmp_path / "plain.png", quartered()).rename(folder / "\udcff.png")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=size=120x90:rate=15:duration=0.2", tmp_path / "plain.mp4")
    video = (tmp_path / "plain.mp4").rename(folder / "\udcff.mp4")
    still, clip = label_media([image, video], [teacher], folder / "cache")
    assert quarter_labels(np.load(still.labels)) == QUARTERS
    assert len(clip.frames) == 3
    assert read_image(clip.frames[0]).shape == (90, 120, 3)
