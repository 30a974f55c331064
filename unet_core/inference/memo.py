"""Small facts about this machine that are worth measuring once: JSON files in the user's cache folder.

One file per fact, written whole and never changed: of several processes that measure at once the first one's
figure stands, and all of them go by it.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import Any

from unet_core.bundles.card import canonical_json


@dataclass(frozen=True, slots=True)
class Memo:
    """Facts of one kind. `folder` needn't exist yet."""

    folder: Path

    def recall(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """The answer that is on disk, None where there is none that can be read."""
        path = self._path(question)
        try:
            entry = json.loads(path.read_bytes()) if path.is_file() else None  # nobody waits at a pipe
        except (OSError, ValueError, RecursionError):
            return None
        answer = entry.get("answer") if isinstance(entry, dict) else None
        return answer if isinstance(answer, dict) else None

    def is_open(self) -> bool:
        """True if an answer could be kept here."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return False
        return os.access(self.folder, os.W_OK | os.X_OK)

    def keep(self, question: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """Keep an answer; gives the one that stands, which is another process's where that was first."""
        path = self._path(question)
        try:
            handle, name = mkstemp(prefix=".", suffix=".new", dir=self.folder)
        except OSError:
            return answer
        written = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump({"question": question, "answer": answer}, stream, indent=1)
            self._publish(written, path, question)
        except OSError:
            return answer
        finally:
            written.unlink(missing_ok=True)
        return self.recall(question) or answer

    def _publish(self, written: Path, path: Path, question: dict[str, Any]) -> None:
        with suppress(FileExistsError):
            os.link(written, path)  # refuses, atomically, where there is an answer
        if self.recall(question) is None:
            written.replace(path)  # what lay there was damaged

    def _path(self, question: dict[str, Any]) -> Path:
        return self.folder / f"{hashlib.sha256(canonical_json(question).encode()).hexdigest()[:32]}.json"
