"""Recognise networks other than SegFormers, for clear error messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tfcseg.errors import WeightsError

_MODEL_TYPES = {
    "beit": "BEiT",
    "clipseg": "CLIPSeg",
    "data2vec-vision": "Data2Vec",
    "detr": "DETR",
    "dinov2": "DINOv2",
    "dpt": "DPT",
    "eomt": "EoMT",
    "mask2former": "Mask2Former",
    "maskformer": "MaskFormer",
    "mobilenet_v2": "MobileNetV2",
    "mobilevit": "MobileViT",
    "mobilevitv2": "MobileViT v2",
    "oneformer": "OneFormer",
    "resnet": "ResNet",
    "sam": "SAM",
    "sam2": "SAM 2",
    "swin": "Swin Transformer",
    "upernet": "UPerNet",
    "vit": "Vision Transformer",
}
_TENSORS = (
    (r"sem_seg_head\.predictor|pixel_level_module|transformer_module\.decoder", "Mask2Former or MaskFormer"),
    (r"mask_decoder\.|prompt_encoder\.", "SAM"),
    (r"(.+\.)?model\.\d+\.(conv|cv\d|m\.\d)|.*\.cv2\.conv\.", "YOLO"),
    (r"decode_head\.(psp_modules|lateral_convs|fpn_convs|fpn_bottleneck)", "UPerNet or PSPNet"),
    (r"decode_head\.(aspp_modules|image_pool|sep_bottleneck)|classifier\.0\.convs\.", "DeepLabV3"),
    (r".*\.w_msa\.|.*relative_position_bias_table", "Swin Transformer"),
    (r"(.+\.)?downsample_layers\.\d|.*\.dwconv\.weight", "ConvNeXt"),
    (r"(.+\.)?cls_token|.*embeddings\.patch_embeddings\.projection", "Vision Transformer"),
    (r"(.+\.)?layer[1-4]\.\d+\.conv\d", "ResNet"),
    (r"(.+\.)?(inc|down\d|up\d)\.(double_conv|maxpool_conv|conv)\.|(.+\.)?(downs|ups)\.\d", "U-Net"),
    (r"(.+\.)?_blocks\.\d+\._(depthwise|expand)_conv|(.+\.)?blocks\.\d+\.\d+\.conv_dw", "EfficientNet"),
)
_STARTS = (
    (b"version https://git-lfs", "the address of a file in Git LFS, not the file; run git lfs pull"),
    (b"\x89HDF", "a Keras or TensorFlow file; give PyTorch or safetensors weights"),
    (b"GGUF", "a GGUF file; give PyTorch or safetensors weights"),
    (b"<!DOCTYPE", "a web page, not the file; download it again"),
    (b"<html", "a web page, not the file; download it again"),
)
_ADVICE = "tfcseg runs SegFormers; tfcseg eval --predictions and tfcseg compare --baseline take masks of any program"


def refuse_other_model_type(path: Path, config: object) -> None:
    """Raise WeightsError if ``config``, the content of a folder's config.json, is not a SegFormer's."""
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != "segformer":
        name = _MODEL_TYPES.get(str(found), repr(found)[:60])
        raise WeightsError(f"{path} is a {name} model by its config.json; {_ADVICE}")


def refuse_other_tensors(path: Path, names: Iterable[str]) -> None:
    """Raise WeightsError that says which network has tensors with these ``names``."""
    names = list(names)
    known = next((what for pattern, what in _TENSORS if any(re.match(pattern, name) for name in names)), None)
    what = f"looks like a {known}" if known else "has none of a SegFormer's tensors"
    raise WeightsError(f"{path} {what}; {_ADVICE}")


def refuse_other_format(path: Path) -> None:
    """Raise WeightsError if the first bytes or the suffix show that the file holds no PyTorch weights."""
    with path.open("rb") as file:
        start = file.read(64)
    what = next((said for mark, said in _STARTS if start.lstrip().lower().startswith(mark.lower())), None)
    if what is None and path.suffix.lower() in {".onnx", ".tflite", ".engine", ".mlmodel", ".pb"}:
        what = f"a {path.suffix.lower()} file; give PyTorch or safetensors weights"
    if what is not None:
        raise WeightsError(f"{path} is {what}")
