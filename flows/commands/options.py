"""Options of commands, made of the fields that the configurations declare."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from flows.commands.exit_codes import one_line_errors
from flows.config.base import ConfigBase
from flows.config.job import read_job
from flows.config.option_types import Cli
from flows.errors import ConfigError

CONFIG = "config_file"

_FORMER = "former_"

RunOrArchive = Annotated[
    str, typer.Argument(metavar="RUN|ARCHIVE", help="A run folder or an archive's folder, a path or URL.")
]

_Command = TypeVar("_Command", bound=Callable[..., None])


def takes(
    kind: type[ConfigBase], *, only: Collection[str] = (), optional: Collection[str] = ()
) -> Callable[[_Command], _Command]:
    """Give a command a configuration's options in place of its `**asked`, in which it finds those that were given.

    Texts stay texts: the configuration reads them, so that a wrong value is refused in the same words everywhere.
    `only` some of the options; `optional` are those that the configuration needs and the command does not. What the
    command declares itself by the same name is shown as it says.
    """

    def with_options(command: _Command) -> _Command:
        every = inspect.signature(command, eval_str=True).parameters.values()
        own = [each for each in every if get_origin(each.annotation) is Annotated]
        own_names = {each.name for each in own}
        names = [name for name in only or kind.model_fields if name not in own_names]
        declared = [_parameter(kind, name, name in optional) for name in names]
        former = {f"{_FORMER}{name}": name for name in names if kind.cli(name).former}
        declared += [_former_switch(kind, name) for name in former.values()]
        declared += [_config_option(kind)] if not only else []
        words = {name for name in names if kind.cli(name).is_word and kind.cli(name).is_repeatable}

        @wraps(command)
        def called(**given: Any) -> None:
            given.pop(CONFIG, None)  # what it names are defaults by now
            given |= {name: True for switch, name in former.items() if given.pop(switch, False)}
            with one_line_errors():
                given |= {name: _one(given[name]) for name in given.keys() & words}
            command(**{name: value for name, value in given.items() if value is not None or name in own_names})

        called.__signature__ = inspect.Signature([*declared, *own])  # type: ignore[attr-defined]
        return called  # type: ignore[return-value]

    return with_options


def _config_option(kind: type[ConfigBase]) -> inspect.Parameter:
    """`--config job.toml`: any of the options by their names, which the command line overrides."""

    def read(context: typer.Context, path: str | None) -> str | None:
        if path is not None:
            with one_line_errors():
                context.default_map = {**(context.default_map or {}), **read_job(kind, Path(path))}
        return path

    about = "Options by their names, in TOML; those on the command line win."
    shown = typer.Option("--config", metavar="PATH", help=about, is_eager=True, callback=read)
    return _keyword(CONFIG, str, shown, None)


def _parameter(kind: type[ConfigBase], name: str, is_optional: bool) -> inspect.Parameter:
    field, mark = kind.model_fields[name], kind.cli(name)
    default = None if is_optional else inspect.Parameter.empty if field.is_required() else _default(field, mark)
    if mark.is_word:
        shown = typer.Argument(metavar=mark.metavar, help=field.description)
        return _keyword(name, list[str] if mark.is_repeatable else str, shown, default)
    base, metavar = _value(field)
    if base is bool:
        flag = mark.flag if "/" in mark.flag or default is False else f"{mark.flag}/--no-{mark.flag.removeprefix('--')}"
        spelt = [each for each in (flag, mark.short) if each]
        switch = typer.Option(*spelt, help=field.description, rich_help_panel=_panel(kind, name))
        return _keyword(name, bool, switch, default)
    about = f"{field.description} May be repeated." if mark.is_repeatable else field.description
    shown = typer.Option(
        *(each for each in (mark.flag, mark.short) if each),
        metavar=mark.metavar or metavar,
        help=about,
        rich_help_panel=_panel(kind, name),
    )
    return _keyword(name, list[str] if mark.is_repeatable else str, shown, default)


def _former_switch(kind: type[ConfigBase], name: str) -> inspect.Parameter:
    """A switch's former name: still taken, and neither shown nor completed."""
    return _keyword(f"{_FORMER}{name}", bool, typer.Option(kind.cli(name).former, hidden=True), False)


def _one(words: list[str] | None) -> str | None:
    """Words that name one image: a path, or the bands of a scene, each as NAME=FILE."""
    if not words or len(words) == 1:
        return words[0] if words else None
    unnamed = [word for word in words if "=" not in word]
    if unnamed:
        raise ConfigError(
            f"{len(words)} files are given for one image, and {unnamed[0]} is no band of it: write bands as NAME=FILE, "
            "a mosaic as a glob in quotes ('tiles/*.tif'), or give a run to each with overtile archive"
        )
    return ",".join(words)


def _keyword(name: str, annotation: Any, shown: Any, default: Any) -> inspect.Parameter:
    if default is None:
        annotation = annotation | None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, shown]
    )


def _default(field: FieldInfo, mark: Cli) -> bool | str | list[str] | None:
    """A field's default as a person would write it."""
    default: Any = field.default
    if default is None or default == ():
        return None
    if isinstance(default, bool):
        return default
    text = f"{default:g}{mark.unit}" if isinstance(default, float) else f"{default}{mark.unit}"
    return [text] if mark.is_repeatable else text


def _panel(kind: type[ConfigBase], name: str) -> str | None:
    """The heading of the class that declares an option."""
    return next(
        each.panel for each in kind.__mro__ if issubclass(each, ConfigBase) and name in inspect.get_annotations(each)
    )


def _value(field: FieldInfo) -> tuple[Any, str]:
    """A field's type without its bounds, and what the help shows in place of a value."""
    base, metadata = _without_bounds(field.annotation, list(field.metadata))
    if get_origin(base) is Literal:
        return base, "|".join(get_args(base))
    above = [each.gt for each in metadata if hasattr(each, "gt")]
    least = [each.ge for each in metadata if hasattr(each, "ge")]
    if base is int:
        bounds = [each + 1 for each in above] + least
        return base, f"N≥{bounds[0]}" if bounds else "N"
    if base is float:
        return base, f"X>{above[0]}" if above else "X"
    if base is Path:
        return base, "PATH"
    return base, "PATH|URL" if get_origin(base) is UnionType else "TEXT"


def _without_bounds(annotation: Any, metadata: list[Any]) -> tuple[Any, list[Any]]:
    if get_origin(annotation) is Annotated:
        base, *more = get_args(annotation)
        inner = [bound for each in more if isinstance(each, FieldInfo) for bound in each.metadata]
        return _without_bounds(base, [*metadata, *more, *inner])
    if get_origin(annotation) in {Union, UnionType}:
        given = [each for each in get_args(annotation) if each is not NoneType]
        if len(given) == 1:
            return _without_bounds(given[0], metadata)
    return annotation, metadata
