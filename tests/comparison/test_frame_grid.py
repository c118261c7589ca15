"""``tfcseg compare --frames`` as a user calls it: one picture of a few frames."""

import numpy as np
import PIL.Image
import pytest

from tests.helpers.command_line import call
from tests.helpers.media import LOSSLESS, folder_of_images, write_video
from tests.helpers.tiny_model import moving_images, write_tiny_model
from tfcseg.comparison.pictures import MAX_HEIGHT_PX, MAX_WIDTH_PX, draw_frames, similarity_colours
from tfcseg.drawing.render import overlay
from tfcseg.inference.segmented import SegmentedFrame
from tfcseg.labels.label_sets import ADE31
from tfcseg.weights.loading import load_model

FRAMES, SIZE = 10, (90, 130)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("media") / "street.mkv"
    return write_video(path, moving_images(FRAMES, SIZE), rate="5", video=LOSSLESS)


def pixels(path):
    with PIL.Image.open(path) as picture:
        return np.array(picture.convert("RGB"))


def find(picture, panel):
    """(top, left) of the only place where ``panel`` is in the picture, pixel for pixel."""
    height, width = panel.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view((picture == panel[0, 0]).all(-1), (1, 1))[..., 0, 0]
    places = [
        (top, left)
        for top, left in np.argwhere(windows)
        if np.array_equal(picture[top : top + height, left : left + width], panel)
    ]
    assert len(places) == 1, places
    return places[0]


def a_frame(index, *, is_keyframe=False, size=(96, 128), seed=0, updated=0.8):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = np.zeros(size, np.uint8)
    labels[:, : size[1] // 2] = 3
    w = None if is_keyframe else np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    share = None if is_keyframe else updated
    return SegmentedFrame(index, index / 10, image, labels, is_keyframe, w, share, 1.0, False, ADE31)


# ------------------------------------------------------------------------------------------------------- the picture


def test_every_panel_is_in_its_row_and_column():
    first, second = a_frame(4, is_keyframe=True), a_frame(5, seed=1)
    by_image = np.full((96, 128), 12, np.uint8)
    picture = draw_frames([first, second], [by_image] * 2, 0.8)
    palette = ADE31.palette_array()
    w = second.similarity.repeat(4, 0).repeat(4, 1)
    panels = [second.image, overlay(second.image, by_image, palette), overlay(second.image, second.labels, palette)]
    places = [find(picture, panel) for panel in [*panels, similarity_colours(w)]]
    tops, lefts = zip(*places, strict=True)
    assert len(set(lefts)) == 1
    steps = np.diff(tops)
    assert len(set(steps)) == 1
    assert find(picture, first.image) == (tops[0], lefts[0] - (128 + steps[0] - 96))
    marked = picture[tops[3] + steps[0] :][:96, lefts[0] : lefts[0] + 128]
    assert np.array_equal((marked == (255, 64, 48)).all(-1), w < 0.8)
    # A keyframe has neither similarities nor updated points.
    column = picture[:, find(picture, first.image)[1] :][:, :128]
    for row in (3, 4):
        panel = column[tops[0] + row * steps[0] :][:96]
        assert (panel == (238, 239, 241)).all(-1).mean() > 0.9


def test_without_updated_points_there_is_no_row_of_them():
    frame = a_frame(1)
    heights = [
        draw_frames([each], [each.labels], threshold).shape[0]
        for each, threshold in ((frame, 0.8), (a_frame(1, updated=0.0), 0.8), (frame, None))
    ]
    assert heights[0] >= heights[1] + 96
    assert heights[1] == heights[2]


@pytest.mark.parametrize(("size", "count"), [((1080, 1920), 5), ((2000, 300), 1), ((16, 400), 2), ((20, 20), 3)])
def test_any_size_fits(size, count):
    frames = [a_frame(index, size=size) for index in range(count)]
    picture = draw_frames(frames, [frame.labels for frame in frames], 0.8)
    assert picture.shape[1] <= MAX_WIDTH_PX
    assert picture.shape[0] <= MAX_HEIGHT_PX


def test_colours_end_where_the_scale_ends():
    colours = similarity_colours(np.array([[-1, 0.2, 0.5, 0.75, 1]], np.float32))[0]
    assert np.array_equal(colours[0], colours[2])
    assert len({tuple(colour) for colour in colours.tolist()}) == 3
    assert colours[4].sum() > colours[3].sum() > colours[2].sum()  # yellow is the lightest


# ------------------------------------------------------------------------------------------------------- the command


def test_frames_are_those_of_a_run(clip, weights, tmp_path):
    from tfcseg.inference.segment import segment

    done = call("compare", clip, "-m", weights, "--frames", "5,2", "--threshold", 0.9, "-o", tmp_path / "s.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 's.png'}\n"
    picture = pixels(tmp_path / "s.png")
    model = load_model(weights)
    frames = list(segment(moving_images(FRAMES, SIZE), model, threshold=0.9))
    palette = model.labels.palette_array()
    lefts = []
    for index in (2, 5):
        source, w = frames[index].image, frames[index].similarity
        alone = next(iter(segment([source], model, mode="image")))
        top, left = find(picture, source)
        step = find(picture, overlay(source, alone.labels, palette))[0] - top
        assert find(picture, overlay(source, frames[index].labels, palette)) == (top + 2 * step, left)
        marked = (picture[top + 4 * step :][: SIZE[0], left : left + SIZE[1]] == (255, 64, 48)).all(-1)
        assert marked.mean() == pytest.approx((w < 0.9).mean(), abs=0.02)
        lefts.append(left)
    assert lefts[0] < lefts[1]
    assert picture.shape[0] >= 5 * SIZE[0]


def test_a_folder_of_images_and_the_default_name(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of_images(tmp_path / "photos", moving_images(4, SIZE), [f"{index}.png" for index in range(4)])
    done = call("compare", "photos", "-m", weights, "--frames", "0,1", "-q")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "photos_frames.png\n"
    assert pixels("photos_frames.png").std() > 5


def test_jpeg_by_its_name(clip, weights, tmp_path):
    assert call("compare", clip, "-m", weights, "--frames", "0", "-o", tmp_path / "s.JPG").returncode == 0
    with PIL.Image.open(tmp_path / "s.JPG") as picture:
        assert picture.format == "JPEG"


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["--frames", "2,many"], 2, "'many' is not a whole number"),
        (["--frames", "2,2"], 2, "a frame is named twice: 2,2"),
        (["--frames", "-1"], 2, "frames are counted from 0; there is no frame -1"),
        (["--frames", ",".join(map(str, range(13)))], 2, "a picture shows 1 to 12 frames, not 13"),
        (["--frames", "1", "--start", "1.8"], 1, "street.mkv: has 1 frame, so there is no frame 1; choose"),
        (["--frames", "3,10"], 1, "street.mkv: has 10 frames, so there is no frame 10; choose smaller numbers"),
        (["--frames", "1", "--keyframe-interval", "0"], 2, "--keyframe-interval 0"),
        (["-o", "{folder}/s.gif"], 2, "is not a picture; give a file that ends in .png or .jpg"),
        (["-o", "{folder}/old.png"], 1, "{folder}/old.png' already exists; use --overwrite"),
    ],
)
def test_what_makes_no_picture_is_refused(clip, weights, tmp_path, given, code, said):
    (tmp_path / "old.png").write_bytes(b"mine")
    frames = [] if "--frames" in given else ["--frames", "0"]
    words = [*frames, "-o", tmp_path / "s.png", *(word.format(folder=tmp_path) for word in given)]
    done = call("compare", clip, "-m", weights, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said.format(folder=tmp_path) in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]
    assert (tmp_path / "old.png").read_bytes() == b"mine"


def test_the_source_is_never_replaced(weights, tmp_path):
    folder_of_images(tmp_path / "photos", moving_images(2, SIZE), ["0.png", "1.png"])
    before = (tmp_path / "photos" / "1.png").read_bytes()
    done = call(
        "compare",
        tmp_path / "photos",
        "-m",
        weights,
        "--frames",
        "0",
        "-o",
        tmp_path / "photos" / "1.png",
        "--overwrite",
    )
    assert done.returncode == 2
    assert "is the input" in done.error
    assert (tmp_path / "photos" / "1.png").read_bytes() == before
