"""Text from outside, such as the names of files, shown and never obeyed: by a terminal, by markup, by a browser."""

from __future__ import annotations

import html
import re
from typing import Any

from rich.console import Console

from tiling.escaping import plain

__all__ = ["PlainConsole", "markdown", "plain"]

_MARKDOWN = re.compile(r"([\\`*\[\]|~@]|(?<=\bwww)\.|:(?=//))", re.IGNORECASE)
"""What begins markup; at the end what pages make links of though nobody wrote one: addresses of the web and of mail."""


def markdown(text: object) -> str:
    """The text for a page that is rendered from Markdown and may hold HTML."""
    return _MARKDOWN.sub(r"\\\1", html.escape(plain(text), quote=False))


class PlainConsole(Console):
    """A terminal to which text is text: no markup, no control characters, no colours guessed from words."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(plain(each) if isinstance(each, str) else each for each in objects), **options)
