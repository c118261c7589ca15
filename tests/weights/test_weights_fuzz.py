"""Weights files from anybody: the answer is a network or one line, and nothing large is read for it."""

from __future__ import annotations

import io
import json
import pickle
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.helpers.command_line import call
from tests.helpers.tiny_model import build_tiny_network, tiny_card, write_tiny_model
from tfcseg.errors import WeightsError
from tfcseg.weights.convert import convert_segformer
from tfcseg.weights.loading import load_model, save_model
from tfcseg.weights.segformer_file import read_segformer_file
from tfcseg.weights.tensor_file import read_tensor_file, write_tensor_file
from tfcseg.weights.tensor_header import HEADER_LIMIT_BYTES

FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEW = settings(FUZZ, max_examples=10)
DTYPES = st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", "f32", "", None, 7])
NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([2**31, 2**53, 2**63, 2**64, 10**30, -(2**63), 10**4000]),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
)
ENTRIES = st.one_of(
    st.fixed_dictionaries(
        {
            "dtype": DTYPES,
            "shape": st.one_of(st.lists(NUMBERS, max_size=4), NUMBERS, st.just([1] * 5000)),
            "data_offsets": st.one_of(st.lists(NUMBERS, max_size=3), NUMBERS),
        },
        optional={"more": NUMBERS},
    ),
    st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)),
)
NAMES = st.one_of(
    st.text(max_size=8), st.sampled_from(["__metadata__", "a\n\x1b[31mb", "x" * 5000, "\ud800", "backbone"])
)


def refused_in_one_line(read, path) -> bool:
    """Whether ``read`` refuses ``path`` with a WeightsError of one short line; fails if anything else is raised."""
    said = None
    try:
        read(path)
    except WeightsError as error:
        said = str(error)
    if said is not None:
        assert said.isprintable()
        assert len(said) < 1000
    return said is not None


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "some.safetensors"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny.safetensors")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    """A sound file of a few hundred bytes."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    write_tensor_file(
        path, {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(5, dtype=torch.int64)}, {"key": "text"}
    )
    return path.read_bytes()


# --------------------------------------------------------------------------------------------------------- safetensors


@FUZZ
@given(data=st.binary(max_size=200))
@example(data=b"")
@example(data=with_header(b"[" * 100_000))
@example(data=with_header(b'{"a":' * 50_000))
@example(data=with_header(b'{"a":' + b"9" * 5000 + b"}"))
@example(data=with_header(b" " * (HEADER_LIMIT_BYTES + 1)))
@example(data=with_header(b'{"__metadata__":{"a":"\xff"}}'))
def test_any_bytes_are_refused(data, file):
    file.write_bytes(data)
    assert refused_in_one_line(read_tensor_file, file)
    assert refused_in_one_line(load_model, file)


@FUZZ
@given(entries=st.dictionaries(NAMES, ENTRIES, max_size=4), data=st.binary(max_size=64))
def test_any_header_is_refused_or_true(entries, data, file):
    file.write_bytes(with_header(json.dumps(entries).encode(), data))
    if not refused_in_one_line(read_tensor_file, file):
        tensors = read_tensor_file(file).tensors
        assert sum(tensor.nbytes for tensor in tensors.values()) == len(data)


@FUZZ
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=6))
def test_flipped_bytes_are_refused_or_only_change_numbers(flips, small, file):
    data = bytearray(small)
    for place, bits in flips:
        data[place % len(data)] ^= bits
    file.write_bytes(data)
    if not refused_in_one_line(read_tensor_file, file):
        assert sum(tensor.nbytes for tensor in read_tensor_file(file).tensors.values()) == 24 + 40


@FUZZ
@given(length=st.integers(0, 10**6))
def test_every_cut_is_refused(length, small, file):
    file.write_bytes(small[: length % len(small)])
    assert refused_in_one_line(read_tensor_file, file)


@FEW
@given(
    flips=st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 255)), min_size=1, max_size=3),
    in_header=st.booleans(),
)
def test_a_damaged_model_is_refused_or_runs(flips, in_header, tiny, file):
    data = bytearray(tiny.read_bytes())
    header_end = 8 + int.from_bytes(data[:8], "little")
    for place, bits in flips:
        data[place % header_end if in_header else header_end + place % (len(data) - header_end)] ^= bits
    file.write_bytes(data)
    if not refused_in_one_line(lambda path: load_model(path, device="cpu"), file):
        model = load_model(file, device="cpu", precision="fp32")
        assert model.network.image(torch.zeros(1, 3, 32, 32)).shape == (1, len(model.labels), 8, 8)


def test_hostile_headers_cost_no_time(file):
    numbers = ",".join(["9" * 4000] * 250)
    entry = '{"a":{"dtype":"F32","shape":[' + numbers + '],"data_offsets":[0,4]}}'
    names = ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(18_000))
    for header in (entry, "[" * HEADER_LIMIT_BYTES, f"{{{names}}}"):
        file.write_bytes(with_header(header.encode()))
        started_s = time.process_time()
        assert refused_in_one_line(load_model, file)
        assert time.process_time() - started_s < 2


# ------------------------------------------------------------------------------------------------------ what is in them


@FEW
@given(key=st.text(max_size=6), value=st.text(max_size=20))
def test_metadata_of_others_is_refused(key, value, small, file):
    try:
        write_tensor_file(file, {"a": torch.zeros(1)}, {"format": "tfcseg-1", key: value})
    except UnicodeEncodeError:
        return  # lone surrogates cannot be written
    assert refused_in_one_line(load_model, file)


def test_names_from_the_file_do_not_reach_the_terminal(file, tmp_path):
    write_tensor_file(file, {"a": torch.zeros(1)}, {"format": "\x1b[31mred[/] [bold]"})
    hostile = tmp_path / "[red]a\x1b[2J :smile:\n.safetensors"
    file.rename(hostile)
    (tmp_path / "v.mp4").write_bytes(b"")
    done = call("run", tmp_path / "v.mp4", "-o", tmp_path / "out", "-m", hostile)
    assert done.returncode == 1
    assert "\x1b" not in done.error
    assert "[red]a\\x1b[2J :smile: .safetensors" in done.error


# ----------------------------------------------------------------------------------------------------- the same bytes


def test_the_same_model_gives_the_same_bytes(tmp_path):
    first, second = (
        save_model(tmp_path / f"{name}.safetensors", build_tiny_network(), tiny_card()) for name in ("a", "b")
    )
    assert first == second
    data = (tmp_path / "a.safetensors").read_bytes()
    assert data == (tmp_path / "b.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])
    assert int.from_bytes(data[:8], "little") % 8 == 0


def test_the_order_of_metadata_changes_nothing(tmp_path):
    texts = {f"key {n}": f"Wert “{n}”" for n in range(20)}
    tensors = {"b": torch.ones(3, dtype=torch.float16), "a": torch.arange(4)}
    for name, order in (("a", sorted(texts)), ("b", sorted(texts, reverse=True))):
        write_tensor_file(tmp_path / name, tensors, {key: texts[key] for key in order})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    back = read_tensor_file(tmp_path / "a")
    assert back.metadata == texts
    assert all(torch.equal(back.tensors[name], tensors[name]) for name in tensors)


# -------------------------------------------------------------------------------------------------------------- convert


@pytest.fixture(scope="module")
def pickles() -> list[bytes]:
    """What torch.save writes, in both of its formats, and what pickle does."""
    content = {"state_dict": {"decode_head.linear_pred.weight": torch.ones(3, 4)}, "meta": {"CLASSES": ("a", "b", "c")}}
    files = []
    for is_zip in (True, False):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
        files.append(buffer.getvalue())
    return [*files, *(pickle.dumps({"a": [1, {"b": "c"}]}, protocol=protocol) for protocol in (0, 2, 5))]


@FUZZ
@given(
    number=st.integers(0, 4),
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=4), st.integers(0, 6)), min_size=1, max_size=4),
)
def test_damaged_checkpoints_are_refused(number, flips, pickles, tmp_path):
    data = bytearray(pickles[number])
    for place, new, length in flips:
        start = place % len(data) if data else 0
        data[start : start + length] = new
    (tmp_path / "segformer.pth").write_bytes(data)
    assert refused_in_one_line(convert_segformer, tmp_path / "segformer.pth")


@FUZZ
@given(
    shapes=st.dictionaries(
        st.sampled_from(
            [
                "segformer.encoder.block.0.0.attention.self.key.weight",
                "segformer.encoder.block.0.0.attention.self.value.weight",
                "segformer.encoder.block.0.0.attention.self.key.bias",
                "segformer.encoder.layer_norm.0.bias",
                "decode_head.linear_fuse.weight",
                "decode_head.batch_norm.bias",
                "decode_head.classifier.bias",
                "unknown.weight",
                ".",
                "",
            ]
        ),
        st.lists(st.integers(0, 5), max_size=5),
    )
)
def test_tensors_of_any_shape_are_refused(shapes, tmp_path):
    write_tensor_file(tmp_path / "s.safetensors", {name: torch.zeros(shape) for name, shape in shapes.items()}, {})
    assert refused_in_one_line(convert_segformer, tmp_path / "s.safetensors")


def test_a_number_repeated_without_end_takes_no_room(tmp_path):
    names = [f"segformer.encoder.block.0.0.attention.self.{part}.weight" for part in ("key", "value")]
    endless = torch.zeros(1).expand(200_000, 100_000)
    torch.save(dict.fromkeys(names, endless), tmp_path / "endless.pth")
    assert (tmp_path / "endless.pth").stat().st_size < 10_000
    with pytest.raises(WeightsError, match="claims tensors of more than 2 GiB"):
        convert_segformer(tmp_path / "endless.pth")


def test_torchs_colours_and_advice_stay_out_of_the_reason(tmp_path):
    """What torch says of a file with more than tensors is a page long, with bold letters in its first line."""
    path = tmp_path / "segformer.pth"
    torch.save({"state_dict": {"weight": torch.ones(2)}, "meta": Path.home}, path)
    with pytest.raises(WeightsError) as caught:
        read_segformer_file(path)
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith("which is not opened; save its state_dict alone")
