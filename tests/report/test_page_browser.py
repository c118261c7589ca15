"""Pages of real runs in a real browser: what they show, what clicks and keys do, how fast they open."""

import csv
import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import tfcseg
from tests.helpers.browser import Browser
from tests.helpers.media import read_number, write_clip, write_video
from tests.helpers.page_fixture import HOSTILE, PALETTE, RATE, make_report, record
from tests.helpers.tiny_model import NAMES, build_tiny_model, moving_images
from tests.helpers.vspw_fixture import make_vspw
from tfcseg.comparison.compare import compare_video
from tfcseg.comparison.plan import Plan
from tfcseg.evaluation.evaluate import evaluate
from tfcseg.evaluation.predictions import Predictions
from tfcseg.evaluation.result import write_evaluation
from tfcseg.evaluation.vspw import VspwVideo
from tfcseg.labels.label_sets import LabelSet
from tfcseg.media.masks import read_mask, write_mask
from tfcseg.report.page import write_page
from tfcseg.report.player import SERIES
from tfcseg.runs.options import ResultOptions

FRAMES = 40
SIZE = (46, 70)
CLIP_NAME = "<img src=x onerror=hacked()> \"quoted' & 100% \u202e.mp4"


ActionChains = pytest.importorskip("selenium.webdriver.common.action_chains").ActionChains


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    images = moving_images(FRAMES, SIZE)
    images[25:28] = [np.ascontiguousarray(image[::-1]) for image in images[25:28]]  # something to find
    return write_video(tmp_path_factory.mktemp("clip") / CLIP_NAME, images, rate="20")


@pytest.fixture(scope="module")
def model():
    """Tiny network whose classes have names that nobody should trust."""
    tiny = build_tiny_model()
    labels = LabelSet("street", HOSTILE[: len(NAMES)], tiny.labels.palette)
    card = dataclasses.replace(tiny.card, labels=labels, name=HOSTILE[6], description=HOSTILE[1], licence=HOSTILE[0])
    return dataclasses.replace(tiny, card=card)


@pytest.fixture(scope="module")
def out(clip, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "it's <b>100%</b> #1"
    tfcseg.run(clip, folder, model, results=ResultOptions(side_by_side=True))
    return folder


@pytest.fixture(scope="module")
def report(out):
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def rows(out):
    with (out / "frames.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def page(browser, out):
    browser.emulate()
    browser.open(out / "report.html")
    browser.wait(lambda: shown(browser) == ["overlay"] and is_at(browser, "overlay", 0))
    browser.complaints()
    yield browser
    assert browser.complaints() == []
    assert browser.js("return typeof hacked") == "undefined"


def shown(browser):
    return browser.js("return [...document.querySelectorAll('.layer.shown')].map((layer) => layer.dataset.view)")


def frame(browser):
    return int(browser.text("#frame"))


def is_at(browser, view, wanted):
    """Whether the video of ``view`` shows frame ``wanted``."""
    script = "const video = document.querySelector(`video[data-view=${arguments[0]}]`);" + (
        "return [video.readyState >= 2 && !video.seeking, video.currentTime]"
    )
    is_ready, time_s = browser.js(script, view)
    return is_ready and min(int(time_s * 20), FRAMES - 1) == wanted  # at the end a browser may say that it is over


def size_of(browser, view):
    """[width, height] of what an element shows, as the browser has decoded it."""
    return browser.js(
        """
        const layer = document.querySelector(`[data-view=${arguments[0]}]`);
        return [layer.videoWidth || layer.naturalWidth, layer.videoHeight || layer.naturalHeight];
        """,
        view,
    )


def frames_of(browser, selector):
    """Frames to which the elements lead."""
    script = "return [...document.querySelectorAll(arguments[0])].map((item) => Number(item.dataset.seek))"
    return browser.js(script, selector)


def faint_texts(browser):
    """Visible texts, and those of them whose contrast with what is behind them is below 4.5."""
    script = """
        const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = (colour) => rgb(colour).slice(0, 3)
          .map((value) => value / 255)
          .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
          .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
        const ground = (node) => {
          for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (rgb(colour)[3] !== 0) return colour;
          }
          return "rgb(255, 255, 255)";
        };
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        const found = {};
        while (walker.nextNode()) {
          const node = walker.currentNode.parentElement;
          if (!walker.currentNode.textContent.trim() || !node.checkVisibility({ visibilityProperty: true })) continue;
          const [one, other] = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
          found[walker.currentNode.textContent.trim().slice(0, 30)] = (one + 0.05) / (other + 0.05);
        }
        return found;
    """
    contrasts = browser.js(script)
    return list(contrasts), {text: ratio for text, ratio in contrasts.items() if ratio < 4.5}


def assert_legible(browser):
    """In both colour schemes, on a desk and on a phone."""
    for scheme, width in itertools.product(("light", "dark"), (1300, 360)):
        browser.emulate(scheme=scheme, width=width)
        browser.wait(lambda width=width: browser.js("return innerWidth") == width)
        assert browser.js("return document.documentElement.scrollWidth") <= width
        texts, faint = faint_texts(browser)
        assert len(texts) > 30
        assert faint == {}
    browser.emulate()


# --------------------------------------------------------------------------------------------------------- numbers


def test_the_numbers_shown_are_those_of_the_report(page, report):
    def percent(share, digits=2):
        return f"{100 * share:.{digits}f} %"

    stability, speed = report["stability"], report["speed"]
    assert page.text("#figure-label_change b") == percent(stability["label_change"])
    assert page.text("#figure-flow_consistency b") == percent(stability["flow_consistency"])
    assert page.text("#figure-updated_fraction b") in (percent(stability["updated_fraction"]), "<0.01 %")
    assert page.text("#figure-fps b") == f"{speed['fps']:.1f} fps"
    by_share = sorted(report["classes"], key=lambda entry: -entry["share"])
    assert page.count("[data-class]") == len(by_share)
    for number, entry in enumerate(by_share, start=1):
        row = f"[data-class]:nth-child({number})"
        assert page.js("return document.querySelector(arguments[0]).dataset.class", row) == str(entry["index"])
        assert page.text(f"{row} td:nth-child(3)") == percent(entry["share"], 1)


def test_the_values_under_the_playhead_are_those_of_the_frame(page, rows, out):
    for wanted in (0, 7, 39):
        page.js("document.querySelector('#scrubber').focus()")
        page.press("\ue011")  # home
        page.press(*["\ue014"] * wanted)
        assert frame(page) == wanted
        for name in SERIES[:5]:
            text = rows[wanted][name]
            expected = f"{100 * float(text):.2f} %" if text else "–"
            assert page.text(f"[data-lane={name}] .lane-now") in (expected, "<0.01 %")
        labels = read_mask(out / "masks" / f"{wanted:08d}.png")
        for row in page.js("return [...document.querySelectorAll('[data-class]')].map((row) => row.dataset.class)"):
            share = (labels == int(row)).mean()
            found = page.text(f"[data-class='{row}'] .now").removeprefix("<").removesuffix(" %")
            assert float(found) == pytest.approx(100 * share, abs=0.1)


def test_moments_are_where_the_report_says(page, rows):
    moments = page.js(
        "return [...document.querySelectorAll('#moments .moment')].map((item) => Number(item.dataset.seek))"
    )
    changes = [float(row["label_change"] or 0) for row in rows]
    assert int(np.argmax(changes)) in moments
    assert 3 <= len(moments) <= 10
    assert page.count("#moments img") == 4 * len(moments)
    widths = page.js("return [...document.querySelectorAll('.moment img')].map((image) => image.naturalWidth)")
    assert set(widths) == {SIZE[1]}
    for number, moment in enumerate(moments, start=1):
        assert page.text(f"#moments li:nth-child({number}) .moment-value") == f"{100 * changes[moment]:.1f} %"


# ---------------------------------------------------------------------------------------------------------- seeking


def test_doubts_are_where_labels_are_likely_wrong(page, rows):
    places = page.js(
        "return [...document.querySelectorAll('#doubts .moment')].map((item) => Number(item.dataset.seek))"
    )
    unsure = [float(row["unsure"]) for row in rows]
    assert int(np.argmax(unsure)) in places
    assert 2 <= len(places) <= 6
    assert page.count("#doubts img") == 3 * len(places)
    for number, place in enumerate(places, start=1):
        assert page.text(f"#doubts li:nth-child({number}) .moment-value") == f"{100 * unsure[place]:.1f} %"
    assert page.text("#figure-confidence b") == f"{100 * np.mean([float(row['confidence']) for row in rows]):.1f} %"


def test_a_click_on_the_timeline_seeks_the_video(page):
    for share, wanted in ((0.51, 20), (0.26, 10), (0.99, 39)):
        page.click("#timeline", x=share)
        assert frame(page) == wanted
        page.wait(lambda wanted=wanted: is_at(page, "overlay", wanted))
        left = page.js("return parseFloat(document.querySelector('.playhead').style.left)")
        assert left == pytest.approx(100 * (wanted + 0.5) / FRAMES)
    assert page.js("return document.querySelector('#scrubber').getAttribute('aria-valuenow')") == "39"


def test_the_pointer_over_the_timeline_tells_the_values_there(page, rows):
    page.click("#timeline", x=0.26)
    at = page.js("return document.querySelector('#timeline').getBoundingClientRect().width") / FRAMES
    ActionChains(page.driver).move_by_offset(round(10 * at), 0).perform()
    tip = page.text(".tip")
    assert "frame 20" in tip
    assert f"Label change {100 * float(rows[20]['label_change']):.2f} %" in tip
    assert page.js("return getComputedStyle(document.querySelector('.tip')).visibility") == "visible"
    assert frame(page) == 10


def test_keys_move_the_playhead(page):
    steps = (("\ue014", 1), ("\ue014", 2), ("\ue012", 1), ("\ue010", 39), ("\ue014", 39), ("\ue011", 0), ("\ue012", 0))
    for key, wanted in steps:  # right, right, left, end, right, home, left
        page.press(key)
        assert frame(page) == wanted
        page.wait(lambda wanted=wanted: is_at(page, "overlay", wanted))


def test_moments_seek_by_click_and_by_key(page):
    moments = page.js(
        "return [...document.querySelectorAll('#moments .moment')].map((item) => Number(item.dataset.seek))"
    )
    places = frames_of(page, ".moment")
    page.click(".moments li:nth-child(2) .moment")
    assert frame(page) == moments[1]
    page.wait(lambda: is_at(page, "overlay", moments[1]))
    assert page.count("#moments .moment.current") == 1
    page.press("n")
    assert frame(page) == min(place for place in places if place > moments[1])
    page.press("p")
    page.press("p")
    assert frame(page) == max(place for place in places if place < moments[1])


@pytest.mark.parametrize(("width", "height"), [(1300, 757), (390, 700)])
def test_a_click_on_a_moment_leaves_the_video_in_view(page, width, height):
    page.emulate(width=width, height=height)
    page.wait(lambda: page.js("return innerWidth") == width)
    lists = {name: page.count(f"#{name} .moment") for name in ("moments", "doubts")}
    assert all(lists.values())
    for selector in [f"#{name} li:nth-child({number})" for name, many in lists.items() for number in (1, many)]:
        page.click(f"{selector} .moment")
        box = page.js("return document.querySelector('#stage').getBoundingClientRect().toJSON()")
        assert -1 <= box["top"] < box["bottom"] <= height + 1
    page.emulate()


def test_playing_moves_the_playhead_and_space_stops_it(page):
    def set_speed(value):
        page.js("speed.value = arguments[0]; speed.dispatchEvent(new Event('change'))", value)

    def is_playing():
        return page.js("return document.querySelector('#play').getAttribute('aria-label')") == "Pause"

    set_speed("0.1")  # slow enough for tests on a busy machine
    page.press(" ")
    assert is_playing()
    page.wait(lambda: frame(page) >= 3)
    page.press(" ")
    assert not is_playing()
    assert page.js("return document.querySelector('video[data-view=overlay]').paused")
    assert 3 <= frame(page) < FRAMES - 1
    set_speed("2")
    page.click("#play")
    page.wait(lambda: frame(page) == FRAMES - 1 and not is_playing())
    set_speed("0.1")
    page.press(" ")  # from the beginning again
    page.wait(lambda: 0 < frame(page) < FRAMES - 1)
    page.press(" ")
    set_speed("1")


def test_what_is_seen_is_the_frame_that_is_named(browser, tmp_path):
    write_clip(tmp_path / "clip.mp4", 40, size=(96, 128), rate="30000/1001")
    options = ResultOptions(alpha=0.0, legend=False)
    tfcseg.run(tmp_path / "clip.mp4", tmp_path / "out", build_tiny_model(), start_s=0.31, results=options)
    browser.emulate()
    browser.open(tmp_path / "out" / "report.html")
    browser.wait(lambda: shown(browser) == ["overlay"])
    for key, view in (("2", "overlay"), ("1", "source")):
        browser.press(key)
        browser.wait(lambda view=view: shown(browser) == [view])
        for share, wanted in ((0.01, 0), (0.51, 15), (0.31, 9), (0.99, 29)):
            browser.click("#timeline", x=share)
            browser.wait(
                lambda: not browser.js("return [...document.querySelectorAll('video')].some((v) => v.seeking)")
            )
            assert frame(browser) == wanted
            image = browser.screenshot("#stage")
            middle, half = image.shape[1] // 2, image.shape[0] * 128 // 96 // 2  # black at the sides
            assert read_number(image[:, middle - half : middle + half]) == wanted + 10


# -------------------------------------------------------------------------------------------------------- switching


def test_the_switch_shows_source_overlay_masks_and_both(page):
    page.click("#timeline", x=0.51)
    keys = page.js("return [...document.querySelectorAll('input[name=view]')].map((input) => input.value)")
    assert keys == ["source", "overlay", "wipe", "side_by_side", "masks"]
    for key in (*keys, "overlay"):
        page.click(f".switch label:has([value={key}])")
        page.wait(lambda key=key: shown(page) == (["source", "overlay"] if key == "wipe" else [key]))
        assert frame(page) == 20
    for video in ("source", "overlay", "side_by_side"):
        assert is_at(page, video, 20)
    width, height = size_of(page, "side_by_side")
    assert width > 2 * height
    assert size_of(page, "source") == size_of(page, "overlay") == list(SIZE[::-1])


def test_number_keys_switch_too(page):
    for key, expected in (("1", ["source"]), ("5", ["masks"]), ("3", ["source", "overlay"]), ("2", ["overlay"])):
        page.press(key)
        page.wait(lambda expected=expected: shown(page) == expected)
        checked = page.js("return document.querySelector('input[name=view]:checked').value")
        assert checked == ("wipe" if len(expected) == 2 else expected[0])


def test_masks_follow_the_frame(page):
    def mask():
        return page.js("const {src, naturalWidth} = document.querySelector('img.layer'); return [src, naturalWidth]")

    page.press("5")
    for share, wanted in ((0.26, 10), (0.76, 30)):
        page.click("#timeline", x=share)
        page.wait(lambda wanted=wanted: mask()[0].endswith(f"/masks/{wanted:08d}.png") and mask()[1] == SIZE[1])
    assert page.text("#message") == ""


def test_the_wipe_is_divided_where_the_pointer_is(page):
    page.press("3")
    page.wait(lambda: shown(page) == ["source", "overlay"])
    page.point("#stage", x=0.25)
    cut = "return parseFloat(document.querySelector('#stage').style.getPropertyValue('--cut'))"
    assert page.js(cut) == pytest.approx(25, abs=1)
    page.js("document.querySelector('#divider').focus()")
    at = frame(page)
    page.press("\ue014")
    assert page.js(cut) == pytest.approx(30, abs=1)
    assert frame(page) == at


def test_masks_before_and_after_are_wiped(browser, clip, model, tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    for index in range(FRAMES):
        write_mask(given / f"m{index:02d}.png", np.full(SIZE, index % 3, np.uint8))
    tfcseg.steady(clip, given, tmp_path / "out", model, overlay=False)
    (given / "m30.png").unlink()
    browser.open(tmp_path / "out" / "report.html")

    def images():
        script = "return [...document.querySelectorAll('img.shown')].map((image) => image.src.split('/').slice(-2))"
        return browser.js(script)

    browser.click(".switch label:has([value=steadied])")
    browser.wait(lambda: images() == [["given", "m00.png"], ["masks", "m00.png"]])
    browser.click("#timeline", x=0.26)
    browser.wait(lambda: images() == [["given", "m10.png"], ["masks", "m10.png"]])
    browser.wait(lambda: size_of(browser, "given") == size_of(browser, "masks") == list(SIZE[::-1]))
    browser.click("#timeline", x=0.76)
    browser.wait(lambda: "given/m30.png cannot be read" in browser.text("#message"))
    browser.press("\ue014")
    browser.wait(lambda: browser.text("#message") == "")


def test_a_missing_video_is_said_and_the_rest_works(browser, out, tmp_path):
    copy = tmp_path / "moved"
    shutil.copytree(out, copy)
    (copy / "overlay.mp4").unlink()
    (copy / "side_by_side.mp4").write_bytes(b"no video")
    browser.open(copy / "report.html")
    browser.wait(lambda: "Overlay cannot be played" in browser.text("#message"))
    browser.click("#timeline", x=0.51)
    assert frame(browser) == 20
    browser.press("4")
    browser.wait(lambda: "Side by side cannot be played" in browser.text("#message"))
    browser.press("5")
    browser.wait(lambda: browser.text("#message") == "")
    browser.press(" ")  # masks play by a timer
    browser.wait(lambda: frame(browser) > 22)
    browser.press(" ")


@pytest.mark.parametrize("copies", [True, False])
def test_the_source_plays_after_the_folder_was_passed_on(browser, clip, model, tmp_path, copies):
    options = ResultOptions(copy_source=copies, masks=False, frames_csv=False)
    shutil.copy(clip, tmp_path / "clip.mp4")
    tfcseg.run(tmp_path / "clip.mp4", tmp_path / "out", model, start_s=0.2, end_s=1, results=options)
    (tmp_path / "elsewhere").mkdir()
    browser.open((tmp_path / "out").rename(tmp_path / "elsewhere" / "out") / "report.html")
    browser.click("#timeline", x=0.51)
    browser.press("1")
    if copies:
        browser.wait(lambda: shown(browser) == ["source"] and is_at(browser, "source", 8))
        assert size_of(browser, "source") == list(SIZE[::-1])
        assert browser.text("#message") == ""
    else:
        browser.wait(lambda: "../clip.mp4 is missing" in browser.text("#message"))
        assert "--copy-source" in browser.text("#message")


@pytest.mark.parametrize("width", [1300, 360])
def test_names_of_classes_are_not_broken(page, width):
    page.emulate(width=width)
    page.wait(lambda: page.js("return innerWidth") == width)
    name = "television receiver handrail_or_fence"
    page.js("document.querySelector('[data-class] bdi').textContent = arguments[0]", name)
    lines = page.js(
        """
        const text = document.querySelector('[data-class] bdi').firstChild;
        return text.data.split(" ").map((word) => {
          const range = document.createRange(), start = text.data.indexOf(word);
          range.setStart(text, start);
          range.setEnd(text, start + word.length);
          return range.getClientRects().length;
        });
        """
    )
    assert lines == [1, 1, 1]
    page.emulate()
    page.open(Path(unquote(page.js("return location.pathname"))))


def test_a_run_with_masks_only_has_a_page(browser, clip, model, tmp_path):
    options = ResultOptions(overlay=False, frames_csv=False)
    tfcseg.run(clip, tmp_path / "out", model, end_s=0.5, results=options)
    (tmp_path / "out" / "masks" / "00000003.png").unlink()
    browser.open(tmp_path / "out" / "report.html")
    browser.press("2")
    browser.wait(lambda: shown(browser) == ["masks"])
    browser.press("\ue014", "\ue014", "\ue014")
    browser.wait(lambda: "00000003.png cannot be read" in browser.text("#message"))
    browser.press("\ue014")
    browser.wait(lambda: browser.text("#message") == "")
    assert frame(browser) == 4


# ------------------------------------------------------------------------------------------ everywhere, for everybody


def test_names_from_outside_are_shown_as_they_are(page, report):
    assert page.text("h1") == CLIP_NAME.replace("\u202e", r"\u202e")
    names = page.js("return [...document.querySelectorAll('[data-class] bdi')].map((name) => name.textContent)")
    assert set(names) <= {*HOSTILE[:4], r"line break and\x1b[31m"}
    assert len(names) == len(report["classes"])
    assert page.count("img[src=x]") == 0
    assert page.count("script") == 2
    source = page.js("return document.querySelector('video[data-view=source]').getAttribute('src')")
    assert unquote(source).endswith(CLIP_NAME)


def test_only_files_beside_the_page_are_asked_for(page, out):
    page.driver.get_log("performance")
    page.open(out / "report.html")
    messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    urls = [item["params"]["request"]["url"] for item in messages if item["method"] == "Network.requestWillBeSent"]
    assert len(urls) >= 4
    assert {url.partition(":")[0] for url in urls} <= {"file", "data"}


def test_the_policy_stops_what_found_its_way_in(browser, out):
    browser.open(out / "report.html")
    browser.js(
        """
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "https://example.org/x.png";
        document.body.append(image);
        """
    )
    browser.wait(lambda: len([text for text in browser.complaints() if "Content Security Policy" in text]) >= 1)
    assert browser.js("return window.hacked") is None


def test_text_is_legible_and_nothing_sticks_out(page):
    assert_legible(page)


def test_every_control_is_reached_by_tab_and_shows_its_focus(page):
    page.js("document.activeElement.blur()")
    reached = []
    for _ in range(16):
        page.press("\ue004")
        reached.append(page.js("return document.activeElement.id || document.activeElement.name || ''"))
        assert page.js(
            """
            const focused = document.activeElement;
            const outlines = [focused, focused.nextElementSibling].filter(Boolean).map((e) => getComputedStyle(e));
            return outlines.some((style) => style.outlineStyle === "solid" && parseFloat(style.outlineWidth) >= 2);
            """
        ), reached
    assert {"play", "view", "speed", "scrubber"} <= set(reached)


def test_the_page_of_ten_minutes_opens_in_two_seconds(browser, tmp_path):
    recorder = record(300)
    rng = np.random.default_rng(0)
    for index, values in enumerate(rng.random((17_700, 5)), start=300):
        recorder.timeline.add([*values, index % 3 == 0])
        recorder.shares.add(rng.dirichlet(np.ones(len(PALETTE))))
    write_page(tmp_path / "report.html", make_report(), recorder)
    script = "return [performance.getEntriesByType('navigation')[0].loadEventEnd, JSON.parse(data.textContent).frames]"
    times_ms = []
    for _ in range(2):  # the best: others may be using this machine
        browser.open(tmp_path / "report.html")
        browser.wait(lambda: browser.js(script)[0] > 0)
        time_ms, frames = browser.js(script)
        times_ms.append(time_ms)
    assert frames == 600 * RATE
    assert min(times_ms) < 2000


# -------------------------------------------------------------------------------------------------- eval and compare


def test_the_page_of_an_evaluation(browser, tmp_path):
    root = make_vspw(tmp_path / "<b>data", {"0_<i>hills": 10, "1_road": 9})

    def predict(video: VspwVideo):
        for number, item in enumerate(video.frames):
            labels = read_mask(item.mask)
            labels[:, : number + 1] = 3  # a stripe that grows
            yield np.where((labels == 0) | (labels == 255), 255, labels - 1).astype(np.uint8)

    result = evaluate(root, Predictions(predict))
    write_evaluation(tmp_path / "out", result)
    browser.emulate()
    browser.open(tmp_path / "out" / "eval.html")
    assert browser.text("h1") == "<b>data"
    assert browser.text("#figure-miou b") == f"{result.miou:.1f} %"
    assert browser.text("#figure-vc8 b") == f"{result.vc8:.1f} %"
    counted = [score for score in result.classes if score.target_pixels]
    assert browser.count("[aria-labelledby=classes-title] tbody tr") == len(counted)
    best = max(counted, key=lambda score: score.iou)
    assert browser.text("[aria-labelledby=classes-title] tbody td .num") == f"{best.iou:.1f} %"
    worst = min(result.per_video, key=lambda score: score.miou)
    assert browser.text("[aria-labelledby=videos-title] tbody th") == worst.name
    assert browser.count(".matrix .right") == len(counted)
    assert browser.text("[aria-labelledby=worst-title] .moment-head bdi") == "0_<i>hills, frame 00000175"
    assert browser.count("[aria-labelledby=worst-title] img") == 2 * 4
    browser.wait(lambda: browser.js("return document.querySelector('.moment img').naturalWidth") > 0)
    assert_legible(browser)
    assert browser.complaints() == []
    assert browser.count("b > b, h1 i, th i") == 0


def test_the_page_of_a_comparison(browser, clip, tmp_path):
    result = compare_video(clip, tmp_path / "out", build_tiny_model(), Plan(modes=("image", "tfc")), end_s=1.5)
    browser.emulate()
    browser.complaints()
    browser.open(tmp_path / "out" / "compare.html")
    browser.wait(lambda: shown(browser) == ["image", "tfc"])
    keys = browser.js("return [...document.querySelectorAll('input[name=view]')].map((input) => input.value)")
    assert keys == ["source", "image", "tfc", "wipe", "side_by_side"]
    for mode, column in (("image", 2), ("tfc", 3)):
        for key in ("label_change", "flow_consistency"):
            assert browser.text(f"#metric-{key} :nth-child({column})") == f"{result.modes[mode][key]:.2f} %"
    with (tmp_path / "out" / "tfc" / "frames.csv").open(newline="") as file:
        changes = [row["label_change"] for row in csv.DictReader(file)]
    browser.click("#timeline", x=0.51)
    assert frame(browser) == 15
    browser.wait(lambda: is_at(browser, "tfc", 15) and is_at(browser, "image", 15))
    text = browser.text("[data-lane=label_change] .lane-value.series-tfc .lane-now")
    assert text == f"{100 * float(changes[15]):.2f} %"
    browser.click(".moment")
    assert frame(browser) == result.differences[0].frame
    browser.wait(lambda: browser.js("return document.querySelector('.moment img').naturalWidth") > 0)
    assert Path(tmp_path / "out" / "tfc" / "report.html").is_file()
    assert browser.count("a[href='tfc/report.html']") == 1
    assert_legible(browser)
    assert browser.complaints() == []
