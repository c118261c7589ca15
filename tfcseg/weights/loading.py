"""Load and save weights: one safetensors file per model, with its card inside.

A run that is already finished needs no network: a `ModelOnDemand` loads it when it is needed.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

import torch

from tfcseg.errors import UsageError, WeightsError
from tfcseg.labels.label_sets import LabelSet
from tfcseg.machine import has_bfloat16
from tfcseg.model.config import ModelConfig
from tfcseg.model.tfc import TFCSegmenter
from tfcseg.spelling import one_line
from tfcseg.weights.convert import build_without_values, convert_segformer
from tfcseg.weights.device import DeviceOptions
from tfcseg.weights.hub import find_on_hub, hub_name
from tfcseg.weights.model_card import FORMAT, TEXT_LIMIT, ModelCard, parse_card, refuse_name
from tfcseg.weights.registry import REGISTRY, locate_weights
from tfcseg.weights.segformer_file import refuse_other_format
from tfcseg.weights.tensor_file import check_fits, read_tensor_file, write_tensor_file
from tfcseg.weights.tensor_header import is_pickle, read_metadata

logger = logging.getLogger(__name__)

CALIBRATED = ("temperature", "calibration_error", "calibration_error_unfitted", "calibration_data")
"""Entries of a card's ``measured`` that calibration sets; errors are in percent."""

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(slots=True, repr=False)
class LoadedModel:
    """A network ready for inference (eval mode, on its device), with its card."""

    network: TFCSegmenter
    card: ModelCard
    device: torch.device
    precision: torch.dtype
    sha256: str
    parameters: int

    @property
    def temperature(self) -> float:
        """Divisor of logits before they give a confidence; 1 if it was never fitted."""
        value = self.card.measured.get("temperature")
        return float(value) if isinstance(value, int | float) and value > 0 else 1.0

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error on held-out photos, as a share; None if it was never measured."""
        value = self.card.measured.get("calibration_error")
        return value / 100 if isinstance(value, int | float) else None

    @property
    def labels(self) -> LabelSet:
        """The classes of its logits."""
        return self.card.labels

    def __repr__(self) -> str:
        card, dtype = self.card, str(self.precision).removeprefix("torch.")
        facts = f"{card.config.backbone}, {len(self.labels)} classes, {self.parameters / 1e6:.1f} M parameters"
        return f"<LoadedModel {card.name}: {facts}, {self.device}, {dtype}>"


def save_model(path: Path, network: TFCSegmenter, card: ModelCard, *, dtype: torch.dtype = torch.float16) -> str:
    """Write ``network``'s parameters as ``dtype`` (statistics of norms keep theirs); returns the file's SHA-256. Raises
    WeightsError if the file could not be loaded again, OutputError if it cannot be written."""
    if network.config != card.config:
        raise WeightsError(f"{path}: the card describes another network ({card.config}, not {network.config})")
    metadata = card.to_metadata()
    parse_card(metadata, path)
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    state |= {name: state[name].to(dtype) for name, _ in network.named_parameters()}
    check_fits(path, state, build_without_values(card.config).state_dict())
    return write_tensor_file(path, state, metadata)


def exact_dtype(network: TFCSegmenter) -> torch.dtype:
    """Type to save weights in when only the sparse attention was trained: half if the others are exact in it."""
    fixed = (p for name, p in network.named_parameters() if not name.startswith("update."))
    return torch.float16 if all(torch.equal(p.half().float(), p) for p in fixed) else torch.float32


def created_with() -> str:
    """Versions for the cards of trained models."""
    return f"tfcseg {version('tfcseg')}, torch {torch.__version__}"


def read_card(path: str | Path) -> ModelCard:
    """Read the card of a weights file (only its header, if it is ours) or folder; WeightsError if it is unusable."""
    path = Path(path)
    return parse_card(read_metadata(path), path) if is_ours(path) else convert_segformer(path).card


def count_parameters(config: ModelConfig) -> int:
    """Number of parameters of a network of ``config``, without allocating it."""
    return sum(parameter.numel() for parameter in build_without_values(config).parameters())


def load_model(
    name_or_path: str | Path = "default",
    *,
    device: str = "auto",
    precision: str = "auto",
    fold: bool = True,
    assets: Path | None = None,
    allow_network: bool = False,
) -> LoadedModel:
    """Load a network by registry name, from a weights file or from a published SegFormer, ready for inference.

    A SegFormer is a safetensors file or PyTorch checkpoint, a Hugging Face folder, or ``ORG/NAME[@REVISION]`` on the
    hub, which is read from its cache, and from the network only with ``allow_network``. ``device`` and ``precision``
    are those of `DeviceOptions`. ``fold=False`` keeps norms and head separate, and ``auto`` in float32, as training
    needs them. ``assets`` is the folder of the registry. Raises UsageError for an unavailable device or precision,
    WeightsError for problems with the file.
    """
    target = resolve_device(device)
    dtype = resolve_precision("fp32" if precision == "auto" and not fold else precision, target)
    path, sha256 = find_weights(name_or_path, assets, allow_network=allow_network)
    with _one_thread():
        network, card, found = _read(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(f"{path} is not the file that {REGISTRY} names (SHA-256 differs); install it again")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if fold:
        network.fold()  # in float32, before the precision is changed
    with _one_thread():
        network.to_device(target, dtype)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    shown = str(dtype).removeprefix("torch.")
    facts = {"device": str(target), "precision": shown, "asked": precision, "sha256": found}
    logger.info("model %s (%s) on %s in %s", card.name, path, target, shown, extra=facts)
    return LoadedModel(network=network, card=card, device=target, precision=dtype, sha256=found, parameters=parameters)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Handle many small tensors with one thread: several would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def convert(source: str | Path, target: Path, *, name: str | None = None, licence: str | None = None) -> ModelCard:
    """Write a published SegFormer as a tfcseg file at its own precision; returns the card.

    ``name`` and ``licence`` replace what the source states. Raises UsageError for a name that fits into no card,
    WeightsError if ``source`` cannot be used or is already a tfcseg file, OutputError if ``target`` cannot be written.
    """
    refuse_name(name)
    path, _ = find_weights(source)
    if is_ours(path):
        raise WeightsError(f"{path} is already a tfcseg model; use it directly")
    found = convert_segformer(path)
    card = replace(
        found.card, name=name or found.card.name, licence=one_line(licence or found.card.licence, TEXT_LIMIT)
    )
    save_model(target, found.network, card, dtype=found.dtype)
    return card


def find_weights(
    name_or_path: str | Path, assets: Path | None = None, *, allow_network: bool = False
) -> tuple[Path, str | None]:
    """Find the file or folder of a model, and its SHA-256 if it is in the registry."""
    on_hub = hub_name(name_or_path) if isinstance(name_or_path, str) else None
    if on_hub is not None:
        return find_on_hub(on_hub, allow_network=allow_network), None
    return locate_weights(name_or_path, assets)


def is_ours(path: Path) -> bool:
    """Whether tfcseg wrote the file; WeightsError if it is damaged."""
    if path.is_dir() or is_pickle(path):
        return False
    refuse_other_format(path)
    return read_metadata(path).get("format", "").startswith(FORMAT.partition("-")[0])


def _read(path: Path) -> tuple[TFCSegmenter, ModelCard, str]:
    """Network (eval mode, float32), card and SHA-256 of a file of ours or a published SegFormer."""
    if not is_ours(path):
        found = convert_segformer(path)
        return found.network.eval(), found.card, found.sha256
    file = read_tensor_file(path)
    card = parse_card(file.metadata, path)
    network = build_without_values(card.config)
    check_fits(path, file.tensors, network.state_dict())
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in file.tensors.items()}
    network.load_state_dict(floats, assign=True)
    return network.eval(), card, file.sha256


def open_model(model: str | Path | LoadedModel, device: DeviceOptions, *, allow_network: bool = False) -> LoadedModel:
    """Load a model as `load_model` does. One that is already loaded is returned as it is; UsageError if it has another
    device or precision than those asked for."""
    if not isinstance(model, LoadedModel):
        return load_model(model, device=device.device, precision=device.precision, allow_network=allow_network)
    wanted = model.device if device.device == "auto" else resolve_device(device.device)
    if (wanted.type, wanted.index or 0) != (model.device.type, model.device.index or 0):
        raise UsageError(f"the model was loaded on {model.device}; pass device={device.device!r} to load_model")
    dtype = model.precision if device.precision == "auto" else resolve_precision(device.precision, wanted)
    if dtype != model.precision:
        loaded = str(model.precision).removeprefix("torch.")
        raise UsageError(f"the model was loaded as {loaded}; pass precision={device.precision!r} to load_model")
    return model


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that is not loaded; the fields are those of `LoadedModel`."""

    card: ModelCard
    device: torch.device
    precision: torch.dtype
    sha256: str

    @property
    def labels(self) -> LabelSet:
        """The model's classes."""
        return self.card.labels


Known: TypeAlias = "LoadedModel | KnownModel"  # all that determines a model's labels, besides options


class ModelOnDemand:
    """A model that is loaded once, when its network is needed; arguments and errors are those of `open_model`."""

    def __init__(
        self, model: str | Path | LoadedModel, device: DeviceOptions = DeviceOptions(), *, allow_network: bool = False
    ) -> None:
        self._model, self._device, self._allow_network = model, device, allow_network

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model, which the first access loads."""
        return open_model(self._model, self._device, allow_network=self._allow_network)

    @property
    def known(self) -> Known:
        """Facts about the model. Only published SegFormers are loaded for that."""
        return self.known_at_once or self.loaded

    @cached_property
    def known_at_once(self) -> Known | None:
        """Facts about the model; None for a published SegFormer that is not loaded."""
        if isinstance(self._model, LoadedModel) or "loaded" in self.__dict__:
            return self.loaded
        path, sha256 = find_weights(self._model, allow_network=self._allow_network)
        if not is_ours(path):
            return None
        card, device = read_card(path), resolve_device(self._device.device)
        precision = resolve_precision(self._device.precision, device)
        return KnownModel(card, device, precision, sha256 or hashlib.sha256(path.read_bytes()).hexdigest())


def resolve_device(device: str) -> torch.device:
    """Device by name; UsageError if it is not available."""
    has_cuda = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", device):
        raise UsageError(f"no device {device!r}; there are auto, cpu, cuda, cuda:<number> and mps")
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count() * has_cuda:
        raise UsageError(f"device {device!r} is not available (PyTorch {torch.__version__} sees no such GPU); use cpu")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"device 'mps' is not available (PyTorch {torch.__version__} sees no Apple GPU); use cpu")
    return found


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Floating-point type by name; UsageError for an unknown one, and for fp16 on the CPU, where it is slow."""
    if precision == "auto":
        fast = {"cuda": torch.float16, "cpu": torch.bfloat16 if has_bfloat16() else torch.float32}
        return fast.get(device.type, torch.float32)
    if precision not in _PRECISIONS:
        raise UsageError(f"no precision {precision!r}; there are auto, {', '.join(_PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("precision fp16 needs a GPU; use fp32 (or bf16) on the CPU")
    return _PRECISIONS[precision]
