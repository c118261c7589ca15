"""The output folder, masks and atomic files."""

import os
import shutil
import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

import tfcseg
from tests.helpers.media import write_video
from tests.helpers.tiny_model import build_tiny_model, moving_images
from tfcseg.errors import DataError, OutputError, UsageError
from tfcseg.exports import FILE_NAMES, FORMATS, ZIP_MARK
from tfcseg.files import replace_atomically
from tfcseg.labels.label_sets import ADE31, NO_CLASS
from tfcseg.media.masks import MaskWriter, read_mask
from tfcseg.runs.outputs import RESULT_NAMES, OutputDir, claimed_output, is_own

PALETTE = ADE31.palette_array()
HOSTILE_NAMES = [
    "with space",
    "-dash",
    "ünïcode 漢字",
    "new\nline",
    "'quote\"<b>",
    "x" * 200,
    os.fsdecode(b"not-utf8-\xff"),
]


@pytest.fixture
def labels():
    labels = np.random.default_rng(0).integers(0, 32, (37, 53), dtype=np.uint8)
    labels[:5] = NO_CLASS
    return labels


@pytest.fixture
def read_only_folder():
    """A folder that this process cannot write to; root, who may write everywhere, plays somebody else meanwhile."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def prepare_output(folder, inputs, overwrite=False):
    """What a run does with its folder before its first frame."""
    with claimed_output(folder, inputs=inputs, overwrite=overwrite) as output:
        output.remove_results()
    return output


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with every file that a run can write."""
    folder = tmp_path_factory.mktemp("runs")
    clip = write_video(folder / "clip.mp4", moving_images(2, (48, 64)))
    wanted = {"export": FORMATS, "side_by_side": True, "copy_source": True, "confidence": True}
    tfcseg.run(clip, folder / "out", build_tiny_model(), **wanted)
    return folder / "out"


@pytest.fixture
def finished(tmp_path, written):
    """The output of a run that is complete."""
    output = prepare_output(tmp_path / "out", inputs=[])
    shutil.copytree(written, output.path, dirs_exist_ok=True)
    return output


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def write_all(writer: MaskWriter, maps) -> None:
    for index, labels in enumerate(maps):
        writer.write(index, labels)


def one_line(caught) -> str:
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


# --- masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [1, 2, 16, 32, 255])
def test_masks_come_back_as_they_were_written(tmp_path, num_classes):
    rng = np.random.default_rng(num_classes)
    palette = rng.integers(0, 256, (num_classes, 3), dtype=np.uint8)
    maps = [rng.integers(0, num_classes, (23, 41), dtype=np.uint8) for _ in range(20)]
    maps[3][:] = NO_CLASS
    with MaskWriter(tmp_path / "deep" / "masks", palette) as writer:
        write_all(writer, maps)
    assert files_below(tmp_path) == {f"deep/masks/{index:08d}.png" for index in range(20)}
    for index, labels in enumerate(maps):
        assert np.array_equal(read_mask(tmp_path / "deep" / "masks" / f"{index:08d}.png"), labels)


def test_masks_are_8_bit_palette_pngs_that_viewers_show_in_colour(tmp_path, labels):
    with MaskWriter(tmp_path, PALETTE[:4]) as writer:
        writer.write(12, labels % 4)
    data = (tmp_path / "00000012.png").read_bytes()
    assert (data[24], data[25]) == (8, 3)  # bit depth, colour type
    shown = cv2.imread(str(tmp_path / "00000012.png"), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(shown, PALETTE[:4][labels % 4])


def test_masks_of_plain_regions_are_small(tmp_path):
    rows, columns = np.indices((720, 1280))
    with MaskWriter(tmp_path, PALETTE) as writer:
        writer.write(0, ((rows // 90 + columns // 160) % 32).astype(np.uint8))
    assert (tmp_path / "00000000.png").stat().st_size < 20_000


def test_labels_may_be_views_and_may_change_after_write(tmp_path, labels):
    expected = labels[::2, ::3].copy()
    with MaskWriter(tmp_path, PALETTE) as writer:
        writer.write(0, labels[::2, ::3])
        labels[:] = 0
    assert np.array_equal(read_mask(tmp_path / "00000000.png"), expected)


def test_a_failed_write_surfaces_later_or_on_close(tmp_path, labels):
    folder = tmp_path / "masks"
    writer = MaskWriter(folder, PALETTE)
    folder.rmdir()
    writer.write(0, labels)
    with pytest.raises(OutputError, match=r"00000000\.png"):
        writer.close()
    writer.close()  # raised once

    writer = MaskWriter(folder, PALETTE)
    folder.rmdir()
    with pytest.raises(OutputError, match="masks"):
        write_all(writer, [labels] * 100)
    writer.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_no_half_written_mask(tmp_path, labels):
    (tmp_path / ".00000000.png.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left") as caught, MaskWriter(tmp_path, PALETTE) as writer:
        writer.write(0, labels)
    assert "00000000.png" in one_line(caught)
    assert files_below(tmp_path) == set()


def test_an_error_of_the_caller_is_not_replaced_by_one_of_the_writer(tmp_path, labels):
    def fail(folder: Path) -> None:
        with MaskWriter(folder, PALETTE) as writer:
            folder.rmdir()
            writer.write(0, labels)
            raise KeyError("cause")

    with pytest.raises(KeyError):
        fail(tmp_path / "masks")


def test_mask_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        MaskWriter(tmp_path / "file" / "masks", PALETTE)


def test_gray_masks_are_read_as_indices(tmp_path, labels):
    cv2.imwrite(str(tmp_path / "gray.png"), labels)
    assert np.array_equal(read_mask(tmp_path / "gray.png"), labels)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packed_palette_masks_are_read_as_indices(tmp_path, labels, bits):
    packed = labels % 2**bits
    picture = PIL.Image.fromarray(packed)
    picture.putpalette(PALETTE.tobytes())
    picture.save(tmp_path / "packed.png", bits=bits)
    assert (tmp_path / "packed.png").read_bytes()[24] == bits
    assert np.array_equal(read_mask(tmp_path / "packed.png"), packed)


def png(depth: int, colour_type: int, row: bytes, width: int = 2) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(8, 2, bytes(6)), "8-bit RGB colour"),
        (png(8, 6, bytes(8)), "8-bit RGB colour with alpha"),
        (png(8, 4, bytes(4)), "gray with alpha"),
        (png(16, 0, bytes(4)), "16-bit gray"),
        (png(4, 0, b"\x12"), "4-bit gray"),
        (png(8, 0, b"\1\2")[:-24], "damaged"),
        (png(8, 3, b"\1"), "damaged"),
        (png(8, 0, b"\1\2").replace(b"IDAT", b"IDAX"), "damaged"),
        (b"", "not a PNG"),
        (b"\x89PNG\r\n\x1a\n", "not a PNG"),
        (b"\xff\xd8\xff\xe0JFIF" + bytes(40), "not a PNG"),
    ],
)
def test_masks_that_hold_no_indices_are_refused_by_name(tmp_path, data, words):
    path = tmp_path / "mask of frame 7.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        read_mask(path)
    assert "mask of frame 7.png" in one_line(caught)


def test_the_refused_kinds_are_refused_for_their_kind_only(tmp_path):
    (tmp_path / "gray.png").write_bytes(png(8, 0, b"\1\2"))
    assert read_mask(tmp_path / "gray.png").tolist() == [[1, 2]]


def test_damaged_masks_never_end_in_anything_but_a_data_error(tmp_path, labels):
    with MaskWriter(tmp_path, PALETTE) as writer:
        writer.write(0, labels)
    path = tmp_path / "00000000.png"
    sound, rng = path.read_bytes(), np.random.default_rng(5)
    refused = 0
    for _ in range(200):
        damaged = bytearray(sound[: rng.integers(len(sound) // 2, len(sound) + 1)])
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            read_mask(path)
        except DataError:
            refused += 1
    assert refused > 100


def test_missing_mask(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_mask(tmp_path / "none.png")


# --- replacing a file ----------------------------------------------------------------------------------------------


def test_replace_atomically_shows_the_new_content_only_when_it_is_complete(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with replace_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert files_below(tmp_path) == {"report.json"}


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_replace_atomically_keeps_the_old_file_if_the_block_fails(tmp_path, failure):
    def write_half(path: Path) -> None:
        with replace_atomically(path) as temporary:
            temporary.write_text("half")
            raise failure

    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(failure):
        write_half(path)
    assert path.read_text() == "old"
    assert files_below(tmp_path) == {"report.json"}


def test_replace_atomically_names_the_file_that_cannot_be_written(tmp_path):
    with (
        pytest.raises(OutputError, match=r"report\.json"),
        replace_atomically(tmp_path / "none" / "report.json") as path,
    ):
        path.write_text("new")


# --- the output folder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_folders_of_any_name_are_made_and_refused_by_name(tmp_path, name, labels):
    source = tmp_path / f"{name}.mp4"
    source.write_bytes(b"video")
    with (
        claimed_output(tmp_path / "parent" / name, inputs=[source]) as output,
        MaskWriter(output.masks, PALETTE) as writer,
    ):
        writer.write(0, labels)
    with pytest.raises(OutputError) as caught:
        prepare_output(output.path, inputs=[source])
    assert "--overwrite" in one_line(caught)


def test_an_empty_or_foreign_folder_is_accepted_and_left_as_it_is(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "masks" / "sketch.png").write_text("mine")
    prepare_output(tmp_path, inputs=[])
    prepare_output(tmp_path, inputs=[], overwrite=True)
    assert files_below(tmp_path) == {"notes.txt", "masks/sketch.png"}


@pytest.mark.parametrize("name", [*RESULT_NAMES, "masks/00000000.png"])
def test_each_result_alone_is_refused_without_overwrite(tmp_path, finished, name):
    for path in finished.results():
        if path != finished.path / name:
            path.unlink()
    with pytest.raises(OutputError, match=r"already exists; use --overwrite") as caught:
        prepare_output(finished.path, inputs=[])
    assert name in one_line(caught)
    assert files_below(finished.path) == {name}


def test_overwrite_removes_results_and_leftovers_but_nothing_foreign(finished):
    foreign = {"notes.txt", "overlay.mp4.bak", "masks/cat.png", "masks/0001.png", "sub/report.json"}
    (finished.path / "sub").mkdir()
    for name in foreign:
        (finished.path / name).write_text("mine")
    for name in (".report.json.part", "masks/.00000002.png.part"):
        (finished.path / name).write_text("half")
    prepare_output(finished.path, inputs=[], overwrite=True)
    assert files_below(finished.path) == foreign


def test_masks_that_others_made_are_never_removed(finished):
    hand_made = finished.masks / "00000001.png"
    cv2.imwrite(str(hand_made), np.zeros((4, 4), dtype=np.uint8))
    before = files_below(finished.path)
    with pytest.raises(OutputError, match=r"00000001\.png.*not written by tfcseg") as caught:
        prepare_output(finished.path, inputs=[], overwrite=True)
    one_line(caught)
    assert files_below(finished.path) == before


def test_every_result_says_that_it_is_one(finished):
    names = {str(path.relative_to(finished.path)) for path in finished.results()}
    assert {*RESULT_NAMES, "masks/00000001.png", "confidence/00000001.png"} < names
    assert any(name.startswith("matte_") and name.endswith(".webm") for name in names)
    assert [path for path in finished.results() if not is_own(path)] == []


@pytest.mark.parametrize("name", [*RESULT_NAMES, "matte_person.mp4", "matte_person.webm"])
def test_files_of_others_are_never_removed_whatever_they_are_called(finished, tmp_path, name):
    """Another's copy of the same kind, and something else altogether."""
    theirs = finished.path / name
    for kind, mark in ((".mp4", b"made by tfcseg"), (".zip", ZIP_MARK)):
        if theirs.suffix == kind and theirs.exists():
            theirs.write_bytes(theirs.read_bytes().replace(mark, b"x" * len(mark)))
            refuse_to_overwrite(finished, theirs)
    theirs.write_bytes(b"mine " * 100)
    refuse_to_overwrite(finished, theirs)
    alone = tmp_path / "mine"
    alone.mkdir()
    shutil.copy(theirs, alone / name)
    refuse_to_overwrite(OutputDir(alone), alone / name)


def refuse_to_overwrite(output, theirs):
    """Also without --overwrite, which would not help."""
    before = files_below(output.path)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="was not written by tfcseg and is kept; choose another") as caught:
            prepare_output(output.path, inputs=[], overwrite=overwrite)
        assert theirs.name in one_line(caught)
    assert files_below(output.path) == before


def test_a_folder_in_the_place_of_a_result_is_kept(tmp_path):
    (tmp_path / "overlay.mp4").mkdir()
    with pytest.raises(OutputError, match="not written by tfcseg"):
        prepare_output(tmp_path, inputs=[], overwrite=True)


@pytest.mark.parametrize("link", [None, Path.symlink_to, Path.hardlink_to])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_that_a_result_would_replace_is_refused(finished, written, tmp_path, link, overwrite):
    source = finished.overlay
    if link is not None:
        source = tmp_path / "holiday.mp4"
        link(source, finished.overlay)
    with pytest.raises(UsageError, match="is the input") as caught:
        prepare_output(finished.path, inputs=[source], overwrite=overwrite)
    one_line(caught)
    assert finished.overlay.read_bytes() == (written / "overlay.mp4").read_bytes()


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_result_that_is_a_link_to_the_input_is_refused(tmp_path, link):
    source = tmp_path / "holiday.mp4"
    source.write_bytes(b"video")
    (tmp_path / "out").mkdir()
    link(tmp_path / "out" / "overlay.mp4", source)
    with pytest.raises(UsageError, match="is the input"):
        prepare_output(tmp_path / "out", inputs=[tmp_path / "other.mp4", source], overwrite=True)


def test_an_input_folder_as_output_is_refused_under_any_name(tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    (tmp_path / "alias").symlink_to(frames)
    for output in (frames, tmp_path / "alias", frames / ".." / "frames"):
        with pytest.raises(UsageError, match="is the input"):
            prepare_output(output, inputs=[frames], overwrite=True)


def test_earlier_masks_as_input_are_refused(finished, tmp_path):
    with pytest.raises(UsageError, match="is the input"):
        prepare_output(finished.path, inputs=[finished.masks], overwrite=True)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "a.png").symlink_to(finished.masks / "00000000.png")
    with pytest.raises(UsageError, match=r"is the input .*a\.png"):
        prepare_output(finished.path, inputs=[linked], overwrite=True)


def test_output_inside_the_input_folder_is_fine(tmp_path, labels):
    prepare_output(tmp_path / "segmented", inputs=[tmp_path])
    (tmp_path / "segmented").mkdir()
    prepare_output(tmp_path / "segmented", inputs=[tmp_path])


def test_the_input_as_output_folder_is_refused(tmp_path):
    source = tmp_path / "holiday.mp4"
    source.write_bytes(b"video")
    with pytest.raises(UsageError, match="is the input"):
        prepare_output(source, inputs=[source], overwrite=True)


def test_read_only_folder(read_only_folder):
    for folder in (read_only_folder, read_only_folder / "out"):
        with pytest.raises(OutputError, match=r"cannot write to folder .*Permission denied") as caught:
            prepare_output(folder, inputs=[])
        assert str(folder) in one_line(caught)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="cannot write to folder") as caught:
            prepare_output(folder, inputs=[], overwrite=True)
        one_line(caught)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "link").symlink_to("nowhere")
    for folder in (tmp_path / "link", tmp_path / "link" / "out"):
        with pytest.raises(OutputError, match=r"link' is a symbolic link to nothing; choose another one$"):
            prepare_output(folder, inputs=[])


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(OutputError, match="too long; choose another output folder"):
        prepare_output(tmp_path / ("x" * 300), inputs=[])


def test_discard_leaves_nothing_behind(finished):
    finished.discard()
    assert not finished.path.exists()


def test_removing_results_keeps_their_folder(tmp_path, labels):
    output = prepare_output(tmp_path, inputs=[])
    with MaskWriter(output.masks, PALETTE) as writer:
        writer.write(0, labels)
    output.remove_results()
    assert tmp_path.is_dir()
    assert not output.masks.exists()


def test_result_names_are_the_paths_of_the_folder():
    output = OutputDir(Path("out"))
    videos = {output.overlay, output.side_by_side, output.source}
    paths = {*videos, output.report_json, output.report_html, output.frames_csv, output.classes_json}
    assert paths == {Path("out") / name for name in RESULT_NAMES if name not in FILE_NAMES.values()}
