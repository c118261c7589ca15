"""Reading videos: every frame once, upright, at its time, in its colours; and one clear line when that fails."""

import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.media import (
    LOSSLESS,
    children,
    cut_off,
    numbered_image,
    numbered_images,
    read_number,
    run_ffmpeg,
    write_clip,
    write_rotated,
    write_uneven,
    write_video,
)
from tfcseg.errors import InputError, UsageError
from tfcseg.media.ffmpeg import FfmpegProcess
from tfcseg.media.probing import Pace, constant_rate, lossless_rate
from tfcseg.media.reader import open_frames, probe, read_frames

ROOT = Path(__file__).parents[2]


def decode(source, **options):
    """All frames of ``source`` as (numbers, times, info, warnings)."""
    with open_frames(source, **options) as frames:
        found = [(frame.index, read_number(frame.image), frame.time_s) for frame in frames]
    assert [index for index, _, _ in found] == list(range(frames.frames_decoded))
    return [number for _, number, _ in found], [time for _, _, time in found], frames.info, frames.warnings


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Ten seconds at 25 frames per second with long intervals between intra frames, B-frames and sound."""
    path = tmp_path_factory.mktemp("media") / "clip.mp4"
    sound = ("sine=d=10", ("-c:a", "aac"))
    return write_clip(path, 250, audio=sound, extra=("-g", "120", "-bf", "3", "-movflags", "+faststart"))


def test_lossless_frames_arrive_exactly_and_stay_valid(tmp_path):
    images = numbered_images(12, (47, 63))
    path = write_video(tmp_path / "exact.mkv", images, rate="30000/1001", video=LOSSLESS)
    with open_frames(path) as source:
        frames = list(source)
        assert next(source, None) is None
    assert len(frames) == source.frames_decoded == 12
    for index, (frame, image) in enumerate(zip(frames, images, strict=True)):
        assert (frame.index, frame.is_held) == (index, False)
        assert frame.time_s == pytest.approx(index * 1001 / 30000, abs=1e-3)
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        np.testing.assert_array_equal(frame.image, image)
    info = source.info
    assert (info.path, info.width, info.height, info.frame_rate) == (str(path), 63, 47, Fraction(30000, 1001))
    assert (info.frames_declared, info.rotation, info.audio, info.warnings) == (12, 0, None, ())
    assert info.duration_s == pytest.approx(12 * 1001 / 30000, abs=2e-3)
    assert source.warnings == []


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "ts", "flv", "webm", "gif", "y4m", "h264", "m2v"])
@pytest.mark.parametrize("rate", ["25", "30000/1001"])
def test_every_container_gives_each_frame_once(tmp_path, suffix, rate):
    codecs = {"webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-crf", "10"), "gif": (), "y4m": ("-pix_fmt", "yuv444p")}
    codecs["m2v"] = ("-c:v", "mpeg2video", "-q:v", "2", "-bf", "2")
    if suffix == "gif":
        rate = "25"  # a GIF counts in hundredths of a second
    options = {"video": codecs[suffix]} if suffix in codecs else {}
    path = write_clip(tmp_path / f"clip.{suffix}", 30, rate=rate, **options)
    numbers, _, info, warnings = decode(path)
    assert numbers == list(range(30))
    assert info.frame_rate == Fraction(rate)
    assert [line for line in warnings if "alpha" not in line] == []


def test_empty_packets_in_an_avi_are_no_frames(tmp_path, clip):
    """As ffmpeg writes them up to version 7, when it copies H.264 to an AVI."""
    run_ffmpeg("-i", clip, "-c", "copy", "-bsf:v", "setts=time_base=1/50", tmp_path / "clip.avi")
    numbers, _, info, warnings = decode(tmp_path / "clip.avi")
    assert numbers == list(range(250))
    assert (info.frame_rate, warnings) == (25, [])


def test_probe_tells_what_the_file_holds(clip):
    info = probe(clip)
    assert (info.width, info.height, info.frame_rate, info.duration_s) == (64, 48, 25, 10.0)
    assert (info.frames_declared, info.rotation, info.audio, info.warnings) == (250, 0, "aac", ())


@pytest.mark.parametrize(
    ("average", "nominal", "expected"),
    [
        (Fraction(2997, 100), Fraction(90000), Fraction(30000, 1001)),
        (Fraction(19001, 317), Fraction(1000), Fraction(60000, 1001)),
        (Fraction(2999, 100), Fraction(30), 30),
        (Fraction(25), Fraction(50), 25),  # fields counted as frames
        (Fraction(1200, 59), Fraction(30), Fraction(1200, 59)),
        (Fraction(600), Fraction(25), 25),  # empty packets counted as frames
        (Fraction(50), Fraction(25), 25),  # likewise, one after each frame
        (None, Fraction(15), 15),
        (None, Fraction(90000), 25),
        (Fraction(90000), None, 25),
        (Fraction(1, 10**9), Fraction(1, 10**9), 25),  # a damaged header; a frame a day is believed
        (Fraction(1, 86400), None, Fraction(1, 86400)),
    ],
)
def test_rate_is_the_average_as_the_number_it_stands_for(average, nominal, expected):
    assert constant_rate(average, (nominal,)) == expected


# Row 1: variable frame rate.


def test_uneven_times_lose_no_frame_and_keep_their_times(tmp_path):
    kept = [*range(30), *range(30, 90, 2)]  # one second at 30 frames per second, two at 15
    path = write_uneven(tmp_path / "phone.mp4", kept)
    with open_frames(path) as source:
        frames = list(source)
    assert source.info.frame_rate == 30
    assert [read_number(frame.image) for frame in frames] == [
        number - (number >= 30) * (number % 2) for number in range(89)
    ]
    assert [frame.is_held for frame in frames] == [number >= 30 and number % 2 == 1 for number in range(89)]
    assert [frame.time_s for frame in frames] == pytest.approx([number / 30 for number in range(89)])
    assert source.warnings == [
        "the video has a variable frame rate: decoded at a constant 30 frames per second, "
        "29 frames repeated and 0 dropped"
    ]


PAUSE = "setpts='if(gte(N,20),PTS+4/TB,PTS)'"  # of four seconds after frame 19
PAUSED = [*range(20), *[19] * 120, *range(20, 50)]


def write_paused(path, *extra):
    return write_clip(path, 50, rate="30", filters=PAUSE, extra=("-fps_mode", "passthrough", *extra))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_a_pause_is_held_and_what_comes_after_it_is_shown(tmp_path, suffix, b_frames):
    path = write_paused(tmp_path / f"paused.{suffix}", "-bf", b_frames)
    with open_frames(path) as source:
        frames = list(source)
    assert [read_number(frame.image) for frame in frames] == PAUSED
    assert [frame.is_held for frame in frames] == [20 <= index < 140 for index in range(170)]
    assert all(frame.image is frames[19].image for frame in frames[20:140])
    for start_s, end_s in ((2.0, 3.0), (0.5, 1.0), (4.5, 5.0), (4.66, None), (2.0, None)):
        first, last = round(30 * start_s), 170 if end_s is None else round(30 * end_s)
        with open_frames(path, start_s=start_s, end_s=end_s) as source:
            part = list(source)
        assert [read_number(frame.image) for frame in part] == PAUSED[first:last]
        assert [frame.is_held for frame in part] == [False] + [frame.is_held for frame in frames[first + 1 : last]]
        assert part[0].time_s == pytest.approx(start_s, abs=0.017)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.sampled_from([1, 1, 1, 2, 3, 7, 40]), min_size=3, max_size=20), st.sampled_from(["mp4", "mkv"]))
def test_whatever_the_steps_each_frame_is_shown_at_its_time(tmp_path_factory, steps, suffix):
    kept = [0, *np.cumsum(steps)]
    times = "+".join(f"eq(N\\,{number})*{at}" for number, at in enumerate(kept))
    path = tmp_path_factory.mktemp("steps") / f"clip.{suffix}"
    write_clip(path, len(kept), rate="30", filters=f"setpts='({times})/30/TB'", extra=("-fps_mode", "passthrough"))
    with open_frames(path) as source:
        frames = list(source)
    shown = [frame for frame in frames if not frame.is_held]
    assert [read_number(frame.image) for frame in shown] == list(range(len(kept)))
    shifted = [abs(frame.time_s - at / 30) for frame, at in zip(shown, kept, strict=True)]
    assert max(shifted) < 0.042


def test_slides_keep_their_times_and_the_last_one_its_duration(tmp_path):
    path = tmp_path / "slides.mp4"
    times = "setpts='(eq(N,1)*75+eq(N,2)*90)/30/TB'"
    pictures = ("-fps_mode", "passthrough", "-bf", "0", "-bsf:v", "setts=duration='if(eq(N,2),4/TB,DURATION)'")
    write_clip(path, 3, rate="30", filters=times, extra=pictures)
    assert probe(path).duration_s == pytest.approx(7, abs=0.1)
    with open_frames(path) as source:
        shown = [(read_number(frame.image), frame.time_s) for frame in source]
    first = {number: min(time_s for shown_number, time_s in shown if shown_number == number) for number in range(3)}
    assert first == pytest.approx({0: 0, 1: 2.5, 2: 3}, abs=0.04)
    assert shown[-1][1] == pytest.approx(probe(path).duration_s, abs=1.01 / source.info.frame_rate)


def test_times_of_a_recorder_without_a_clock_lose_no_frame():
    drawn = np.random.default_rng(0)
    times = np.maximum.accumulate(np.arange(300) / 30 + drawn.uniform(-0.012, 0.012, 300).round(3))
    rate = lossless_rate(list(times), Fraction(30), (Fraction(1000),))
    assert rate == 30
    pace = Pace(rate)
    assert [pace.place(time_s) for time_s in times] == list(range(300))


def test_bursts_are_spread_and_what_is_too_much_is_left_out():
    times = [0, 0.0001, 0.0002, 1, 1.0001, 2]
    rate = lossless_rate(times, Fraction(5, 2), (None,))
    assert rate <= 240
    pace = Pace(rate)
    places = [pace.place(time_s) for time_s in times]
    assert None not in places
    assert len(set(places)) == 6
    assert np.abs(np.array(places) / float(rate) - times).max() < 0.1
    crowded = Pace(Fraction(10))
    assert [crowded.place(number / 1000) for number in range(4)] == [0, 1, 2, None]


def test_a_part_cut_from_the_middle_is_whole(tmp_path, clip):
    run_ffmpeg("-i", clip, "-map", "0:v", "-c:v", "libx264", "-g", "25", "-f", "segment", "-segment_time", "3",
               tmp_path / "part%d.mkv")  # fmt: skip
    numbers, times, info, warnings = decode(tmp_path / "part1.mkv")
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert (times[0], info.frames_declared, warnings) == (0, len(numbers), [])


# Row 2: rotation.


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_rotated_video_comes_upright(tmp_path, degrees, turns):
    upright = numbered_images(5, (64, 96))
    stored = [np.ascontiguousarray(np.rot90(image, -turns)) for image in upright]
    path = write_rotated(tmp_path / "rot.mp4", write_video(tmp_path / "flat.mp4", stored), degrees)
    numbers, _, info, warnings = decode(path)
    assert numbers == list(range(5))
    assert (info.width, info.height, info.rotation, warnings) == (96, 64, degrees, [])
    assert (probe(path).width, probe(path).height) == (96, 64)


# Rows 4 to 7: nothing, or less than promised.


def test_no_frame_at_all_is_an_error_and_leaves_no_process(tmp_path, clip):
    data = clip.read_bytes()
    media = data.index(b"mdat") + 4
    path = tmp_path / "zeros.mp4"
    path.write_bytes(data[:media] + bytes(len(data) - media))
    before = children()
    with pytest.raises(InputError, match=r"zeros\.mp4: no frame could be decoded from its beginning$") as caught:
        open_frames(path)
    assert "\n" not in str(caught.value)
    assert children() == before


def test_truncated_file_gives_what_decodes_and_says_so(tmp_path, clip):
    numbers, _, info, warnings = decode(cut_off(tmp_path / "cut.mp4", clip, share=0.6))
    assert 60 < len(numbers) < 240
    assert numbers[:-10] == list(range(len(numbers) - 10))  # the last ones are damaged
    assert info.frames_declared == 250
    repeated, short = warnings
    assert re.match(r"the video is damaged: \d+ frames repeated in place of lost ones \(.", repeated)
    assert short.startswith(f"decoded {len(numbers)} of about 250 frames: the file is cut off or damaged (")


def test_damage_is_told_also_where_the_range_ends_with_the_video(tmp_path, clip):
    data = bytearray(clip.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 400] = bytes(400)
    (tmp_path / "damaged.mp4").write_bytes(data)
    told = [decode(tmp_path / "damaged.mp4", end_s=end_s)[3] for end_s in (None, 10.0)]
    assert told[0] == told[1]
    assert "the video is damaged" in told[0][0]


def test_file_without_its_index_is_one_clear_line(tmp_path):
    path = cut_off(tmp_path / "cut.mp4", write_clip(tmp_path / "whole.mp4"), share=0.7)
    with pytest.raises(InputError, match=r"cut\.mp4: not a video: it is an mp4 .* without its index \(moov atom\)"):
        open_frames(path)


def test_declared_count_too_low_does_not_stop_decoding(tmp_path):
    path = write_clip(tmp_path / "clip.avi", 20)
    data = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 24), (b"strh", 40)):
        at = data.index(tag) + offset
        assert int.from_bytes(data[at : at + 4], "little") == 20
        data[at : at + 4] = (5).to_bytes(4, "little")
    path.write_bytes(data)
    numbers, _, info, warnings = decode(path)
    assert info.frames_declared == 5
    assert numbers == list(range(20))
    assert warnings == []


def test_hidden_frames_of_an_edit_list_are_not_missed(tmp_path, clip):
    path = tmp_path / "cut.mp4"
    run_ffmpeg("-ss", "6.4", "-i", clip, "-c", "copy", path)
    numbers, _, _, warnings = decode(path)
    assert numbers == list(range(160, 250))
    assert warnings == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.mp4", b"just some notes\n", r"notes\.mp4: not a video: it is text"),
        ("empty.mp4", b"", r"empty\.mp4: not a video: it is empty \(0 bytes\)"),
        ("noise.mp4", bytes(range(128, 256)) * 20, r"noise\.mp4: not a video: it is in no format that can be read"),
        ("box.mp4", b"PK\x03\x04" + bytes(50), r"box\.mp4: not a video: it is a zip archive"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for read in (probe, open_frames):
        with pytest.raises(InputError, match=message) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_picture_named_like_a_video(tmp_path, suffix):
    import cv2

    path = tmp_path / "picture.mp4"
    path.write_bytes(cv2.imencode(f".{suffix}", numbered_image(1))[1].tobytes())
    with pytest.raises(InputError, match=r"picture\.mp4: not a video: it is a picture .* files named \.avif, .*\.png"):
        open_frames(path)


def test_sound_only_and_missing_files(tmp_path, clip):
    run_ffmpeg("-i", clip, "-vn", "-c", "copy", tmp_path / "sound.mp4")
    with pytest.raises(InputError, match=r"sound\.mp4: no video stream that can be decoded; found audio \(aac\)"):
        open_frames(tmp_path / "sound.mp4")
    with pytest.raises(InputError, match=r"gone\.mp4: cannot be read: No such file"):
        open_frames(tmp_path / "gone.mp4")
    with pytest.raises(InputError, match="cannot be read"):
        open_frames("null\0byte.mp4")


# Playlists and scripts must not reach other files or the network.


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "script.mp4", "script.ffconcat"])
def test_playlists_open_nothing_else(tmp_path, clip, name):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        for target in (url, clip.name, str(clip)):
            if name.startswith("list"):
                content = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n"
            else:
                content = f"ffconcat version 1.0\nfile '{target}'\n"
            (tmp_path / name).write_text(content)
            shutil.copy(clip, tmp_path / clip.name)
            with pytest.raises(InputError, match="which only points to other files"):
                open_frames(tmp_path / name)
        with pytest.raises(TimeoutError):
            server.accept()


def test_ffmpeg_itself_refuses_playlists(tmp_path, clip):
    from tfcseg.media.ffmpeg import input_arguments

    script = tmp_path / "script.mp4"
    script.write_text(f"ffconcat version 1.0\nfile '{clip.name}'\n")
    shutil.copy(clip, tmp_path)
    with FfmpegProcess([*input_arguments(script), "-f", "null", "-"]) as process:
        assert process.wait() != 0
        assert "whitelist" in process.last_words()


# Row 8: several streams.


def test_first_real_video_stream_is_taken(tmp_path, clip):
    cover, second = tmp_path / "cover.png", write_video(tmp_path / "red.mp4", [np.full((48, 64, 3), (255, 0, 0))] * 9)
    run_ffmpeg("-f", "lavfi", "-i", "color=blue:s=32x32", "-frames:v", "1", cover)
    path = tmp_path / "many.mov"
    run_ffmpeg(
        *("-i", cover, "-i", clip, "-i", second, "-timecode", "00:00:00:00", "-map", "1:a", "-map", "0", "-map", "1:v"),
        *("-map", "2:v", "-c", "copy", "-c:v:0", "png", "-disposition:v:0", "attached_pic", path),
    )
    numbers, _, info, warnings = decode(path)
    assert numbers == list(range(250))
    assert (info.width, info.height, info.audio, warnings) == (64, 48, "aac", [])


@pytest.mark.parametrize("suffix", ["wmv", "mkv", "mp4"])
def test_a_longer_stream_beside_the_video_is_no_damage(tmp_path, clip, suffix):
    """WMV files state the longest duration for all streams."""
    first = write_clip(tmp_path / "first.mkv", 25)
    path = tmp_path / f"two.{suffix}"
    run_ffmpeg("-i", first, "-i", clip, "-map", "0:v", "-map", "1:v", path)
    numbers, _, _, warnings = decode(path)
    assert (len(numbers), warnings) == (25, [])


def test_cover_art_alone_is_no_video(tmp_path):
    cover = tmp_path / "cover.png"
    run_ffmpeg("-f", "lavfi", "-i", "color=blue:s=32x32", "-frames:v", "1", cover)
    song = tmp_path / "song.mp3"
    sound = ("-f", "lavfi", "-i", "sine=d=1", "-i", cover, "-map", "0", "-map", "1", "-c:v", "copy")
    run_ffmpeg(*sound, "-disposition:v", "attached_pic", song)
    with pytest.raises(InputError, match=r"song\.mp3: no video stream .* found audio \(mp3\), a cover picture"):
        open_frames(song)


# Recordings that were joined: times that jump, and a size that changes.


@pytest.mark.parametrize(("size", "offset_s"), [((48, 64), 3600), ((96, 128), 1.2)])
def test_joined_transport_streams(tmp_path, size, offset_s):
    first = write_clip(tmp_path / "first.ts", 30)
    second = write_clip(tmp_path / "second.ts", 30, size=size, extra=("-output_ts_offset", str(offset_s)))
    path = tmp_path / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with open_frames(path) as source:
        frames = list(source)
    assert [read_number(frame.image) for frame in frames] == [*range(30), *range(30)]
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert source.warnings == []


def test_a_frame_hours_later_is_not_waited_for(tmp_path):
    late = "setpts='if(gte(N,20),N/25+7200,N/25)/TB'"
    path = write_clip(tmp_path / "late.mkv", 25, filters=late, extra=("-fps_mode", "passthrough"))
    numbers, _, _, warnings = decode(path)
    assert numbers == list(range(25))
    assert warnings == ["the times of the video jump in 1 place: its frames continue without a pause there"]


@pytest.mark.parametrize("suffix", ["mjpeg", "mjpg"])
def test_a_sequence_of_jpeg_pictures(tmp_path, suffix):
    path = write_clip(tmp_path / f"camera.{suffix}", 12, size=(240, 320), video=("-c:v", "mjpeg", "-q:v", "2"))
    assert path.stat().st_size > 12 * 4096, "pictures larger than what formats are recognised by"
    assert decode(path)[0] == list(range(12))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    sender = subprocess.Popen(["cp", path, fifo])
    with open_frames(fifo) as source:
        assert len(list(source)) == 12
    assert sender.wait() == 0


# Row 9: alpha.

CLEAR = "color=c=white:s=32x32:r=5:d=0.6,format=rgba,geq=r=255:g=100:b=30:a='if(lt(X,16),64,255)'"


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mov", ("-c:v", "qtrle", "-pix_fmt", "argb")),
        ("a.mkv", ("-c:v", "ffv1", "-pix_fmt", "gbrap")),
        ("deep.mov", ("-c:v", "png", "-pix_fmt", "rgba64be")),
        ("a.webm", ("-c:v", "libvpx-vp9", "-lossless", "1", "-pix_fmt", "yuva420p")),
    ],
)
def test_alpha_is_composited_on_black_and_said_once(tmp_path, name, codec):
    path = tmp_path / name
    run_ffmpeg("-f", "lavfi", "-i", CLEAR, *codec, path)
    with open_frames(path) as source:
        image = next(source).image.astype(int)
        assert len(list(source)) == 2
    assert np.abs(image[4:28, 4:12] - [64, 25, 8]).max() <= 2
    assert np.abs(image[4:28, 20:28] - [255, 100, 30]).max() <= 3
    assert source.warnings == ["the video has an alpha channel: it was composited on black"]


# Row 10: depth, HDR, and the colour matrix.


TEN_BITS = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le")


@pytest.mark.parametrize(("transfer", "kind"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG"), ("bt709", None)])
@pytest.mark.parametrize("size", [(48, 64), (49, 65)])
def test_ten_bits_are_read_and_hdr_is_said(tmp_path, transfer, kind, size):
    tags = f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc"
    codec = TEN_BITS if size[0] % 2 == 0 else ("-c:v", "ffv1", "-pix_fmt", "yuv420p10le")
    numbers, _, _, warnings = decode(write_clip(tmp_path / "deep.mkv", 5, size=size, video=codec, filters=tags))
    assert numbers == list(range(5))
    expected = f"the video is HDR ({kind}): it was reduced to 8 bits by tone mapping"
    assert warnings == ([] if kind is None else [expected])


@pytest.mark.parametrize("tags", ["color_primaries=bt709:colorspace=bt709", "color_primaries=smpte432"])
def test_hdr_of_unusual_primaries_is_not_tone_mapped(tmp_path, tags):
    clip = write_clip(tmp_path / "odd.mp4", 3, video=TEN_BITS, filters=f"setparams={tags}:color_trc=smpte2084")
    numbers, _, _, warnings = decode(clip)
    assert numbers == [0, 1, 2]
    assert warnings == ["the video is HDR (PQ): it was reduced to 8 bits without tone mapping, so colours look flat"]


def test_hdr_is_read_without_the_filters_for_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr("tfcseg.media.probing.can_tone_map", lambda: False)
    tags = "setparams=color_primaries=bt2020:color_trc=arib-std-b67:colorspace=bt2020nc"
    numbers, _, _, (warning,) = decode(write_clip(tmp_path / "hdr.mp4", 3, video=TEN_BITS, filters=tags))
    assert numbers == [0, 1, 2]
    assert "without tone mapping, so colours look flat; this ffmpeg lacks the filters zscale and tonemap" in warning


BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593])
BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def coded_in_pq(light):
    """SMPTE ST 2084: code of light in cd/m²."""
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def coded_in_hlg(light):
    """ITU-R BT.2100: code of light in cd/m² on a display of 1,000 cd/m². Its system gamma of 1.2 is that of each
    colour, as between cameras and displays of the standard range."""
    scene = (light / 1000) ** (1 / 1.2)
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


@pytest.mark.parametrize(("transfer", "coded"), [("smpte2084", coded_in_pq), ("arib-std-b67", coded_in_hlg)])
def test_hdr_looks_as_in_the_standard_range(tmp_path, transfer, coded):
    """Colours up to 0.8 of white at 203 cd/m² (BT.2408) are those of a BT.1886 display; brighter ones keep an order."""
    colours = np.array([[37] * 3, [142] * 3, [220] * 3, [200, 30, 40], [60, 180, 90], [40, 60, 190]])
    light = np.vstack([203 * (colours / 255) ** 2.4, [[203] * 3, [400] * 3, [1000] * 3]])
    code = coded(light @ BT709_TO_BT2020.T)
    luma = code @ BT2020_LUMA
    planes = [64 + 876 * luma, *(512 + 896 * (code[:, at] - luma) / scale for at, scale in ((2, 1.8814), (0, 1.4746)))]
    rows = [np.rint(np.repeat(plane, 16)).astype("<u2")[None].repeat(16, 0) for plane in planes]
    run_ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "yuv444p10le", "-s", f"{rows[0].shape[1]}x16", "-i", "pipe:0"),
        *("-vf", f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc", "-c:v", "ffv1"),
        tmp_path / "patches.mkv",
        data=b"".join(plane.tobytes() for plane in rows),
    )
    with open_frames(tmp_path / "patches.mkv") as source:
        seen = next(source).image[8, 8::16].astype(int)
    assert np.abs(seen[: len(colours)] - colours).max() <= 2
    white, bright, brightest = seen[len(colours) :, 1]
    assert colours[2, 1] < white < bright <= brightest <= 255


@pytest.mark.parametrize("degrees", [0, 90, 180])
@pytest.mark.parametrize("ratio", ["16/15", "1/2", "1"])
def test_the_shape_of_pixels_is_told_as_they_are_shown(tmp_path, ratio, degrees):
    path = write_clip(tmp_path / "flat.mp4", 3, filters=f"setsar={ratio}")
    path = write_rotated(tmp_path / "turned.mp4", path, degrees) if degrees else path
    with open_frames(path) as source:
        assert len(list(source)) == 3
    assert source.info.pixel_aspect == (1 / Fraction(ratio) if degrees == 90 else Fraction(ratio))
    assert source.warnings == []


def untagged(path, size, colour):
    """A video of one colour, coded as BT.709 or as BT.601 without a word of it."""
    matrix = "bt709" if size[0] >= 720 else "smpte170m"
    filters = f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p,setparams=colorspace=unknown"
    return write_video(path, [np.full((*size, 3), colour, np.uint8)], video=("-c:v", "ffv1"), filters=filters)


@pytest.mark.parametrize("size", [(720, 1280), (1280, 720), (720, 960), (718, 1280), (576, 720), (48, 64)])
def test_untagged_colours_are_those_of_the_size(tmp_path, size):
    colour = (200, 30, 40)
    with open_frames(untagged(tmp_path / "plain.mkv", size, colour)) as source:
        assert np.abs(next(source).image[::100, ::100].astype(int) - colour).max() <= 2


@pytest.mark.parametrize("suffix", ["h264", "hevc", "mjpeg", "avi", "ts"])
def test_a_size_that_changes_loses_no_frame(tmp_path, suffix):
    kind = "mjpeg" if suffix == "avi" else suffix
    codecs = {"hevc": ("-c:v", "libx265", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p")}
    options = {"video": {**codecs, "mjpeg": ("-q:v", "2")}[kind]} if kind in ("hevc", "mjpeg") else {}
    parts = [
        write_clip(tmp_path / f"{number}.{kind}", 20, size=size, **options)
        for number, size in enumerate([(48, 64), (96, 128), (96, 64)])
    ]
    path = tmp_path / f"all.{kind}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    if suffix == "avi":
        run_ffmpeg("-i", path, "-c", "copy", tmp_path / "all.avi")
        path = tmp_path / "all.avi"
    with open_frames(path) as source:
        images = [frame.image for frame in source]
    assert {image.shape for image in images} == {(48, 64, 3)}
    assert [read_number(image) for image in images[:40]] == [*range(20), *range(20)]
    assert len(images) == 60
    assert not images[-1][:, :16].any()  # a picture of another shape keeps it
    assert images[-1][:, 16:48].any()


def test_an_opaque_gif_is_not_said_to_be_transparent(tmp_path):
    path = write_clip(tmp_path / "opaque.gif", 6, video=())
    assert decode(path)[3] == []
    clear = tmp_path / "clear.gif"
    picture = np.full((32, 32, 4), (255, 100, 30, 255), np.uint8)
    picture[:, :16, 3] = 0
    still = PIL.Image.fromarray(picture)
    moved = PIL.Image.fromarray(np.roll(picture, 4, axis=1))
    still.save(clear, save_all=True, append_images=[moved], duration=40, disposal=2)
    with open_frames(clear) as source:
        assert not next(source).image[4:28, 4:12].any()
        list(source)
    assert source.warnings == ["the video has an alpha channel: it was composited on black"]


@pytest.mark.parametrize("suffix", ["avif", "png", "gif"])
def test_all_pictures_of_an_animation_are_frames(tmp_path, suffix):
    codecs = {"avif": ("-c:v", "libaom-av1", "-cpu-used", "8", "-crf", "10"), "png": ("-f", "apng"), "gif": ()}
    path = write_clip(tmp_path / f"moving.{suffix}", 12, video=codecs[suffix])
    numbers, _, info, warnings = decode(path)
    assert (numbers, info.frame_rate, warnings) == (list(range(12)), 25, [])


def test_an_animated_webp_is_a_video_or_what_is_left_out_is_mentioned(tmp_path):
    pictures = [PIL.Image.fromarray(image) for image in numbered_images(6)]
    path = tmp_path / "moving.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, lossless=True)
    numbers, _, _, warnings = decode(path)
    if numbers != list(range(6)):  # before PyAV 19
        assert numbers == [0]
        assert warnings == ["1 file with several pictures, of which the first was read: moving.webp"]


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
@pytest.mark.parametrize("spread", ["tv", "pc"])
def test_colours_follow_the_matrix_and_range_of_the_stream(tmp_path, matrix, spread):
    colours = [(200, 30, 40), (20, 180, 60), (30, 60, 210), (128, 128, 128), (255, 255, 255), (0, 0, 0)]
    images = [np.full((48, 64, 3), colour, np.uint8) for colour in colours]
    scale = f"scale=out_color_matrix={matrix}:out_range={spread},format=yuv420p"
    video = ("-c:v", "ffv1", "-colorspace", matrix, "-color_range", spread)
    for frame, image in zip(
        read_frames(write_video(tmp_path / "flat.mkv", images, video=video, filters=scale)), images, strict=True
    ):
        assert np.abs(frame.image.astype(int) - image).max() <= 2


# Row 12: very large and very small frames.


@pytest.mark.parametrize(("size", "count"), [((16, 16), 9), ((4320, 7680), 1)])
def test_sizes_from_tiny_to_8k(tmp_path, size, count):
    path = write_clip(tmp_path / "clip.mp4", count, size=size)
    numbers, _, info, _ = decode(path)
    assert numbers == list(range(count))
    assert (info.height, info.width) == size


# Row 14: whatever happens, no process stays.


def test_leaving_early_ends_the_decoder(clip):
    before = children()
    with open_frames(clip) as source:
        next(source)
        assert len(children() - before) == 1
    assert children() == before
    assert next(source, None) is None
    source.close()

    with pytest.raises(RuntimeError), open_frames(clip) as source:
        raise RuntimeError
    assert children() == before

    frames = read_frames(clip)
    next(frames)
    frames.close()
    assert children() == before


@pytest.mark.parametrize("read", ["open_frames", "read_frames", "lambda path: prefetch_frames(open_frames(path))"])
def test_frames_that_nobody_closes_do_not_keep_python_from_ending(clip, read):
    imports = (
        "from tfcseg.media.frames import prefetch_frames; from tfcseg.media.reader import open_frames, read_frames"
    )
    program = f"import sys; {imports}; frames = ({read})(sys.argv[1]); next(frames)"
    done = subprocess.run([sys.executable, "-c", program, clip], capture_output=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_decoder_that_is_killed_is_an_error(clip):
    before = children()
    with open_frames(clip) as source:
        next(source)
        (process,) = children() - before
        os.kill(process, 9)
        with pytest.raises(InputError, match=r"clip\.mp4: the decoder died after \d+ frames: killed by SIGKILL"):
            list(source)
    assert children() == before


def test_talkative_ffmpeg_cannot_block():
    with FfmpegProcess(["-v", "trace", "-f", "lavfi", "-i", "testsrc=d=20:s=16x16", "-f", "null", "-"]) as process:
        assert process.wait() == 0


# Row 17: names.


@pytest.mark.parametrize(
    "name",
    ["-dash.mp4", "with space.mp4", "déjà vu 日本.mp4", "a:b%03d.mp4", "http:x.mp4", "new\nline.mp4", "q'\"`$.mp4",
     f"{'x' * 250}.mp4"],
)  # fmt: skip
def test_names_have_no_meaning(tmp_path, clip, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clip, Path(name))
    numbers, _, info, _ = decode(name, end_s=0.2)
    assert numbers == list(range(5))
    assert info.path == name


# Row 18: streams.


def decode_stdin(data, code="print([read_number(f.image) for f in s], s.info.frame_rate, s.warnings)"):
    program = (
        "from tests.helpers.media import read_number; from tfcseg.media.reader import open_frames\n"
        "from tfcseg.errors import InputError\n"
        "try:\n    with open_frames('-', start_s=START) as s: " + code + "\nexcept InputError as e: print('error:', e)"
    )
    return lambda start=None: subprocess.run(
        [sys.executable, "-c", program.replace("START", str(start))],
        input=data,
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    ).stdout.decode()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_stdin_is_read_as_a_stream(tmp_path, clip, suffix):
    path = clip if suffix == "mp4" else tmp_path / f"clip.{suffix}"
    if path != clip:
        run_ffmpeg("-i", clip, "-c", "copy", path)
    run = decode_stdin(path.read_bytes())
    assert run() == f"{list(range(250))} 25 []\n"
    if suffix == "mkv":
        assert run(9.6) == f"{list(range(240, 250))} 25 []\n"


def test_stdin_that_holds_no_video(tmp_path):
    assert decode_stdin(b"")().startswith("error: -: not a video: it is empty (0 bytes)")
    noise = np.random.default_rng(0).integers(0, 256, (10, 240, 320, 3), np.uint8)
    message = decode_stdin(write_video(tmp_path / "late.mp4", list(noise)).read_bytes())()
    assert message.startswith("error: -: ")
    assert "index comes first (+faststart)" in message


def test_a_connection_that_is_reset_ends_the_frames_with_a_warning(tmp_path, clip):
    """The decoder waited for the rest forever."""
    run_ffmpeg("-i", clip, "-c", "copy", tmp_path / "clip.ts")
    data = (tmp_path / "clip.ts").read_bytes()
    program = "next(s); print('begun', flush=True); print(list(s) != [], s.warnings[0])"
    program = f"from tfcseg.media.reader import open_frames\nwith open_frames('-') as s: {program}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sender:
        receiver, _ = server.accept()
        with receiver, subprocess.Popen([sys.executable, "-c", program], stdin=receiver, stdout=-1, text=True) as run:
            sender.sendall(data[: len(data) // 2])
            assert run.stdout.readline() == "begun\n"
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sender.close()  # with a reset, not an end
            try:
                output, _ = run.communicate(timeout=60)
            finally:
                run.kill()
    assert output == "True -: the stream cannot be read: Connection reset by peer\n"


def test_named_pipe_and_leaving_it_early(tmp_path, clip):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = threading.Event()

    def feed():
        with pipe.open("wb") as end:
            end.write(clip.read_bytes())
            done.wait(30)  # the producer stays silent, but does not end

    thread = threading.Thread(target=feed)
    thread.start()
    before = children()
    with open_frames(pipe) as source:
        assert read_number(next(source).image) == 0
    assert children() == before
    done.set()
    thread.join()
    with pytest.raises(InputError, match="a stream can be read only once"):
        probe(pipe)
    with pytest.raises(InputError, match="a stream can be read only once"):
        probe("-")


# Selecting a range.


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize(
    ("start_s", "end_s"), [(None, 0.2), (0.2, 0.4), (1.01, 1.11), (9.0, 9.2), (9.8, None), (7.33, 7.5)]
)
def test_range_is_exactly_the_slice_of_the_whole(tmp_path, clip, suffix, start_s, end_s):
    path = clip if suffix == "mp4" else tmp_path / f"clip.{suffix}"
    if suffix != "mp4":
        run_ffmpeg("-i", clip, "-c", "copy", path)
    numbers, times, _, warnings = decode(path)
    assert numbers == list(range(250))
    assert times == pytest.approx([number / 25 for number in numbers], abs=0.03)
    wanted = [(n, time) for n, time in zip(numbers, times, strict=True) if (start_s or 0) <= time < (end_s or 11)]
    numbers, times, _, cut_warnings = decode(path, start_s=start_s, end_s=end_s)
    assert list(zip(numbers, times, strict=True)) == wanted
    assert warnings == cut_warnings == []


def test_ranges_that_hold_nothing(clip):
    for start_s, end_s in ((-1, None), (2, 1), (1, 1), (0.05, 0.07), (float("nan"), None)):
        with pytest.raises(UsageError):
            open_frames(clip, start_s=start_s, end_s=end_s)
    for start_s in (10, 500):
        with pytest.raises(InputError, match=r"clip\.mp4: the video ends before the start of the requested range"):
            open_frames(clip, start_s=start_s)
