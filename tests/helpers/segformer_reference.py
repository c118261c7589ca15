"""The independent reference of the parity tests: transformers' SegFormer, and its weights under three sets of names."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from tfcseg.model.backbones.mix_transformer import MIT_VARIANTS

LAYOUTS = ("nvlabs", "transformers_4", "transformers_5")


def build_reference(variant: str, *, embed_dim: int = 256, num_classes: int = 5) -> SegformerForSemanticSegmentation:
    """Random SegFormer in eval mode. Every parameter and statistic is drawn, so that each one matters to the output."""
    numbers = MIT_VARIANTS[variant]
    config = SegformerConfig(
        hidden_sizes=list(numbers.channels),
        depths=list(numbers.depths),
        decoder_hidden_size=embed_dim,
        num_labels=num_classes,
    )
    torch.manual_seed(0)
    network = SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for module in network.modules():
            _randomise(module)
    return network


def _randomise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
        nn.init.uniform_(module.weight, 0.5, 1.5)
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.running_mean, std=0.3)
        nn.init.uniform_(module.running_var, 0.5, 1.5)
        module.num_batches_tracked.fill_(7)
    if getattr(module, "bias", None) is not None:
        nn.init.normal_(module.bias, std=0.2)


def use_original_epsilons(network: SegformerForSemanticSegmentation) -> None:
    """Give LayerNorms of blocks and of stages' ends NVlabs' 1e-6; transformers has 1e-5 in all of them."""
    for name, module in network.named_modules():
        if isinstance(module, nn.LayerNorm) and "patch_embeddings" not in name and "attention." not in name:
            module.eps = 1e-6


def encode_reference(network: SegformerForSemanticSegmentation, image: Tensor) -> tuple[Tensor, ...]:
    """x1…x4 of the reference's encoder."""
    return tuple(network.segformer(image, output_hidden_states=True).hidden_states[-4:])


# One line per renaming of transformers 5, as its own conversion table has them.
_FOUR_FROM_FIVE = (
    (r"segformer\.stages\.(\d)\.patch_embeddings\.", r"segformer.encoder.patch_embeddings.\1."),
    (r"segformer\.stages\.(\d)\.blocks\.", r"segformer.encoder.block.\1."),
    (r"segformer\.stages\.(\d)\.layer_norm\.", r"segformer.encoder.layer_norm.\1."),
    (r"attention\.q_proj", "attention.self.query"),
    (r"attention\.k_proj", "attention.self.key"),
    (r"attention\.v_proj", "attention.self.value"),
    (r"attention\.sequence_reduction\.sequence_reduction", "attention.self.sr"),
    (r"attention\.sequence_reduction\.layer_norm", "attention.self.layer_norm"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc1", "mlp.dense1"),
    (r"mlp\.fc2", "mlp.dense2"),
    (r"layernorm_before", "layer_norm_1"),
    (r"layernorm_after", "layer_norm_2"),
    (r"decode_head\.linear_projections", "decode_head.linear_c"),
)
_FIVE_FROM_FOUR = (
    (r"segformer\.encoder\.patch_embeddings\.(\d)\.", r"segformer.stages.\1.patch_embeddings."),
    (r"segformer\.encoder\.block\.(\d)\.", r"segformer.stages.\1.blocks."),
    (r"segformer\.encoder\.layer_norm\.(\d)\.", r"segformer.stages.\1.layer_norm."),
    *((re.escape(four), five.replace("\\", "")) for five, four in _FOUR_FROM_FIVE[3:]),
)
_NVLABS_FROM_FOUR = (
    (r"attention\.self\.query", "attn.q"),
    (r"attention\.self\.key", "attn.kv"),
    (r"attention\.self\.sr", "attn.sr"),
    (r"attention\.self\.layer_norm", "attn.norm"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"mlp\.dense(\d)", r"mlp.fc\1"),
    (r"patch_embeddings\.(\d)\.layer_norm", r"patch_embeddings.\1.norm"),
    (r"layer_norm_(\d)", r"norm\1"),
    (r"decode_head\.linear_fuse", "decode_head.linear_fuse.conv"),
    (r"decode_head\.batch_norm", "decode_head.linear_fuse.bn"),
    (r"decode_head\.classifier", "decode_head.linear_pred"),
)
_NUMBERED_FROM_ONE = (
    (r"segformer\.encoder\.patch_embeddings\.(\d)", "backbone.patch_embed{}"),
    (r"segformer\.encoder\.block\.(\d)", "backbone.block{}"),
    (r"segformer\.encoder\.layer_norm\.(\d)", "backbone.norm{}"),
    (r"decode_head\.linear_c\.(\d)", "decode_head.linear_c{}"),
)


def in_layout(state_dict: dict[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Rename the reference's state_dict to one of ``LAYOUTS``, whichever transformers it comes from."""
    four = {_rename(name, _FOUR_FROM_FIVE): tensor for name, tensor in state_dict.items()}
    if layout == "transformers_4":
        return four
    if layout == "transformers_5":
        return {_rename(name, _FIVE_FROM_FOUR): tensor for name, tensor in four.items()}
    joined = {}
    for name, tensor in four.items():
        if ".attention.self.key." in name:
            joined[name] = torch.cat([tensor, four[name.replace(".key.", ".value.")]])
        elif ".attention.self.value." not in name:
            joined[name] = tensor
    return {_count_from_one(_rename(name, _NVLABS_FROM_FOUR)): tensor for name, tensor in joined.items()}


def _rename(name: str, renamings: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renamings:
        name = re.sub(pattern, replacement, name)
    return name


def _count_from_one(name: str) -> str:
    for pattern, template in _NUMBERED_FROM_ONE:
        name = re.sub(pattern, lambda match, template=template: template.format(int(match[1]) + 1), name)
    return name
