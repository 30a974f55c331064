"""Configuration: the type that all options are declared on, and the check of what was given for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from flows.config.option_types import Cli
from flows.errors import ConfigError

_LONGEST_SHOWN = 80

Config = TypeVar("Config", bound=BaseModel)


class ConfigBase(BaseModel):
    """Root of all configurations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    panel: ClassVar[str | None] = None
    """The heading in a command's help of the options that a class declares itself."""

    @classmethod
    def cli(cls, name: str) -> Cli:
        """Declare how one of the options is written on the command line."""
        marks = [each for each in cls.model_fields[name].metadata if isinstance(each, Cli)]
        mark = marks[0] if marks else Cli()
        return replace(mark, flag=mark.flag or f"--{name.replace('_', '-')}")

    @classmethod
    def written(cls, name: str) -> str:
        """An option's name in a message of the command line: `--keep-staged`."""
        if name not in cls.model_fields:
            return f"--{name}"
        mark = cls.cli(name)
        return name if mark.is_word else mark.flag.partition("/")[0]


def checked(kind: type[Config], config: Config | Mapping[str, Any]) -> Config:
    """Options as a checked configuration: parameters of a deployment and tables of a job file are mappings.

    Raises:
        ConfigError: a key that there isn't, or a value that can't be; the message names what may be.
    """
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        raise ConfigError(problem_in(error)) from error


def problem_in(error: ValidationError, *, flags: bool = False) -> str:
    """Name what is wrong with what was asked, on one line: the value (by its flag, if asked for), and what may be."""
    first = error.errors(include_url=False)[0]
    kind = {each.__name__: each for each in _kinds(ConfigBase)}.get(error.title)
    known = kind.model_fields if kind is not None else {}
    loc = [str(part) for part in first["loc"]] or [error.title]
    where = (kind or ConfigBase).written(loc[0]) if flags else ".".join(loc)
    if first["type"] == "extra_forbidden" and known:
        return f"{where}: there is no such key; known are {', '.join(known)}"
    about = known[loc[0]].description if loc[0] in known else None
    meaning = f"; {about}" if about else ""
    if first["type"] == "missing":
        return f"{where}: a value is needed{meaning}"
    given = repr(first["input"])
    shown = given if len(given) <= _LONGEST_SHOWN else f"{given[:_LONGEST_SHOWN]}…"
    return f"{where}: {first['msg']}, not {shown}{meaning}"


def _kinds(kind: type[ConfigBase]) -> Iterator[type[ConfigBase]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)
