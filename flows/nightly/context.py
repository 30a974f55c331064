"""Context that a night's slides share."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from flows.config.archive import ArchiveConfig
from flows.nightly.duplicates import DuplicateSlides
from flows.pool.pool import Pool
from flows.run.model import Model
from flows.worker.tuning import Tuning, TuningRequest
from tiling.archives.archive import Archive


@dataclass(slots=True)
class NightContext:
    """Context that a night's slides share. `available_bytes`: of memory, before the workers took theirs."""

    archive: Archive
    config: ArchiveConfig
    model: Model
    bundle: str
    pool: Pool
    available_bytes: int
    night: str
    duplicates: DuplicateSlides = field(default_factory=DuplicateSlides)
    _tuning: threading.Lock = field(default_factory=threading.Lock)

    def tune(self, request: TuningRequest) -> Tuning:
        """One slide at a time: what is measured for the first is known for the others."""
        with self._tuning:
            return self.pool.tune(request, self.model.bundle)
