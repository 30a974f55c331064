"""Text from outside, such as the names of files, shown and never obeyed: by a terminal, by markup, by a browser."""

from __future__ import annotations

import html
import re
from typing import Any, ClassVar

from rich.console import Console

from tiling.escaping import plain

__all__ = ["PlainConsole", "markdown", "plain"]

_MARKDOWN = re.compile(r"([\\`*\[\]|~@]|(?<=\bwww)\.|:(?=//))", re.IGNORECASE)
"""What begins markup; at the end what pages make links of though nobody wrote one: addresses of the web and of mail."""


def markdown(text: object) -> str:
    """The text for a page that is rendered from Markdown and may hold HTML."""
    return _MARKDOWN.sub(r"\\\1", html.escape(plain(text), quote=False))


_COMMAND = re.compile(r"\bovertile (archive|demo|doctor|export|models|rerun|segment|serve|status|train|verify|view)\b")


class PlainConsole(Console):
    """A terminal to which text is text: no markup, no control characters, no colours guessed from words.

    Attributes:
        has_shown_command: whether any in this process has shown a command to paste.
    """

    has_shown_command: ClassVar[bool] = False

    def __init__(self, *, stderr: bool = False, quiet: bool = False) -> None:
        super().__init__(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        if not self.quiet and any(isinstance(each, str) and _COMMAND.search(each) for each in objects):
            PlainConsole.has_shown_command = True
        super().print(*(plain(each) if isinstance(each, str) else each for each in objects), **options)
