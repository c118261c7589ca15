"""Turn dataclass fields into options of a command: one field, one option."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo

from tfcseg.cli.options import completing, one_of, split_list
from tfcseg.options import THE_MODELS, Declared, check, declared

_Command = TypeVar("_Command", bound=Callable[..., None])


class Without:
    """Leaves out fields that make no sense for a command: ``Annotated[InferenceOptions, Without("mode")]``."""

    def __init__(self, *names: str, default_text: str = "the model's") -> None:
        self.names, self.default_text = names, default_text


def grouped(command: _Command) -> _Command:
    """Give a command all fields of its dataclasses as options; it is called with the dataclasses."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, tuple[Any, tuple[str, ...]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group, added = _parameters(parameter.annotation)
        if added:
            groups[parameter.name] = group, tuple(each.name for each in added)
        parameters += added or [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        for name, (group, names) in groups.items():
            values = {field: given.pop(field) for field in names}
            given[name] = group(**{field: value for field, value in values.items() if value is not None})
            check(given[name], by_flag=True)
        command(**given)

    del call.__dict__["__wrapped__"]  # the signature is another one
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call  # type: ignore[return-value]


def names_of(group: Any) -> tuple[str, ...]:
    """Names of the parameters that a group (with or without `Without`) adds to a command."""
    return tuple(parameter.name for parameter in _parameters(group)[1])


def _parameters(annotation: Any) -> tuple[Any, list[inspect.Parameter]]:
    """A group and the parameters that it adds to a command; none of them: it is no group."""
    wanted = Without()
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        wanted = next((extra for extra in extras if isinstance(extra, Without)), wanted)
    if not is_dataclass(annotation):
        return annotation, []
    group = cast(Any, annotation)
    hints = get_type_hints(group, include_extras=True)
    shared = [
        inspect.Parameter(item.name, inspect.Parameter.KEYWORD_ONLY, default=item.default, annotation=hints[item.name])
        for item in fields(group)
        if any(isinstance(extra, OptionInfo) for extra in get_args(hints[item.name]))
    ]
    name = group.__name__
    heading = f"{name.removesuffix('Options')} options" if name.endswith("Options") else None
    own = [_parameter(field, wanted.default_text, heading) for field in declared(group)]
    return annotation, [each for each in shared + own if each.name not in wanted.names]


def _parameter(field: Declared, default_text: str, heading: str | None) -> inspect.Parameter:
    option, kind, default = field.option, field.type, field.default
    settings: dict[str, Any] = {"help": option.help, "rich_help_panel": heading}
    if default is MISSING or option.default_text is not None:
        settings["show_default"] = option.default_text or False
    elif default is THE_MODELS:
        settings["show_default"] = default_text
    if option.is_argument:
        settings["metavar"] = field.name.upper()
    if option.choices:
        settings["metavar"] = ("," if option.is_list else "|").join(option.choices)
    if option.choices and not option.is_list:
        settings["callback"] = one_of(field.name.replace("_", " "), option.choices)
    if option.choices or option.suggestions:
        settings["autocompletion"] = completing(option.choices or option.suggestions)
    if option.is_list:
        kind, default = list[str], None
        settings["callback"] = lambda values: values if split_list(values) else None
    # Typer would add --no-… to a switch that is off by default.
    flags = (field.flag,) if default is False and not option.flags else option.flags
    typed = typer.Argument(**settings) if option.is_argument else typer.Option(*flags, **settings)
    required = default is MISSING
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if required else default,
        annotation=Annotated[kind | None if default is None else kind, typed],
    )
