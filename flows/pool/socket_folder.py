"""A folder for sockets, whose whole paths have 107 bytes at most (unix(7))."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LONGEST_BYTES = 28
"""Below it stand overtile-UID, and Ray's `ray/session_…/sockets/plasma_store` of 67 bytes."""


def short_folder() -> Path:
    """The system's folder for temporary files; where TMPDIR names one whose path is too long, another."""
    wanted = tempfile.gettempdir()
    for each in (wanted, os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp", "/dev/shm"):
        if each.startswith("/") and len(os.fsencode(each)) <= LONGEST_BYTES and os.access(each, os.W_OK | os.X_OK):
            return Path(each)
    return Path(wanted)
