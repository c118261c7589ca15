"""Options that a command takes from dataclasses: one field there is one option here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer

from tfcseg.cli.options import completing
from tfcseg.cli.values import one_of
from tfcseg.options import THE_MODELS, Declared, check, declared

_Command = TypeVar("_Command", bound=Callable[..., None])


class Without:
    """``Annotated[InferenceOptions, Without("mode")]``: a group less the fields that make no sense for a command."""

    def __init__(self, *names: str, default_text: str = "the model's") -> None:
        self.names, self.default_text = names, default_text


def grouped(command: _Command) -> _Command:
    """Give a command all fields of its options dataclasses as options; it is called with the dataclasses."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, tuple[Any, list[Declared]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group, fields, default_text = _fields(parameter.annotation)
        if fields:
            groups[parameter.name] = group, fields
            heading = f"{group.__name__.removesuffix('Options')} options"
            parameters += [_parameter(field, default_text, heading) for field in fields]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def call(**given: Any) -> None:
        for name, (group, fields) in groups.items():
            values = {field.name: given.pop(field.name) for field in fields}
            given[name] = group(**{key: value for key, value in values.items() if value is not None})
            check(given[name])
        command(**given)

    del call.__dict__["__wrapped__"]  # the signature is another one
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call  # type: ignore[return-value]


def names_of(group: Any) -> tuple[str, ...]:
    """Names of the parameters that a group (with or without `Without`) adds to a command."""
    return tuple(field.name for field in _fields(group)[1])


def _fields(annotation: Any) -> tuple[Any, list[Declared], str]:
    """A group, those of its fields that a command shows, and what help says of open defaults; no fields: no group."""
    wanted = Without()
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        wanted = next((extra for extra in extras if isinstance(extra, Without)), wanted)
    if not hasattr(annotation, "__dataclass_fields__"):
        return annotation, [], ""
    fields = [field for field in declared(annotation) if field.name not in wanted.names]
    return annotation, fields, wanted.default_text


def _parameter(field: Declared, default_text: str, heading: str) -> inspect.Parameter:
    option, kind, default = field.option, field.type, field.default
    settings: dict[str, Any] = {"help": option.help, "rich_help_panel": heading}
    if option.default_text or default is THE_MODELS:
        settings["show_default"] = option.default_text or default_text
    if option.choices:
        settings["callback"] = one_of(field.name.replace("_", " "), option.choices)
        settings["metavar"] = "|".join(option.choices)
    if option.choices or option.suggestions:
        settings["autocompletion"] = completing(lambda: option.choices or option.suggestions)
    flags = option.flags
    if default is False and not flags:
        flags = (f"--{field.name.replace('_', '-')}",)  # no option that says what holds anyway
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind | None if default is None else kind, typer.Option(*flags, **settings)],
    )
