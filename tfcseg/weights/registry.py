"""Registries of models, such as the shipped ones: ``models.json`` has file and SHA-256 of each, and the default."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfcseg.errors import WeightsError
from tfcseg.files import replace_atomically
from tfcseg.spelling import find_name, hint
from tfcseg.weights.tensor_header import read_beside

REGISTRY = "models.json"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model of the registry: a file beside ``models.json``, and its SHA-256."""

    name: str
    path: Path
    sha256: str
    is_default: bool


def list_models(assets: Path | None = None) -> list[ModelRecord]:
    """List the models of the registry by name; WeightsError if it is missing or invalid."""
    path = (assets or _assets_folder()) / REGISTRY
    match read_beside(path, "install tfcseg again"):
        case {"default": default, "models": dict(models)} if default in models:
            return [
                ModelRecord(name, path.with_name(entry["file"]), entry["sha256"], name == default)
                for name, entry in sorted(models.items())
            ]
    raise WeightsError(f"{path} does not name models and a default among them; install tfcseg again")


def read_registry(folder: Path) -> dict[str, Any]:
    """Read the registry of ``folder`` to change it; without ``models.json`` it has no models."""
    path = folder / REGISTRY
    content = read_beside(path, "repair it") if path.is_file() else {"models": {}}
    match content:
        case {"models": dict(models)} if all(
            isinstance(e, dict) and {"file", "sha256"} <= {*e} for e in models.values()
        ):
            return content
    raise WeightsError(f"{path} is not a registry of models; repair it or choose another folder")


def write_registry(folder: Path, content: dict[str, Any]) -> None:
    """Replace the registry of ``folder``."""
    with replace_atomically(folder / REGISTRY) as partial:
        partial.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def locate_weights(name_or_path: str | Path, assets: Path | None = None) -> tuple[Path, str | None]:
    """Find the file for a name in the registry (with its SHA-256) or a path; registry names come first."""
    if isinstance(name_or_path, str) and "://" in name_or_path:
        raise WeightsError(
            f"{name_or_path!r} is an address; download the weights, or name a model of the Hugging Face hub as ORG/NAME"
        )
    if isinstance(name_or_path, Path) or name_or_path.endswith(_SUFFIXES) or "/" in name_or_path:
        if str(name_or_path).endswith("/") and not Path(name_or_path).exists():
            raise WeightsError(f"no folder {name_or_path!r}; give a weights file, a folder, or one of tfcseg models")
        return Path(name_or_path), None
    records = list_models(assets)
    name = find_name(name_or_path, ["default", *(record.name for record in records)])
    for record in records:
        if name == record.name or (name == "default" and record.is_default):
            return record.path, record.sha256
    if Path(name_or_path).exists():
        return Path(name_or_path), None
    raise WeightsError(f"no model or weights file {name_or_path!r}; {hint(name_or_path, [r.name for r in records])}")


def _assets_folder() -> Path:
    """Folder of the registry: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / "assets", package.parent / "assets"):
        if (folder / REGISTRY).is_file():
            return folder
    raise WeightsError(f"no weights came with this installation ({REGISTRY} is missing); give a weights file")
