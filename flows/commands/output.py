"""Output of a command: lines for people, or with `--json` one object on stdout; progress as a bar or as JSON lines.

docs/json.md describes the objects.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from enum import Enum
from functools import wraps
from typing import Annotated, Any, Literal, get_args

import typer
from pydantic import ValidationError

from flows.commands.facts import facts_at_stop
from flows.commands.system_error import message_of
from flows.config.base import problem_in
from flows.errors import ERRORS, ConfigError
from flows.reporting.escaping import PlainConsole
from flows.reporting.logs import PACKAGES, configure_logs
from flows.reporting.progress import Progress

SCHEMA = 1
"""Raised where a field goes or means something else; new fields don't raise it."""

Shown = Literal["bar", "json", "none"]

QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print errors alone; the exit code says the rest.", show_default=False)
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print what is logged on stderr too.", show_default=False)
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object (docs/json.md) in place of lines.", show_default=False)
]
ProgressOption = Annotated[
    str,
    typer.Option(
        "--progress", metavar="bar|json|none", help="How progress is shown; json: one object per line on stderr."
    ),
]


@dataclass(frozen=True, slots=True)
class Output:
    """Output that a command was asked to print."""

    command: str = ""
    is_quiet: bool = False
    is_json: bool = False
    progress: Shown = "bar"


_output: ContextVar[Output] = ContextVar("output", default=Output())  # noqa: B039 (frozen)


def output() -> Output:
    """Output of the command that runs."""
    return _output.get()


def console() -> PlainConsole:
    """For people; silent where they asked for nothing, or a program for JSON."""
    return PlainConsole(quiet=_output.get().is_quiet or _output.get().is_json)


def print_json(facts: Mapping[str, Any]) -> None:
    """The command's one object, on stdout, where it was asked for."""
    if not _output.get().is_json:
        return
    head = {"schema": SCHEMA, "command": _output.get().command}
    sys.stdout.write(json.dumps(as_json({**head, **facts}), ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_failure(command: str, kind: str, message: str) -> None:
    """The one object of a command whose words could not be read."""
    facts = {"schema": SCHEMA, "command": command, "error": {"kind": kind, "message": message}}
    sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_event(progress: Progress) -> None:
    """One moment of a stage, as a line on stderr."""
    eta, rate = progress.eta_seconds, progress.megapixels_per_second
    facts = {**asdict(progress), "megapixels_per_second": round(rate, 3), "left_seconds": eta}
    sys.stderr.write(json.dumps(as_json({"schema": SCHEMA, "event": "progress", **facts})) + "\n")
    sys.stderr.flush()


def as_json(value: Any) -> Any:
    """The value in JSON's own types; what is no finite number is null."""
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    if isinstance(value, Enum):
        return as_json(value.value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def with_output(name: str, command: Callable[..., None], *, json: bool, progress: bool) -> Callable[..., None]:
    """The same command, with the options that say what is printed: the same ones everywhere."""
    own: dict[str, Any] = {"quiet": QuietOption, "verbose": VerboseOption}
    own |= {"json_output": JsonOption} if json else {}
    own |= {"progress_shown": ProgressOption} if progress else {}
    defaults: dict[str, Any] = {"progress_shown": "bar"}

    @wraps(command)
    def shown(*args: Any, **options: Any) -> None:
        given = {each: options.pop(each, False) for each in own}
        how = str(given.get("progress_shown", "bar"))
        if how not in get_args(Shown):
            raise ConfigError(f"--progress: give one of {', '.join(get_args(Shown))}, not {how!r}")
        if given["verbose"]:
            log_everything()
        asked = Output(name, bool(given["quiet"]), bool(given.get("json_output")), how)  # type: ignore[arg-type]
        token = _output.set(asked)
        try:
            command(*args, **options)
        except (ValidationError, *ERRORS) as error:
            message = problem_in(error, flags=True) if isinstance(error, ValidationError) else message_of(error)
            print_json({**facts_at_stop(error), "error": {"kind": type(error).__name__, "message": message}})
            raise  # said on stderr too, where the exit code is made
        finally:
            _output.reset(token)

    declared = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name not in own]
    more = [
        inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(each, False), annotation=kind)
        for each, kind in own.items()
    ]
    shown.__signature__ = inspect.Signature([*declared, *more])  # type: ignore[attr-defined]
    return shown


def log_everything() -> None:
    """Log what the packages note as they work, which is nothing to look at otherwise."""
    configure_logs()
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)
