"""Database of an embedded Prefect server: a new one for each command, copied from an empty one that was migrated once.

Prefect's migrations take four processor seconds, most of a command's start. So the user's cache keeps what they make,
without a row, by Prefect's version; its name holds its digest, so that a damaged one is not used.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import stat
import tempfile
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from unet_core.files import cache_folder, write_whole

LARGEST_BYTES = 16 * 2**20
_KEPT_ROWS = "alembic_version"  # the migration that it is at


def copy_empty(database: Path) -> bool:
    """Begin a database as a copy of the empty one; False where none is kept, or none that is what it was."""
    for path in _folder().glob(f"{_prefix()}*.db"):
        found = _read(path)
        if found is not None and hashlib.sha256(found).hexdigest() == _digest(path):
            write_whole(database, lambda file, found=found: file.write(found))
            database.chmod(0o600)
            return True
    return False


def keep_empty(database: Path) -> None:
    """Keep an empty copy of a migrated database for the next commands; nothing where there is no room for it."""
    with suppress(OSError, sqlite3.Error), tempfile.TemporaryDirectory(dir=database.parent) as folder:
        copied = Path(folder) / "empty.db"
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copied)) as empty:
            source.backup(empty)
            _remove_rows(empty)
        found = copied.read_bytes()
        _folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{_prefix()}{hashlib.sha256(found).hexdigest()}.db"
        if len(found) <= LARGEST_BYTES:
            write_whole(_folder() / name, lambda file: file.write(found))
            _remove_others(name)


def _remove_rows(database: sqlite3.Connection) -> None:
    database.execute("pragma foreign_keys = off")
    for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
        if table != _KEPT_ROWS and not table.startswith("sqlite_"):
            database.execute(f'delete from "{table}"')
    database.commit()
    database.execute("vacuum")
    database.execute("pragma journal_mode = delete")  # one file, with nothing beside it


def _remove_others(kept: str) -> None:
    """Damaged ones of this version."""
    for path in _folder().glob(f"{_prefix()}*.db"):
        if path.name != kept:
            path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """The bytes of a file that only this user can have written."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            is_own = found.st_uid == os.getuid() and not found.st_mode & 0o022
            if stat.S_ISREG(found.st_mode) and is_own and found.st_size <= LARGEST_BYTES:
                return file.read()
    return None


def _digest(path: Path) -> str:
    found = re.search(r"-([0-9a-f]{64})$", path.stem)
    return found[1] if found else ""


def _prefix() -> str:
    return f"prefect-{version('prefect')}-"


def _folder() -> Path:
    return cache_folder() / "prefect"
