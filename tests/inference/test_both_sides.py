"""Keyframes before and after: what the results depend on, and what not."""

import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.tiny_model import build_tiny_model, moving_images
from tfcseg.errors import InputError, UsageError
from tfcseg.inference import both_sides
from tfcseg.inference.both_sides import LEAST_REACH, REACH, reach_for
from tfcseg.inference.engine import IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.inference.intervals import run_intervals, stream
from tfcseg.inference.options import checked_options, in_mode, variant_options
from tfcseg.media.reader import read_frames
from tfcseg.model.evidence import WeightedLogits
from tfcseg.model.options import MODES
from tfcseg.weights.loading import load_model

ROOT = Path(__file__).parents[2]

MODEL = build_tiny_model()
ADAPTIVE = {"sides": "both", "keyframes": "adaptive"}
FIXED = {"sides": "both", "keyframes": "fixed"}
PAST = {"sides": "past", "keyframes": "adaptive", "half_size_share": 0.5, "keyframe_scale": 1.5}


def run(images, *, at_once=1, workers=1, before=None, part=None, model=MODEL, **options):
    network = IntervalNetwork(model, checked_options(model, **options))
    network.workers = workers
    groups = [
        Group(images[first : first + at_once], first, part=1 if first == part else None)
        for first in range(0, len(images), at_once)
    ]
    return [result for _, results in run_intervals(network, groups, before) for result in results]


def keyframes(results):
    return [index for index, result in enumerate(results) if result.is_keyframe]


def assert_same(results, wanted, *, share=1.0):
    for result, other in zip(results, wanted, strict=True):
        assert (result.labels == other.labels).mean() >= share
        assert result.is_keyframe == other.is_keyframe
        assert (result.similarity is None) == result.is_keyframe
        assert result.updated_fraction == pytest.approx(other.updated_fraction, abs=1 - share or 1e-9)


@pytest.fixture(scope="module")
def clip():
    return moving_images(30)


TWO_SIZES = {"half_size_share": 0.5}


@pytest.mark.parametrize(
    "options",
    [FIXED, ADAPTIVE, FIXED | {"keyframe_interval": 3} | TWO_SIZES, ADAPTIVE | TWO_SIZES, PAST],
)
def test_results_depend_neither_on_groups_nor_on_workers(clip, options, torch_threads):
    torch_threads(1)  # rounding may differ with their number
    images = clip[:14]
    wanted = run(images, **options)
    assert len(wanted) == len(images)
    assert_same(run(images, at_once=5, **options), wanted)
    assert_same(run(images, at_once=3, workers=2, **options), wanted)
    assert len(np.unique(wanted[10].labels)) > 2


def test_keyframes_are_fixed_or_where_the_scene_has_changed(clip):
    assert keyframes(run(clip, **FIXED)) == list(range(0, 30, 4))
    still = [clip[0]] * 34
    assert keyframes(run(still, **ADAPTIVE)) == [0, 16, 32]
    assert keyframes(run(still[:17], **ADAPTIVE, keyframe_interval=2)) == [0, 8, 16]
    found = keyframes(run(clip, **ADAPTIVE))
    assert 2 < len(found) < 8
    assert max(np.diff(found)) <= 16


def test_keyframes_of_large_images_are_nearer(clip, monkeypatch):
    monkeypatch.setattr(both_sides, "MOST_HELD_BYTES", 6 * clip[0].nbytes)
    assert keyframes(run([clip[0]] * 14, **ADAPTIVE)) == [0, 6, 12]
    monkeypatch.setattr(both_sides, "MOST_HELD_BYTES", 1)
    assert keyframes(run([clip[0]] * 14, **ADAPTIVE)) == [0, 4, 8, 12]


def test_a_still_video_stays_still(clip):
    image = [clip[0]]
    larger = {"keyframe_scale": 1.5, "half_size_share": 0.5}
    for options in (FIXED, ADAPTIVE, FIXED | larger):
        (wanted,) = run(image, **{name: value for name, value in options.items() if name in larger}, mode="image")
        for result in run(image * 18, **options):
            assert (result.labels == wanted.labels).all()
            assert result.updated_fraction in (None, 0.0)


def test_keyframes_may_be_larger_than_other_frames(clip):
    own_px = MODEL.card.preprocessing.size
    larger = checked_options(MODEL, **FIXED, keyframe_scale=1.5)
    assert (larger.size, larger.keyframe_scale) == (own_px, 1.5)
    (wanted,) = run(clip[:1], mode="image", size=round(1.5 * own_px))
    for result in run(clip[:1] * 6, **FIXED, keyframe_scale=1.5):
        assert (result.labels == wanted.labels).all()
    (usual,) = run(clip[:1], mode="image")
    assert (usual.labels != wanted.labels).any()
    moving = run(clip[:9], **FIXED, keyframe_scale=1.5)
    assert keyframes(moving) == [0, 4, 8]
    shapes = {(result.labels.shape, result.is_keyframe) for result in moving}
    assert shapes == {(clip[0].shape[:2], True), (clip[0].shape[:2], False)}
    assert checked_options(MODEL, mode="image").keyframe_scale == 1


def test_nothing_is_blended_across_a_cut():
    """The shipped network's features tell scenes apart: each shot's labels are those of the shot alone."""
    model = load_model(device="cpu", precision="fp32")
    shots = [
        [frame.image for frame in islice(read_frames(ROOT / "assets" / "demo.mp4"), 7)],
        [image[:, 40 + 6 * t :] for t, image in enumerate([strange_scene()] * 6)],
    ]
    shots[1] = [cv2.resize(image, (768, 576)) for image in shots[1]]
    options = ADAPTIVE | {"size": 96}
    cut = run([*shots[0], *shots[1]], model=model, **options)
    assert {0, 7} <= set(keyframes(cut))
    alone = [result for shot in shots for result in run(shot, model=model, **options)]
    for result, own in zip(cut, alone, strict=True):
        assert np.count_nonzero(result.labels != own.labels) == 0


def strange_scene():
    """Stripes and blocks in loud colours, unlike anything in the demo clip."""
    colours = np.random.default_rng(0).integers(0, 256, (18, 24, 3), np.uint8)
    return cv2.resize(colours, (800, 600), interpolation=cv2.INTER_NEAREST)


def test_a_reversed_video_has_the_reversed_result():
    """As long as no keyframe lies beyond the reach of another, which holds for this one."""
    images = moving_images(9)
    forth, back = run(images, **FIXED), run(images[::-1], **FIXED)
    assert keyframes(forth) == [0, 4, 8]
    for result, other in zip(forth, back[::-1], strict=True):
        assert (result.labels == other.labels).mean() > 0.99


@pytest.mark.parametrize("options", [PAST, PAST | {"keyframes": "fixed"}])
def test_low_latency_waits_for_nothing_and_has_the_results_of_the_past(clip, options):
    network = IntervalNetwork(MODEL, checked_options(MODEL, latency="low", **options))
    asked, results = [], []

    def live():
        for index, image in enumerate(clip):
            asked.append(index)
            yield image

    for result in stream(network, live()):
        results.append(result)
        assert len(asked) == len(results)  # before the next image is asked for
    wanted = run(clip, **options)
    assert 1 < len(keyframes(wanted)) < len(clip)
    assert_same(results, wanted)
    # Nor do later frames change those before them.
    assert_same(run(clip[:11], **options), wanted[:11])
    # It goes on from any frame, since each has what it carries over.
    again = stream(network, iter(clip[15:]), results[14].carried)
    assert_same(list(again), run(clip, part=15, **options)[15:])


@pytest.mark.parametrize("options", [FIXED, ADAPTIVE, PAST])
def test_a_run_that_goes_on_is_the_same(clip, options):
    """A part begins with the 15th frame; what those before it hand on comes with the frame before it."""
    whole = run(clip, part=15, **options)
    assert {0, 15} <= set(keyframes(whole))
    before = whole[14].carried
    assert isinstance(before, WeightedLogits)
    assert_same(run(clip[15:], before=before, **options), whole[15:])
    assert any((a.labels != b.labels).any() for a, b in zip(run(clip[15:], **options), whole[15:], strict=True))


def test_videos_do_not_affect_each_other(clip):
    other = moving_images(12, seed=5)
    network = IntervalNetwork(MODEL, checked_options(MODEL, **ADAPTIVE))
    network.workers = 1
    runs = [run_intervals(network, [Group([image], None) for image in video]) for video in (clip[:20], other)]
    mixed = [[], []]
    for _ in range(12):
        for results, one in zip(mixed, runs, strict=True):
            results += next(one)[1]
    assert_same(mixed[0], run(clip[:20], **ADAPTIVE)[:12])
    assert_same(mixed[1], run(other, **ADAPTIVE))


def test_frames_wait_for_a_bounded_number_of_others(clip):
    """However long the video: two intervals and the reach."""
    asked = []

    def live():
        for index, image in enumerate([clip[0]] * 120):
            asked.append(index)
            yield Group([image], index)

    network = IntervalNetwork(MODEL, checked_options(MODEL, **ADAPTIVE))
    ahead = [len(asked) - subject for subject, _ in run_intervals(network, live())]
    assert max(ahead) <= 2 * 16 + REACH + network.workers + 3
    assert len(asked) == 120


def test_large_frames_look_less_far():
    assert reach_for(np.empty((1080, 1920, 3), np.uint8)) == REACH
    assert LEAST_REACH < reach_for(np.empty((2880, 5120, 3), np.uint8)) < REACH
    assert reach_for(np.empty((8640, 15360, 3), np.uint8)) == LEAST_REACH


@pytest.mark.parametrize("at_once", [1, 4])
def test_another_size_begins_anew(clip, at_once):
    others = moving_images(6, (64, 160))
    results = run([*clip[:6], *others], at_once=at_once, **ADAPTIVE)
    assert_same(results[:6], run(clip[:6], **ADAPTIVE))
    assert_same(results[6:], run(others, **ADAPTIVE))


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("options", [FIXED, ADAPTIVE, PAST])
def test_a_size_that_only_the_network_at_half_the_size_tells_apart_begins_anew(at_once, options):
    """Inputs of keyframes are as large for both, those of the frames between them are not."""
    images = [*moving_images(2, (64, 218)), *moving_images(3, (64, 230))]
    results = run(images, at_once=at_once, **options)
    assert {0, 2} <= set(keyframes(results))
    assert [result.labels.shape for result in results] == [image.shape[:2] for image in images]


@pytest.mark.parametrize("options", [FIXED, ADAPTIVE])
def test_few_frames_are_read_ahead(clip, options, torch_threads):
    """However long a video is, the window holds two intervals, the frames after them and what keeps workers busy."""
    torch_threads(1)
    network = IntervalNetwork(MODEL, checked_options(MODEL, **options))
    network.workers = 2
    read = 0

    def groups():
        nonlocal read
        for index in range(120):
            read += 1
            yield Group([clip[index % len(clip)]], index)

    ahead = [read - index for index, _ in run_intervals(network, groups())]
    longest = network.options.longest_interval
    assert max(ahead) <= 2 * longest + REACH + both_sides.MOST_WORK * network.workers + 2


def test_of_large_frames_fewer_wait_for_workers(clip, torch_threads, monkeypatch):
    torch_threads(1)
    network = IntervalNetwork(MODEL, checked_options(MODEL, **FIXED))
    network.workers = 2
    monkeypatch.setattr(both_sides, "MOST_HELD_BYTES", clip[0].nbytes)
    started, read, ahead = 0, 0, []
    original = network.to_input

    def slow(images, size):
        nonlocal started
        started += 1
        time.sleep(0.02)
        return original(images, size)

    monkeypatch.setattr(network, "to_input", slow)

    def groups():
        nonlocal read
        for image in clip[:16]:
            ahead.append(read - started)
            read += 1
            yield Group([image], None)

    assert len(list(run_intervals(network, groups()))) == 16
    assert max(ahead) <= network.workers


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_frame_is_not_taken_for_the_end(clip, workers):
    """What came before it is that of the whole video, or left out."""

    def until_it_breaks():
        for image in clip[:26]:
            yield Group([image], None)
        raise InputError("clip.mp4: damaged")

    network = IntervalNetwork(MODEL, checked_options(MODEL, **FIXED))
    network.workers = workers
    found = run_intervals(network, until_it_breaks())
    assert_same([next(found)[1][0] for _ in range(8)], run(clip, **FIXED)[:8])
    with pytest.raises(InputError, match="damaged"):
        next(found)


def test_groups_may_be_empty_and_labels_have_the_size_asked_for(clip):
    network = IntervalNetwork(MODEL, checked_options(MODEL, **FIXED))
    groups = [Group([], "gap"), Group(clip[:5], "all", (30, 41)), Group([], "end")]
    found = list(run_intervals(network, groups))
    assert [(subject, len(results)) for subject, results in found] == [("gap", 0), ("all", 5), ("end", 0)]
    assert [result.labels.shape for result in found[1][1]] == [(30, 41)] * 5
    assert all(result.model_ms > 0 for result in found[1][1])


def test_sides_and_keyframes_that_do_not_go_together():
    def options(**given):
        found = checked_options(MODEL, **given)
        return found.sides, found.keyframes

    assert options() == ("one", "fixed")  # the model's: the paper's
    assert options(sides="both") == ("both", "fixed")
    assert options(mode="image", keyframes="fixed") == ("one", "fixed")
    assert options(threshold=0.5) == ("one", "fixed")
    with pytest.raises(UsageError, match="need the next keyframe"):
        options(sides="both", latency="low")
    assert options(sides="past", latency="low") == ("past", "fixed")
    with pytest.raises(UsageError, match="adaptive keyframes need --sides past or both, in mode tfc"):
        options(sides="one", keyframes="adaptive")
    for name, value in {"threshold": 0.5, "correlation": "aligned"}.items():
        assert options(sides="one", **{name: value}) == ("one", "fixed")
        for sides in ("past", "both"):
            with pytest.raises(UsageError, match=f"--{name} only has an effect with --sides one"):
                options(sides=sides, **{name: value})
            # Where modes are compared, it is for those with one side.
            found = variant_options(MODEL, "tfc", sides=sides, **{name: value})
            assert found == checked_options(MODEL, sides=sides)
            assert getattr(variant_options(MODEL, "tfc-aligned", sides=sides, **{name: value}), name) == value
    for small in ({"sides": "one"}, {"mode": "reuse"}, {"latency": "low"}, {"threshold": 0.5}):
        with pytest.raises(UsageError, match="larger keyframes need --sides past or both, in mode tfc"):
            options(keyframe_scale=1.2, **small)
    for larger in ({}, {"sides": "one"}, {"latency": "low"}, {"threshold": 0.5}):
        assert checked_options(MODEL, mode="image", keyframe_scale=1.2, **larger).keyframe_scale == 1.2
    for sides in ("past", "both"):
        with pytest.raises(UsageError, match=f"--sides {sides} works in mode tfc only"):
            options(mode="image", sides=sides, keyframe_scale=1.2)


@pytest.mark.parametrize(
    "given",
    [{}, {"sides": "both"}, {"sides": "past", "latency": "low"}, {"mode": "image"}, {"threshold": 0.5}, ADAPTIVE],
)
def test_completed_options_can_be_given_again(given):
    complete = checked_options(MODEL, **given)
    assert checked_options(MODEL, complete) == complete
    assert in_mode(MODEL, complete, complete.mode) == complete


@pytest.fixture
def two_sided():
    """A model that takes both sides, adaptive keyframes and larger ones unless it is told otherwise."""
    config = replace(MODEL.card.config, defaults=checked_options(MODEL, keyframe_scale=1.5, **ADAPTIVE))
    return replace(MODEL, card=replace(MODEL.card, config=config))


@pytest.mark.parametrize("mode", MODES)
def test_completed_options_can_be_taken_to_any_mode(two_sided, mode):
    complete = checked_options(two_sided, mode=mode)
    seen_px = complete.keyframe_size
    for other in MODES:
        found = in_mode(two_sided, complete, other)
        assert found.mode == other
        assert found.keyframe_size == seen_px, "modes are compared at one size"
        assert in_mode(two_sided, found, other) == found


def test_low_latency_of_a_model_with_both_sides_uses_the_past(two_sided):
    model = two_sided
    assert checked_options(model).sides == "both"
    found = checked_options(model, latency="low")
    assert (found.sides, found.keyframes, found.keyframe_scale) == ("past", "adaptive", 1.5)
    for one in ({"sides": "one"}, {"threshold": 0.5}, {"mode": "reuse"}):
        found = checked_options(model, latency="low", **one)
        assert (found.sides, found.keyframes, found.keyframe_scale) == ("one", "fixed", 1)


def test_a_full_gpu_takes_frames_in_halves(clip):
    network = IntervalNetwork(MODEL, checked_options(MODEL, **FIXED))
    room, sizes = 2, []
    original = MODEL.network.low_features

    def small(images):
        if len(images) > room:
            raise torch.OutOfMemoryError
        sizes.append(len(images))
        return original(images)

    network.workers, network.chunk = 1, 8
    MODEL.network.low_features = small
    try:
        found = [r for _, rs in run_intervals(network, [Group(clip[:8], None)]) for r in rs]
        assert_same(found, run(clip[:8], **FIXED), share=0.999)
        assert sizes[:4] == [2, 2, 2, 2]
        room = 0
        with pytest.raises(Exception, match="too little GPU memory for one frame at --size 64"):
            list(run_intervals(network, [Group(clip[:8], None)]))
    finally:
        del MODEL.network.low_features
