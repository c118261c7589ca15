"""Folders of images: the order people expect, one size, and no frame lost to a bad file."""

from fractions import Fraction

import cv2
import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps
import pytest

from tests.helpers.media import folder_of_images, numbered_image, numbered_images, read_number, run_ffmpeg, write_clip
from tfcseg.errors import InputError, UsageError
from tfcseg.media.images import fit_image, natural_key, read_image
from tfcseg.media.reader import open_frames, probe, read_frames


def decode(folder, **options):
    with open_frames(folder, **options) as source:
        frames = list(source)
    assert source.frames_decoded == len(frames)
    return frames, source.info, source.warnings


def test_natural_order_exact_pixels_and_times(tmp_path):
    names = ["f1.png", "f2.png", "F3.PNG", "f9.bmp", "f10.png", "f11.tif", "f100.png"]
    images = numbered_images(7, (47, 63))
    folder_of_images(tmp_path, images[::-1], names[::-1])
    frames, info, warnings = decode(tmp_path)
    for index, (frame, image) in enumerate(zip(frames, images, strict=True)):
        np.testing.assert_array_equal(frame.image, image)
        assert (frame.index, frame.time_s, frame.is_held) == (index, index / 25, False)
        assert frame.image.flags.c_contiguous
    assert (info.width, info.height, info.frame_rate, info.frames_declared) == (63, 47, 25, 7)
    assert (info.path, info.audio, info.rotation, info.duration_s) == (str(tmp_path), None, 0, 7 / 25)
    assert probe(tmp_path) == info
    assert warnings == []


def test_natural_key():
    names = ["a10b2", "a10b10", "a2", "A3", "a02", "10", "9", "٣"]
    assert sorted(names, key=natural_key) == ["9", "10", "a02", "a2", "A3", "a10b2", "a10b10", "٣"]


def test_frames_that_ffmpeg_extracted_read_like_the_video(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 12)
    folder = tmp_path / "frames"
    folder.mkdir()
    run_ffmpeg("-i", clip, "-q:v", "2", folder / "%d.jpg")
    assert [read_number(frame.image) for frame in read_frames(folder)] == list(range(12))


def test_other_entries_are_skipped_and_counted(tmp_path):
    folder_of_images(tmp_path, numbered_images(2), ["0.png", "1.png"])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "masks.png").mkdir()
    (tmp_path / ".DS_Store").write_text("x")
    frames, info, warnings = decode(tmp_path)
    assert [read_number(frame.image) for frame in frames] == [0, 1]
    assert list(info.warnings) == warnings == ["skipped 2 entries of the folder: not images"]


def test_first_size_is_kept_and_others_are_named(tmp_path):
    images = [numbered_image(0, (48, 64)), numbered_image(1, (96, 128)), np.full((64, 32, 3), 200, np.uint8)]
    folder_of_images(tmp_path, images, ["0.png", "1.png", "2.png"])
    frames, info, warnings = decode(tmp_path)
    assert (info.height, info.width) == (48, 64)
    assert [read_number(frame.image) for frame in frames[:2]] == [0, 1]
    tall = frames[2].image
    assert (tall[:, 20:44] == 200).all()
    assert not tall[:, :20].any()
    assert not tall[:, 44:].any()
    assert warnings == ["2 images of another size fitted to 64x48: 1.png (128x96), 2.png (32x64)"]


def test_many_odd_images_are_named_briefly(tmp_path):
    folder_of_images(tmp_path, numbered_images(1) + numbered_images(8, (24, 32)), [f"{n}.png" for n in range(9)])
    _, _, warnings = decode(tmp_path)
    assert warnings[0].startswith("8 images of another size fitted to 64x48: 1.png (32x24), ")
    assert warnings[0].endswith("5.png (32x24) and 3 more")


@pytest.mark.parametrize("size", [(1, 1), (10, 200), (200, 10), (48, 64)])
def test_fitting_keeps_the_shape(size):
    image = fit_image(np.full((*size, 3), 255, np.uint8), (48, 64))
    assert image.shape == (48, 64, 3)
    rows, columns = image.any(axis=(1, 2)).sum(), image.any(axis=(0, 2)).sum()
    scale = min(48 / size[0], 64 / size[1])
    assert abs(rows - size[0] * scale) <= 1
    assert abs(columns - size[1] * scale) <= 1


# Row 20: bad files.


def broken(data, kind):
    if kind == "flipped":
        middle = len(data) // 2
        return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 20]) + data[middle + 20 :]
    return {"empty": b"", "half": data[: len(data) // 2], "most": data[:-3], "text": b"not an image at all"}[kind]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
@pytest.mark.parametrize("kind", ["empty", "half", "text"])
def test_bad_image_holds_the_one_before(tmp_path, suffix, kind):
    folder_of_images(tmp_path, numbered_images(4), [f"{n}.{suffix}" for n in range(4)])
    bad = tmp_path / f"2.{suffix}"
    bad.write_bytes(broken(bad.read_bytes(), kind))
    frames, info, warnings = decode(tmp_path)
    assert [read_number(frame.image) for frame in frames] == [0, 1, 1, 3]
    assert [frame.is_held for frame in frames] == [False, False, True, False]
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert info.frames_declared == 4
    (warning,) = warnings
    assert warning.startswith(f"1 image could not be read and show the one before: 2.{suffix}: ")
    assert ("0 bytes" in warning) == (kind == "empty")


@pytest.mark.parametrize(("suffix", "kind"), [("png", "flipped"), ("jpg", "most")])
def test_slightly_damaged_images_are_noticed(tmp_path, suffix, kind):
    folder_of_images(tmp_path, numbered_images(2), [f"{n}.{suffix}" for n in range(2)])
    bad = tmp_path / f"1.{suffix}"
    bad.write_bytes(broken(bad.read_bytes(), kind))
    assert [frame.is_held for frame in read_frames(tmp_path)] == [False, True]


def test_cut_off_jpeg_with_a_thumbnail_is_noticed(tmp_path):
    thumbnail = cv2.imencode(".jpg", numbered_image(7, (16, 16)))[1].tobytes()
    data = cv2.imencode(".jpg", numbered_image(1))[1].tobytes()
    header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = data[:2] + header + data[2:]
    (tmp_path / "0.jpg").write_bytes(data)
    (tmp_path / "1.jpg").write_bytes(data[: len(data) - 400])
    assert [(read_number(frame.image), frame.is_held) for frame in read_frames(tmp_path)] == [(1, False), (1, True)]


def test_bad_images_first_take_the_first_good_one(tmp_path):
    folder_of_images(tmp_path, numbered_images(3), ["0.png", "1.png", "2.png"])
    (tmp_path / "0.png").write_bytes(b"")
    frames, _, warnings = decode(tmp_path)
    assert [(read_number(frame.image), frame.is_held) for frame in frames] == [(1, True), (1, False), (2, False)]
    assert warnings == ["1 image could not be read and show the one before: 0.png: the image is empty (0 bytes)"]


def test_folders_with_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match=r"no images in this folder \(0 other entries\); wanted: avif, bmp"):
        open_frames(tmp_path)
    (tmp_path / "notes.txt").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no images in this folder \(1 other entry\)"):
        probe(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="holds no images, but 1 video; name one video instead"):
        probe(tmp_path)
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "1.jpg").write_bytes(b"text")
    with pytest.raises(InputError, match="none of its 2 images can be read"):
        open_frames(tmp_path)


# Kinds of images.


def test_every_depth_and_channel_count_becomes_rgb(tmp_path):
    grey = np.full((8, 8), 77, np.uint8)
    deep = np.full((8, 8, 3), (10 * 257, 20 * 257, 30 * 257), np.uint16)  # BGR, as OpenCV stores
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    cv2.imwrite(str(tmp_path / "deep.tif"), deep)
    assert (read_image(tmp_path / "grey.png") == 77).all()
    for name in ("deep.png", "deep.tif"):
        assert np.abs(read_image(tmp_path / name).astype(int) - (30, 20, 10)).max() <= 1


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_alpha_is_composited_on_black_and_said_once(tmp_path, depth):
    unit = np.iinfo(depth).max // 255
    clear = np.zeros((48, 64, 4), depth)
    clear[:] = np.array((200, 100, 50, 255)) * unit
    clear[:, :32, 3] = 51 * unit
    folder_of_images(tmp_path, [clear, clear], ["0.png", "1.png"])
    frames, _, warnings = decode(tmp_path)
    assert (frames[1].image[:, :32] == (40, 20, 10)).all()
    assert (frames[1].image[:, 32:] == (200, 100, 50)).all()
    assert warnings == ["2 images with an alpha channel composited on black: 0.png, 1.png"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "mode", "options"),
    [
        ("jpg", "RGB", {"quality": 95}),
        ("png", "RGB", {}),
        ("png", "RGBA", {}),
        ("png", "P", {}),
        ("png", "L", {}),
        ("webp", "RGB", {"lossless": True}),
        ("webp", "RGBA", {"lossless": True}),
        ("tif", "RGB", {}),
        ("avif", "RGB", {"quality": 95}),
    ],
)
def test_photo_orientation_is_obeyed(tmp_path, suffix, mode, options, orientation):
    if suffix == "avif" and not PIL.features.check("avif"):
        pytest.skip("this Pillow knows no AVIF")
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if suffix == "tif" else {"exif": exif, **options}
    path = tmp_path / f"0.{suffix}"
    PIL.Image.fromarray(numbered_image(5, (64, 96))).convert(mode).save(path, **options)
    with PIL.Image.open(path) as picture:
        wanted = np.asarray(PIL.ImageOps.exif_transpose(picture).convert("RGB")).astype(int)
    assert wanted.shape == ((96, 64, 3) if orientation > 4 else (64, 96, 3))
    image = read_image(path)
    assert image.shape == wanted.shape
    assert np.abs(image - wanted).mean() < 3


@pytest.mark.parametrize("suffix", ["jfif", "ppm", "jp2", "avif", "pgm"])
def test_other_kinds_of_pictures(tmp_path, suffix):
    kinds = {"jfif": "JPEG", "ppm": "PPM", "jp2": "JPEG2000", "avif": "AVIF", "pgm": "PPM"}
    options = {"jfif": {"quality": 95}, "avif": {"quality": 90}}.get(suffix, {})
    for number in range(3):
        picture = PIL.Image.fromarray(numbered_image(number))
        picture = picture.convert("L") if suffix == "pgm" else picture
        picture.save(tmp_path / f"{number}.{suffix}", kinds[suffix], **options)
    data = (tmp_path / f"1.{suffix}").read_bytes()
    (tmp_path / f"1.{suffix}").write_bytes(data[: len(data) // 2])
    frames, _, warnings = decode(tmp_path)
    assert [read_number(frame.image) for frame in frames][::2] == [0, 2]
    assert len(warnings) == frames[1].is_held


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_gray_is_reduced_and_floats_are_refused(tmp_path, suffix):
    PIL.Image.fromarray(np.full((8, 8), 77 * 257, np.uint16)).save(tmp_path / f"deep.{suffix}")
    assert (read_image(tmp_path / f"deep.{suffix}") == 77).all()
    cv2.imwrite(str(tmp_path / "float.tif"), np.full((8, 8), 0.5, np.float32))
    with pytest.raises(InputError, match=r"float\.tif: not an image, or a damaged one"):
        read_image(tmp_path / "float.tif")


def test_phone_photos_with_a_second_picture_for_3d_are_plain_photos(tmp_path):
    first, second = (PIL.Image.fromarray(numbered_image(number)) for number in range(2))
    first.save(tmp_path / "0.jpg", "MPO", save_all=True, append_images=[second], quality=95)
    frames, _, warnings = decode(tmp_path)
    assert ([read_number(frame.image) for frame in frames], warnings) == ([0], [])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_notes_that_make_no_sense_leave_a_photo_as_it_is(tmp_path):
    PIL.Image.fromarray(numbered_image(3)).save(tmp_path / "0.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f", quality=95)
    assert read_number(read_image(tmp_path / "0.jpg")) == 3


def test_files_of_several_pictures_are_named(tmp_path):
    pictures = [PIL.Image.fromarray(numbered_image(number)) for number in range(3)]
    for name, options in (
        ("0.tif", {}),
        ("1.png", {}),
        ("2.webp", {"lossless": True}),
        ("3.png", {"append_images": []}),
    ):
        pictures[0].save(tmp_path / name, **({"save_all": True, "append_images": pictures[1:]} | options))
    frames, _, warnings = decode(tmp_path)
    assert [read_number(frame.image) for frame in frames] == [0, 0, 0, 0]
    assert warnings == ["3 files with several pictures, of which the first was read: 0.tif, 1.png, 2.webp"]


def test_motion_jpeg_that_is_named_like_a_picture_is_mentioned(tmp_path):
    video = write_clip(tmp_path / "clip.mjpeg", 3, video=("-c:v", "mjpeg", "-q:v", "2"))
    frames, _, warnings = decode(video.rename(tmp_path / "clip.jpg"))
    assert [read_number(frame.image) for frame in frames] == [0]
    assert warnings == ["1 file with several pictures, of which the first was read: clip.jpg"]


def test_names_with_odd_characters(tmp_path):
    names = ["0 %03d.png", "1 日本é.png", "2\nline.png", f"3{'x' * 250}.png", "-4.png"]
    folder = folder_of_images(tmp_path / "-folder: é", numbered_images(5), names)
    assert [read_number(frame.image) for frame in read_frames(folder)] == list(range(5))


# Selecting a range.


def test_range_and_rate(tmp_path):
    folder_of_images(tmp_path, numbered_images(30), [f"{n}.png" for n in range(30)])
    frames, info, _ = decode(tmp_path, start_s=1, end_s=1.5, frame_rate=Fraction(15))
    assert [read_number(frame.image) for frame in frames] == list(range(15, 23))
    assert [frame.index for frame in frames] == list(range(8))
    assert frames[0].time_s == 1
    assert info.frame_rate == 15
    with pytest.raises(InputError, match="the images end before the start of the requested range"):
        open_frames(tmp_path, start_s=100)
    with pytest.raises(UsageError, match=r"the end of the range \(1 s\) must lie after its start \(2 s\)"):
        open_frames(tmp_path, start_s=2, end_s=1)
