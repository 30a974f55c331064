"""A private folder of one command, which goes with it: Prefect's database, results and settings are there."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_ABANDONED_SECONDS = 60.0
"""A folder that is older and that nobody holds is no living command's: one that starts holds it within an instant."""


class Home:
    """A folder with an unguessable name that only this user can enter; held by a lock as long as its processes live.

    The lock is on the folder itself, so that systemd-tmpfiles leaves it alone too, and is released by the kernel with
    the last process that has inherited `descriptor`, whatever ended it.
    """

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=_prefix()))
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        with suppress(OSError):  # a file system without locks: nobody can hold it, so nobody sweeps it
            fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def remove(self) -> None:
        """Give the space back; nothing happens the second time."""
        if self.descriptor < 0:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.descriptor)
        self.descriptor = -1


def sweep() -> None:
    """Remove what commands of this user have left that were killed; never what a living one holds."""
    for path in Path(tempfile.gettempdir()).glob(f"{_prefix()}*"):
        with suppress(OSError):  # another command sweeps it at this very moment, or it isn't ours
            _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            return
        if time.time() - found.st_mtime < _ABANDONED_SECONDS:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    finally:
        os.close(descriptor)


def _prefix() -> str:
    return f"overtile-prefect-{os.getuid()}-"
