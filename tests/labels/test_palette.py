"""Colours of label sets."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tfcseg.errors import UsageError
from tfcseg.labels.label_sets import _SCENE_COLOURS, ADE31, SCENES, LabelSet, read_palette

# CIE L*a*b* (D65) as published calculators give it.
KNOWN = {(255, 0, 0): (53.2, 80.1, 67.2), (0, 0, 255): (32.3, 79.2, -107.9), (255, 255, 255): (100, 0, 0)}


def lab(colours):
    """(K, 3) L*a*b* of (K, 3) sRGB."""
    return cv2.cvtColor(np.array([colours], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]


def test_the_yardstick_is_right():
    assert lab(list(KNOWN)) == pytest.approx(np.array(list(KNOWN.values())), abs=0.2)


def test_any_two_colours_of_scenes_can_be_told_apart():
    points = lab(list(_SCENE_COLOURS.values()))
    difference = np.linalg.norm(points[:, None] - points[None], axis=2)  # ΔE of CIE76
    np.fill_diagonal(difference, np.inf)
    first, second = np.unravel_index(difference.argmin(), difference.shape)
    names = list(_SCENE_COLOURS)
    assert difference.min() >= 20, f"{names[first]} and {names[second]}"


def test_sets_of_scenes_share_colours():
    assert len(ADE31) == 32
    assert SCENES.palette[:32] == ADE31.palette
    assert dict(zip(SCENES.names, SCENES.palette, strict=True)).items() <= _SCENE_COLOURS.items()


# --- palettes of users ---------------------------------------------------------------------------------------------

THREE = LabelSet("three", ("sky", "traffic light", "person"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)))


def test_a_palette_changes_the_colours_of_the_classes_it_names(tmp_path):
    path = tmp_path / "colours.json"
    path.write_text('{"Person": "#0080FF", "traffic light": "0a141e"}', encoding="utf-8")
    changed = read_palette(path, THREE)
    assert changed.names == THREE.names
    assert changed.palette == ((1, 2, 3), (10, 20, 30), (0, 128, 255))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"persn": "#000000"}', "no class 'persn' in label set 'three'; did you mean person?"),
        ('{"person": "red"}', "'red' is not a colour for 'person'; give one such as \"#ff2a48\""),
        ('{"person": [1, 2, 3]}', "is not a colour for 'person'"),
        ('{"person": "#000000", "person": "#ffffff"}', "'person' is given twice"),
        ('{"person"', "not valid JSON"),
    ],
)
def test_a_palette_that_cannot_be_used_is_one_line(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_palette(path, THREE)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_palette_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="none"):
        read_palette(tmp_path / "none.json", THREE)
