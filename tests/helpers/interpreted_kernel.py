"""The Triton kernel against the plain path on the CPU, run as a program of its own with TRITON_INTERPRET=1.

Triton decides when it is first imported whether it compiles or interprets.
"""

import torch

from tfcseg.model.ops.deformable_triton import sample_and_weigh_maps
from tfcseg.model.ops.sampling import sample_level_by_level

SIZES = ((9, 13), (6, 8), (3, 4), (1, 1))
STACKS = (3, 3, 2, 2)


def draw_arguments(count, heads, depth, points, dtype, *, device="cpu"):
    """Arguments of a kernel: some samples lie outside of their maps, far away or nowhere."""
    torch.manual_seed(0)
    maps = [torch.randn(s, *size, heads, depth).to(device, dtype) for s, size in zip(STACKS, SIZES, strict=True)]
    rows = [torch.randint(stack, (count,)).to(device) for stack in STACKS]
    offsets = 3 * torch.randn(count, heads, 4, points, 2)
    offsets[0, 0, 0, 0] = torch.tensor([6e4, -6e4])
    offsets[1, 0, 1, 0, 0] = float("inf")
    offsets[1, 0, 2, 0, 1] = float("nan")
    weights = torch.rand(count, heads, 4 * points).softmax(-1).view(count, heads, 4, points)
    return maps, rows, torch.rand(count, 4, 2).to(device), offsets.to(device, dtype), weights.to(device)


def assert_agrees(kernel, arguments):
    """Equal to the plain path in float32 within the rounding of a single number of the result."""
    maps, rows, reference, offsets, weights = arguments
    wanted = sample_level_by_level([values.float() for values in maps], rows, reference, offsets.float(), weights)
    found = kernel(*arguments)
    assert found.dtype == maps[0].dtype
    assert wanted.std() > 0.05
    rounding = max(torch.finfo(found.dtype).eps, 1e-6)
    torch.testing.assert_close(found.float(), wanted, atol=rounding, rtol=rounding)


def main():
    for count, heads, depth, points, dtype in (
        (2, 1, 4, 1, torch.float32),
        (9, 3, 5, 3, torch.float32),  # no power of two, pairs and channels that fill no tile
        (20, 2, 32, 2, torch.float16),
        (20, 2, 24, 2, torch.bfloat16),
    ):
        assert_agrees(sample_and_weigh_maps, draw_arguments(count, heads, depth, points, dtype))
    maps, *others = draw_arguments(5, 2, 8, 2, torch.float32)
    in_other_order = [values.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2) for values in maps]
    assert not any(values.is_contiguous() for values in in_other_order[:3])
    assert_agrees(sample_and_weigh_maps, (in_other_order, *others))


if __name__ == "__main__":
    main()
