"""Reference to Python code of the user's own, `package.module:factory`: following it runs that code."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

FAILURES = (
    *(ImportError, AttributeError, TypeError, ValueError, RuntimeError, KeyError, OSError, SyntaxError),
    SystemExit,  # of a script; it would end the command with a code that means something else
)
"""What code of the user's own may fail with, for which its caller has words."""


def follow(reference: str, kind: type[Any]) -> object:
    """Import what `package.module:name` names; the current folder is importable.

    An instance of `kind` is given as it is, anything else is called and what it returns is given, of whatever kind.

    Raises:
        FAILURES: there is no such module or name, or its code fails.
    """
    module_name, _, path = reference.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    made: Any = importlib.import_module(module_name)
    for name in path.split("."):
        made = getattr(made, name)
    return made if isinstance(made, kind) and not isinstance(made, type) else made()
