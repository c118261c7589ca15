"""Arithmetic per frame, counted on real frames by PyTorch's own counter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from tfcseg.inference.engine import FrameResult, IntervalNetwork
from tfcseg.inference.groups import Group
from tfcseg.inference.intervals import run_intervals
from tfcseg.media.frames import Image
from tfcseg.model.evidence import CarryOver
from tfcseg.model.options import InferenceOptions
from tfcseg.weights.loading import LoadedModel

FLOPS_FACTS = {
    "counted": "convolutions and matrix products; a multiply-add counts as two",
    "not_counted": "norms, activations, resizes, similarity, the sampling of MSDA, preprocessing, label upsampling",
}
"""Meaning of the numbers, for compare.json."""


def _attention_flops(query: torch.Size, key: torch.Size, value: torch.Size, *others: object, **named: object) -> int:
    """FLOPs of attention from shapes (B, M, N, d): scores and their product with the values."""
    batch, heads, queries, depth = query
    return 2 * batch * heads * queries * key[2] * (depth + value[3])


def _convolution_flops(
    x: torch.Size, weight: torch.Size, *others: object, out_shape: torch.Size, **named: object
) -> int:
    """FLOPs of a convolution from shapes: every output position of each picture takes all weights."""
    return 2 * out_shape[0] * math.prod(out_shape[2:]) * math.prod(weight)


def _sum_flops(rest: torch.Size, x: torch.Size, weight: torch.Size, *others: object, **named: object) -> int:
    return _convolution_flops(x, weight, out_shape=rest)


def _linear_flops(x: torch.Size, weight: torch.Size, *others: object, **named: object) -> int:
    return 2 * math.prod(x) * weight[0]


_FORMULAS = {
    getattr(namespace, name): formula
    for namespace, name, formula in (
        (torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", _attention_flops),
        (torch.ops.mkldnn, "_convolution_pointwise", _convolution_flops),
        (torch.ops.mkldnn, "_convolution_pointwise_", _sum_flops),
        (torch.ops.mkldnn, "_linear_pointwise", _linear_flops),
    )
    if hasattr(namespace, name)  # not every PyTorch is built with oneDNN
}
"""Operations that PyTorch's counter misses on the CPU: attention, and convolutions fused with an activation
(model/ops/fused.py)."""


def count_gflops(
    model: LoadedModel, options: InferenceOptions, samples: Sequence[Sequence[Image]]
) -> dict[str, float | None]:
    """GFLOPs of a keyframe, of the mean frame between keyframes (None without any) and of the mean frame.

    samples: beginnings of intervals of (H, W, 3) images. The cost of sparse MSDA depends on their content: the more
    samples, and the more spread out, the closer to the mean of the video. The mean frame is that of a whole interval.
    """
    network = IntervalNetwork(model, options)
    if options.sides == "both":
        return _count_both_sides(network, samples)
    first = keyframe = _count(network, samples[0][:1])
    if options.carries:  # every other keyframe is compared with the one before
        keyframe = _count(network, samples[0][:1], network.run(samples[0][:1])[0].carried)
    interval = options.keyframe_interval
    rests = [sample[:interval] for sample in samples if len(sample) > 1]
    if not options.uses_memory or not rests:
        return _in_giga(keyframe, None, keyframe)
    extra = sum(_count(network, sample) - first for sample in rests)
    non_keyframe = extra / sum(len(sample) - 1 for sample in rests)
    return _in_giga(keyframe, non_keyframe, (keyframe + (interval - 1) * non_keyframe) / interval)


def _count_both_sides(network: IntervalNetwork, samples: Sequence[Sequence[Image]]) -> dict[str, float | None]:
    """The mean frame is that of the samples: their content determines how many keyframes there are."""
    network.workers = 1  # the counter sees its own thread only
    results: list[FrameResult] = []

    def segment(images: Sequence[Image]) -> None:
        for _, found in run_intervals(network, [Group(images, None)]):
            results.extend(found)

    keyframe = count_flops(lambda: segment(samples[0][:1]))
    results.clear()
    total = sum(count_flops(lambda sample=sample: segment(sample)) for sample in samples)  # type: ignore[misc]
    keyframes = sum(result.is_keyframe for result in results)
    others = len(results) - keyframes
    return _in_giga(keyframe, (total - keyframes * keyframe) / others if others else None, total / len(results))


def _in_giga(keyframe: float, non_keyframe: float | None, mean: float) -> dict[str, float | None]:
    return {
        "gflops_per_frame": mean / 1e9,
        "gflops_keyframe": keyframe / 1e9,
        "gflops_non_keyframe": None if non_keyframe is None else non_keyframe / 1e9,
    }


def _count(network: IntervalNetwork, images: Sequence[Image], before: CarryOver | None = None) -> float:
    return count_flops(lambda: network.run(images, before=before))


def count_flops(work: Callable[[], object]) -> float:
    """FLOPs of all that PyTorch computes while ``work`` is done, within the limits of `FLOPS_FACTS`."""
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        work()
    return float(counter.get_total_flops())
