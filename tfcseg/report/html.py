"""Build self-contained HTML pages: templates, escaping, and a policy that blocks loading from elsewhere.

Jinja2 escapes every value in a template, and data for scripts so that no character can end the element.
"""

from __future__ import annotations

import base64
import hashlib
import math
import numbers
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tfcseg.files import replace_atomically
from tfcseg.spelling import visible

if TYPE_CHECKING:
    from jinja2 import Environment

NOTHING = "–"  # shown in place of a number that was not measured


def write_html(path: Path, template: str, context: Mapping[str, Any], data: object = None) -> None:
    """Render ``template`` into ``path``, complete or not at all; OutputError on failure.

    ``data`` is embedded as JSON for the player's script; a page without data has no script.
    """
    text = _environment().get_template(template).render(**context, data=data)
    with replace_atomically(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "replace"))


def relative_url(path: str, folder: Path) -> str:
    """Address of the file ``path`` for a page in ``folder``: relative, so that both can be moved together."""
    return quote(os.fsencode(os.path.relpath(path, folder)))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("tfcseg.report", "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    made.filters |= {"plain": visible, "number": shown_number, "percent": shown_percent, "clock": shown_time}
    for kind, names in (("style", ("page.css",)), ("script", ("charts.js", "player.js"))):
        folder = files("tfcseg.report") / "templates"
        text = "".join((folder / name).read_text(encoding="utf-8") for name in names)
        made.globals[kind] = Markup(text)  # our own files
        # The page's policy allows this script and nothing that was injected.
        made.globals[f"{kind}_hash"] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return made


def shown_number(value: object, decimals: int = 1, unit: str = "") -> str:
    """``value`` for people; a dash if it is no number, or not finite. Small ones do not become 0."""
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        return NOTHING
    is_hidden = 0 < float(value) < 0.5 / 10**decimals
    number = f"<{10**-decimals:.{decimals}f}" if is_hidden else f"{float(value):,.{decimals}f}"
    return f"{number} {unit}" if unit else number


def shown_percent(share: float | None, decimals: int = 2) -> str:
    """A share from 0 to 1 in percent; small shares do not become 0."""
    if share is None or not math.isfinite(share):
        return NOTHING
    is_hidden = 0 < share < 0.5 / 10 ** (decimals + 2)
    return f"<{10**-decimals:.{decimals}f} %" if is_hidden else f"{100 * share:.{decimals}f} %"


def shown_time(seconds: float) -> str:
    """``1:02.50``."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    return f"{minutes}:{rest // 100:02d}.{rest % 100:02d}"
