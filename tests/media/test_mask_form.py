"""Index PNGs of all forms come back as they were: values, palette, bits."""

import numpy as np
import PIL.Image
import pytest

from tfcseg.errors import DataError
from tfcseg.media.masks import read_header, read_values, write_values

VALUES = np.array([[0, 1, 2], [3, 1, 0]], np.uint8)


def palette_png(path, bits=8, **options):
    picture = PIL.Image.fromarray(VALUES)
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    picture.save(path, bits=bits, **options)


@pytest.mark.parametrize("kind", ["palette", "palette of 2 bits", "with a clear value", "gray", "16 bits", "1 bit"])
def test_forms(tmp_path, kind):
    path, values = tmp_path / "a.png", VALUES
    if kind == "gray":
        PIL.Image.fromarray(VALUES).save(path)
    elif kind == "16 bits":
        values = VALUES.astype(np.uint16) * 20000
        PIL.Image.fromarray(values).save(path)
    elif kind == "1 bit":
        values = VALUES % 2
        PIL.Image.fromarray(values.astype(bool)).save(path)
    else:
        options = {"transparency": 3} if "clear" in kind else {}
        palette_png(path, 2 if "2 bits" in kind else 8, **options)
    read, form = read_values(path)
    assert read.tolist() == values.tolist()
    write_values(tmp_path / "b.png", read, form)
    again, same = read_values(tmp_path / "b.png")
    assert again.dtype == read.dtype
    assert again.tolist() == values.tolist()
    assert same == form
    assert read_header(tmp_path / "b.png") == read_header(path)


def test_colours(tmp_path):
    colours = {(10, 20, 30): 0, (200, 0, 5): 4}
    pixels = np.array([[[10, 20, 30], [200, 0, 5]]], np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    read, form = read_values(tmp_path / "a.png", colours)
    assert read.tolist() == [[0, 4]]
    write_values(tmp_path / "b.png", read, form)
    assert np.array(PIL.Image.open(tmp_path / "b.png")).tolist() == pixels.tolist()


def test_a_colour_that_no_class_has(tmp_path):
    PIL.Image.fromarray(np.full((2, 2, 3), 9, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"the colour \(9, 9, 9\), which no class has; --classes-json gives"):
        read_values(tmp_path / "a.png", {(1, 2, 3): 0})


def test_the_limit_of_a_mask_is_that_of_a_picture(tmp_path):
    """Pillow warns of pictures above 89 million pixels, and refuses others in its own words."""
    PIL.Image.new("1", (9000, 10_000)).save(tmp_path / "large.png")
    assert read_values(tmp_path / "large.png")[0].shape == (10_000, 9000)
    PIL.Image.new("1", (10_001, 10_000)).save(tmp_path / "larger.png")
    with pytest.raises(DataError, match="pictures of 10001x10000 are not read, 100 million pixels is the limit"):
        read_values(tmp_path / "larger.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a", "not a PNG file"),
        (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\0\2" * 2 + b"\x08\x04", "8-bit gray with alpha"),
        (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\0\2" * 2 + b"\x08\x03", "is damaged"),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_values(tmp_path / "a.png")
