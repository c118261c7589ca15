"""Exports for annotation tools and training, read back as those tools read them."""

import json
import zipfile
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from io import BytesIO, StringIO

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.helpers.labelled import LABELS, PERSON, ROAD, SIZE, SKY, drawn_maps, export_to, labelled_video, only
from tfcseg.errors import DataError, OutputError
from tfcseg.labels.label_sets import NO_CLASS, LabelSet

# Of pycocotools itself, which does not know NumPy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def unzipped(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert max(Counter(archive.namelist()).values()) == 1
        return {name: archive.read(name) for name in archive.namelist()}


# --- COCO ----------------------------------------------------------------------------------------------------------


def read_coco(path, names=LABELS.names):
    """COCO's own reader, and the label map of every image, whose values are places in ``names``."""
    from pycocotools.coco import COCO

    with redirect_stdout(StringIO()):
        coco = COCO(path)
    categories = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    maps = []
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        labels = np.full((image["height"], image["width"]), NO_CLASS, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            assert annotation["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            left, top = columns.min(), rows.min()
            assert annotation["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
            labels[mask] = names.index(categories[annotation["category_id"]])
        maps.append(labels)
    return coco, maps


def test_coco_has_the_labels_pixel_by_pixel(tmp_path):
    maps = drawn_maps()
    exported = export_to(tmp_path, labelled_video(tmp_path, maps), "coco")
    assert (exported.files, exported.notes) == ({"coco": "coco.json"}, [])
    coco, found = read_coco(tmp_path / "coco.json")
    assert np.array_equal(found, maps)
    assert [image["file_name"] for image in coco.dataset["images"]] == [f"0000000{index}.jpg" for index in range(4)]
    assert coco.dataset["categories"][3]["color"] == [255, 42, 72]


def test_coco_has_the_chosen_classes_only(tmp_path):
    maps = drawn_maps()
    names = [f"a/{index}.png" for index in range(4)]
    export_to(tmp_path, labelled_video(tmp_path, maps, shown=only(PERSON), names=names), "coco")
    coco, found = read_coco(tmp_path / "coco.json")
    assert [category["name"] for category in coco.dataset["categories"]] == ["person"]
    assert all(
        np.array_equal(labels, np.where(truth == PERSON, truth, NO_CLASS))
        for labels, truth in zip(found, maps, strict=True)
    )
    assert [image["file_name"] for image in coco.dataset["images"]] == names


# --- CVAT ----------------------------------------------------------------------------------------------------------


def read_cvat(path):
    """Label map of every frame by the rules of the format: colours are classes, colours of objects their masks."""
    files = unzipped(path)
    head, *rows = files["labelmap.txt"].decode().splitlines()
    assert head == "# label:color_rgb:parts:actions"
    colours = {}
    for row in rows:
        name, colour, parts, actions = row.split(":")
        assert (parts, actions) == ("", "")
        colours[tuple(map(int, colour.split(",")))] = name
    assert len(colours) == len(rows), "two classes have one colour"
    assert colours[0, 0, 0] == "background"
    maps = {}
    for stem in files["ImageSets/Segmentation/default.txt"].decode().split():
        classes, objects = (
            np.array(PIL.Image.open(BytesIO(files[f"Segmentation{kind}/{stem}.png"]))) for kind in ("Class", "Object")
        )
        assert classes.dtype == objects.dtype == np.uint8
        labels = np.full(classes.shape[:2], NO_CLASS, np.uint8)
        for colour in np.unique(objects.reshape(-1, 3), axis=0):
            mask = (objects == colour).all(-1)
            (found,) = np.unique(classes[mask], axis=0).tolist()  # an object has one class
            name = colours[tuple(found)]
            assert (name == "background") == (not colour.any())
            if name != "background":
                labels[mask] = LABELS.names.index(name)
        maps[stem] = labels
    assert len(files) == 2 + 2 * len(maps)
    return maps


def test_cvat_has_the_labels_pixel_by_pixel(tmp_path):
    maps = drawn_maps()
    exported = export_to(tmp_path, labelled_video(tmp_path, maps), "cvat")
    assert exported.notes == []
    found = read_cvat(tmp_path / "cvat.zip")
    assert list(found) == [f"frame_00000{index}" for index in range(4)]
    assert np.array_equal(list(found.values()), maps)


def test_cvat_has_the_chosen_classes_only_by_the_names_of_files(tmp_path):
    maps = drawn_maps(2)
    video = labelled_video(tmp_path, maps, shown=only(ROAD, PERSON), names=["b.jpg", "a.png"])
    export_to(tmp_path, video, "cvat")
    found = read_cvat(tmp_path / "cvat.zip")
    assert list(found) == ["b", "a"]
    for labels, truth in zip(found.values(), maps, strict=True):
        assert np.array_equal(labels, np.where(np.isin(truth, (ROAD, PERSON)), truth, NO_CLASS))


def test_classes_of_one_colour_stay_apart_in_cvat(tmp_path):
    """Also one that is black, as the background must be; a class of that name is the background."""
    maps = drawn_maps(1)
    same = ((0, 0, 0), (9, 9, 9), (9, 9, 9), (9, 9, 9))
    exported = export_to(tmp_path, labelled_video(tmp_path, maps, labels=replace(LABELS, palette=same)), "cvat")
    assert np.array_equal(read_cvat(tmp_path / "cvat.zip")["frame_000000"], maps[0])
    assert exported.notes == [
        "cvat.zip: 'sky' has the colour #000001 there, its own is taken",
        "cvat.zip: 'traffic light' has the colour #09090a there, its own is taken",
        "cvat.zip: 'person' has the colour #09090b there, its own is taken",
    ]
    named = LabelSet("named", ("background", "a:b", "c", "d"), LABELS.palette)
    export_to(tmp_path, labelled_video(tmp_path, maps, labels=named), "cvat")
    rows = unzipped(tmp_path / "cvat.zip")["labelmap.txt"].decode().splitlines()
    assert rows[1:3] == ["background:0,0,0::", "a_b:110,92,140::"]


# --- YOLO ----------------------------------------------------------------------------------------------------------


def drawn_back(text, size=SIZE):
    """What Ultralytics makes of a file of polygons: coordinates times the size, decimals cut off, filled."""
    labels = np.full(size, NO_CLASS, np.uint8)
    for row in text.splitlines():
        label, *numbers = row.split()
        points = np.array(numbers, np.float32).reshape(-1, 2) * [size[1], size[0]]
        assert len(points) >= 3
        assert ((points >= 0) & (points <= [size[1], size[0]])).all()
        cv2.fillPoly(labels, [points.astype(np.int32)], int(label))
    return labels


def test_yolo_polygons_give_the_labels_back_but_for_what_is_said(tmp_path):
    maps = drawn_maps(2)
    maps[0][25:29, 65:69] = PERSON  # 16 pixels, just enough, at the edge
    maps[0][30:33, 2:6] = PERSON  # 12
    maps[0][36, 2:40] = PERSON  # a line
    maps[1][33:36, 30:33] = NO_CLASS  # a hole with nothing in it
    exported = export_to(tmp_path, labelled_video(tmp_path, maps), "yolo")
    files = unzipped(tmp_path / "yolo.zip")
    names = [f"0000000{index}" for index in range(2)]
    found = [drawn_back(files[f"labels/train/{name}.txt"].decode()) for name in names]
    left_out = maps[0].copy()
    left_out[30:33, 2:6] = left_out[36, 2:40] = ROAD
    assert np.array_equal(found[0], left_out)
    filled = np.where((np.arange(SIZE[1]) < 60) & (maps[1] == NO_CLASS), ROAD, maps[1])
    assert np.array_equal(found[1], filled)
    (note,) = exported.notes
    wrong = sum(int((a != b).sum()) for a, b in zip(found, maps, strict=True))
    assert f"{wrong / (2 * 45 * 71):.3%}" in note
    # The person's and the road's within it, in both frames; around what is small; around the light; the empty one.
    assert "8 were filled; 2 parts below 16 pixels" in note
    assert note.removeprefix("yolo.zip: ") in files["data.yaml"].decode()
    assert files["train.txt"].decode() == "".join(f"images/train/{name}.jpg\n" for name in names)
    assert '  2: "traffic light"\n' in files["data.yaml"].decode()


@settings(max_examples=25, deadline=None)
@given(arrays.arrays(np.uint8, (9, 12), elements=st.sampled_from([SKY, ROAD, NO_CLASS])))
def test_what_polygons_lose_is_counted_exactly(tmp_path_factory, coarse):
    labels = cv2.resize(coarse, None, fx=2, fy=3, interpolation=cv2.INTER_NEAREST)
    folder = tmp_path_factory.mktemp("yolo")
    exported = export_to(folder, labelled_video(folder, [labels]), "yolo")
    text = unzipped(folder / "yolo.zip")["labels/train/00000000.txt"].decode()
    wrong = int((drawn_back(text, labels.shape) != labels).sum())
    assert bool(exported.notes) >= (wrong > 0)
    assert all(f"{wrong / labels.size:.3%}" in note for note in exported.notes)


def test_a_frame_without_classes_has_an_empty_file(tmp_path):
    export_to(tmp_path, labelled_video(tmp_path, [np.full(SIZE, NO_CLASS, np.uint8)]), "yolo", "coco", "cvat")
    assert unzipped(tmp_path / "yolo.zip")["labels/train/00000000.txt"] == b""
    assert json.loads((tmp_path / "coco.json").read_text())["annotations"] == []
    assert (read_cvat(tmp_path / "cvat.zip")["frame_000000"] == NO_CLASS).all()


# --- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.unlink(), "cannot read mask"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "is damaged"),
        (lambda path: PIL.Image.new("L", (9, 8)).save(path), "is 9×8, the video is 71×45"),
        (lambda path: PIL.Image.new("L", SIZE[::-1], 77).save(path), "has the value 77, which is none of 4 classes"),
    ],
)
def test_a_spoiled_mask_leaves_nothing_half_written(tmp_path, spoil, words):
    video = labelled_video(tmp_path, drawn_maps())
    (tmp_path / "coco.json").write_text("earlier")
    spoil(video.masks[3])
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=words):
        export_to(tmp_path, video, "coco", "cvat", "yolo", "video", "areas")
    assert {path.name for path in tmp_path.iterdir()} - {".tfcseg"} == before
    assert (tmp_path / "coco.json").read_text() == "earlier"
    assert not any((tmp_path / ".tfcseg").iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    video = labelled_video(tmp_path, drawn_maps(1))
    (tmp_path / "areas.csv").mkdir()
    with pytest.raises(OutputError, match="cannot write exports to") as caught:
        export_to(tmp_path, video, "areas")
    assert len(str(caught.value).splitlines()) == 1
