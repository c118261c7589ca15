"""Read a folder of images, or a single one, as a sequence of frames. Shapes: H W image."""

from __future__ import annotations

import io
import re
from collections.abc import Generator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from tfcseg.errors import InputError
from tfcseg.media.frames import Frame, FrameRange, FrameSource, Image, VideoInfo, check_size, select_frames
from tfcseg.media.image_headers import read_header
from tfcseg.media.source import IMAGE_SUFFIXES, Source

DEFAULT_FRAME_RATE = Fraction(25)
"""Default frames per second of a folder of images; ffmpeg assumes the same."""

_NAMES_SHOWN = 5
_AVIF = (b"ftypavif", b"ftypavis")
_FIRST_TRANSPOSED, _MIRRORED_ACROSS, _MIRRORED_DOWN = 5, {2, 3, 6, 7}, {3, 4, 7, 8}
"""EXIF orientations that swap width and height, and that mirror."""
_Stored: TypeAlias = NDArray[np.integer[Any] | np.floating[Any]]


class _Folder(NamedTuple):
    images: list[Path]
    """In natural order: frame 2 before frame 10."""
    others: int


def probe_images(source: Source) -> VideoInfo:
    """Describe a folder of images, with the size of the first readable one; InputError if there is none."""
    folder = _list_folder(source.path)
    height, width = _first_readable(source.path, folder.images).shape[:2]
    return _describe_folder(source, folder, (height, width), DEFAULT_FRAME_RATE)


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
    folder = _list_folder(source.path)
    wanted = select_frames(frame_rate, start_s, end_s)
    stand_in = _first_readable(source.path, folder.images)
    height, width = stand_in.shape[:2]
    info = _describe_folder(source, folder, (height, width), frame_rate)
    if wanted.first >= len(folder.images):
        raise InputError(f"{source.name}: the images end before the start of the requested range")
    stop = None if wanted.length is None else wanted.first + wanted.length
    info = replace(info, names=info.names[wanted.first : stop])
    warnings = list(info.warnings)
    return FrameSource(info, _read_images(folder.images, wanted, frame_rate, stand_in, warnings), warnings)


def read_image(path: Path) -> Image:
    """Read an image as (H, W, 3) 8-bit RGB: upright by its EXIF tag, alpha composited on black.

    Raises InputError if it is empty, damaged or not an image.
    """
    return _decode(path, _read_bytes(path)).image


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key that compares runs of digits as numbers, and letters ignoring case."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _list_folder(directory: Path) -> _Folder:
    if not directory.is_dir():
        return _Folder([directory], 0)
    try:
        entries = [entry for entry in directory.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{directory}: the folder cannot be read: {error.strerror}") from None
    images = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.is_dir()]
    images.sort(key=lambda entry: natural_key(entry.name))
    others = len(entries) - len(images)
    if not images:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise InputError(f"{directory}: no images in this folder ({_count(others, 'other entry')}); wanted: {kinds}")
    return _Folder(images, others)


def _first_readable(directory: Path, paths: list[Path]) -> Image:
    for path in paths:
        try:
            return read_image(path)
        except InputError:
            if path == directory:
                raise
    raise InputError(f"{directory}: none of its {_count(len(paths), 'image')} can be read")


def _describe_folder(source: Source, folder: _Folder, size: tuple[int, int], frame_rate: Fraction) -> VideoInfo:
    skipped = f"{_count(folder.others, 'entry')} of the folder: not images"
    return VideoInfo(
        source=source,
        width=size[1],
        height=size[0],
        frame_rate=frame_rate,
        duration_s=float(len(folder.images) / frame_rate),
        frames_declared=len(folder.images),
        rotation=0,
        audio=None,
        warnings=(f"skipped {skipped}",) if folder.others else (),
        names=tuple(path.name for path in folder.images),
    )


def _read_images(
    paths: list[Path], wanted: FrameRange, frame_rate: Fraction, stand_in: Image, warnings: list[str]
) -> Generator[Frame, None, None]:
    height, width = stand_in.shape[:2]
    unreadable: list[str] = []
    fitted: list[str] = []
    with_alpha: list[str] = []
    with_more: list[str] = []
    stop = None if wanted.length is None else wanted.first + wanted.length
    image = stand_in
    for index, path in enumerate(paths[wanted.first : stop]):
        time_s = float((wanted.first + index) / frame_rate)
        try:
            decoded = _decode(path, _read_bytes(path))
        except InputError as error:
            unreadable.append(str(error).removeprefix(f"{path.parent}/"))
            yield Frame(index, time_s, image, is_held=True)
            continue
        found = decoded.image
        if decoded.had_alpha:
            with_alpha.append(path.name)
        if decoded.has_more:
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
            warnings.append(f"{_count(len(names), noun)} {problem}: {_some(names)}")


def fit_image(image: Image, size: tuple[int, int]) -> Image:
    """Fit (H, W, 3) into ``size`` (height, width), keeping proportions, with black bars."""
    height, width = size
    if image.shape[:2] == size:
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_h, inner_w = (max(1, round(length * scale)) for length in image.shape[:2])
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[top : top + inner_h, left : left + inner_w] = cv2.resize(image, (inner_w, inner_h), interpolation=method)
    return canvas


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the image cannot be read: {error.strerror}") from None
    if not data:
        raise InputError(f"{path}: the image is empty (0 bytes)")
    return data


class _Decoded(NamedTuple):
    """An image, and what else its file holds."""

    image: Image
    had_alpha: bool
    has_more: bool
    """Whether the file holds further pictures."""


def _decode(path: Path, data: bytes) -> _Decoded:
    """Decode to (H, W, 3) RGB, upright, on black."""
    header = read_header(data)
    if header.damage:
        raise InputError(f"{path}: the image is {header.damage}")
    if header.size_wh is not None:
        check_size(path, *header.size_wh)
    if data[4:12] in _AVIF:
        return _decode_avif(path, data, has_more=header.has_more)
    # Only IMREAD_COLOR applies the orientation tag of JPEG, which has no alpha.
    is_jpeg = data.startswith(b"\xff\xd8")
    image = _imdecode(data, cv2.IMREAD_COLOR if is_jpeg else cv2.IMREAD_UNCHANGED)
    if image is not None and (image.ndim != 3 or (image.shape[2] != 4 and image.dtype != np.uint8)):
        # Grey, palette or 16-bit pictures: decode as 8-bit colour.
        image = _imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise InputError(f"{path}: not an image, or a damaged one")
    image = _upright(image, header.orientation)
    if image.shape[2] == 4:
        return _composited(image[..., [2, 1, 0, 3]], header.has_more)
    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    return _Decoded(rgb, False, header.has_more)


def _decode_avif(path: Path, data: bytes, *, has_more: bool) -> _Decoded:
    """Decode with Pillow, since OpenCV does not rotate AVIF."""
    if not PIL.features.check("avif"):
        raise InputError(f"{path}: this Pillow cannot read AVIF pictures; update it (11.3 or later), or convert to PNG")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("AVIF",)) as picture:
            upright = PIL.ImageOps.exif_transpose(picture)
            if upright.has_transparency_data:
                return _composited(np.asarray(upright.convert("RGBA")), has_more)
            return _Decoded(np.array(upright.convert("RGB")), False, has_more)
    except (OSError, SyntaxError, ValueError, RuntimeError, PIL.Image.DecompressionBombError):
        raise InputError(f"{path}: not an image, or a damaged one") from None


def _composited(image: _Stored, has_more: bool) -> _Decoded:
    """Composite (H, W, 4) RGBA; an opaque alpha channel does not count."""
    return _Decoded(composite_on_black(image), bool(image[..., 3].min() < _largest(image)), has_more)


def _upright(image: _Stored, orientation: int) -> _Stored:
    """Apply an EXIF ``orientation`` (1 to 8) to (H, W, C)."""
    if orientation >= _FIRST_TRANSPOSED:
        image = image.transpose(1, 0, 2)
    if orientation in _MIRRORED_ACROSS:
        image = image[:, ::-1]
    if orientation in _MIRRORED_DOWN:
        image = image[::-1]
    return np.ascontiguousarray(image)


def _imdecode(data: bytes, mode: int) -> _Stored | None:
    try:
        image: _Stored | None = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:
        return None
    return image


def composite_on_black(image: _Stored) -> Image:
    """Composite (H, W, 4) RGBA of any depth on black: (H, W, 3) 8-bit RGB."""
    largest = _largest(image)
    alpha = image[..., 3:].astype(np.float32) / largest
    colours = image[..., :3].astype(np.float32) * (255 / largest)
    return np.ascontiguousarray(np.clip(np.rint(colours * alpha), 0, 255).astype(np.uint8))


def _largest(image: _Stored) -> int:
    """Largest value of an image's type, which is opaque or white."""
    return {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(image.dtype, 1)


def _count(number: int, noun: str) -> str:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
