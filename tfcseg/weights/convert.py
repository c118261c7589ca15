"""Convert SegFormer weights of Hugging Face and NVlabs into our layout.

Both hold the same network under other names, with two differences: Hugging Face keeps keys and values apart, and both
concatenate the levels for the fuse layer from 4 to 1, while ours go from 1 to 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tfcseg.errors import WeightsError
from tfcseg.labels.label_sets import NO_CLASS
from tfcseg.model.backbones.mix_transformer import MIT_VARIANTS
from tfcseg.model.config import NUM_LEVELS, ModelConfig
from tfcseg.model.options import PAPER_OPTIONS
from tfcseg.model.tfc import TFCSegmenter, build_segmenter
from tfcseg.weights.model_card import ModelCard
from tfcseg.weights.published import Origin, published_card, published_origin, read_config
from tfcseg.weights.segformer_file import ADVICE, SegformerFile, read_segformer_file
from tfcseg.weights.tensor_file import check_fits

DESCRIPTION = "without TFC's own weights, so its sparse attention is off"  # part of the card's description

DEFAULTS = replace(PAPER_OPTIONS, keyframe_interval=3, sides="both")
"""Default options of a network without TFC's weights."""

_BLOCK = ("block{number}.{block}.", "encoder.block.{stage}.{block}.", "stages.{stage}.blocks.{block}.")
"""Name of a block in NVlabs' code, in transformers up to 4 (and on the hub), and from 5 on; the tables below have the
same order. ``{stage}`` counts from 0, ``{number}`` is stage + 1, ``{block}`` is the block within the stage."""

_BLOCK_PARTS = {
    "attention_norm": ("norm1", "layer_norm_1", "layernorm_before"),
    "attention.query": ("attn.q", "attention.self.query", "attention.q_proj"),
    "attention.key_value": ("attn.kv", "", ""),
    "attention.key": ("", "attention.self.key", "attention.k_proj"),
    "attention.value": ("", "attention.self.value", "attention.v_proj"),
    "attention.output": ("attn.proj", "attention.output.dense", "attention.o_proj"),
    "attention.reduction": ("attn.sr", "attention.self.sr", "attention.sequence_reduction.sequence_reduction"),
    "attention.reduction_norm": ("attn.norm", "attention.self.layer_norm", "attention.sequence_reduction.layer_norm"),
    "ffn_norm": ("norm2", "layer_norm_2", "layernorm_after"),
    "ffn.expand": ("mlp.fc1", "mlp.dense1", "mlp.fc1"),
    "ffn.depthwise": ("mlp.dwconv.dwconv", "mlp.dwconv.dwconv", "mlp.dwconv.dwconv"),
    "ffn.contract": ("mlp.fc2", "mlp.dense2", "mlp.fc2"),
}
_STAGE_PARTS = {
    "backbone.stages.{stage}.embedding": (
        "patch_embed{number}.proj",
        "encoder.patch_embeddings.{stage}.proj",
        "stages.{stage}.patch_embeddings.proj",
    ),
    "backbone.stages.{stage}.embedding_norm": (
        "patch_embed{number}.norm",
        "encoder.patch_embeddings.{stage}.layer_norm",
        "stages.{stage}.patch_embeddings.layer_norm",
    ),
    "backbone.stages.{stage}.norm": ("norm{number}", "encoder.layer_norm.{stage}", "stages.{stage}.layer_norm"),
    "decode_head.projections.{stage}": (
        "decode_head.linear_c{number}.proj",
        "decode_head.linear_c.{stage}.proj",
        "decode_head.linear_projections.{stage}.proj",
    ),
}
_HEAD_PARTS = {
    "decode_head.fuse": ("decode_head.linear_fuse.conv", "decode_head.linear_fuse"),
    "decode_head.norm": ("decode_head.linear_fuse.bn", "decode_head.batch_norm"),
    "decode_head.classifier": ("decode_head.linear_pred", "decode_head.classifier"),
}

_PREFIXES = ("backbone.", "segformer.")
_DROPPABLE = {"decode_head.conv_seg.weight", "decode_head.conv_seg.bias"}
"""A classifier of mmsegmentation's base class that SegFormer's head does not use."""
_IMAGE_CLASSIFIERS = {"classifier.weight", "classifier.bias", "head.weight", "head.bias"}
"""ImageNet classifiers of Hugging Face and NVlabs."""


class ConvertedModel(NamedTuple):
    """A SegFormer in our layout (float32, in training mode), with its card."""

    network: TFCSegmenter
    card: ModelCard
    sha256: str
    dtype: torch.dtype  # precision of the published weights


class ConvertedEncoder(NamedTuple):
    """A Mix Transformer in our layout, from which training can start."""

    state_dict: dict[str, Tensor]  # tensors of the network's ``backbone``, by their names in the whole network
    backbone: str
    origin: Origin


def convert_segformer(path: str | Path) -> ConvertedModel:
    """Read a published SegFormer: a safetensors or PyTorch file, or a Hugging Face folder with its ``config.json``.

    Pickles are read with ``weights_only=True`` and run no code. The TFC layer keeps its initial values, the identity.
    Raises WeightsError if a tensor is unknown, missing or of the wrong shape, or the number of classes does not match.
    """
    return _convert_model(read_segformer_file(Path(path)))


def convert_pretrained(path: str | Path) -> ConvertedModel | ConvertedEncoder:
    """Read initial weights for training: a published SegFormer, or a Mix Transformer trained to classify images, whose
    classifier is dropped. Files and errors are those of `convert_segformer`.
    """
    source = read_segformer_file(Path(path))
    path = source.path
    read_config(path)  # refuses other networks'
    if any((our_name(name) or name).startswith("decode_head.") for name in source.tensors):
        return _convert_model(source)
    renamed = _rename(path, {name: source.tensors[name] for name in source.tensors.keys() - _IMAGE_CLASSIFIERS})
    backbone = _infer_backbone(path, renamed)
    expected = build_without_values(ModelConfig(backbone, 8, 1)).state_dict()
    check_fits(path, renamed, {name: expected[name] for name in expected if name.startswith("backbone.")})
    return ConvertedEncoder(renamed, backbone, published_origin(path))


def _convert_model(source: SegformerFile) -> ConvertedModel:
    path = source.path
    renamed = _rename(path, source.tensors)
    fuse = renamed.get("decode_head.fuse.weight")
    if fuse is None or fuse.dim() != 4:
        raise WeightsError(f"{path} has no decode head (a backbone alone?); convert a whole segmentation network")
    renamed["decode_head.fuse.weight"] = torch.cat(fuse.chunk(NUM_LEVELS, dim=1)[::-1], dim=1)
    config = _infer_config(path, renamed)
    description = f"SegFormer-{config.backbone.removeprefix('mit_').upper()}; {DESCRIPTION}"
    card = published_card(path, source.meta, config, description)
    expected = build_without_values(config).state_dict()
    # Published networks have no TFC layer, and old checkpoints lack counters.
    optional = {name for name in expected if name.startswith("update.") or name.endswith(".num_batches_tracked")}
    check_fits(path, renamed, {name: expected[name] for name in expected if name in renamed or name not in optional})
    with torch.random.fork_rng(devices=[]):  # reproducible
        torch.manual_seed(0)
        network = build_segmenter(config)
    network.load_state_dict(renamed, strict=False)
    return ConvertedModel(network, card, source.sha256, renamed["decode_head.classifier.weight"].dtype)


def our_name(name: str) -> str | None:
    """Our name of a published SegFormer's tensor, in any layout; None if it is unknown."""
    module, _, leaf = name.rpartition(".")
    for prefix in _PREFIXES:
        module = module.removeprefix(prefix)
    ours = _module_names().get(module)
    return None if ours is None else f"{ours}.{leaf}"


@cache
def _module_names() -> dict[str, str]:
    found = {theirs: ours for ours, names in _HEAD_PARTS.items() for theirs in names}
    for stage in range(NUM_LEVELS):
        place = {"stage": stage, "number": stage + 1}
        for ours, names in _STAGE_PARTS.items():
            found |= {theirs.format(**place): ours.format(**place) for theirs in names}
        for block in range(max(variant.depths[stage] for variant in MIT_VARIANTS.values())):
            for part, names in _BLOCK_PARTS.items():
                ours = f"backbone.stages.{stage}.blocks.{block}.{part}"
                found |= {
                    prefix.format(**place, block=block) + name: ours
                    for prefix, name in zip(_BLOCK, names, strict=True)
                    if name
                }
    return found


def _rename(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = _unwrapped(path, tensors)
    renamed: dict[str, Tensor] = {}
    for name in tensors.keys() - _DROPPABLE:
        ours = our_name(name)
        if ours is None:
            raise WeightsError(f"{path}: tensor {name!r} does not belong to a SegFormer with an all-MLP head")
        if ours in renamed:
            raise WeightsError(f"{path}: tensor {name!r} appears twice, under two names")
        renamed[ours] = tensors[name]
    _join_keys_and_values(path, renamed)
    return renamed


def _unwrapped(path: Path, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Remove prefixes that training programs put before all names: ``module.``, ``model.`` and the like. Raises
    WeightsError if few names are a SegFormer's even then."""
    found = tensors
    while found and not any(map(our_name, found)):
        first, *others = {name.partition(".")[0] for name in found}
        if others or first in found:
            break
        found = {name.removeprefix(f"{first}."): tensor for name, tensor in found.items()}
    if 2 * sum(our_name(name) is not None for name in found) < max(1, len(found)):
        raise WeightsError(f"{path} has none of a SegFormer's tensors; {ADVICE}")
    return found


def _join_keys_and_values(path: Path, renamed: dict[str, Tensor]) -> None:
    """Join ``attention.key`` (C, …) and ``attention.value`` (C, …) into ``attention.key_value`` (2C, …), in place."""
    for key_name in [name for name in renamed if ".attention.key." in name]:
        key = renamed.pop(key_name)
        value = renamed.pop(key_name.replace(".key.", ".value."), None)
        if value is None or value.shape != key.shape or key.dim() == 0:
            raise WeightsError(f"{path}: the values for {key_name!r} are missing or have another shape")
        renamed[key_name.replace(".key.", ".key_value.")] = torch.cat([key, value])


def _infer_config(path: Path, renamed: Mapping[str, Tensor]) -> ModelConfig:
    """Derive variant, embedding width and number of classes from the shapes; WeightsError if no variant has them."""
    backbone = _infer_backbone(path, renamed)
    embed_dim, num_classes = _width(renamed, "decode_head.norm"), _width(renamed, "decode_head.classifier")
    config = ModelConfig(backbone, embed_dim, num_classes, defaults=DEFAULTS, repairs=False)
    if not 0 < num_classes <= NO_CLASS or embed_dim < 1 or embed_dim % config.heads:
        sizes = f"{num_classes} classes from an embedding of {embed_dim}"
        raise WeightsError(f"{path}: {sizes}; 1 to {NO_CLASS} from a multiple of {config.heads} are possible")
    return config


def _infer_backbone(path: Path, renamed: Mapping[str, Tensor]) -> str:
    """``mit_b0`` … ``mit_b5``; WeightsError if none has these shapes."""
    channels = tuple(_width(renamed, f"backbone.stages.{stage}.norm") for stage in range(NUM_LEVELS))
    blocks = {tuple(name.split(".")[2:5:2]) for name in renamed if ".blocks." in name}  # (stage, block)
    depths = tuple(sum(stage == str(wanted) for stage, _ in blocks) for wanted in range(NUM_LEVELS))
    variants = [name for name, v in MIT_VARIANTS.items() if v.channels == channels and v.depths == depths]
    if not variants:
        raise WeightsError(
            f"{path}: stages of {channels} channels and {depths} blocks are not a Mix Transformer variant"
        )
    return f"mit_{variants[0]}"


def _width(renamed: Mapping[str, Tensor], module: str) -> int:
    bias = renamed.get(f"{module}.bias")
    return 0 if bias is None else bias.numel()


_INITIALISERS = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


class _WithoutCompiler(TorchFunctionMode):
    """Skip initialisers on the meta device: the normal one would import torch's compiler and take a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _INITIALISERS:  # there is nothing to initialise
            return args[0] if args else kwargs["tensor"]
        return func(*args, **({**kwargs, "device": "cpu"} if func is torch.arange else kwargs))


def build_without_values(config: ModelConfig) -> TFCSegmenter:
    """Build a network on the meta device: names, shapes and types without memory or random numbers."""
    with torch.device("meta"), _WithoutCompiler():
        return build_segmenter(config)
