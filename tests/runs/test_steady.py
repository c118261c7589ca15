"""``tfcseg steady`` as a user calls it: masks in, masks of the same form out, and what stands in the way."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import PIL.Image
import pytest

import tfcseg
from tests.helpers.command_line import call
from tests.helpers.media import LOSSLESS, write_video
from tests.helpers.tiny_model import write_tiny_model
from tfcseg.errors import DataError
from tfcseg.inference.steadied import read_sureness, shown_classes
from tfcseg.media.mask_folder import open_masks
from tfcseg.media.masks import MaskForm, read_label_video, read_values, write_values
from tfcseg.media.reader import probe, read_frames

SIZE = (64, 96)
FRAMES = 12
PALETTE = bytes(range(240)) + bytes(528)
FORM = MaskForm("P", 8, PALETTE)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def picture(shift=0, seed=0):
    """(H, W, 3) smooth noise, moved to the right."""
    small = np.random.default_rng(seed).integers(0, 256, (12, 24, 3), np.uint8)
    wide = cv2.resize(small, (2 * SIZE[1], SIZE[0]), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(wide[:, SIZE[1] // 2 - shift : SIZE[1] // 2 - shift + SIZE[1]])


def clip(path, shifts=(0,) * FRAMES, seeds=None):
    images = [picture(shift, seed) for shift, seed in zip(shifts, seeds or [0] * len(shifts), strict=True)]
    write_video(path, images, video=LOSSLESS)
    return path


def square(value=7, left=30, dtype=np.uint8):
    mask = np.full(SIZE, 2, dtype)
    mask[20:44, left : left + 30] = value
    return mask


def write_masks(folder, masks, form=FORM, names="m_{:03d}.png"):
    folder.mkdir()
    for index, mask in enumerate(masks):
        if mask is not None:
            write_values(folder / names.format(index), mask, form)
    return folder


def steadied(folder, names="m_{:03d}.png", count=FRAMES):
    return [read_values(folder / "masks" / names.format(index))[0] for index in range(count)]


def run(video, masks, out, model, *more):
    plain = ("--no-overlay", "--no-flow-consistency", "--no-html")
    return call("steady", video, "--masks", masks, "-o", out, "-m", model, "-q", *plain, *more)


def flickering(other=9, **options):
    masks = [square(**options) for _ in range(FRAMES)]
    masks[5] = square(**options | {"value": other})
    return masks


def test_flicker_goes_and_the_form_stays(tmp_path, model):
    given = write_masks(tmp_path / "given", flickering())
    video = clip(tmp_path / "a.mkv")
    assert run(video, given, tmp_path / "out", model).returncode == 0
    for index, mask in enumerate(steadied(tmp_path / "out")):
        assert np.array_equal(mask, square()), index
    assert read_values(tmp_path / "out" / "masks" / "m_005.png")[1] == FORM
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["options"]["mode"] == "steady"
    assert report["steady"]["given"] == FRAMES
    assert report["stability"]["label_change"] == 0 < report["steady"]["label_change"]
    rows = list(csv.DictReader((tmp_path / "out" / "frames.csv").read_text().splitlines()))
    assert float(rows[5]["label_change_before"]) > 0 == float(rows[5]["label_change"])
    exported = call("export", tmp_path / "out", "--to", "video,areas")
    assert exported.returncode == 0, exported.stderr
    assert np.array_equal(list(read_label_video(tmp_path / "out" / "labels.mkv")), [square()] * FRAMES)
    table = next(csv.DictReader((tmp_path / "out" / "areas.csv").read_text().splitlines()))
    assert float(table["7"]) == pytest.approx((square() == 7).mean(), abs=1e-6)


def test_instances_of_16_bits(tmp_path, model):
    masks = flickering(60000, dtype=np.uint16)
    given = write_masks(tmp_path / "given", masks, MaskForm("I;16", 16))
    assert run(clip(tmp_path / "a.mkv"), given, tmp_path / "out", model).returncode == 0
    mask, form = read_values(tmp_path / "out" / "masks" / "m_005.png")
    assert form == MaskForm("I;16", 16)
    assert np.array_equal(mask, masks[0])


@pytest.mark.parametrize("names", [{}, {"0": "sky", "2": "wall", "48": "cat", "300": "dog", "400": "owl"}])
def test_ids_that_share_a_colour_are_told_apart(tmp_path, model, names):
    """48 and 300 are drawn alike."""
    masks = flickering(48, value=300, dtype=np.uint16)
    masks[7] = square(48, dtype=np.uint16)
    given = write_masks(tmp_path / "given", masks, MaskForm("I;16", 16))
    if names:
        (given / "classes.json").write_text(json.dumps(names))
    done = run(clip(tmp_path / "a.mkv"), given, tmp_path / "out", model, "--html", "--flow-consistency")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert report["stability"]["label_change"] == 0 < report["steady"]["label_change"]
    assert report["stability"]["flow_consistency"] == 1 > report["steady"]["flow_consistency"]
    found = {each["index"]: (each["name"], each["share"]) for each in report["classes"]}
    mask = square(300, dtype=np.uint16)
    shares = {value: pytest.approx((mask == value).mean(), abs=1e-6) for value in (2, 300)}
    assert found == {value: (names.get(f"{value}", f"{value}"), share) for value, share in shares.items()}
    assert f">{names.get('300', '300')}<" in (tmp_path / "out" / "report.html").read_text()
    if names:
        listed = json.loads((tmp_path / "out" / "classes.json").read_bytes())
        colours = {each["name"]: each["colour"] for each in listed}
        assert colours["cat"] == colours["dog"] != colours["owl"]


def test_the_legend_names_ids_of_16_bits(tmp_path, model):
    """60000 and 300 have the colours of other ids."""
    size, frames = (200, 240), []
    video = write_video(tmp_path / "a.mkv", [np.full((*size, 3), 90, np.uint8)] * 3, video=LOSSLESS)
    mask = np.full(size, 300, np.uint16)
    mask[60:140, 100:220] = 60000
    given = write_masks(tmp_path / "given", [mask] * 3, MaskForm("I;16", 16))
    options = {"html": False, "flow_consistency": False, "on_frame": lambda frame, info: frames.append(frame)}
    tfcseg.steady(video, given, tmp_path / "out", model, **options)
    assert frames[1].classes == {"300": pytest.approx(0.8), "60000": pytest.approx(0.2)}
    drawn = next(read_frames(tmp_path / "out" / "overlay.mp4")).image.astype(int)
    plain = replace(frames[0], label_set=shown_classes(open_masks(given, probe(video))))
    assert {"48", "40"} <= plain.classes.keys()
    right, wrong = (abs(drawn - frame.overlay(legend=True)).mean() for frame in (frames[0], plain))
    assert right < wrong


def test_masks_of_0_and_255_have_no_void(tmp_path, model):
    masks = [np.where(mask == 2, np.uint8(0), np.uint8(255)) for mask in flickering(2)]
    given = write_masks(tmp_path / "given", masks, MaskForm("L", 8))
    assert run(clip(tmp_path / "a.mkv"), given, tmp_path / "out", model).returncode == 0
    assert np.array_equal(steadied(tmp_path / "out")[5], masks[0])
    assert exported_areas(tmp_path / "out") == areas_of(masks[0], {"0": 0, "255": 255})


def exported_areas(out):
    """Shares of classes in all frames as exported, by the names in the report."""
    assert call("export", out, "--to", "areas").returncode == 0
    row = next(csv.DictReader((out / "areas.csv").read_text().splitlines()))
    names = [each["name"] for each in json.loads((out / "report.json").read_bytes())["classes"]]
    return {name: float(row[name]) for name in names}


def areas_of(mask, names):
    return {name: pytest.approx((mask == value).mean(), abs=1e-6) for name, value in names.items()}


def test_values_are_exported_as_the_report_names_them(tmp_path, model):
    """255 is a class where another value is void, and void is not exported."""
    masks = [np.where(mask == 2, np.uint8(0), np.uint8(255)) for mask in flickering(2)]
    for mask in masks:
        mask[:8] = 7
    given = write_masks(tmp_path / "given", masks, MaskForm("L", 8))
    assert run(clip(tmp_path / "a.mkv"), given, tmp_path / "out", model, "--void", "0").returncode == 0
    assert exported_areas(tmp_path / "out") == areas_of(np.stack(masks), {"254 or 255": 255, "7": 7})


def test_254_may_be_void_where_255_is_a_class(tmp_path, model):
    masks = [np.where(mask == 2, np.uint8(0), np.uint8(255)) for mask in flickering(2)]
    for mask in masks:
        mask[:8] = 254
    given = write_masks(tmp_path / "given", masks, MaskForm("L", 8))
    done = run(clip(tmp_path / "a.mkv"), given, tmp_path / "out", model, "--void", "254", "--html")
    assert done.returncode == 0, done.stderr
    assert list(exported_areas(tmp_path / "out")) == ["0", "255"]
    assert (tmp_path / "out" / "report.html").exists()


def test_void_stays_void_and_spreads_nowhere(tmp_path, model):
    masks = flickering()
    for mask in masks:
        mask[:8] = 255
    masks[3][8:16] = 255
    assert (
        run(clip(tmp_path / "a.mkv"), write_masks(tmp_path / "given", masks), tmp_path / "out", model).returncode == 0
    )
    for before, after in zip(masks, steadied(tmp_path / "out"), strict=True):
        assert np.array_equal(before == 255, after == 255)


def test_motion_is_followed(tmp_path, model):
    shifts = tuple(range(0, 2 * FRAMES, 2))
    masks = [square(left=20 + shift) for shift in shifts]
    masks[6] = square(9, left=20 + shifts[6])
    given = write_masks(tmp_path / "given", masks)
    assert run(clip(tmp_path / "a.mkv", shifts), given, tmp_path / "out", model).returncode == 0
    wrong = np.mean(steadied(tmp_path / "out")[6] != square(left=20 + shifts[6]))
    assert wrong < 0.03 < np.mean(masks[6] == 9)


@pytest.mark.parametrize("seeds", [range(FRAMES), [0] * 6 + [1] * 6], ids=["shuffled", "cut"])
def test_nothing_crosses_to_another_scene(tmp_path, model, seeds):
    masks = [square(index if len(set(seeds)) > 2 else 7 + (index >= 6)) for index in range(FRAMES)]
    given = write_masks(tmp_path / "given", masks)
    assert run(clip(tmp_path / "a.mkv", seeds=list(seeds)), given, tmp_path / "out", model).returncode == 0
    assert all(map(np.array_equal, steadied(tmp_path / "out"), masks))


def test_holes_are_filled(tmp_path, model):
    masks = [square() if index % 3 == 0 else None for index in range(FRAMES)]
    given = write_masks(tmp_path / "given", masks)
    done = run(clip(tmp_path / "a.mkv"), given, tmp_path / "out", model)
    assert done.returncode == 0
    assert "8 of 12 frames have no mask" in done.stderr
    assert all(np.array_equal(mask, square()) for mask in steadied(tmp_path / "out"))


def test_sure_masks_outweigh_unsure_ones(tmp_path, model):
    masks = [square(7 if index % 2 else 9) for index in range(FRAMES)]
    given = write_masks(tmp_path / "given", masks)
    for index in range(FRAMES):
        probabilities = np.full((3, 16, 24), 0.05, np.float32)
        probabilities[index % 2] = 0.9 if index % 2 else 0.1
        np.save(given / f"m_{index:03d}.npy", probabilities)
    done = run(clip(tmp_path / "a.mkv"), given, tmp_path / "out", model, "--probabilities", given)
    assert done.returncode == 0, done.stderr
    assert all(np.array_equal(mask, square(7)) for mask in steadied(tmp_path / "out")[2:-2])


@pytest.mark.parametrize(("ids", "form"), [((7, 9), FORM), ((48, 300), MaskForm("I;16", 16))])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, model, monkeypatch, ids, form):
    count = 114
    monkeypatch.setattr("tfcseg.runs.resuming.fingerprint", lambda path: "the same")
    rng = np.random.default_rng(1)
    masks = [square(int(rng.choice([ids[0], *ids])), dtype=form.dtype) for _ in range(count)]
    there_and_back = tuple(abs(20 - at % 40) for at in range(count))
    given, video = write_masks(tmp_path / "given", masks, form), clip(tmp_path / "a.mkv", there_and_back)
    more = ("--overlay", "--html", "--flow-consistency")
    assert run(video, given, tmp_path / "whole", model, *more).returncode == 0
    broken = given / "m_112.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:60])
    assert "is damaged" in run(video, given, tmp_path / "out", model, *more).error
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 96
    broken.write_bytes(content)
    done = run(video, given, tmp_path / "out", model, *more, "--resume")
    assert done.returncode == 0, done.stderr
    for name in ("overlay.mp4", *(f"masks/m_{index:03d}.png" for index in range(count))):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows, whole = (
        [
            {name: value for name, value in row.items() if name != "model_ms"}
            for row in csv.DictReader((tmp_path / folder / "frames.csv").read_text().splitlines())
        ]
        for folder in ("out", "whole")
    )
    assert rows == whole
    assert all(row["flow_consistency"] and row["flow_consistency_before"] for row in rows[1:])


def test_results_are_not_replaced_unasked(tmp_path, model):
    given, video = write_masks(tmp_path / "given", flickering()), clip(tmp_path / "a.mkv")
    assert run(video, given, tmp_path / "out", model).returncode == 0
    assert "more already exist; use" in run(video, given, tmp_path / "out", model).error
    assert run(video, given, tmp_path / "out", model, "--overwrite").returncode == 0
    assert "is the input" in run(video, tmp_path / "out" / "masks", tmp_path / "out", model, "--overwrite").error


def test_what_cannot_be_used(tmp_path, model):
    video, out = clip(tmp_path / "a.mkv"), tmp_path / "out"

    def refused(masks, *more):
        done = run(video, masks, out, model, *more)
        assert not out.exists()
        return done.error

    assert "no masks are given" in call("steady", video, "-o", out).error
    assert "no such folder" in refused(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "no PNG files" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "masks").mkdir()
    assert refused(tmp_path / "empty").endswith(f"; those of a run are in {str(tmp_path / 'empty' / 'masks')!r}")
    many = write_masks(tmp_path / "many", [square()] * 13)
    assert "13 masks do not fit the 12 frames" in refused(many)
    small = write_masks(tmp_path / "small", [square()[:32]] * FRAMES)
    assert "is 96x32, but frames" in refused(small)
    colour = tmp_path / "colour"
    colour.mkdir()
    for index in range(FRAMES):
        PIL.Image.fromarray(picture()).save(colour / f"{index}.png")
    assert "is a colour picture" in refused(colour)
    (colour / "classes.json").write_text('[{"index": 300, "name": "a", "colour": [1, 2, 3]}]')
    assert "classes.json: has a colour for 300; colour masks take values up to 255" in refused(colour)
    few = write_masks(tmp_path / "few", [square()] * FRAMES)
    (tmp_path / "names.json").write_text('{"2": "sky"}')
    assert "has the value 7, which is none of the 1 classes" in refused(few, "--classes-json", tmp_path / "names.json")
    (tmp_path / "names.json").write_text("[3]")
    assert "is not a list of classes" in refused(few, "--classes-json", tmp_path / "names.json")
    (tmp_path / "names.json").write_text("[" * 100_000)
    assert "JSON is nested too deeply" in refused(few, "--classes-json", tmp_path / "names.json")
    (tmp_path / "names.json").write_text('[{"index": 7, "name": "a"}, {"index": 7, "name": "b"}]')
    assert "index 7 is given twice" in refused(few, "--classes-json", tmp_path / "names.json")
    assert "no such file; --probabilities" in refused(few, "--probabilities", few)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((3, 64, 96), -1.0), "holds numbers from -1 to -1; probabilities are from 0 to 1"),
        (np.linspace(0, 12, 3 * 64 * 96, dtype=np.float32).reshape(3, 64, 96), "holds numbers from 0 to 12"),
        (np.full((3, 64, 96), np.nan, np.float16), "holds numbers from nan to nan"),
        (np.full((3, 64, 96), np.inf), "holds numbers from inf to inf"),
        (np.zeros((64, 96), np.float32), "probabilities are"),
    ],
)
def test_numbers_that_are_no_probabilities_are_refused(tmp_path, values, words):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match=words):
        read_sureness(tmp_path / "a.png", (64, 96))


def test_integers_may_have_any_scale(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[[204]], [[51]], [[0]]], np.uint8).repeat(8, 1).repeat(8, 2))
    assert read_sureness(tmp_path / "a.png", (8, 8)) == pytest.approx(0.6)


def test_damaged_probabilities_end_in_one_line(tmp_path):
    rng = np.random.default_rng(5)
    refused = read = 0
    for name, save in (("a.npz", np.savez_compressed), ("b.npz", np.savez), ("c.npy", np.save)):
        path = tmp_path / name
        save(path, rng.random((3, 6, 8), np.float32))
        sound = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(sound[: rng.integers(len(sound) // 2, len(sound) + 1)])
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                read_sureness(path.with_suffix(".png"), (6, 8))
            except DataError as error:
                refused += len(str(error).splitlines()) == 1
            else:
                read += 1
    assert (refused > 300, refused + read) == (True, 450)


@pytest.mark.parametrize(("shift", "is_noisy"), [(0, True), (3, False)])
def test_masks_that_were_steady_already_are_said_to_be(tmp_path, model, shift, is_noisy):
    """Noise in the video moves their edges. If they are behind moving things, labels have to change more often."""
    rng = np.random.default_rng(0)
    images = [picture(shift * (index % 2)) + rng.normal(0, 25 * is_noisy, (*SIZE, 3)) for index in range(FRAMES)]
    images = [image.clip(0, 255).astype(np.uint8) for image in images]
    video = write_video(tmp_path / "a.mkv", images, video=LOSSLESS)
    stripes = np.full(SIZE, 2, np.uint8)
    stripes[:, ::8] = 7
    given = write_masks(tmp_path / "given", [stripes] * FRAMES)
    report = tfcseg.steady(video, given, tmp_path / "out", model, overlay=False, html=False)
    assert report.stability.label_change > report.steady.label_change == 0
    assert any("steady already" in warning for warning in report.warnings) == is_noisy


def test_from_python(tmp_path, model):
    given, video = write_masks(tmp_path / "given", flickering()), clip(tmp_path / "a.mkv")
    report = tfcseg.steady(video, given, tmp_path / "out", model, overlay=False, html=False, flow_consistency=False)
    assert report.stability.label_change == 0 < report.steady.label_change
    with pytest.raises(tfcseg.OutputError, match="use overwrite=True"):
        tfcseg.steady(video, given, tmp_path / "out", model)
