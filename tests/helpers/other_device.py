"""A device that is not the CPU: its tensors are computed there all the same, but refused together with the CPU's own.

Only a GPU would show otherwise that a table was left on the CPU, or that NumPy was given a tensor of the GPU.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "other"

_setup_privateuseone_for_python_backend(NAME)
torch.other.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
DEVICE = torch.device(NAME, 0)

_COPIES = {"aten::_to_copy", "aten::copy_", "aten::to"}
_TAKES_INDICES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class _There(torch.Tensor):
    """A tensor of the other device; ``held`` has its values."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        if held.dtype == torch.float64:
            raise TypeError("Apple's GPUs have no float64")
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        with torch.inference_mode(False):  # views of inference tensors would not be inference tensors themselves
            made = torch.Tensor._make_wrapper_subclass(cls, held.size(), **layout, device=DEVICE)
        made.held = held
        return made

    def __repr__(self):
        return f"{self.held!r} on {DEVICE}"

    def tolist(self):
        """Python's numbers: reading them is what a GPU can do, too."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})


class _Making(TorchFunctionMode):
    """Moves what is made of Python's numbers: PyTorch does it where a `TorchDispatchMode` does not look."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.new_tensor and isinstance(args[0], _There):
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **kwargs}).to(DEVICE)
        if function is torch.tensor and getattr(kwargs.get("device"), "type", "cpu") == NAME:
            return torch.tensor(*args, **{**kwargs, "device": None}).to(DEVICE)
        return function(*args, **kwargs)


class _Computing(TorchDispatchMode):
    """Also sees operations that make tensors on a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _compute(function, args, kwargs or {})


def _compute(function, args, kwargs):
    name = function._schema.name
    flat, _ = tree_flatten((args, kwargs))
    there = [each for each in flat if isinstance(each, _There)]
    here = [each for each in flat if isinstance(each, torch.Tensor) and not isinstance(each, _There)]
    devices = [each for each in flat if isinstance(each, torch.device)]
    goes_there = devices[0].type == NAME if devices else bool(there)
    if name == "aten::copy_":
        goes_there = isinstance(args[0], _There)
    elif there and not devices and name not in _COPIES | _TAKES_INDICES and any(each.dim() for each in here):
        shapes = [tuple(each.shape) for each in here]
        raise RuntimeError(f"{function} of tensors on {DEVICE} and on the CPU: {shapes}")

    def held(value):
        if isinstance(value, _There):
            return value.held
        return torch.device("cpu") if isinstance(value, torch.device) else value

    wrappers = {id(each.held): each for each in there}

    def found(value):
        if not isinstance(value, torch.Tensor):
            return value
        if not goes_there:
            return value.clone() if id(value) in wrappers else value
        return wrappers[id(value)] if id(value) in wrappers else _There(value)

    return tree_map(found, function(*tree_map(held, args), **tree_map(held, kwargs)))


@contextmanager
def other_device() -> Iterator[torch.device]:
    """The device; it computes in this thread, and in threads that are started inside."""
    run, swaps = threading.Thread.run, torch.__future__.get_swap_module_params_on_conversion()

    def run_there(thread):
        with _Computing(), _Making():
            run(thread)

    threading.Thread.run = run_there
    torch.__future__.set_swap_module_params_on_conversion(True)  # `nn.Module.to` cannot fill a tensor of another class
    try:
        with _Computing(), _Making():
            yield DEVICE
    finally:
        threading.Thread.run = run
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def moved(model):
    """The ``model`` (a `LoadedModel` on the CPU) on the device, in its own precision; call it inside `other_device`."""
    return dataclasses.replace(model, network=model.network.to(DEVICE), device=DEVICE)
