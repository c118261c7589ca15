"""report.html without a browser: what is in it, how large it gets, and that nothing from outside becomes markup."""

import base64
import hashlib
import itertools
import math
import os
import re
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.page_fixture import (
    HOSTILE,
    NAMES,
    PALETTE,
    RATE,
    Page,
    make_report,
    record,
    rows_of,
    scenes,
    sure_of,
)
from tfcseg.drawing.render import class_shares, overlay
from tfcseg.errors import OutputError
from tfcseg.report.html import relative_url, shown_number, shown_percent, shown_time
from tfcseg.report.moments import Moment, MomentPool, greatest_moments
from tfcseg.report.page import write_page
from tfcseg.report.player import SERIES, ThinnedSeries
from tfcseg.report.recorder import PageRecorder
from tfcseg.report.schema import FrameRow, SteadyFacts
from tfcseg.spelling import visible

# ------------------------------------------------------------------------------------------------------- thinning


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=150),
    st.integers(1, 8),
)
def test_thinning_keeps_the_extremes_of_every_bucket(values, columns):
    thinned = ThinnedSeries(1, columns)
    for value in values:
        thinned.add([value])
    assert len(thinned.low) == len(thinned.high) == len(thinned.mean) <= 2 * columns
    assert len(thinned.low) == math.ceil(len(values) / thinned.frames_per_bucket)
    for bucket in range(len(thinned.low)):
        start = bucket * thinned.frames_per_bucket
        inside = [value for value in values[start : start + thinned.frames_per_bucket] if value is not None]
        if inside:
            assert thinned.low[bucket, 0] == min(inside)
            assert thinned.high[bucket, 0] == max(inside)
            assert thinned.mean[bucket, 0] == pytest.approx(sum(inside) / len(inside))
        else:
            assert np.isnan([thinned.low[bucket, 0], thinned.high[bucket, 0], thinned.mean[bucket, 0]]).all()


def test_short_series_are_not_thinned():
    thinned = ThinnedSeries(2, 4)
    for index in range(8):
        thinned.add([index, None])
    assert thinned.frames_per_bucket == 1
    assert thinned.low[:, 0].tolist() == thinned.high[:, 0].tolist() == list(range(8))
    thinned.add([100, 1])
    assert thinned.frames_per_bucket == 2
    assert thinned.high[:, 0].tolist() == [1, 3, 5, 7, 100]
    assert np.isnan(thinned.high[:4, 1]).all()
    assert thinned.high[4, 1] == 1


def test_a_single_peak_among_fifty_thousand_frames_is_on_the_page(tmp_path):
    recorder = PageRecorder(PALETTE, RATE)
    frames, peak = 50_000, 31_415
    for index in range(frames):
        recorder.timeline.add([0.9 if index == peak else 0.01, 1.0, None, None, None, index % 4 == 0])
        recorder.shares.add(np.full(len(NAMES), 0.2))
    write_page(tmp_path / "report.html", make_report(), recorder)
    data = Page(tmp_path / "report.html").data
    series = data["lanes"][0]["series"][0]
    assert data["frames"] == frames
    assert series["high"][peak // data["bucket"]] == 0.9
    assert sorted(set(series["high"])) == [0.01, 0.9]
    assert set(series["low"]) == {0.01}


# -------------------------------------------------------------------------------------------------------- moments


def moment(index, change):
    return Moment(index, change, (), {})


def pooled(values, rate=RATE):
    pool = MomentPool(rate)
    for index, value in enumerate(values):
        pool.offer(index, value, lambda index=index, value=value: moment(index, value))
    return pool


@pytest.mark.parametrize("seconds", [4, 5, 20, 300])
def test_ten_moments_are_found_and_the_greatest_is_among_them(seconds):
    values = np.random.default_rng(seconds).random(int(seconds * RATE))
    found = pooled(values).greatest(10)
    assert len(found) == 10
    assert max(values) in [item.share for item in found]
    assert [item.index for item in found] == sorted(item.index for item in found)
    if seconds >= 20:
        assert all(b.index - a.index >= RATE for a, b in itertools.pairwise(found))


def test_the_moments_of_a_long_video_are_those_that_a_search_in_all_of_it_finds():
    values = np.random.default_rng(0).random(9000) * 0.01
    spikes = np.arange(450, 9000, 450)
    values[spikes] = np.linspace(0.5, 0.9, len(spikes))
    times_s = np.arange(len(values)) / float(RATE)
    expected = greatest_moments(times_s, values, count=10, apart_s=1.0)
    assert [item.index for item in pooled(values).greatest(10)] == expected == spikes[-10:].tolist()


def test_rising_changes_do_not_push_each_other_out():
    values = np.linspace(0.001, 1, int(60 * RATE))
    found = pooled(values).greatest(10)
    assert len(found) == 10
    assert found[-1].index == len(values) - 1


def test_pictures_are_drawn_only_of_frames_that_are_kept():
    values = np.random.default_rng(1).random(20_000)
    drawn = []
    pool = MomentPool(Fraction(25))
    for index, value in enumerate(values):
        pool.offer(index, value, lambda index=index, value=value: drawn.append(index) or moment(index, value))
    assert len(pool.held()) <= 32
    assert len(drawn) < 0.01 * len(values)


def test_frames_that_do_not_change_are_no_moments():
    assert pooled([0.0] * 500).greatest(10) == []


@pytest.mark.parametrize("has_flow", [True, False])
def test_cuts_are_no_unstable_moments(tmp_path, has_flow):
    recorder = PageRecorder(PALETTE, RATE)
    for row, (image, labels) in zip(rows_of(9), scenes(9), strict=True):
        change = {0: None, 4: 1.0, 8: 0.5}.get(row.frame, 0.0)
        shown = replace(
            row, label_change=change, flow_consistency=0.5 if has_flow and row.frame not in (0, 4) else None
        )
        is_cut = has_flow and row.frame == 4
        recorder.add(shown, class_shares(labels, len(NAMES)), image, labels, is_cut=is_cut)
    assert indices(recorder) == ([8] if has_flow else [4, 8])
    assert np.nanmax(recorder.timeline.high[:, SERIES.index("label_change")]) == (0.5 if has_flow else 1)
    report = make_report()
    cuts = 1 if has_flow else None
    write_page(tmp_path / "a.html", replace(report, stability=replace(report.stability, cuts=cuts)), recorder)
    text = Page(tmp_path / "a.html").text
    assert ("change class (1 cut left out)." in text) == ("frame to frame (1 cut left out)" in text) == has_flow


def test_a_still_picture_is_one_doubtful_moment():
    recorder = PageRecorder(PALETTE, RATE)
    image, labels = next(scenes(1))
    for row in rows_of(60):
        still = replace(row, label_change=0.0 if row.frame % 30 else row.label_change, unsure=0.5)
        recorder.add(still, class_shares(labels, len(NAMES)), image, labels, sure_of(0))
    assert [each.index for each in recorder.greatest("doubt")] == [0, 30]


def jpeg_of(url):
    start, _, data = url.partition(",")
    assert start == "data:image/jpeg;base64"
    return base64.b64decode(data)


def test_moments_show_what_changed():
    recorder = PageRecorder(PALETTE, RATE)
    before, after = np.zeros((48, 64), np.uint8), np.zeros((48, 64), np.uint8)
    after[:12], after[12:16] = 3, 1
    image = np.full((48, 64, 3), 128, np.uint8)
    for index, labels in enumerate((before, after)):
        row = FrameRow(index, 0.0, False, None, None, float((before != labels).mean()) if index else None, None, None)
        recorder.add(row, class_shares(labels, len(NAMES)), image, labels)
    (drawn,) = recorder.greatest("moment")
    assert drawn.index == 1
    assert drawn.changes == [(0, 3, 12 / 48), (0, 1, 4 / 48)]
    source, tinted, retinted, changed = (
        cv2.imdecode(np.frombuffer(jpeg_of(picture), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        for picture in drawn.pictures.values()
    )
    assert source.shape == image.shape
    assert np.abs(source - 128).max() < 4
    for shown, labels in ((tinted, before), (retinted, after)):
        wanted = overlay(image, labels, PALETTE, alpha=0.65)
        middle = np.s_[3:9, 20:40], np.s_[20:40, 20:40]
        assert all(np.abs(shown[part] - wanted[part]).max() < 12 for part in middle)
    assert (changed[3:13, ..., 0] > changed[3:13, ..., 2] + 100).all()  # red
    assert np.ptp(changed[20:], axis=-1).max() < 12  # gray
    recorder.add(replace(row, frame=2, label_change=0.9), class_shares(before, len(NAMES)), image, before)
    assert indices(recorder) == [2]
    assert recorder.peak_shares[[0, 1, 3]].tolist() == [1, 4 / 48, 12 / 48]
    assert recorder.peak_frames[[0, 1, 3]].tolist() == [0, 1, 1]


# ------------------------------------------------------------------------------------------------- save and restore


def restored_from(folder, palette=PALETTE):
    recorder = PageRecorder(palette, RATE)
    recorder.restore(folder)
    return recorder


def indices(recorder):
    return [moment.index for moment in recorder.greatest("moment")]


def page_of(tmp_path, recorder, name="report.html"):
    write_page(tmp_path / name, make_report(overlay="overlay.mp4", masks="masks"), recorder)
    return (tmp_path / name).read_bytes()


@pytest.mark.parametrize("stop", [0, 1, 2, 59, 60, 200])
def test_a_restored_recorder_goes_on_as_if_nothing_had_happened(tmp_path, stop):
    whole = record(200)
    part = PageRecorder(PALETTE, RATE)
    for row, (image, labels) in itertools.islice(zip(rows_of(200), scenes(200), strict=True), stop):
        part.add(row, class_shares(labels, len(NAMES)), image, labels, sure_of(row.frame))
    part.save(tmp_path)
    restored = restored_from(tmp_path)
    assert restored.frames == stop
    record(200, recorder=restored, first=stop)
    assert indices(restored) == indices(whole)
    assert page_of(tmp_path, restored) == page_of(tmp_path, whole)
    restored.save(tmp_path)
    (tmp_path / "whole").mkdir()
    whole.save(tmp_path / "whole")
    with np.load(tmp_path / "page.npz") as one, np.load(tmp_path / "whole" / "page.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])


def test_restoring_across_a_merge_of_buckets_and_slots(tmp_path):
    def feed(recorder, frames):
        image = np.zeros((8, 8, 3), np.uint8)
        for row in frames:
            labels = np.full((8, 8), row.frame % 2, np.uint8)
            recorder.add(row, class_shares(labels, len(NAMES)), image, labels)
        return recorder

    frames = list(rows_of(5000))
    whole = feed(PageRecorder(PALETTE, RATE), frames)
    feed(PageRecorder(PALETTE, RATE), frames[:2047]).save(tmp_path)
    restored = feed(restored_from(tmp_path), frames[2047:])
    assert restored.timeline.frames_per_bucket == 4
    assert indices(restored) == indices(whole)
    assert page_of(tmp_path, restored) == page_of(tmp_path, whole)


@pytest.mark.parametrize("damage", ["missing", "cut", "zeroed", "empty"])
def test_damaged_state_is_refused_in_one_line(tmp_path, damage):
    record(30).save(tmp_path)
    path = tmp_path / "page.npz"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        spoilt = {"cut": content[:-300], "zeroed": content[:2000] + bytes(2000) + content[4000:], "empty": b""}
        path.write_bytes(spoilt[damage])
    with pytest.raises(OutputError, match=r"page\.npz.*start") as caught:
        restored_from(tmp_path)
    assert "\n" not in str(caught.value)


def test_state_of_another_model_is_refused(tmp_path):
    record(30).save(tmp_path)
    with pytest.raises(OutputError, match=r"page\.npz"):
        restored_from(tmp_path, PALETTE[:3])


# --------------------------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize(
    ("path", "title"),
    [
        *(("a/walk.mp4", "walk.mp4"), ("udp://@:5010", "udp://@:5010"), (".", "."), ("0", "0")),
        *(("dog/images", "dog/images"), ("more/dog/images/", "dog/images")),
    ],
)
def test_a_page_is_called_by_its_source(tmp_path, monkeypatch, path, title):
    monkeypatch.chdir(tmp_path)
    for folder in ("dog", "more/dog"):
        (tmp_path / folder / "images").mkdir(parents=True)
    write_page(tmp_path / "report.html", make_report(path), record(3))
    assert f"<title>{title}" in (tmp_path / "report.html").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    outputs = {"overlay": "overlay.mp4", "side_by_side": "side_by_side.mp4", "masks": "masks", "report": "report.json"}
    write_page(folder / "report.html", make_report(**outputs), record(60))
    return Page(folder / "report.html")


def test_numbers_are_those_of_the_report(page):
    for text in ("1.23 %", "97.00 %", "5.00 %", "20.2 fps", "12.3 s", "61.2 ms", "3,752,694"):
        assert text in page.text
    assert [view["key"] for view in page.data["views"]] == ["overlay", "side_by_side", "masks"]
    assert page.data["frames"] == 60
    assert page.data["keyframes"] == list(range(0, 60, 4))


@pytest.mark.parametrize(
    ("sides", "keyframes", "shown", "has_threshold"),
    [
        ("one", "fixed", "63: one in 4", True),
        ("both", "fixed", "63: one in 4", False),
        ("past", "fixed", "63: one in 4", False),
        ("both", "adaptive", "63: where the scene has changed", False),
    ],
)
def test_the_page_says_where_keyframes_are(tmp_path, sides, keyframes, shown, has_threshold):
    report = make_report()
    report = replace(report, options=replace(report.options, sides=sides, keyframes=keyframes))
    write_page(tmp_path / "report.html", report, record(5))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"<dt>keyframes</dt><dd><bdi>{shown}</bdi>" in text
    assert ("<dt>threshold</dt>" in text) == has_threshold


def test_series_are_those_of_the_rows(page):
    rows = list(rows_of(60))
    assert {lane["key"] for lane in page.data["lanes"]} == set(SERIES[:5])
    for lane in page.data["lanes"]:
        values = [getattr(row, lane["key"]) for row in rows]
        expected = [None if value is None or math.isnan(value) else pytest.approx(value, abs=1e-5) for value in values]
        assert lane["series"][0]["low"] == expected
        assert lane["series"][0]["high"] is None
    shares = np.array(page.data["shares"]["values"])
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-3)


def test_what_was_not_measured_has_no_lane(tmp_path):
    recorder = PageRecorder(PALETTE, RATE)
    for row, (image, labels) in zip(rows_of(8), scenes(8), strict=True):
        unmeasured = FrameRow(row.frame, row.time_s, True, None, None, row.label_change, None, None)
        recorder.add(unmeasured, class_shares(labels, len(NAMES)), image, labels)
    page_of(tmp_path, recorder)
    assert [lane["key"] for lane in Page(tmp_path / "report.html").data["lanes"]] == ["label_change"]


def test_repeated_frames_are_no_keyframes(tmp_path):
    recorder = PageRecorder(PALETTE, RATE)
    for row, (image, labels) in zip(rows_of(6), scenes(6), strict=True):
        held = replace(row, is_keyframe=row.frame < 4, is_held=row.frame in (1, 2))
        recorder.add(held, class_shares(labels, len(NAMES)), image, labels)
    page_of(tmp_path, recorder)
    assert Page(tmp_path / "report.html").data["keyframes"] == [0, 3]


@pytest.mark.parametrize("frames", [1, 2])
def test_the_shortest_videos_have_pages(tmp_path, frames):
    page_of(tmp_path, record(frames))
    assert Page(tmp_path / "report.html").data["frames"] == frames


def test_the_page_says_how_many_pixels_have_no_class(tmp_path, page):
    assert "no class" not in page.text
    report = make_report()
    write_page(tmp_path / "report.html", replace(report, classes=report.classes[:3]), record(5))
    assert "40.0 % of the pixels have no class." in Page(tmp_path / "report.html").text


def test_without_label_changes_to_measure_there_is_no_word_on_them(tmp_path):
    report = make_report()
    write_page(
        tmp_path / "report.html", replace(report, stability=replace(report.stability, label_change=None)), record(1)
    )
    assert "stable" not in Page(tmp_path / "report.html").text


def test_nothing_is_loaded_from_elsewhere(page):
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.source)
    for address in page.attributes("src") + page.attributes("href"):
        assert address.startswith("data:image/jpeg;base64,") or re.fullmatch(r"[\w.]+", address)
    assert not page.attributes("style")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_policy_lets_only_the_own_script_run(page):
    (policy,) = [found for found in page.attributes("content") if found and "default-src" in found]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    digest = hashlib.sha256(page.scripts[1].encode()).digest()
    assert rules["script-src"] == f"'sha256-{base64.b64encode(digest).decode()}'"
    assert "unsafe" not in policy
    assert len(page.scripts) == 2


def test_every_control_has_a_name_and_every_picture_an_alternative(page):
    for tag, attributes in page.tags:
        if tag == "img":
            assert "alt" in attributes
        if tag == "button" and "link" not in attributes["class"].split() if "class" in attributes else tag == "button":
            assert attributes.get("aria-label")
        if attributes.get("role") == "slider":
            assert {"tabindex", "aria-label", "aria-valuemin", "aria-valuemax", "aria-valuenow"} <= set(attributes)
    assert ("html", {"lang": "en"}) in page.tags


def test_the_source_is_shown_only_if_a_browser_may_play_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "clip.avi"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "out").mkdir()

    def views(path):
        write_page(tmp_path / "out" / "report.html", make_report(path, overlay="overlay.mp4"), record(4))
        return {view["key"]: view for view in Page(tmp_path / "out" / "report.html").data["views"]}

    shown = views("clip.mp4")
    assert list(shown) == ["source", "overlay", "wipe"]
    assert shown["source"]["url"] == "../clip.mp4"
    assert shown["wipe"]["of"] == ["source", "overlay"]
    assert views(str(tmp_path / "clip.mp4"))["source"]["url"] == "../clip.mp4"
    for path in ("clip.avi", "gone.mp4", "-", str(tmp_path)):
        assert list(views(path)) == ["overlay"]


def test_masks_are_shown_as_they_were_given_and_steadied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = replace(make_report(masks="masks"), steady=SteadyFacts("my masks", 255, 2, 0, 0.1, 0.9))
    (tmp_path / "out").mkdir()
    write_page(tmp_path / "out" / "report.html", report, record(2), ["a 0.png", "a 1.png"])
    shown = {view["key"]: view for view in Page(tmp_path / "out" / "report.html").data["views"]}
    assert list(shown) == ["steadied", "given", "masks"]
    assert (shown["steadied"]["kind"], shown["steadied"]["of"]) == ("wipe", ["given", "masks"])
    assert (shown["given"]["url"], shown["masks"]["url"]) == ("../my%20masks", "masks")
    assert shown["given"]["names"] == shown["masks"]["names"] == ["a%200.png", "a%201.png"]


def test_the_page_of_a_long_run_is_small(tmp_path):
    def size_of(frames):
        recorder = record(300)
        for row in rows_of(frames - 300, seed=1):
            recorder.timeline.add([getattr(row, name) for name in SERIES])
            recorder.shares.add(np.full(len(NAMES), 0.2))
        return len(page_of(tmp_path, recorder))

    assert size_of(18_000) < 400_000  # ten minutes, with pictures of a few bytes
    assert size_of(30_000) < 400_000


def test_pictures_of_large_frames_are_small(tmp_path):
    recorder = PageRecorder(PALETTE, RATE)
    for row, (image, labels) in zip(rows_of(2), scenes(2, size=(1080, 1920)), strict=True):
        recorder.add(row, class_shares(labels, len(NAMES)), image, labels)
    (drawn,) = recorder.greatest("moment")
    assert max(len(jpeg_of(picture)) for picture in drawn.pictures.values()) < 120_000


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match=r"report\.html"):
        write_page(tmp_path / "none" / "report.html", make_report(), record(2))
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------------- hostile names


def test_names_from_outside_never_become_markup(tmp_path):
    tame = tuple(f"name {number}" for number in range(len(HOSTILE)))
    palette = np.zeros((len(HOSTILE), 3), np.uint8)
    pages = []
    for names in (tame, HOSTILE):
        recorder = PageRecorder(palette, RATE)
        for row, (image, labels) in zip(rows_of(40), scenes(40), strict=True):
            recorder.add(row, class_shares(labels, len(names)), image, labels * 2)
        write_page(tmp_path / "report.html", make_report(names[0], names, overlay="overlay.mp4"), recorder)
        pages.append(Page(tmp_path / "report.html"))
    expected, found = pages
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in expected.tags]
    assert [sorted(attributes) for _, attributes in found.tags] == [
        sorted(attributes) for _, attributes in expected.tags
    ]
    assert found.scripts[1] == expected.scripts[1]
    assert found.data == expected.data
    assert not set("\u2028\u2029\u202e\x1b") & set(found.source)
    for name in HOSTILE:
        assert " ".join(visible(name).split()) in found.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Straße 映像 🎬", "Straße 映像 🎬"),
        ("a\nb\tc\x00\x7f", "a b c\\x00\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("العربية", "العربية"),
        ("\u2028", ""),
        (os.fsdecode(b"\xff.mp4"), "\\udcff.mp4"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
    ],
)
def test_text_from_outside_stays_on_its_line(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("javascript:alert(1).mp4", "javascript%3Aalert%281%29.mp4"),
        ('"><b>.mp4', "%22%3E%3Cb%3E.mp4"),
        ("a b#c?d%20.mp4", "a%20b%23c%3Fd%2520.mp4"),
        (os.fsdecode(b"\xff.mp4"), "%FF.mp4"),
    ],
)
def test_addresses_are_paths_and_nothing_else(tmp_path, name, url):
    assert relative_url(str(tmp_path / name), tmp_path) == url


def test_numbers_for_people():
    assert [shown_percent(share) for share in (None, math.nan, 0.0, 0.00001, 0.012345, 1.0)] == [
        *("–", "–"),
        *("0.00 %", "<0.01 %", "1.23 %", "100.00 %"),
    ]
    assert [shown_number(speed, 1, "fps") for speed in (None, 0, 0.03, 1234.5)] == [
        *("–", "0.0 fps", "<0.1 fps", "1,234.5 fps"),
    ]
    assert [shown_time(seconds) for seconds in (0, 59.999, 61.5)] == ["0:00.00", "1:00.00", "1:01.50"]
