"""Find names in any case, suggest the closest for mistyped ones, name or count several things, shorten lines."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from tfcseg.errors import UsageError


def find_name(word: str, known: Sequence[str]) -> str | None:
    """Find ``word`` among ``known``, ignoring case and surrounding blanks; None if it is not there."""
    if word in known:
        return word
    folded = word.strip().casefold()
    return next((name for name in known if name.casefold() == folded), None)


def words_of(texts: str | Iterable[str]) -> list[str]:
    """Words of one or several comma-separated lists, without blanks around them."""
    words = (texts if isinstance(texts, str) else ",".join(texts)).split(",")
    return [word.strip() for word in words if word.strip()]


def known_name(what: str, word: str, known: Sequence[str]) -> str:
    """Find ``word`` among ``known``; raise UsageError with the closest name if it is not there."""
    name = find_name(word, known)
    if name is None:
        raise UsageError(f"no {what} {word!r}; {hint(word, known)}")
    return name


def hint(word: str, known: Sequence[str]) -> str:
    """Return ``did you mean …?`` with the names that ``word`` may mean, or ``there are …`` with all names."""
    likely = likely_names(word, known)
    return f"did you mean {' or '.join(likely)}?" if likely else f"there are {', '.join(known)}"


def likely_names(word: str, known: Sequence[str]) -> list[str]:
    """Names that ``word`` begins, if they are few, or else the closest one of about its length, if there is one."""
    spelt, typed = {name.casefold(): name for name in known}, word.strip().casefold()
    begun = [name for name in spelt if typed and name.startswith(typed)]
    similar = [name for name in spelt if abs(len(name) - len(typed)) <= max(1, len(typed) // 4)]
    close = begun if 0 < len(begun) <= 3 else difflib.get_close_matches(typed, similar, n=1)
    return [spelt[name] for name in close]


def count_of(number: int, noun: str) -> str:
    """Number and noun, in the plural unless the number is 1."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def first_of(names: Sequence[str], shown: int, between: str = ", ") -> str:
    """The first ``shown`` names, and how many more there are."""
    rest = len(names) - shown
    return between.join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def visible(text: str) -> str:
    """``text`` on one line: line ends and tabs become blanks, invisible characters escapes such as ``\x1b``.

    Joiners stay: Persian names and some emoji need them.
    """
    line = " ".join(part.strip() for part in text.replace("\t", " ").splitlines())
    return "".join(each if each.isprintable() or each in "\u200c\u200d" else repr(each)[1:-1] for each in line)


def one_line(text: str, limit: int) -> str:
    """Convert any ``text`` to one printable line of at most ``limit`` characters."""
    line = " ".join(text.split())
    return "".join(letter for letter in line if letter.isprintable())[:limit]
