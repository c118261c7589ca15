"""Read a folder of images, or a single one, as a sequence of frames. Shapes: H W image."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from tfcseg.errors import InputError
from tfcseg.files import errors_as
from tfcseg.media.frames import Frame, FrameRange, FrameSource, Image, VideoInfo, check_size, select_frames
from tfcseg.media.source import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Source
from tfcseg.spelling import count_of, first_of

DEFAULT_FRAME_RATE = Fraction(25)
"""Default frames per second of a folder of images; ffmpeg assumes the same."""

_NAMES_SHOWN = 5
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names; others would run programs, or hold no pixels."""
_OPENING = threading.Lock()
_AVIF = (b"ftypavif", b"ftypavis")
_JPEG_SEAM = b"\xff\xd9\xff\xd8\xff"  # where a picture ends and the next one begins, as in Motion JPEG
_PNG = b"\x89PNG"


def open_images(
    source: Source,
    *,
    frame_rate: Fraction = DEFAULT_FRAME_RATE,
    start_s: float | None = None,
    end_s: float | None = None,
) -> FrameSource:
    """Open a folder, whose frames are its images in natural order, or a single image.

    All frames have the size of the first readable image; others are resized to fit, with black bars. Unreadable images
    are replaced by the one before. Raises InputError if no image can be read.
    """
    wanted = select_frames(frame_rate, start_s, end_s)
    info, paths, stand_in = probe_images(source, frame_rate)
    if wanted.start >= len(paths):
        raise InputError(f"{source.name}: the images end before the start of the requested range")
    info = replace(info, names=info.names[wanted])
    warnings = list(info.warnings)
    return FrameSource(info, _read_images(paths, wanted, frame_rate, stand_in, warnings), warnings)


def read_image(path: Path) -> Image:
    """Read an image as (H, W, 3) 8-bit RGB: upright by its EXIF tag, alpha composited on black.

    Raises InputError if it is empty, damaged or not an image.
    """
    return _decode(path)[0]


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key that compares runs of digits as numbers, and letters ignoring case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _list_folder(directory: Path) -> tuple[list[Path], int]:
    """Images in natural order, frame 2 before frame 10, and how many other entries there are."""
    if not directory.is_dir():
        return [directory], 0
    with errors_as(InputError, f"{directory}: the folder cannot be read"):
        entries = [entry for entry in directory.iterdir() if not entry.name.startswith(".")]
    images = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.is_dir()]
    images.sort(key=lambda entry: natural_key(entry.name))
    others = len(entries) - len(images)
    videos = sum(entry.suffix.lower() in VIDEO_SUFFIXES for entry in entries)
    if videos and not images:
        raise InputError(f"{directory}: holds no images, but {count_of(videos, 'video')}; name one video instead")
    if not images:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise InputError(f"{directory}: no images in this folder ({count_of(others, 'other entry')}); wanted: {kinds}")
    return images, others


def _first_readable(directory: Path, paths: list[Path]) -> Image:
    for path in paths:
        try:
            return read_image(path)
        except InputError:
            if path == directory:
                raise
    raise InputError(f"{directory}: none of its {count_of(len(paths), 'image')} can be read")


def probe_images(source: Source, frame_rate: Fraction = DEFAULT_FRAME_RATE) -> tuple[VideoInfo, list[Path], Image]:
    """Facts on a picture or a folder, its images, and the first readable one, whose size all get; else InputError."""
    paths, others = _list_folder(source.path)
    first = _first_readable(source.path, paths)
    info = VideoInfo(
        source=source,
        width=first.shape[1],
        height=first.shape[0],
        frame_rate=frame_rate,
        duration_s=float(len(paths) / frame_rate),
        frames_declared=len(paths),
        rotation=0,
        audio=None,
        warnings=(f"skipped {count_of(others, 'entry')} of the folder: not images",) if others else (),
        names=tuple(path.name for path in paths),
    )
    return info, paths, first


def _read_images(
    paths: list[Path], wanted: FrameRange, frame_rate: Fraction, stand_in: Image, warnings: list[str]
) -> Generator[Frame, None, None]:
    height, width = stand_in.shape[:2]
    unreadable: list[str] = []
    fitted: list[str] = []
    with_alpha: list[str] = []
    with_more: list[str] = []
    image = stand_in
    for index, path in enumerate(paths[wanted]):
        time_s = float((wanted.start + index) / frame_rate)
        try:
            found, had_alpha, has_more = _decode(path)
        except InputError as error:
            unreadable.append(str(error).removeprefix(f"{path.parent}/"))
            yield Frame(index, time_s, image, is_held=True)
            continue
        if had_alpha:
            with_alpha.append(path.name)
        if has_more:
            with_more.append(path.name)
        if found.shape[:2] != (height, width):
            fitted.append(f"{path.name} ({found.shape[1]}x{found.shape[0]})")
        image = fit_image(found, (height, width))
        yield Frame(index, time_s, image, is_held=False)
    for noun, problem, names in (
        ("image", "could not be read and show the one before", unreadable),
        ("image", f"of another size fitted to {width}x{height}", fitted),
        ("image", "with an alpha channel composited on black", with_alpha),
        ("file", "with several pictures, of which the first was read", with_more),
    ):
        if names:
            warnings.append(f"{count_of(len(names), noun)} {problem}: {first_of(names, _NAMES_SHOWN)}")


def fit_image(image: Image, size: tuple[int, int]) -> Image:
    """Fit (H, W, 3) into ``size`` (height, width), keeping proportions, with black bars."""
    if image.shape[:2] == size:
        return image
    return np.array(PIL.ImageOps.pad(PIL.Image.fromarray(image), size[::-1], PIL.Image.Resampling.BILINEAR))


def _decode(path: Path) -> tuple[Image, bool, bool]:
    """(H, W, 3) RGB, upright, on black; whether it had alpha, and whether the file holds further pictures."""
    with errors_as(InputError, f"{path}: the image cannot be read"):
        data = path.read_bytes()
    if not data:
        raise InputError(f"{path}: the image is empty (0 bytes)")
    if data[4:12] in _AVIF and not PIL.features.check("avif"):
        raise InputError(f"{path}: this Pillow was built without AVIF; convert the picture to PNG")
    try:
        if data.startswith(_PNG):  # its checksums are not looked at when it is decoded
            _open(data).verify()
        with _open(data) as picture:
            check_size(path, *picture.size)
            has_more = picture.format != "MPO" and getattr(picture, "is_animated", False)
            has_more |= picture.format == "JPEG" and _JPEG_SEAM in data
            picture.load()
            with suppress(Exception):  # a damaged note turns nothing
                PIL.ImageOps.exif_transpose(picture, in_place=True)
            pixels = _pixels(picture)
    except InputError:
        raise
    except Exception as error:  # for damaged files, Pillow raises errors of many kinds
        what = "the image is cut off" if "truncated" in str(error).lower() else "not an image, or a damaged one"
        raise InputError(f"{path}: {what}") from error
    if pixels.shape[2] == 3:
        return pixels, False, has_more
    return composite_on_black(pixels), bool(pixels[..., 3].min() < 255), has_more


def _open(data: bytes) -> PIL.Image.Image:
    """Open a picture of any size, without decoding it: Pillow's own limit would not tell the size."""
    with _OPENING:
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            return PIL.Image.open(io.BytesIO(data), formats=_FORMATS)
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit


def _pixels(picture: PIL.Image.Image) -> NDArray[np.uint8]:
    """Decode to (H, W, 3) RGB or (H, W, 4) RGBA."""
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PNG"):
        raise ValueError("32 bits per pixel")
    if picture.mode.startswith("I"):  # 16-bit gray, which Pillow would cut off at 255
        return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    return np.array(picture if picture.mode == mode else picture.convert(mode))


def composite_on_black(image: NDArray[np.uint8]) -> Image:
    """Composite (H, W, 4) RGBA on black: (H, W, 3) RGB."""
    alpha = image[..., 3:].astype(np.float32) / 255
    return np.ascontiguousarray(np.rint(image[..., :3] * alpha).astype(np.uint8))
