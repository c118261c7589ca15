"""Tables of names between label sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tfcseg.errors import DataError
from tfcseg.labels.label_sets import (
    ADE31,
    ADE150,
    CITYSCAPES19,
    COCO133,
    FACADES8,
    KNOWN_NAMES,
    MSRC23,
    SCENES,
    VOC21,
    VSPW,
    LabelSet,
    built_in_label_map,
    built_in_maps,
    distinct_palette,
    merged_classes,
    merged_names,
    name_table,
    read_label_map,
)

DATA_SETS = ("vspw", "ade150", "cityscapes19", "voc21", "coco133", "msrc23", "facades8")


def label_set(names: tuple[str, ...], name: str = "mine") -> LabelSet:
    return LabelSet(name, names, distinct_palette(len(names)))


def counterparts_of(source, target):
    return {name: found for name, found in built_in_maps()[source, target].items() if found}


def test_name_lists_are_complete():
    assert [len(names) for names in (VSPW, CITYSCAPES19, VOC21, ADE150)] == [124, 19, 21, 150]
    assert [len(names) for names in (COCO133, MSRC23, FACADES8)] == [133, 23, 8]
    assert all(len(set(names)) == len(names) for names in KNOWN_NAMES.values())
    assert ADE150[:31] == ADE31.names[1:]
    assert (VSPW[0], VSPW[60], VSPW[123]) == ("wall", "person", "train")


@pytest.mark.parametrize(("source", "target"), built_in_maps())
def test_built_in_maps_name_classes_of_both_sets(source, target):
    label_map = counterparts_of(source, target)
    table = name_table(label_set(KNOWN_NAMES[source]), label_set(KNOWN_NAMES[target]), label_map)
    assert (table >= 0).sum() == len(label_map) > 0
    same_name = set(KNOWN_NAMES[source]) & set(KNOWN_NAMES[target])
    assert all(label_map[name] == name for name in same_name)


def test_our_label_set_has_the_counterparts_one_expects():
    to_vspw = built_in_label_map(ADE31, label_set(VSPW))
    assert set(ADE31.names) - set(to_vspw) == {"other"}
    assert to_vspw["sidewalk"] == "path"
    assert to_vspw["armchair"] == to_vspw["chair"] == "chair_or_seat"
    assert built_in_label_map(ADE31, label_set(CITYSCAPES19))["house"] == "building"
    assert built_in_label_map(ADE31, label_set(VOC21))["wall"] == "background"
    assert built_in_label_map(ADE31, label_set(ADE150))["rug"] == "rug"


@pytest.mark.parametrize(("source", "target"), built_in_maps())
def test_no_class_of_a_model_is_forgotten(source, target):
    """Each has its counterpart, or a row that says that it has none."""
    assert set(built_in_maps()[source, target]) == set(KNOWN_NAMES[source])


@pytest.mark.parametrize("target", DATA_SETS)
@pytest.mark.parametrize("model", [SCENES, ADE31], ids=lambda labels: labels.name)
def test_our_label_sets_have_maps_to_the_public_data_sets(model, target):
    label_map = built_in_label_map(model, label_set(KNOWN_NAMES[target]))
    own = {name: counterpart for name, counterpart in counterparts_of("scenes", target).items() if name in model.names}
    assert label_map == own  # scenes only adds to ade31
    assert len(label_map) >= 8


@pytest.mark.parametrize(
    ("target", "counterparts"),
    [
        (VSPW, {"cow": "cattle", "sheep": "other_animal", "television": "screen_or_television", "train": "train"}),
        (ADE150, {"cat": "animal", "motorcycle": "minibike", "television": "television receiver", "train": None}),
        (CITYSCAPES19, {"house": "building", "motorcycle": "motorcycle", "field": "terrain", "dog": None}),
        (VOC21, {"airplane": "aeroplane", "table": "diningtable", "sea": "background", "bottle": "bottle"}),
        (COCO133, {"sofa": "couch", "wall": "wall-other-merged", "sidewalk": "pavement-merged", "painting": None}),
        (MSRC23, {"person": "body", "sea": "water", "plant": "tree", "sidewalk": "road", "bus": None, "wall": None}),
        (FACADES8, {"grass": "vegetation", "sidewalk": "pavement", "windowpane": "window", "person": None}),
    ],
)
def test_scenes_has_the_counterparts_one_expects(target, counterparts):
    label_map = built_in_label_map(SCENES, label_set(target))
    assert {name: label_map.get(name) for name in counterparts} == counterparts
    assert "other" not in label_map or target == VOC21


@pytest.mark.parametrize("target", [COCO133, MSRC23, FACADES8])
def test_the_voc_teacher_and_scenes_call_the_same_things_the_same(target):
    """What both know ends in one class of the data set, once its finer classes are merged."""
    by_scenes = built_in_label_map(SCENES, label_set(target))
    in_scenes = {
        name: ours for ours, name in built_in_label_map(SCENES, label_set(VOC21)).items() if ours != "armchair"
    }
    merged = merged_classes(label_set(target))
    for name, counterpart in built_in_label_map(label_set(VOC21), label_set(target)).items():
        ours = by_scenes[in_scenes[name]]
        assert merged.get(ours, ours) == merged.get(counterpart, counterpart)


@pytest.mark.parametrize("target", merged_names())
def test_finer_classes_merge_into_one_that_is_not_merged_itself(target):
    names = label_set(KNOWN_NAMES[target])
    merged = merged_classes(names)
    assert merged == merged_names()[target]
    assert set(merged) | set(merged.values()) <= set(names.names)
    assert not set(merged) & set(merged.values())
    reachable = {merged.get(name, name) for name in counterparts_of("scenes", target).values()}
    assert set(merged.values()) <= reachable  # merged into nothing, they would never be scored


def test_merging_needs_both_classes_and_a_data_set_that_we_know():
    assert merged_classes(label_set(("wall-brick", "wall-other-merged", "sea"))) == {"wall-brick": "wall-other-merged"}
    assert merged_classes(label_set(("wall-brick", "sea"))) == {}
    assert merged_classes(label_set(("face", "body"))) == {}
    assert merged_classes(label_set(VSPW)) == {}


def test_label_sets_are_recognised_by_their_names_in_any_order():
    renamed = label_set(tuple(reversed(ADE31.names)), "whatever")
    assert built_in_label_map(renamed, label_set(VSPW)) == built_in_label_map(ADE31, label_set(VSPW))


def test_equal_names_map_to_themselves():
    names = ("cat", "dog")
    assert built_in_label_map(label_set(names), label_set(names[::-1])) == {"cat": "cat", "dog": "dog"}


def test_a_part_of_a_set_maps_to_its_names_in_the_set_and_the_other_way_round():
    part, all_names = ("gun", "wall"), (*VSPW, "zebra")
    assert built_in_label_map(label_set(part), label_set(VSPW)) == {"gun": "gun", "wall": "wall"}
    assert built_in_label_map(label_set(all_names), label_set(part)) == {"wall": "wall", "gun": "gun"}
    with pytest.raises(DataError, match="no built-in label map"):
        built_in_label_map(label_set(("gun", "zebra")), label_set(VSPW))


def test_a_part_of_vspw_gets_a_part_of_its_map():
    assert built_in_label_map(ADE31, label_set(("path", "sky", "gun"))) == {"sidewalk": "path", "sky": "sky"}
    assert built_in_label_map(SCENES, label_set(("cattle", "gun"))) == {"cow": "cattle"}


def test_a_part_of_coco_gets_a_part_of_its_map():
    assert built_in_label_map(SCENES, label_set(("couch", "dog", "zebra"))) == {"sofa": "couch", "dog": "dog"}


@pytest.mark.parametrize("names", [("sky", "zebra crossing"), ("gun",)])
def test_unknown_sets_need_a_file(names):
    with pytest.raises(DataError, match=r"no built-in label map from label set 'ade31' to 'mine'.*--label-map"):
        built_in_label_map(ADE31, label_set(names))


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_reads_a_label_map(tmp_path):
    path = write(tmp_path / "map.json", {"sky": "sky", "field": "ground", "rug": None})
    assert read_label_map(path, ADE31, label_set(VSPW)) == {"sky": "sky", "field": "ground"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"ski": "sky"}, "no class 'ski' in label set 'ade31'; did you mean sky"),
        ({"sky": "ski"}, "no class 'ski' in label set 'vspw'; did you mean sky"),
        ({"skj": None}, "no class 'skj'"),
        ({"sky": 28}, "'sky' maps to 28; give the name"),
        ({"sky": None}, "maps no class"),
        ({}, "maps no class"),
        (["sky"], "a JSON list"),
    ],
)
def test_label_maps_that_make_no_sense_are_refused(tmp_path, content, message):
    path = write(tmp_path / "map.json", content)
    with pytest.raises(DataError, match=f"map.json: .*{message}"):
        read_label_map(path, ADE31, label_set(VSPW, "vspw"))


def test_label_maps_have_to_be_json(tmp_path):
    path = tmp_path / "map.json"
    with pytest.raises(DataError, match=r"map.json: no such file"):
        read_label_map(path, ADE31, label_set(VSPW))
    path.write_text('{"sky": "sky", "sky": "sea"}')
    with pytest.raises(DataError, match=r"map.json: not valid JSON .*'sky' is given twice"):
        read_label_map(path, ADE31, label_set(VSPW))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"map.json: not valid JSON"):
        read_label_map(path, ADE31, label_set(VSPW))
