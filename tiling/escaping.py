"""Text from outside (class names, names of files, errors) as each kind of output takes it: shown and never obeyed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_FORMULA = re.compile(r"(^|[;|])(\s*)(?=[=+\-@＝＋－＠])")
"""What a spreadsheet takes for the begin of a formula, also where it cuts cells at semicolons."""


def is_utf8(text: object) -> bool:
    """True if a name is UTF-8; the bytes of a file's name may be any."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(text: object) -> str:
    """One line in which control characters are written out: `\\x1b` for the one that begins a terminal's commands.

    What can't be printed includes line ends, which would let a name write lines of its own, and the marks that turn
    the direction of writing, which would let it look like another. XML has no place for most of it.
    """
    shown = str(text)
    if shown.isprintable():  # as nearly all is, some of it pictures of half a million characters
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in shown)


def cell(value: object) -> object:
    """A cell of a CSV file: a text that a spreadsheet would take for a formula is shown as text."""
    return _FORMULA.sub(r"\1\2'", plain(value)) if isinstance(value, str) else value


def word(text: object) -> str:
    """One word of a command that a person copies into a shell: a slide's name may hold orders to it."""
    return shlex.quote(str(text))


def some(names: Sequence[str], most: int = 3) -> str:
    """The first of many names, and how many more there are.

    >>> some(["a", "b", "c", "d"], 2)
    'a, b and 2 more'
    """
    shown = ", ".join(plain(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
