"""Colours of label sets."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tfcseg.labels.label_sets import _SCENE_COLOURS, ADE31, SCENES

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
