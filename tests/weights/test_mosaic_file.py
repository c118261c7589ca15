"""MOSAIC's published weights in float arithmetic, against what the TensorFlow Lite file itself says."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.mosaic_reference import MosaicReference
from tests.helpers.tiny_teacher import write_teacher
from tfcseg.errors import DataError
from tfcseg.model.backbones.mosaic import Mosaic
from tfcseg.training.teachers import load_mosaic_weights, read_layers

SHARED = Path(__file__).parents[3] / "shared" / "data"
MOSAIC = SHARED / "teachers" / "mosaic_r4_ade32.tflite"
PHOTOS = sorted((SHARED / "photos" / "bsds500").glob("*.jpg"))[::50][:10]
needs_file = pytest.mark.skipif(not (MOSAIC.is_file() and PHOTOS), reason="MOSAIC's file and photos are not here")


@needs_file
def test_float_weights_say_what_the_file_says():
    from tfcseg.training.teachers import Teacher

    layers, teacher = MosaicReference(read_layers(MOSAIC)), Teacher(MOSAIC)
    shares = []
    for photo in PHOTOS:
        image = cv2.resize(cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB), teacher.size[::-1])
        pixels = torch.from_numpy((image.astype(np.float32) - 128) / 127.5).permute(2, 0, 1)[None]
        with torch.inference_mode():
            shares.append(float((layers.labels(pixels)[0].numpy() == teacher.labels(image)).mean()))
    assert np.mean(shares) >= 0.93, shares


@needs_file
def test_the_backbone_takes_every_weight_of_the_encoder():
    backbone, layers = Mosaic(), read_layers(MOSAIC)
    load_mosaic_weights(backbone, MOSAIC)
    taken = sum(parameter.numel() for parameter in backbone.parameters())
    decoder = [layer for name, layer in layers.items() if name.startswith("decoder/")]
    in_file = sum(layer.weight.numel() + layer.bias.numel() for layer in layers.values())
    assert taken == in_file - sum(layer.weight.numel() + layer.bias.numel() for layer in decoder)
    torch.testing.assert_close(backbone.stem.conv.weight, layers["MobilenetV3/Conv"].weight)


def test_another_network_is_refused(tmp_path):
    teacher = write_teacher(tmp_path / "tiny.tflite")
    with pytest.raises(DataError, match=r"tiny\.tflite"):
        load_mosaic_weights(Mosaic(), teacher)


def test_no_network_is_refused(tmp_path):
    (tmp_path / "text.tflite").write_text("no network")
    with pytest.raises(DataError, match="not a TensorFlow Lite network"):
        load_mosaic_weights(Mosaic(), tmp_path / "text.tflite")
