"""Commands in a pty, as a person's terminal runs them."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping
from pathlib import Path


def in_terminal(command: list[str], environment: Mapping[str, str], folder: Path | None = None) -> tuple[int, str]:
    """Exit code, and the text that the command writes to a pty."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        command, env=dict(environment), stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder
    ) as process:
        os.close(terminal)
        pieces: list[bytes] = []
        try:
            while piece := os.read(controller, 1 << 16):
                pieces.append(piece)
        except OSError:  # nobody holds the other end any more
            pass
        code = process.wait(60)
    os.close(controller)
    return code, b"".join(pieces).decode().replace("\r\n", "\n")
