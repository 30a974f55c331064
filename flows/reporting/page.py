"""Pages from templates. All that comes from outside is text in them: markup is escaped, control characters shown."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.reporting.escaping import plain
from flows.reporting.progress import format_seconds


def render(template: str, facts: Mapping[str, Any]) -> str:
    """A template of this package with these facts."""
    return _environment().get_template(template).render(facts)


@cache
def _environment() -> Environment:
    """Templates, each compiled once per process."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else plain(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": _moment, "duration": format_seconds, "grouped": "{:,}".format}
    return environment


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
