"""Real media files for tests, made by the ffmpeg binary. Every frame carries its number as black and white cells."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np

BITS = 8
LOSSY = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-pix_fmt", "yuv420p")
LOSSLESS = ("-c:v", "ffv1", "-pix_fmt", "bgr0")
SMALL = (48, 64)


def run_ffmpeg(*arguments, data=None):
    """Run ffmpeg; ``data`` goes to its stdin, and what it writes to stdout is returned."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def numbered_image(number, size=SMALL):
    """(H, W, 3): ``number`` in binary across the upper half, a coloured gradient that depends on it below."""
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        cell = slice(bit * width // BITS, (bit + 1) * width // BITS)
        image[: height // 2, cell] = 255 * (number >> bit & 1)
    rows, columns = np.arange(height // 2, height)[:, None], np.arange(width)
    for channel, values in enumerate((rows * 3 + number, columns * 2, 255 - columns - number)):
        image[height // 2 :, :, channel] = (values % 256).astype(np.uint8)
    return image


def read_number(image):
    """Number that an upright image carries, however lossy its way was."""
    height, width = image.shape[:2]
    centres = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    return sum(int(image[height // 4, x].mean() > 127) << bit for bit, x in enumerate(centres))


def numbered_images(count, size=SMALL):
    return [numbered_image(number, size) for number in range(count)]


def write_video(path, images, *, rate="25", video=LOSSY, filters=None, audio=None, extra=()):
    """Encode ``images`` to ``path``; ``audio`` is a pair of an ffmpeg source and the arguments that encode it."""
    height, width = images[0].shape[:2]
    sound = () if audio is None else ("-f", "lavfi", "-i", audio[0])
    coding = () if audio is None else tuple(audio[1])
    run_ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "pipe:0", *sound),
        *(() if filters is None else ("-vf", filters)),
        *video,
        *coding,
        *extra,
        f"file:{path}",
        data=b"".join(image.tobytes() for image in images),
    )
    return Path(path)


def write_clip(path, count=10, *, size=SMALL, **options):
    """Encode ``count`` numbered frames; options are those of ``write_video``."""
    return write_video(path, numbered_images(count, size), **options)


def write_rotated(path, source, degrees):
    """Copy ``source`` with rotation side data, as phones write it."""
    run_ffmpeg("-display_rotation", degrees, "-i", source, "-c", "copy", path)
    return path


def write_uneven(path, kept, *, rate="30"):
    """Encode the numbered frames of ``kept`` at their own times (number / rate), so that gaps stay gaps."""
    wanted = "+".join(f"eq(n\\,{number})" for number in kept)
    return write_clip(path, max(kept) + 1, rate=rate, filters=f"select='{wanted}'", extra=("-fps_mode", "vfr"))


def cut_off(path, source, *, share):
    """First ``share`` of the bytes of ``source``."""
    data = Path(source).read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def folder_of_images(directory, images: Iterable, names):
    """Write ``images`` under ``names``; the suffix chooses the format."""
    import cv2

    directory.mkdir(parents=True, exist_ok=True)
    for image, name in zip(images, names, strict=True):
        encoded = cv2.imencode(Path(name).suffix, image[..., [2, 1, 0, *range(3, image.shape[2])]])[1]
        (directory / name).write_bytes(encoded.tobytes())
    return directory


def children():
    """Process ids of our own children that have not been reaped."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for children in lists for pid in children.read_text().split()}
