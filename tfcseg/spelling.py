"""Names as people type them: the case does not matter, and whoever mistyped one is told what he may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from tfcseg.errors import UsageError

_CLOSE, _AS_CLOSE = 0.5, 0.1
"""How like a word (0…1) a name must be to be offered, and how much less like it than the nearest one it may be."""


def find_name(word: str, known: Sequence[str]) -> str | None:
    """The one of ``known`` that ``word`` names, without regard to case and blanks around it; None if there is none."""
    if word in known:
        return word
    folded = word.strip().casefold()
    return next((name for name in known if name.casefold() == folded), None)


def known_name(what: str, word: str, known: Sequence[str]) -> str:
    """The one of ``known`` that ``word`` names; UsageError with the closest ones if there is none."""
    name = find_name(word, known)
    if name is None:
        raise UsageError(f"no {what} {word!r}; {hint(word, known)}")
    return name


def hint(word: str, known: Sequence[str]) -> str:
    """``did you mean …?`` with those of ``known`` that ``word`` resembles most, or ``there are …`` with all of them."""
    spelt = {name.casefold(): name for name in known}
    word = word.casefold()
    close = difflib.get_close_matches(word, spelt, n=3, cutoff=_CLOSE)
    if not close:
        return f"there are {', '.join(known)}"
    likeness = [difflib.SequenceMatcher(None, name, word).ratio() for name in close]
    meant = [spelt[name] for name, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - _AS_CLOSE]
    return f"did you mean {' or '.join(meant)}?"
