"""A pickle with a wish: whoever unpickles it without care runs a command."""

from __future__ import annotations

import os
from pathlib import Path


class Canary:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)  # pyright: ignore[reportDeprecated]
