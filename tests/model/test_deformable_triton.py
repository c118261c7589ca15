"""The Triton kernel of MSDA: in Triton's interpreter where it is installed, compiled where there is a GPU."""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from tfcseg.model.ops.sampling import UnprojectedLevel, gpu_kernel, sample_and_weigh, sample_level_by_level


def is_triton_before(major, minor):
    try:
        return tuple(int(part) for part in version("triton").split(".")[:2]) < (major, minor)
    except PackageNotFoundError:
        return False


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="no Triton; PyTorch's builds for CUDA bring it along"
)


def run_alone(script, *arguments, **environment):
    """Triton reads its environment when it is first imported."""
    command = [sys.executable, Path(__file__).parents[1] / "helpers" / script, *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_triton
def test_the_kernel_agrees_in_the_interpreter():
    warnings = "ignore::RuntimeWarning"  # inf - inf
    run_alone("interpreted_kernel.py", TRITON_INTERPRET="1", PYTHONWARNINGS=warnings)


@needs_triton
@pytest.mark.skipif(is_triton_before(3, 3), reason="the compiler of an earlier Triton is called in another way")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_the_kernel_compiles_with_wide_loads(tmp_path, capability, dtype):
    """NVIDIA's assembler comes with Triton, so this needs no GPU."""
    run_alone("compiled_kernel.py", str(capability), dtype, TRITON_CACHE_DIR=str(tmp_path))


def test_the_cpu_never_asks_for_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "tfcseg.model.ops.deformable_triton", raising=False)
    maps = [torch.randn(1, size, size, 2, 4) for size in (4, 3, 2, 1)]
    rows = [torch.zeros(3, dtype=torch.long)] * 4
    others = torch.rand(3, 4, 2), torch.randn(3, 2, 4, 2, 2), torch.rand(3, 2, 4, 2)
    assert torch.equal(sample_and_weigh(maps, rows, *others), sample_level_by_level(maps, rows, *others))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@needs_triton
class TestOnTheGPU:
    @pytest.fixture
    def kernel(self):
        found = gpu_kernel(torch.device("cuda:0"))
        if found is None:
            pytest.skip("a GPU older than Ampere, or no C compiler for Triton")
        return found

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("depth", [16, 32, 96])
    def test_the_kernel_agrees(self, kernel, dtype, depth):
        from tests.helpers.interpreted_kernel import assert_agrees, draw_arguments

        assert_agrees(kernel, draw_arguments(1000, 8, depth, 4, dtype, device="cuda:0"))

    def test_it_is_chosen_where_no_gradient_is_needed(self, kernel):
        from tests.helpers.interpreted_kernel import assert_agrees, draw_arguments

        arguments = draw_arguments(50, 8, 32, 4, torch.float32, device="cuda:0")
        assert_agrees(sample_and_weigh, arguments)
        asked = gpu_kernel.cache_info().hits
        maps, *others = arguments
        assert sample_and_weigh([values.requires_grad_() for values in maps], *others).requires_grad
        assert gpu_kernel.cache_info().hits == asked
        with torch.no_grad():
            sample_and_weigh(maps, *others)
        assert gpu_kernel.cache_info().hits == asked + 1

    def test_levels_without_a_value_map(self):
        from tests.helpers.interpreted_kernel import draw_arguments

        maps, *others = draw_arguments(50, 8, 32, 4, torch.float32, device="cuda:0")
        identity = torch.eye(256, device="cuda:0")
        levels = [
            UnprojectedLevel(values.flatten(3).permute(0, 3, 1, 2), identity, torch.zeros_like(identity[0]))
            for values in maps
        ]
        wanted = sample_level_by_level(maps, *others)
        torch.testing.assert_close(sample_and_weigh(levels, *others), wanted, atol=1e-4, rtol=0)
