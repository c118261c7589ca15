"""Options as dataclass fields with help, bounds and choices.

The command line turns these fields into options (cli/groups.py), Python into keywords, cards and reports into entries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, TypeAlias, cast, get_args, get_type_hints

from tfcseg.errors import UsageError
from tfcseg.spelling import find_name, hint

OnProgress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with the current task, items done, and items in all if known."""

OnStep: TypeAlias = Callable[[int, int], None]
"""Called with items done, and items in all."""

THE_MODELS: Any = None
"""Default of fields that the model fills in: None until then, although the type does not say so."""


@dataclass(frozen=True, slots=True)
class Option:
    """Description of a field: ``field: Annotated[int, Option("Frames from …", low=1)]``."""

    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None  # bounds: both, the low one, or none
    suggestions: tuple[str, ...] | Callable[[], Sequence[str]] = ()
    """Values to complete, if others are allowed, too."""
    is_list: bool = False  # whether it takes several words, one by one or separated by commas
    flags: tuple[str, ...] = ()  # names on the command line, if they differ from the field's
    default_text: str | None = None  # text that help shows in place of the default; nothing if it is empty
    is_argument: bool = False  # whether commands take it by its place
    value_of_paper: Any = None  # value for models that do not set one; only for fields that the model fills in


@dataclass(frozen=True, slots=True)
class Declared:
    """A field of an options dataclass."""

    name: str
    type: Any  # the type without the `Option`: ``int``, ``str``, …
    default: Any
    option: Option

    @property
    def is_the_models(self) -> bool:
        """Whether the model provides a value."""
        return self.default is THE_MODELS and self.option.value_of_paper is not None

    @property
    def flag(self) -> str:
        """Name on the command line."""
        return next(iter(self.option.flags), f"--{self.name.replace('_', '-')}").partition("/")[0]

    def check(self, value: Any, *, by_flag: bool = False) -> None:
        """Raise UsageError unless ``value`` is one of the choices and a number within bounds; ``by_flag`` names the
        option."""
        option, words = self.option, self.name.replace("_", " ")
        if option.choices and not option.is_list and value not in option.choices:
            raise UsageError(f"no {words} {value!r}; {hint(str(value), option.choices)}")
        if option.low is None:
            return
        is_whole = self.type in (int, int | None)
        kind: Any = Integral if is_whole else Real
        if isinstance(value, bool) or not isinstance(value, kind):
            raise UsageError(f"{words} is {value!r}, not a {'whole ' if is_whole else ''}number")
        named = f"{self.flag if by_flag else words} {value:g}"
        if option.high is not None and not option.low <= value <= option.high:
            raise UsageError(f"{named} is not between {option.low:g} and {option.high:g}")
        if value < option.low:
            raise UsageError(f"{named} is less than {option.low:g}")


@cache
def declared(options: Hashable) -> tuple[Declared, ...]:
    """The fields of an options dataclass that carry an `Option`, in order."""
    hints = get_type_hints(options, include_extras=True)
    found = []
    for item in fields(cast(Any, options)):
        kind, *extras = get_args(hints[item.name]) or (hints[item.name],)
        for option in extras:
            if isinstance(option, Option):
                found.append(Declared(item.name, kind, item.default, option))
    return tuple(found)


def check(options: Any, *, by_flag: bool = False) -> None:
    """Raise UsageError for the first field whose value is not allowed; see `Declared.check`. None is not checked."""
    for field in declared(options.__class__):
        value = getattr(options, field.name)
        if value is not None:
            field.check(value, by_flag=by_flag)


def sort_options(function: Any, given: Mapping[str, Any], *groups: Any) -> list[dict[str, Any]]:
    """Split keyword arguments of ``function`` into those of each options dataclass. Choices are accepted in any case.
    Raises TypeError, naming the closest keyword, for an unknown one."""
    known = {field.name: field for group in groups for field in declared(group)}
    for name in given:
        if name not in known:
            names = [*function.__kwdefaults__, *known]
            raise TypeError(f"{function.__name__}() has no option {name!r}; {hint(name, names)}")
    spelt = {
        name: (find_name(value, known[name].option.choices) or value) if isinstance(value, str) else value
        for name, value in given.items()
    }
    return [{field.name: spelt[field.name] for field in declared(group) if field.name in spelt} for group in groups]
