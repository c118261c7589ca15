"""Pillow reads what we pack, and we read what Pillow writes, or leave it to Pillow."""

import io

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tfcseg.media.plain_png import PlainPng, pack_png, unpack_png

PALETTE = bytes(range(256)) * 3
NOTE = b"Software\0test"


def with_pillow(values, palette=None, **options):
    picture, written = PIL.Image.fromarray(values), io.BytesIO()
    if palette is not None:
        picture.putpalette(palette)
    picture.save(written, "PNG", **options)
    return written.getvalue()


def values(dtype):
    return arrays(dtype, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@pytest.mark.parametrize(("dtype", "palette"), [(np.uint8, None), (np.uint8, PALETTE), (np.uint16, None)])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_pillow_reads_what_is_packed(dtype, palette, data):
    given = data.draw(values(dtype))
    content = pack_png(PlainPng(given, palette), NOTE)
    found = unpack_png(content)
    assert found is not None
    assert found.values.dtype == dtype
    assert np.array_equal(found.values, given)
    assert found.palette == palette
    with PIL.Image.open(io.BytesIO(content)) as picture:
        picture.verify()
    with PIL.Image.open(io.BytesIO(content)) as picture:
        assert picture.info == {"Software": "test"}
        assert np.array_equal(np.asarray(picture), given)
        assert palette is None or picture.palette.tobytes() == palette


@pytest.mark.parametrize("palette", [None, PALETTE])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_read_is_what_pillow_wrote(palette, data):
    """Palette PNGs have no filters; those of gray ones differ from row to row, and few can be read."""
    given = data.draw(values(np.uint8))
    found = unpack_png(with_pillow(given, palette, compress_level=data.draw(st.integers(0, 9))))
    assert found is not None or palette is None
    if found is not None:
        assert np.array_equal(found.values, given)
        assert found.palette == palette


def test_others_are_left_to_pillow():
    given = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = pack_png(PlainPng(given, PALETTE), NOTE)
    for cut in range(len(content)):
        assert unpack_png(content[:cut]) is None
    at = content.index(b"IDAT") + 8
    assert unpack_png(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]) is None
    assert unpack_png(with_pillow(given % 4, PALETTE, bits=2)) is None
    assert unpack_png(with_pillow(given, PALETTE, transparency=3)) is None
    assert unpack_png(with_pillow(np.dstack([given] * 3))) is None
