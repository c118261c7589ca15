"""What somebody who mistyped a name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_CLOSE = 0.5


def hint(word: str, known: Sequence[str]) -> str:
    """``did you mean …?`` with those of ``known`` that ``word`` resembles, or ``there are …`` with all of them."""
    close = difflib.get_close_matches(word.lower(), known, n=3, cutoff=_CLOSE)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
