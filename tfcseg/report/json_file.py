"""Results as JSON files: plain types, rounded numbers, complete or not at all."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfcseg.files import replace_atomically


def write_json(path: Path, result: object) -> None:
    """Write ``result`` as UTF-8 JSON; ``path`` appears complete or not at all. Raises OutputError."""
    text = json.dumps(to_json(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replace_atomically(path) as temporary:
        # File names that are not valid UTF-8 arrive with lone surrogates; written as \udcxx they are valid JSON.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def json_object(result: object) -> dict[str, Any]:
    """Convert a dataclass or mapping to the JSON object that `write_json` writes."""
    content = to_json(result)
    if not isinstance(content, dict):
        raise TypeError(f"{type(result).__name__} is not an object with named fields")
    return content


def to_json(value: object, decimals: int = 6) -> object:
    """``value`` in plain JSON types: dataclasses as objects, numbers rounded, None for NaN and infinities."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):  # NumPy's integers included, here as below
        return int(value)
    if isinstance(value, numbers.Real):
        return round(float(value), decimals) if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        return {name: to_json(getattr(value, name), decimals_of(name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [to_json(item) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be part of a report")


def decimals_of(name: str) -> int:
    """Decimals for the quantity ``name``: three for speeds, six for seconds and shares."""
    return 3 if name.endswith(("_ms", "fps")) else 6
