"""Writing videos: what comes back is what went in, and nothing half-written is ever left under any name."""

import os
import resource
import signal
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from tests.helpers.command_line import interruptible
from tests.helpers.media import children, numbered_image, numbered_images, read_number, run_ffmpeg, write_clip
from tfcseg.errors import OutputError
from tfcseg.media.reader import open_frames, probe, read_frames
from tfcseg.media.source import Source
from tfcseg.media.writer import Sound, VideoWriter, finish_parts, is_our_video

ROOT = Path(__file__).parents[2]
SIZE = (48, 64)
AAC = ("-c:a", "aac")
BEEP = "sine=frequency=440:d=4,volume='if(lt(t,2),0,1)':eval=frame"  # silent until 2 s


def write(path, images, *, rate=Fraction(25), audio_from=None, start_s=None, end_s=None):
    """Write a video with the sound of another one; ``audio`` says what happened to it."""
    path = Path(path)
    silent = path if audio_from is None else path.with_name("silent.mp4")
    with VideoWriter(silent, size=images[0].shape[:2], frame_rate=rate) as writer:
        for image in images:
            writer.write(image)
    if audio_from is None:
        return SimpleNamespace(audio="none")
    audio = finish_parts([silent], path, rate, Sound(Source.of(audio_from), start_s, end_s))
    silent.unlink()
    return SimpleNamespace(audio=audio)


def listing(directory):
    return sorted(entry.name for entry in directory.iterdir())


def audio_packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def sound_begins_s(path):
    """When the first loud sample is played, counted from the first video frame."""
    with av.open(str(path)) as container:
        video_s = container.streams.video[0].start_time * container.streams.video[0].time_base
        for frame in container.decode(container.streams.audio[0]):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()).max(axis=0) > 0.05)
            if loud.size:
                return frame.pts * frame.time_base + Fraction(int(loud[0]), frame.sample_rate) - video_s
    raise AssertionError(f"{path} is silent")


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(1800, 89), Fraction(15), Fraction(120)])
def test_count_rate_and_size_come_back(tmp_path, rate):
    write(tmp_path / "out.mp4", numbered_images(30, SIZE), rate=rate)
    assert listing(tmp_path) == ["out.mp4"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.frames, stream.average_rate, stream.start_time) == (30, rate, 0)
        assert (stream.width, stream.height, stream.codec_context.pix_fmt) == (64, 48, "yuv420p")
        assert len(list(container.decode(stream))) == 30
    with open_frames(tmp_path / "out.mp4") as source:
        assert [read_number(frame.image) for frame in source] == list(range(30))
        assert (source.info.frame_rate, source.info.rotation, source.warnings) == (rate, 0, [])


def test_index_comes_first(tmp_path):
    write(tmp_path / "out.mp4", numbered_images(3, SIZE))
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_flat_colours_survive_and_are_tagged(tmp_path):
    colours = [(200, 30, 40), (20, 180, 60), (30, 60, 210), (128, 128, 128), (255, 255, 255), (0, 0, 0), (250, 230, 20)]
    images = [np.full((*SIZE, 3), colour, np.uint8) for colour in colours]
    write(tmp_path / "out.mp4", images)
    for frame, image in zip(read_frames(tmp_path / "out.mp4"), images, strict=True):
        assert np.abs(frame.image.astype(int) - image).max() <= 3
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64), (17, 17), (16, 16)])
def test_odd_sizes_are_padded_by_repeating_the_edge(tmp_path, size):
    images = [np.full((*size, 3), (10, 200, 30), np.uint8)] * 3
    write(tmp_path / "out.mp4", images)
    height, width = size
    for frame in read_frames(tmp_path / "out.mp4"):
        assert frame.image.shape == (height + height % 2, width + width % 2, 3)
        assert np.abs(frame.image.astype(int) - (10, 200, 30)).max() <= 3


# Sound.


def test_aac_is_copied_packet_for_packet(tmp_path):
    source = write_clip(tmp_path / "in.mp4", 50, audio=("sine=d=2", AAC))
    writer = write(tmp_path / "out.mp4", numbered_images(50), audio_from=source)
    assert writer.audio == "copied"
    assert listing(tmp_path) == ["in.mp4", "out.mp4"]
    assert audio_packets(tmp_path / "out.mp4") == audio_packets(source)
    info = probe(tmp_path / "out.mp4")
    assert (info.audio, info.frames_declared, info.frame_rate) == ("aac", 50, 25)
    assert is_our_video(tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("in.mov", ("-c:a", "pcm_s16le"), ("aac", "aac")),
        ("in.mkv", ("-c:a", "libvorbis"), ("aac", "aac")),
        ("in.mkv", ("-c:a", "pcm_s16le", "-ac", "16"), ("aac", "aac")),
        ("in.mkv", ("-c:a", "flac"), ("copied", "flac")),
        ("in.mkv", ("-c:a", "libopus"), ("copied", "opus")),
        ("in.mov", ("-c:a", "libmp3lame"), ("copied", "mp3")),
    ],
)
def test_other_codecs_are_copied_or_become_aac(tmp_path, name, codec, expected):
    source = write_clip(tmp_path / name, 50, audio=("sine=d=2", codec))
    writer = write(tmp_path / "out.mp4", numbered_images(50), audio_from=source)
    info = probe(tmp_path / "out.mp4")
    assert (writer.audio, info.audio, info.frames_declared) == (*expected, 50)
    with av.open(str(tmp_path / "out.mp4")) as container:
        samples = sum(frame.samples for frame in container.decode(container.streams.audio[0]))
        assert samples / container.streams.audio[0].sample_rate == pytest.approx(2, abs=0.06)


def test_sound_that_nothing_can_read_is_dropped_with_the_reason(tmp_path):
    source = write_clip(tmp_path / "in.mov", 25, audio=("sine=d=1", ("-c:a", "pcm_s16le")))
    source.write_bytes(source.read_bytes().replace(b"sowt", b"zzzz"))
    assert probe(source).audio == "unknown"
    writer = write(tmp_path / "out.mp4", numbered_images(25), audio_from=source)
    assert writer.audio.startswith("dropped: unknown audio can be neither copied nor converted (")
    assert listing(tmp_path) == ["in.mov", "out.mp4"]
    assert (probe(tmp_path / "out.mp4").audio, probe(tmp_path / "out.mp4").frames_declared) == (None, 25)


def test_a_title_need_not_be_utf8(tmp_path):
    latin = ("-metadata", "title=caf\udce9")  # the byte E9
    source = write_clip(tmp_path / "in.mp4", 25, audio=("sine=d=1", AAC), extra=latin)
    assert b"caf\xe9" in source.read_bytes()
    writer = write(tmp_path / "out.mp4", numbered_images(25), audio_from=source)
    assert (writer.audio, probe(tmp_path / "out.mp4").audio) == ("copied", "aac")
    assert not is_our_video(source)


def test_sources_without_sound(tmp_path):
    silent = write_clip(tmp_path / "in.mp4", 3)
    text = tmp_path / "notes.txt"
    text.write_text("no video")
    for source, expected in ((None, "none"), (silent, "none"), ("-", "dropped: a stream can be")):
        assert write(tmp_path / "out.mp4", numbered_images(3), audio_from=source).audio.startswith(expected)
    writer = write(tmp_path / "out.mp4", numbered_images(3), audio_from=text)
    assert writer.audio == f"dropped: {text}: not a video: it is text"


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("in.mp4", AAC, "copied"),
        ("in.mkv", AAC, "copied"),
        ("in.ts", AAC, "copied"),
        ("in.mov", ("-c:a", "pcm_s16le"), "aac"),
        ("in.ts", ("-c:a", "mp2"), "aac"),
    ],
)
@pytest.mark.parametrize(("start_s", "end_s"), [(None, None), (1.48, None), (1.48, 2.6), (None, 3.0)])
def test_sound_stays_in_step_with_the_range(tmp_path, name, codec, expected, start_s, end_s):
    source = write_clip(tmp_path / name, 100, audio=(BEEP, codec), extra=("-g", "100"))
    target = tmp_path / "out.mp4"
    with open_frames(source, start_s=start_s, end_s=end_s) as frames:
        images = [frame.image for frame in frames]
    writer = write(target, images, audio_from=source, start_s=start_s, end_s=end_s)
    assert writer.audio == expected
    # The first frame carries its number, which tells when the source showed it.
    assert sound_begins_s(target) == pytest.approx(
        sound_begins_s(source) - Fraction(read_number(images[0]), 25), abs=0.03
    )
    with av.open(str(target)) as container:
        assert container.duration / av.time_base == pytest.approx(len(images) / 25, abs=0.08)
        assert container.streams.video[0].frames == len(images)


def test_long_skips_are_cut_exactly(tmp_path):
    late_beep = BEEP.replace("d=4", "d=10").replace("t,2", "t,9")
    source = write_clip(tmp_path / "in.mp4", 250, audio=(late_beep, AAC), extra=("-g", "250"))
    writer = write(tmp_path / "out.mp4", numbered_images(50), audio_from=source, start_s=8.0)
    assert writer.audio == "copied"
    assert sound_begins_s(tmp_path / "out.mp4") == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("name", ["in.mp4", "in.ts", "in.mkv"])
def test_sound_that_begins_later_keeps_its_place(tmp_path, name):
    source, still = tmp_path / name, write_clip(tmp_path / "still.mp4", 75)
    sound = write_clip(tmp_path / "sound.mkv", 50, audio=("sine=d=2", AAC))
    run_ffmpeg("-i", still, "-itsoffset", "0.6", "-i", sound, "-map", "0:v", "-map", "1:a", "-c", "copy", source)
    for start_s in (None, 0.2, 1.0):
        write(tmp_path / "out.mp4", numbered_images(50), audio_from=source, start_s=start_s)
        begins_s = max(0, sound_begins_s(source) - (start_s or 0))
        assert sound_begins_s(tmp_path / "out.mp4") == pytest.approx(begins_s, abs=0.03)


def test_range_without_sound(tmp_path):
    source = write_clip(tmp_path / "in.mp4", 100, audio=("sine=d=1", AAC))
    writer = write(tmp_path / "out.mp4", numbered_images(25), audio_from=source, start_s=2.0)
    assert (writer.audio, probe(tmp_path / "out.mp4").audio) == ("none", None)


@pytest.mark.parametrize("default", [0, 1, 2, None])
def test_the_track_that_players_choose_is_kept(tmp_path, default):
    source = tmp_path / "in.mkv"
    tracks = [item for seconds in (1, 2, 3) for item in ("-f", "lavfi", "-i", f"sine=d={seconds}")]
    chosen = [item for n in range(3) for item in (f"-disposition:a:{n}", "default" if n == default else "0")]
    picture = write_clip(tmp_path / "picture.mp4", 75)
    maps = [item for n in range(4) for item in ("-map", str(n))]
    run_ffmpeg("-i", picture, *tracks, *maps, "-c:v", "copy", "-c:a", "aac", *chosen, source)
    assert write(tmp_path / "out.mp4", numbered_images(75), audio_from=source).audio == "copied"
    with av.open(str(tmp_path / "out.mp4")) as container:
        (track,) = container.streams.audio
        seconds = float(track.duration * track.time_base)
    assert seconds == pytest.approx(1 + (default or 0), abs=0.1)


# Failing without leaving anything.


def leave_halfway(writer, directory):
    writer.write(numbered_image(0))
    assert len(listing(directory)) == 2
    raise RuntimeError


def test_leaving_by_an_exception_or_abort_leaves_nothing(tmp_path):
    target = tmp_path / "out.mp4"
    target.write_text("what was there before")
    before = children()
    writer = VideoWriter(target, size=SIZE, frame_rate=Fraction(25))
    with pytest.raises(RuntimeError), writer:
        leave_halfway(writer, tmp_path)
    writer.abort()
    writer.close()
    assert listing(tmp_path) == ["out.mp4"]
    assert target.read_text() == "what was there before"
    assert children() == before
    with pytest.raises(OutputError, match=r"out\.mp4: the video is already closed"):
        writer.write(numbered_image(0))


def test_no_frames_is_an_error(tmp_path):
    with pytest.raises(OutputError, match=r"out\.mp4: no frames were written"):
        VideoWriter(tmp_path / "out.mp4", size=SIZE, frame_rate=Fraction(25)).close()
    assert listing(tmp_path) == []


def test_places_that_cannot_be_written_fail_at_once(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    before = children()
    for path, reason in (
        (tmp_path / "gone" / "out.mp4", "cannot be written: No such file or directory"),
        (tmp_path / "file" / "out.mp4", "cannot be written: Not a directory"),
        (Path("/proc/out.mp4"), "cannot be written"),
    ):
        with pytest.raises(OutputError, match=f"{path.name}: {reason}"):
            VideoWriter(path, size=SIZE, frame_rate=Fraction(25))
    assert children() == before
    assert listing(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match=r"out\.mp4: cannot be written: Permission denied"):
        VideoWriter(tmp_path / "out.mp4", size=SIZE, frame_rate=Fraction(25))
    assert listing(tmp_path) == []


def test_encoder_that_is_killed(tmp_path):
    before = children()
    writer = VideoWriter(tmp_path / "out.mp4", size=SIZE, frame_rate=Fraction(25))
    writer.write(numbered_image(0))
    (encoder,) = children() - before
    os.kill(encoder, signal.SIGKILL)
    with pytest.raises(OutputError, match=r"out\.mp4: the encoder failed after \d+ frames: killed by SIGKILL"):
        write_forever(writer)
    assert listing(tmp_path) == []
    assert children() == before


def write_forever(writer):
    while True:
        writer.write(numbered_image(0))


def test_encoder_that_is_killed_before_the_end(tmp_path):
    before = children()
    writer = VideoWriter(tmp_path / "out.mp4", size=SIZE, frame_rate=Fraction(25))
    writer.write(numbered_image(0))
    (encoder,) = children() - before
    os.kill(encoder, signal.SIGKILL)
    with pytest.raises(OutputError, match=r"out\.mp4: the encoder failed after 1 frames: killed by SIGKILL"):
        writer.close()
    assert listing(tmp_path) == []


def test_full_disk_is_told_in_the_encoders_words(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 240, 320, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(
            OutputError, match=r"out\.mp4: the encoder failed after \d+ frames: .*File too large"
        ) as caught:
            write(tmp_path / "out.mp4", [noise[number % 8] for number in range(200)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == []


def test_target_that_cannot_be_replaced(tmp_path):
    writer = VideoWriter(tmp_path / "out.mp4", size=SIZE, frame_rate=Fraction(25))
    writer.write(numbered_image(0))
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(OutputError, match=r"out\.mp4: cannot be written: Is a directory"):
        writer.close()
    assert listing(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("answer", ["finish", "abort"])
def test_interrupt_reaches_us_and_not_the_encoder(tmp_path, answer):
    program = textwrap.dedent(f"""
        import sys, time
        from fractions import Fraction
        from tests.helpers.media import numbered_image
        from tfcseg.media.writer import VideoWriter
        with VideoWriter("out.mp4", size=(48, 64), frame_rate=Fraction(25)) as writer:
            try:
                for number in range(100):
                    writer.write(numbered_image(number))
                print("ready", flush=True)
                time.sleep(30)
            except KeyboardInterrupt:
                time.sleep(0.2)
                if {answer!r} == "abort":
                    sys.exit(130)
            writer.write(numbered_image(100))
    """)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    options = {"cwd": tmp_path, "stdout": subprocess.PIPE, "env": environment, "start_new_session": True}
    with interruptible(), subprocess.Popen([sys.executable, "-c", program], **options) as process:
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGINT)
        status = process.wait(30)
    if answer == "abort":
        assert (status, listing(tmp_path)) == (130, [])
    else:
        assert (status, listing(tmp_path)) == (0, ["out.mp4"])
        numbers = [read_number(frame.image) for frame in read_frames(tmp_path / "out.mp4")]
        assert numbers == list(range(101))


@pytest.mark.parametrize(
    "name",
    ["-dash.mp4", "with space.mp4", "déjà vu 日本.mp4", "a:b%03d.mp4", "new\nline.mp4", f"{'x' * 250}.mp4", "UP.MP4"],
)
def test_names_have_no_meaning(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    source = Path("in") / name
    source.parent.mkdir()
    write_clip("in.mp4", 3, audio=("sine=d=0.2", AAC)).rename(source)
    assert write(name, numbered_images(3), audio_from=source).audio == "copied"
    assert len(list(read_frames(name))) == 3
