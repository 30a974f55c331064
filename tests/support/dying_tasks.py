"""Work of tasks that dies, for workers to load."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class DyingOnce:
    """Kills the process that first works on an item, which leaves a half-written file; then does the work.

    Attributes:
        work: that is to be done.
        of: the item.
        left: the file.
    """

    work: Callable[[Any], Any]
    of: Any
    left: Path

    def __call__(self, item: Any) -> Any:
        if item != self.of:
            return self.work(item)
        try:
            self.left.touch(exist_ok=False)
        except FileExistsError:
            return self.work(item)
        os._exit(1)


@dataclass(frozen=True, slots=True)
class DyingElsewhere:
    """Kills any process but one that does the work.

    Attributes:
        work: that is to be done.
        here: the number of that process.
    """

    work: Callable[[Any], Any]
    here: int

    def __call__(self, item: Any) -> Any:
        if os.getpid() != self.here:
            os._exit(1)
        return self.work(item)


def dies(item: object) -> None:
    """Kill the process, whatever it is called with."""
    del item
    os._exit(1)


def waits(folder: Path) -> None:
    """Leave the number of this process in a folder, and wait for longer than any test does."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)
