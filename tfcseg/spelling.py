"""What somebody who mistyped a name may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

_CLOSE, _AS_CLOSE = 0.5, 0.1
"""How like a word (0…1) a name must be to be offered, and how much less like it than the nearest one it may be."""


def hint(word: str, known: Sequence[str]) -> str:
    """``did you mean …?`` with those of ``known`` that ``word`` resembles most, or ``there are …`` with all of them."""
    word = word.lower()
    close = difflib.get_close_matches(word, known, n=3, cutoff=_CLOSE)
    if not close:
        return f"there are {', '.join(known)}"
    likeness = [difflib.SequenceMatcher(None, name, word).ratio() for name in close]
    meant = [name for name, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - _AS_CLOSE]
    return f"did you mean {' or '.join(meant)}?"
