"""A slide that somebody is still copying into an archive."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def growing(path: Path, piece_bytes: int = 100, every_seconds: float = 0.05) -> Generator[None]:
    """While inside, the file grows by a piece again and again."""
    over = threading.Event()

    def grow() -> None:
        with path.open("ab", buffering=0) as file:
            while not over.wait(every_seconds):
                file.write(bytes(piece_bytes))

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
