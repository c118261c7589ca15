"""`segment`: streaming is the whole clip at once, an interval at a time."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import tfcseg
from tests.helpers import written_out
from tests.helpers.tiny_model import BACKBONES, build_tiny_model, halving_threshold, moving_images
from tfcseg import Frame
from tfcseg.errors import UsageError
from tfcseg.model.options import InferenceOptions

MODEL = build_tiny_model()
INTERVAL = MODEL.card.config.defaults.keyframe_interval


def segment(frames, **options):
    return list(tfcseg.segment(frames, MODEL, **options))


def assert_same(frames, wanted):
    for frame, other in zip(frames, wanted, strict=True):
        assert (frame.labels == other.labels).all()
        assert (frame.index, frame.is_keyframe) == (other.index, other.is_keyframe)
        assert frame.updated_fraction == other.updated_fraction
        assert (frame.similarity is None) == (other.similarity is None)
        assert frame.similarity is None or (frame.similarity == other.similarity).all()


def normalised(images):
    """Network input of images that have its size already, written out."""
    numbers = MODEL.card.preprocessing
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return (pixels - torch.tensor(numbers.mean).view(3, 1, 1)) / torch.tensor(numbers.std).view(3, 1, 1)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("mode", "correlation"), [("tfc", "paper"), ("tfc", "aligned"), ("reuse", "paper"), ("reuse", "aligned")]
)
@torch.inference_mode()
def test_streaming_is_the_whole_clip_at_once(backbone, mode, correlation):
    model = build_tiny_model(backbone)
    images = moving_images(11, (64, 96))
    rows = {1: 0, 2: 1, 3: 2, 5: 3, 6: 4, 7: 5, 9: 6, 10: 7}  # of the frames between keyframes
    keyframe_logits, memory = model.network.keyframe(normalised(images[::4]))
    others = normalised([images[number] for number in (*rows, 10)])  # the last interval is filled up
    options = {"mode": mode, "correlation": correlation}
    options["threshold"] = halving_threshold(
        model.network.non_keyframes(others, memory, InferenceOptions(**options)).similarity
    )
    result = model.network.non_keyframes(others, memory, InferenceOptions(**options))
    for frame in tfcseg.segment(iter(images), model, **options):
        if frame.is_keyframe:
            logits = keyframe_logits[frame.index // 4]
        else:
            row = rows[frame.index]
            logits = result.logits[row]
            np.testing.assert_allclose(frame.similarity, result.similarity[row], atol=1e-5)
            assert frame.updated_fraction == pytest.approx(result.updated_fraction[row].item(), abs=1e-6)
        written_out.assert_best_labels(torch.from_numpy(frame.labels)[None], logits[None], tolerance=1e-3)


def test_interval_1_is_the_image_network_bit_for_bit():
    images = moving_images(3, (64, 96))
    every = segment(images, keyframe_interval=1)
    assert_same(every, segment(images, mode="image"))
    for frame, image in zip(every, images, strict=True):
        assert (frame.is_keyframe, frame.similarity, frame.updated_fraction) == (True, None, None)
        with torch.inference_mode():
            logits = MODEL.network.image(normalised([image]))
        written_out.assert_best_labels(torch.from_numpy(frame.labels)[None], logits)


def test_modes_differ():
    """Otherwise an option that is dropped on its way to the network would not show."""
    images = moving_images(6)
    variants = [
        segment(images, **options)[3].labels
        for options in (
            *({}, {"mode": "reuse"}, {"mode": "image"}, {"threshold": 1.0}),
            *({"correlation": "aligned"}, {"sides": "past"}, {"sides": "both"}),
        )
    ]
    for labels, other in itertools.combinations(variants, 2):
        assert (labels != other).any()


def test_every_nth_frame_is_a_keyframe():
    images = moving_images(7, (32, 48))
    flags = [frame.is_keyframe for frame in segment(images, size=32)]
    assert flags == [True, False, False, False, True, False, False]
    flags = [frame.is_keyframe for frame in segment(images, size=32, keyframe_interval=3)]
    assert flags == [True, False, False, True, False, False, True]


def test_a_keyframe_forgets_what_was_before():
    images = moving_images(8)
    assert_same(
        [dataclasses.replace(frame, index=frame.index - 4) for frame in segment(images)[4:]], segment(images[4:])
    )


def test_where_keyframes_are_weighed_one_remembers_those_before():
    images = moving_images(12)
    carried, fresh = segment(images, sides="past"), segment(images[4:], sides="past")
    assert (carried[4].labels != fresh[0].labels).any()
    assert not any(frame.carried for frame in carried)  # callers that keep the frames keep nothing else


@pytest.mark.parametrize("sides", ["one", "past"])
def test_two_videos_do_not_affect_each_other(sides):
    first, second = moving_images(6), moving_images(6, (50, 61), seed=1)
    wanted = segment(first, sides=sides), segment(second, sides=sides)
    both = [tfcseg.segment(images, MODEL, sides=sides) for images in (first, second)]
    pairs = list(zip(*both, strict=True))
    assert_same([pair[0] for pair in pairs], wanted[0])
    assert_same([pair[1] for pair in pairs], wanted[1])


def test_one_frame_and_none():
    (frame,) = segment(moving_images(1))
    assert frame.is_keyframe
    assert segment([]) == []


def test_frames_keep_what_they_carry():
    images = moving_images(5)
    held = (False, False, True, False, True)
    frames = [Frame(10 + i, 0.5 + i / 25, image, held[i]) for i, image in enumerate(images)]
    for frame, source in zip(segment(frames), frames, strict=True):
        assert (frame.index, frame.time_s, frame.is_held) == (source.index, source.time_s, source.is_held)
        assert frame.image is source.image


def test_plain_arrays_are_numbered():
    images = moving_images(5)
    frames = segment(image for image in images)
    assert [(frame.index, frame.time_s, frame.is_held) for frame in frames] == [(i, float(i), False) for i in range(5)]
    assert_same(frames, segment(Frame(i, i / 25, image, False) for i, image in enumerate(images)))


def test_arrays_of_any_layout_are_frames():
    images = moving_images(3)
    wanted = segment([np.ascontiguousarray(image[::-1, ::-1]) for image in images])
    assert_same(segment([image[::-1, ::-1] for image in images]), wanted)
    for image in images:
        image.flags.writeable = False
    assert_same(segment([np.asfortranarray(image)[::-1, ::-1] for image in images]), wanted)


@pytest.mark.parametrize(
    ("array", "shown"),
    [
        (np.zeros((45, 70, 3), np.float32), r"float32 \(45, 70, 3\)"),
        (np.zeros((45, 70), np.uint8), r"uint8 \(45, 70\)"),
        (np.zeros((45, 70, 4), np.uint8), r"uint8 \(45, 70, 4\)"),
        (np.zeros((1, 45, 70, 3), np.uint8), r"uint8 \(1, 45, 70, 3\)"),
        (np.zeros((3, 45, 70), np.uint8), r"uint8 \(3, 45, 70\)"),
    ],
)
def test_other_arrays_are_refused(array, shown):
    with pytest.raises(UsageError, match=rf"a frame is {shown}; \(H, W, 3\) uint8 RGB is needed"):
        segment([*moving_images(1), array])


@pytest.mark.parametrize(
    "options", [{"mode": "fast"}, {"keyframe_interval": 0}, {"threshold": 2}, {"size": 8}, {"correlation": "none"}]
)
def test_senseless_options_are_refused_at_once(options):
    with pytest.raises(UsageError):
        tfcseg.segment(iter([]), MODEL, **options)  # before the first frame is asked for


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_intervals_are_read_ahead_than_are_computed_at_once(threads, torch_threads):
    torch_threads(threads)
    ahead = 0 if threads == 1 else threads
    taken = []

    def frames():
        for number, image in enumerate(moving_images(22)):
            taken.append(number)
            yield image

    segmented = tfcseg.segment(frames(), MODEL)
    assert taken == []
    for number in range(22):
        frame = next(segmented)
        assert frame.index == number
        # One more tells whether the last picture is shown again.
        assert len(taken) == min(22, (number // INTERVAL + 1 + ahead) * INTERVAL + 1)


def test_low_latency_reads_no_frame_ahead():
    taken = []

    def frames():
        for number, image in enumerate(moving_images(6)):
            taken.append(number)
            yield image

    wanted = list(tfcseg.segment(moving_images(6), MODEL))
    for number, frame in enumerate(tfcseg.segment(frames(), MODEL, latency="low")):
        assert taken[-1] == frame.index == number
        assert (frame.labels == wanted[number].labels).all()
        assert frame.is_keyframe == wanted[number].is_keyframe
    assert number == 5


@pytest.mark.parametrize("options", [{}, {"sides": "past"}])
def test_after_a_gap_the_next_frame_is_a_keyframe(options):
    """A live source drops frames; a few do no harm."""
    images = moving_images(60)

    def keyframes(indices):
        frames = [Frame(index, index / 10, images[index], is_held=False) for index in indices]
        found = list(tfcseg.segment(iter(frames), MODEL, latency="low", **options))
        assert [frame.index for frame in found] == indices
        return [frame.index for frame in found if frame.is_keyframe]

    assert keyframes([0, 1, 2, 40, 41, 42]) == [0, 40]
    assert keyframes([0, 3, 5, 7]) == [0, 7]  # four were dropped
    assert keyframes([0, 3, 5, 6]) == [0]


@pytest.mark.parametrize(
    "options", [{"sides": "one"}, {"sides": "both"}, {"sides": "past"}, {"latency": "low"}], ids=str
)
def test_a_failing_source_fails_after_all_its_frames(options):
    def frames():
        yield from moving_images(6)
        raise OSError("the disk is gone")

    segmented = tfcseg.segment(frames(), MODEL, **options)
    assert [next(segmented).index for _ in range(6)] == list(range(6))
    with pytest.raises(OSError, match="the disk is gone"):
        next(segmented)
