"""Plain SegFormer, frame by frame, as in the examples of ``transformers``.

For every frame: resize, normalise, run the network of ``transformers``, resize logits, argmax. The weights are ours.

Shapes: K classes, H W source image, H' W' network input.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tfcseg.errors import TfcsegError
from tfcseg.inference.network_input import resized
from tfcseg.media.frames import Image
from tfcseg.model.backbones.mix_transformer import MIT_VARIANTS
from tfcseg.model.config import NUM_LEVELS
from tfcseg.weights.convert import our_name
from tfcseg.weights.loading import LoadedModel
from tfcseg.weights.model_card import Preprocessing

REFERENCE_VARIANT = "b0"  # variant for models whose backbone is not a Mix Transformer: the smallest SegFormer

_REFERENCE_WIDTH = 256


def has_transformers() -> bool:
    """Whether ``transformers`` is installed."""
    return importlib.util.find_spec("transformers") is not None


@dataclass(frozen=True, slots=True)
class PlainSegformer:
    """SegFormer of ``transformers`` on a device, unchanged."""

    network: torch.nn.Module
    preprocessing: Preprocessing
    size: int  # short side of the network's input, in pixels
    device: torch.device
    precision: torch.dtype
    has_same_weights: bool  # false: a random SegFormer-B0 with the same number of classes, to compare speeds only

    @torch.inference_mode()
    def labels(self, image: Image) -> NDArray[np.uint8]:
        """(H, W) classes of one (H, W, 3) picture."""
        pixels = to_network([image], self.preprocessing, self.size).to(self.device, self.precision)
        logits = self.network(pixels).logits
        resized = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
        return cast(NDArray[np.uint8], resized.argmax(dim=1)[0].to(torch.uint8).cpu().numpy())


def build_plain(
    unfolded: LoadedModel, size: int, device: torch.device, precision: torch.dtype = torch.float32
) -> PlainSegformer:
    """Build plain SegFormer for a model loaded with ``fold=False``, with its weights if it is a SegFormer."""
    config = unfolded.card.config
    is_segformer = config.backbone.startswith("mit_")
    numbers = MIT_VARIANTS[config.backbone.removeprefix("mit_") if is_segformer else REFERENCE_VARIANT]
    transformers: Any = importlib.import_module("transformers")  # types differ between versions
    shape = transformers.SegformerConfig(
        hidden_sizes=list(numbers.channels),
        depths=list(numbers.depths),
        decoder_hidden_size=config.embed_dim if is_segformer else _REFERENCE_WIDTH,
        num_labels=config.num_classes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.SegformerForSemanticSegmentation(shape).eval()
    if is_segformer:
        network.load_state_dict(segformer_tensors(unfolded.network.state_dict(), network.state_dict()))
    network.to(device, precision)
    preprocessing = unfolded.card.preprocessing
    return PlainSegformer(network, preprocessing, size, device, precision, has_same_weights=is_segformer)


def segformer_tensors(ours: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Convert our ``state_dict`` to the ``names`` of this version of ``transformers``, the inverse of `convert`."""
    tensors: dict[str, Tensor] = {}
    for name in names:
        our = our_name(name)
        if our is None:
            raise TfcsegError(f"this version of transformers has an unknown tensor {name!r}; use one of 4.44 to 5")
        if ".attention.key." in our:
            tensors[name] = ours[our.replace(".key.", ".key_value.")].chunk(2)[0]
        elif ".attention.value." in our:
            tensors[name] = ours[our.replace(".value.", ".key_value.")].chunk(2)[1]
        elif our == "decode_head.fuse.weight":
            tensors[name] = torch.cat(ours[our].chunk(NUM_LEVELS, dim=1)[::-1], dim=1)
        else:
            tensors[name] = ours[our]
    return tensors


def to_network(images: Sequence[Image], preprocessing: Preprocessing, size: int | None = None) -> Tensor:
    """Resized, normalised images (B, 3, H', W') float32, as the image processors of ``transformers`` return them."""
    mean, std = (np.array(values, np.float32) for values in (preprocessing.mean, preprocessing.std))
    shown = np.stack([resized(image, size or preprocessing.size) for image in images])
    pixels = (shown.astype(np.float32) - mean) / std
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
