"""Writes the README's tables from the measurements in assets/results: ``python assets/tables.py``.

A table stands between ``<!-- table: FILE -->`` and ``<!-- end -->``; FILE is a compare.json of ``tfcseg compare``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

ROWS = (
    ("mIoU", "miou", "{:.1f}"),
    ("VC8", "vc8", "{:.1f}"),
    ("VC16", "vc16", "{:.1f}"),
    ("TC", "tc", "{:.2f} %"),
    ("labels changed from frame to frame", "label_change", "{:.2f} %"),
    ("same labels as `image`", "agreement", "{:.1f} %"),
    ("points recomputed between keyframes", "updated_fraction", "{:.1f} %"),
    ("frames per second, network and labels", "model_fps", "{:.1f}"),
    ("frames per second, file to files", "fps", "{:.1f}"),
    ("GFLOPs per frame", "gflops_per_frame", "{:.2f}"),
)


def table(comparison: dict[str, Any]) -> str:
    """Markdown table of one compare.json: a column per mode, and a line that says what was measured on what."""
    modes = comparison["modes"]
    lines = ["| | " + " | ".join(f"`{mode}`" for mode in modes) + " |", "|---|" + "---:|" * len(modes)]
    for title, key, form in ROWS:
        values = [numbers.get(key) for numbers in modes.values()]
        if any(value is not None for value in values):
            cells = ["–" if value is None else form.format(value) for value in values]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + _conditions(comparison) + "\n"


def _conditions(comparison: dict[str, Any]) -> str:
    height, width = comparison["resolution"]["network"]
    return (
        f"Model `{comparison['model']['name']}`, {comparison['device_name']} ({comparison['device']}, "
        f"{comparison['threads']} threads, {comparison['precision']}), network input {width}×{height}, "
        f"torch {comparison['versions']['torch']}."
    )


def with_tables(text: str) -> str:
    """``text`` with every marked table made anew."""

    def renew(match: re.Match[str]) -> str:
        comparison = json.loads((ROOT / match[2]).read_text(encoding="utf-8"))
        return match[1] + "\n" + table(comparison) + "\n" + match[3]

    return MARKED.sub(renew, text)


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
