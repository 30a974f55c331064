"""`overtile view` at work, for whoever looks at its pages."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli import OVERTILE


@contextmanager
def shown(place: Path, environment: Mapping[str, str] | None = None) -> Generator[str]:
    """The address of the command line's own server; without an environment it has this process's."""
    command = [str(OVERTILE), "view", str(place), "--no-browser"]
    viewer = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert viewer.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", viewer.stdout.readline())
        assert found
        yield found[0]
    finally:
        viewer.terminate()
        viewer.wait(60)
