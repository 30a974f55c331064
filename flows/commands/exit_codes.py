"""Errors of usage and of the environment, shown on one line with an exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

from pydantic import ValidationError
from typer.exceptions import TyperException

from flows.commands.output import print_failure
from flows.commands.system_error import message_of
from flows.config.base import problem_in
from flows.errors import StoppedError
from flows.lifecycle.exit_status import EXIT_SIGNALLED
from flows.lifecycle.stopping import sigterm_as_error
from flows.reporting.escaping import PlainConsole

EXIT_UNEXPECTED, EXIT_USAGE, EXIT_FAILED_TILES = 1, 2, 3
EXIT_NEW_FAILURES = EXIT_FAILED_TILES
"""Of a night: slides failed that hadn't failed before."""
EXIT_BACKLOG = 4
"""Of a night that ended before its work did: nothing new failed, and the next night resumes."""
EXIT_LOOK = 5
"""Of a night with `--strict`: all is segmented, and slides of it are to be looked at."""

err = PlainConsole(stderr=True)


@contextmanager
def one_line_errors() -> Generator[None]:
    """Turn errors of usage and of the environment into one line and an exit code."""
    try:
        from flows.errors import ENVIRONMENT_ERRORS, ERRORS, USAGE_ERRORS
    except KeyboardInterrupt:
        _interrupted()
    try:
        with sigterm_as_error():
            yield
    except ValidationError as error:
        fail(problem_in(error, flags=True), EXIT_USAGE)
    except StoppedError as error:
        fail(str(error), EXIT_SIGNALLED + error.signal_number)
    except ERRORS as error:
        is_usage = isinstance(error, USAGE_ERRORS) and not isinstance(error, ENVIRONMENT_ERRORS)
        fail(message_of(error), EXIT_USAGE if is_usage else EXIT_UNEXPECTED)
    except KeyboardInterrupt:
        _interrupted()


@contextmanager
def one_line_usage(is_json: bool) -> Generator[None]:
    """Turn what the library says of unknown words, missing ones and values of another type into one line."""
    try:
        yield
    except TyperException as error:
        kind, context = type(error).__name__, getattr(error, "ctx", None)
        if kind == "NoArgsIsHelpError":  # the library shows the help
            raise
        path: str = context.command_path if context else "overtile"
        said: str = getattr(error, "format_message", error.__str__)()
        message = f"{' '.join(said.split()).rstrip('.')} (see {path} -h)"
        if is_json:
            print_failure(path.partition(" ")[2], kind, message)
        fail(message, EXIT_USAGE)


def _interrupted() -> NoReturn:
    err.print("stopped; the same command resumes")
    sys.exit(EXIT_SIGNALLED + signal.SIGINT)


def fail(message: str, code: int) -> NoReturn:
    """End with that code, and say why."""
    err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)
