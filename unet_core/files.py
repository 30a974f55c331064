"""Files that appear whole or not at all, under names that nobody else can have taken before; the user's cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


def cache_folder() -> Path:
    """Folder in which this user's programs keep what can be made again (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "overtile"


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place, then give it its name. A link at the name is replaced, never followed."""
    new = path.with_name(f".{path.name}.{uuid4().hex}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
