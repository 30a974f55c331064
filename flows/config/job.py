"""A job's file: options by their names in TOML, for `--config`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from flows.config.base import ConfigBase
from flows.config.option_types import from_home
from flows.errors import ConfigError


def read_job(kind: type[ConfigBase], path: Path) -> dict[str, Any]:
    """Options that a file gives, as a person would write them on the command line; paths are of the current folder.

    A name is written as in Python (`image_mpp`) or as on the command line (`image-mpp`); `bands = [3, 2, 1]` is
    `--bands 3,2,1`.

    Raises:
        ConfigError: no file, no TOML, a name that is no option, or a table.
    """
    try:
        given = tomllib.loads(from_home(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {path} can't be read as TOML ({error}); correct it") from error
    job: dict[str, Any] = {}
    for written, value in given.items():
        name = _named(kind, written)
        if name is None:
            raise ConfigError(
                f"--config {path}: there is no option {written!r}; known are {', '.join(kind.model_fields)}"
            )
        if isinstance(value, dict):
            raise ConfigError(f"--config {path}: {written} is a table, and an option is one value; write {name} = …")
        job[name] = _as_written(value, is_repeatable=kind.cli(name).is_repeatable)
    return job


def _named(kind: type[ConfigBase], written: str) -> str | None:
    """The option of that name or flag."""
    name = written.replace("-", "_")
    flags = {kind.written(each).removeprefix("--"): each for each in kind.model_fields}
    return name if name in kind.model_fields else flags.get(written)


def _as_written(value: object, *, is_repeatable: bool) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        items = [str(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        return items if is_repeatable else ",".join(items)
    return [str(value)] if is_repeatable else str(value)
