"""Makes VSPW folders: shapes that move over textures, with exact masks, and every defect of the public copies.

Sizes are (height, width). Raw mask values: 0 = others, 1…124 = classes, 255 = void.
"""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tfcseg.labels.label_sets import VSPW

Labels = NDArray[np.uint8]

OTHERS, VOID = 0, 255
SKY, GRASS, TREE, CAR, PERSON = (VSPW.index(name) + 1 for name in ("sky", "grass", "tree", "car", "person"))
FIRST_NUMBER = 166
DEFAULT_VIDEOS = {"0_hills": 20, "1_road": 18}


def make_vspw(
    root: Path,
    videos: Mapping[str, int] = DEFAULT_VIDEOS,
    *,
    size: tuple[int, int] = (36, 53),
    names: tuple[str, ...] = VSPW,
    split: str = "val",
    newline: str = "\n",
    last_newline: bool = True,
    step: int = 1,
) -> Path:
    """Write ``videos`` (name -> number of frames), numbered from 166 as in VSPW, and the lists; return ``root``."""
    ids = {"others": "0"} | {name: str(index) for index, name in enumerate(names, start=1)}
    root.mkdir(parents=True, exist_ok=True)
    (root / "label_num_dic_final.json").write_text(json.dumps(ids))
    for other in ("train", "val", "test"):
        (root / f"{other}.txt").write_text("")
    text = newline.join(videos) + (newline if last_newline else "")
    (root / f"{split}.txt").write_bytes(text.encode())
    for seed, (video, frames) in enumerate(videos.items()):
        write_video(root, video, frames, size=size, seed=seed, step=step)
    return root


def write_video(root: Path, video: str, frames: int, *, size: tuple[int, int], seed: int, step: int = 1) -> None:
    for folder in ("origin", "mask"):
        (root / "data" / video / folder).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 60, (*size, 3))
    colours = rng.integers(0, 190, (256, 3))
    for index in range(frames):
        raw = draw_labels(size, index, seed)
        image = (colours[raw] + texture).astype(np.uint8)
        number = FIRST_NUMBER + index * step
        cv2.imwrite(str(image_path(root, video, number)), image)
        cv2.imwrite(str(mask_path(root, video, number)), raw)


def draw_labels(size: tuple[int, int], index: int, seed: int = 0) -> Labels:
    """Raw (H, W) labels of one frame: still sky, grass and tree; a car and a person that move; void around the car."""
    height, width = size
    raw = np.full(size, SKY, dtype=np.uint8)
    raw[height // 2 :] = GRASS
    raw[: height // 6, : width // 6] = OTHERS
    cv2.rectangle(raw, (width // 8, height // 4), (width // 4, height // 2), TREE, -1)
    left = (seed * 7 + index) % width
    top = height // 2
    cv2.rectangle(raw, (left - 1, top - 1), (left + width // 4 + 1, top + height // 5 + 1), VOID, 1)
    cv2.rectangle(raw, (left, top), (left + width // 4, top + height // 5), CAR, -1)
    cv2.ellipse(raw, (width - 1 - index % width, height * 3 // 4), (width // 14, height // 6), 0, 0, 360, PERSON, -1)
    return raw


def image_path(root: Path, video: str, number: int) -> Path:
    return root / "data" / video / "origin" / f"{number:08d}.jpg"


def mask_path(root: Path, video: str, number: int) -> Path:
    return root / "data" / video / "mask" / f"{number:08d}.png"


def target_of(path: Path) -> Labels:
    """Class indices of a raw mask, read plainly: 0 -> 255, value - 1, 254 -> 255."""
    raw = np.array(PIL.Image.open(path)).astype(int)
    raw[raw == 0] = 255
    raw -= 1
    raw[raw == 254] = 255
    return raw.astype(np.uint8)


def targets(root: Path, video: str) -> dict[int, Labels]:
    """Class indices of every mask of a video by frame number."""
    paths = sorted((root / "data" / video / "mask").glob("[0-9]*.png"))
    return {int(path.stem): target_of(path) for path in paths}


def write_predictions(
    root: Path, directory: Path, predict: Callable[[Labels, str, int], Labels] = lambda target, video, number: target
) -> Path:
    """Write what ``predict(target, video, number)`` returns for every mask; the ground truth itself by default."""
    for video in sorted(path.name for path in (root / "data").iterdir()):
        (directory / video).mkdir(parents=True, exist_ok=True)
        for number, target in targets(root, video).items():
            cv2.imwrite(str(directory / video / f"{number:08d}.png"), predict(target, video, number))
    return directory


# ------------------------------------------------------------------------------------------- defects of public copies


def lose_frame(root: Path, video: str, number: int) -> None:
    """As 0_wHveSGjXyDY/00000170.jpg and its mask."""
    image_path(root, video, number).unlink()
    mask_path(root, video, number).unlink()


def lose_video(root: Path, video: str) -> None:
    shutil.rmtree(root / "data" / video)


def lose_masks(root: Path, video: str) -> None:
    """As the whole test split."""
    shutil.rmtree(root / "data" / video / "mask")


def empty_file(path: Path) -> None:
    """As the images of 988_f_Xvy_DCPt8."""
    path.write_bytes(b"")


def cut_file(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def put_value(path: Path, value: int, rows: slice = slice(0, 2)) -> None:
    """As the masks with value 252."""
    raw = np.array(PIL.Image.open(path))
    raw[rows, :3] = value
    cv2.imwrite(str(path), raw)


def make_colour(path: Path) -> None:
    cv2.imwrite(str(path), cv2.applyColorMap(np.array(PIL.Image.open(path)), cv2.COLORMAP_JET))


def claim_size(path: Path, size: tuple[int, int] = (20_000, 20_000)) -> None:
    """Let a PNG claim another size (height, width) in its header."""
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", *size[::-1])
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def make_palette(path: Path) -> None:
    """No defect: palette PNGs hold the same values in another way."""
    image = PIL.Image.fromarray(np.array(PIL.Image.open(path)))
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)


def make_smaller(path: Path) -> None:
    raw = np.array(PIL.Image.open(path))
    cv2.imwrite(str(path), raw[:-2, :-2])


def make_image_smaller(path: Path) -> None:
    cv2.imwrite(str(path), cv2.imread(str(path))[:-8, :-8])


def add_hidden_twins(root: Path, video: str) -> None:
    """As archives packed on a Mac: ._00000166.png beside 00000166.png."""
    for path in [*(root / "data" / video).glob("*/*")]:
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\26\7")
