"""Reads damaged copies of small media files and tells how that went, one JSON line for each.

Run as a program, so that a crash of a decoder, a hang or a greedy allocation is the outcome of a test and not its end:
``python tests/helpers/spoiled_media.py FOLDER KIND FIRST LAST`` for the seeds FIRST … LAST - 1.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path

import numpy as np

from tests.helpers.media import LOSSY, folder_of_images, numbered_images, write_clip
from tfcseg.errors import TfcsegError
from tfcseg.media.reader import open_frames

FRAMES = 8
SOUND = "sine=d=0.3"
VIDEOS = {
    "mp4": (LOSSY, ("-c:a", "aac")),
    "mov": (("-c:v", "prores_ks"), ("-c:a", "pcm_s16le")),
    "mkv": (("-c:v", "ffv1"), ("-c:a", "flac")),
    "webm": (("-c:v", "libvpx-vp9", "-cpu-used", "8", "-crf", "30"), ("-c:a", "libopus")),
    "avi": (("-c:v", "mpeg4", "-q:v", "3"), ("-c:a", "pcm_s16le")),
    "ts": (LOSSY, ("-c:a", "aac")),
}
PICTURES = ("jpg", "png")
KINDS = (*VIDEOS, *PICTURES)
_HEADER_BYTES = 1500
_INDEX_LAST = {"mp4", "mov"}


def spoil(data: bytes, seed: int, kind: str) -> bytes:
    """``data`` with 1 to 16 bytes changed: of the headers in most cases, for there the harm is greatest."""
    draw = np.random.default_rng(seed)
    spoiled = bytearray(data)
    in_headers = draw.random() < 0.6
    for _ in range(draw.choice([1, 2, 4, 16])):
        at = int(draw.integers(len(data)))
        if in_headers:
            at = int(draw.integers(min(_HEADER_BYTES, len(data))))
            at = len(data) - 1 - at if kind in _INDEX_LAST and draw.random() < 0.8 else at
        spoiled[at] ^= int(draw.integers(1, 256))
    return bytes(spoiled)


def write_whole(folder: Path, kind: str) -> tuple[Path, Path]:
    """Make a sound source in ``folder``; returns what to open and the file of it that is going to be damaged."""
    if kind in PICTURES:
        names = [f"{number}.{kind}" for number in range(3)]
        return folder_of_images(folder / "images", numbered_images(3), names), folder / "images" / f"1.{kind}"
    video, sound = VIDEOS[kind]
    path = write_clip(folder / f"clip.{kind}", FRAMES, video=video, audio=(SOUND, sound))
    return path, path


def read_all(source: Path) -> dict:
    """Open and decode ``source`` to its end."""
    frames, message = 0, ""
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
    try:
        with open_frames(source) as opened:
            for _ in opened:
                frames += 1
        words = opened.warnings
    except TfcsegError as error:
        message, words = str(error), []
    peak_kib = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
    return {
        "frames": frames,
        "message": message,
        "warnings": words,
        "peak_mib": int(peak_kib) / 1024,
        "decoder_peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def main(folder: Path, kind: str, first: int, last: int) -> None:
    source, damaged = write_whole(folder, kind)
    whole = damaged.read_bytes()
    assert read_all(source)["warnings"] == [], "the undamaged source is sound"
    for seed in range(first, last):
        damaged.write_bytes(spoil(whole, seed, kind))
        print(json.dumps({"seed": seed, **read_all(source)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
