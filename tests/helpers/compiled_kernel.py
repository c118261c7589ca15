"""The Triton kernel compiled for the GPU and type in the arguments, e.g. ``90 fp16``, as a program of its own.

Where Triton was imported to interpret, it cannot compile any more. Written for the interface of Triton 3.3 and later.
"""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tfcseg.model.ops import deformable_triton

CONSTANTS = {"L": 4, "M": 8, "D": 32, "P": 4, "TILE_K": 32, "TILE_D": 32}
MAPS = ("v1", "v2", "v3", "v4", "offsets", "result")
ROWS = ("r1", "r2", "r3", "r4")
POSITIONS = ("reference", "weights")


def type_of(name, dtype):
    """As `sample_and_weigh_maps` hands it on: pointers, or else 32 bits of a whole number."""
    if name in CONSTANTS:
        return "constexpr"
    pointers = dict.fromkeys(MAPS, f"*{dtype}") | dict.fromkeys(ROWS, "*i64") | dict.fromkeys(POSITIONS, "*fp32")
    return pointers.get(name, "i32")


def main():
    capability, dtype = sys.argv[1:]
    kernel = deformable_triton._kernel
    signature = {name: type_of(name, dtype) for name in kernel.arg_names}
    # PyTorch's memory begins at multiples of 16 bytes, which Triton sees when it launches.
    aligned = {
        (kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name, kind in signature.items() if kind[0] == "*"
    }
    constants = {(kernel.arg_names.index(name),): value for name, value in CONSTANTS.items()}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", int(capability), 32))
    assert compiled.asm["cubin"]
    assert "ld.global.v4.b32" in compiled.asm["ptx"], "vectors are loaded number by number"


if __name__ == "__main__":
    main()
