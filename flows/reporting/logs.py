"""Logs for people, or with OVERTILE_LOG=json one JSON object per line that names run, slide and tile."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from tiling.escaping import plain

VARIABLE = "OVERTILE_LOG"
PACKAGES = ("flows", "tiling", "unet_core")
EXTRAS = ("run", "slide", "tile", "tiles", "failed", "state", "reason", "seconds", "megapixels_per_second")
"""What a log call may say in `extra` beside its message."""

_subject: ContextVar[dict[str, str] | None] = ContextVar("subject", default=None)


class PlainFormatter(logging.Formatter):
    """Text from outside, such as a file's name, in a line of its own: no terminal obeys what it holds."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line before a traceback."""
        return plain(super().formatMessage(record))


class JsonFormatter(logging.Formatter):
    """One line per record: time in UTC, level, logger, message, what it is about, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **(_subject.get() or {}),
            **{name: record.__dict__[name] for name in EXTRAS if name in record.__dict__},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def keep_warnings_plain() -> None:
    """Show warnings of commands that set no logs up as text alone, too."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(PlainFormatter())


def configure_logs() -> None:
    """Set this process's logs up as the environment says; may be called again."""
    if os.environ.get(VARIABLE) != "json":
        handler = logging.StreamHandler()
        handler.setFormatter(PlainFormatter("%(levelname)s %(name)s: %(message)s"))
        logging.basicConfig(level=logging.WARNING, handlers=[handler])
        return
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        root.addHandler(handler)
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.INFO)


@contextmanager
def about(*, run: object, slide: object) -> Generator[None]:
    """Every record that is made inside names this run and this slide."""
    token = _subject.set({"run": str(run), "slide": str(slide)})
    try:
        yield
    finally:
        _subject.reset(token)
