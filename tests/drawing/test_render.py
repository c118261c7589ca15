"""Overlays, colour maps, the legend and side-by-side panels."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcseg.drawing.legend import Legend
from tfcseg.drawing.render import class_shares, colorize, overlay, side_by_side
from tfcseg.errors import UsageError
from tfcseg.labels.label_sets import ADE31, NO_CLASS, LabelSet, distinct_palette

PALETTE = ADE31.palette_array()
LINE_FREE = (slice(None), slice(20, None))  # of `blocks`: columns right of the boundary at 16 and its line


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


@pytest.fixture
def blocks():
    """Class 2 in the columns below 16, class 21 from there on."""
    labels = np.full((60, 80), 21, dtype=np.uint8)
    labels[:, :16] = 2
    return labels


def test_colorize_looks_every_label_up():
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colours = colorize(labels, PALETTE).reshape(256, 3)
    assert np.array_equal(colours[:32], PALETTE)
    assert not colours[32:].any()


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.35, 0.55, 0.9, 1.0])
def test_overlay_is_the_blend_rounded_to_the_nearest_integer(image, blocks, alpha):
    out = overlay(image, blocks, PALETTE, alpha=alpha)
    exact = image * (1 - alpha) + PALETTE[21].astype(np.float64) * alpha
    assert out.dtype == np.uint8
    assert np.abs(out - exact)[LINE_FREE].max() <= 0.5 + 1e-3


def test_overlay_at_zero_opacity_is_the_image_lines_included(image, blocks):
    assert np.array_equal(overlay(image, blocks, PALETTE, alpha=0.0), image)


def test_boundary_is_one_dark_pixel_wide_and_absent_inside_regions(blocks):
    gray = np.full((60, 80, 3), 200, dtype=np.uint8)
    out = overlay(gray, blocks, PALETTE).astype(int)
    tints = {tuple(out[30, 0]), tuple(out[30, 79])}
    columns = [x for x in range(80) if tuple(out[30, x]) not in tints]
    assert columns in ([15], [16])
    assert out[30, columns[0]].max() < min(sum(tint) for tint in tints) / 3


def test_boundary_grows_with_the_frame():
    labels = np.zeros((2160, 64), dtype=np.uint8)
    labels = np.broadcast_to(labels[:, :1], (2160, 2200)).copy()
    labels[1000:] = 1
    column = overlay(np.full((2160, 2200, 3), 200, dtype=np.uint8), labels, PALETTE)[:, 50]
    assert (column == 90).all(axis=1).sum() == 2  # 200 · 0.45


def test_hidden_classes_and_no_class_keep_their_pixels(image, blocks):
    blocks[:10] = NO_CLASS
    visible = np.zeros(32, dtype=bool)
    visible[21] = True
    out = overlay(image, blocks, PALETTE, visible=visible)
    kept = (blocks == 2) | (blocks == NO_CLASS)
    assert np.array_equal(out[kept], image[kept])
    assert (out[~kept] != image[~kept]).any(axis=1).mean() > 0.99


def test_a_visible_region_is_outlined_on_every_side():
    gray = np.full((60, 80, 3), 200, dtype=np.uint8)
    labels = np.full((60, 80), NO_CLASS, dtype=np.uint8)
    labels[20:40, 30:60] = 21
    out = overlay(gray, labels, PALETTE)
    dark = (out == 90).all(axis=2)
    expected = labels == 21
    expected[21:39, 31:59] = False
    assert np.array_equal(dark, expected)


def test_overlay_takes_read_only_views_and_leaves_its_arguments_alone(image, blocks):
    view = image[:, ::-1]
    view.flags.writeable = False
    before = view.copy(), blocks.copy()
    flipped = overlay(view, blocks, PALETTE)
    assert np.array_equal(flipped, overlay(np.ascontiguousarray(view), blocks, PALETTE))
    assert np.array_equal(view, before[0])
    assert np.array_equal(blocks, before[1])


def test_overlay_of_the_largest_label_set(image):
    palette = np.array(distinct_palette(255), dtype=np.uint8)
    labels = np.full((60, 80), 254, dtype=np.uint8)
    assert np.array_equal(overlay(image, labels, palette, alpha=1.0)[30, 40], palette[254])


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (16, 16)])
def test_overlay_of_any_size(size):
    labels = np.random.default_rng(1).integers(0, 32, size, dtype=np.uint8)
    assert overlay(np.zeros((*size, 3), dtype=np.uint8), labels, PALETTE).shape == (*size, 3)


@pytest.mark.parametrize("alpha", [-0.1, 1.01, float("nan")])
def test_overlay_refuses_an_impossible_opacity(image, blocks, alpha):
    with pytest.raises(UsageError, match="0 to 1"):
        overlay(image, blocks, PALETTE, alpha=alpha)


def test_class_shares_are_of_all_pixels(blocks):
    blocks[:6] = NO_CLASS
    shares = class_shares(blocks, 32)
    assert shares.shape == (32,)
    assert shares[[2, 21]] == pytest.approx([0.9 * 0.2, 0.9 * 0.8])
    assert shares.sum() == pytest.approx(0.9)


def frame(size=(480, 640), value=128):
    return np.full((*size, 3), value, dtype=np.uint8)


def shares_of(**by_name):
    shares = np.zeros(len(ADE31))
    for name, share in by_name.items():
        shares[ADE31.index(name)] = share
    return shares


def shown_names(legend):
    return [ADE31.names[index] for index in legend.shown]


def test_legend_shows_chips_and_bright_text_in_the_lower_left_corner():
    image = frame()
    Legend(ADE31, (480, 640)).draw(image, shares_of(car=0.3, sky=0.4))
    changed = (image != 128).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 400
    assert columns.max() < 160
    for name in ("car", "sky"):
        assert (image == PALETTE[ADE31.index(name)]).all(axis=2).sum() >= 36
    assert (image > 240).all(axis=2).sum() > 20


@pytest.mark.parametrize("value", [0, 255])
def test_legend_text_stands_out_from_any_picture(value):
    image = frame(value=value)
    Legend(ADE31, (480, 640)).draw(image, shares_of(wall=0.9))
    panel = image[image.shape[0] - 20 : image.shape[0] - 10, 30:45].astype(int)
    assert panel.max() - panel.min() > 120


def drawn_rows(legend, **by_name):
    """Where each class is drawn: (top, left) of its chip."""
    image = frame()
    legend.draw(image, shares_of(**by_name))
    found = {}
    for name in by_name:
        rows, columns = np.nonzero((image == PALETTE[ADE31.index(name)]).all(axis=2))
        if rows.size:
            found[name] = (int(rows.min()), int(columns.min()))
    return found


def test_legend_lists_classes_in_class_order_whatever_their_share():
    legend = Legend(ADE31, (480, 640))
    rows = drawn_rows(legend, car=0.5, sky=0.1, tree=0.3)
    assert sorted(rows, key=rows.get) == shown_names(legend) == ["sky", "tree", "car"]


@given(st.lists(st.dictionaries(st.integers(0, 9), st.floats(0, 0.1)), min_size=1, max_size=12))
def test_legend_lists_what_is_seen_and_nothing_else(frames):
    legend = Legend(ADE31, (480, 640))
    for found in frames:
        shares = np.zeros(len(ADE31))
        shares[list(found)] = list(found.values())
        legend.draw(frame(), shares)
        assert set(np.flatnonzero(shares > 0.0002)) <= set(legend.shown) <= set(np.flatnonzero(shares))


def test_legend_rows_stay_where_they_are_when_others_come_and_go():
    legend = Legend(ADE31, (480, 640))
    before = drawn_rows(legend, sky=0.5, tree=0.3, car=0.005)
    without = drawn_rows(legend, sky=0.5, car=0.005)
    assert without == {name: before[name] for name in ("sky", "car")}
    more = drawn_rows(legend, sky=0.5, car=0.005, person=0.005, tree=0.3)
    assert {name: more[name] for name in before} == before
    assert more["person"] not in before.values()


def test_legend_gives_the_place_of_a_class_that_left_for_long_to_another():
    legend = Legend(ADE31, (480, 640))
    before = drawn_rows(legend, sky=0.5, tree=0.3)
    for _ in range(40):
        drawn_rows(legend, sky=0.5)
    assert drawn_rows(legend, sky=0.5, person=0.2)["person"] == before["tree"]


def test_legend_always_names_chosen_classes():
    legend = Legend(ADE31, (480, 640), [ADE31.index("person"), ADE31.index("car")])
    assert drawn_rows(legend, car=0.5).keys() == {"car"}
    assert shown_names(legend) == ["person", "car"]
    image = frame()
    Legend(ADE31, (480, 640), [ADE31.index("person")]).draw(image, shares_of())
    assert (image != 128).any()


def test_legend_has_room_for_every_class_of_a_crowded_picture():
    legend = Legend(ADE31, (720, 1280))
    image = frame((720, 1280))
    legend.draw(image, np.full(len(ADE31), 1 / len(ADE31)))
    assert len(legend.shown) == len(ADE31)
    assert all((image == colour).all(axis=2).any() for colour in PALETTE)


def test_legend_keeps_the_largest_classes_when_there_are_too_many():
    legend = Legend(ADE31, (180, 200))
    legend.draw(frame((180, 200)), np.linspace(0.02, 0.04, len(ADE31)))
    count = len(legend.shown)
    assert 4 < count < len(ADE31)
    assert legend.shown == tuple(range(len(ADE31) - count, len(ADE31)))
    legend.draw(frame((180, 200)), np.linspace(0.1, 0.001, len(ADE31)))
    assert legend.shown == tuple(range(count))


def test_legend_goes_on_as_before():
    shares = [shares_of(sky=0.5, car=0.1), shares_of(sky=0.5), shares_of(sky=0.5, person=0.1, car=0.1)]
    whole, first = Legend(ADE31, (480, 640)), Legend(ADE31, (480, 640))
    for each in shares[:2]:
        whole.draw(frame(), each)
        first.draw(frame(), each)
    second = Legend(ADE31, (480, 640))
    second.restore(json.loads(json.dumps(first.state())))
    pictures = [frame(), frame()]
    for legend, picture in zip((whole, second), pictures, strict=True):
        legend.draw(picture, shares[2])
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (60, 640), (480, 90)])
def test_frames_too_small_for_text_get_no_legend(size):
    image = frame(size)
    Legend(ADE31, size).draw(image, shares_of(sky=1.0))
    assert (image == 128).all()


@pytest.mark.parametrize("size", [(140, 160), (144, 176), (200, 4000), (1080, 608)])
def test_legend_fits_frames_of_unusual_shape(size):
    image = frame(size)
    Legend(ADE31, size).draw(image, np.full(len(ADE31), 1 / len(ADE31)))
    rows, columns = np.nonzero((image != 128).any(axis=2))
    assert rows.min() >= size[0] // 2 - 20
    assert 0 < columns.max() < size[1]


def test_legend_cuts_long_names_and_survives_hostile_ones():
    names = ("tunnel or underpass " * 20, "two\nlines\x00\x1b[31m", "日本語 été", " ")
    label_set = LabelSet("odd", names, distinct_palette(4))
    image = frame()
    Legend(label_set, (480, 640)).draw(image, np.full(4, 0.25))
    rows, columns = np.nonzero((image != 128).any(axis=2))
    assert columns.max() <= 330
    assert rows.max() - rows.min() < 5 * 18  # four rows: no name takes two


def test_side_by_side_keeps_the_pixels_and_adds_titles():
    left, right = frame(value=40), frame(value=200)
    out = side_by_side([left, right], ["source", ""])
    assert out.shape[0] == 480
    assert (out[:, -640:] == 200).all()
    assert (out[100:, :640] == 40).all()
    assert (out[:40, :100] > 220).any()


def test_side_by_side_of_tiny_frames_has_no_titles():
    tiny = frame((16, 16))
    out = side_by_side([tiny, tiny], ["a", "b"])
    assert np.array_equal(out[:, :16], tiny)
    assert np.array_equal(out[:, -16:], tiny)
