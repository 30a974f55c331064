"""Terminals whose lines can be written over, told from pipes, logs, dumb terminals and cells of notebooks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO

_DUMB = {"dumb", "unknown"}
_INLINE_PICTURES = ("module://matplotlib_inline", "module://ipykernel")


def is_live(stream: IO[str]) -> bool:
    """True if a bar can be drawn there, with codes that move the cursor.

    FORCE_COLOR, as set by notebooks and by CI, asks for colours and makes no terminal of a pipe.
    """
    try:
        return stream.isatty() and os.environ.get("TERM", "").lower() not in _DUMB and not in_kernel(os.environ)
    except ValueError:  # closed
        return False


def in_kernel(environment: Mapping[str, str]) -> bool:
    """True for a command that a notebook's kernel began: `!` gives it a pty, and shows each code as it came.

    Jupyter names the kernel's parent; ipykernel sets where pictures go, also in VS Code and Colab.
    """
    return "JPY_PARENT_PID" in environment or environment.get("MPLBACKEND", "").startswith(_INLINE_PICTURES)
