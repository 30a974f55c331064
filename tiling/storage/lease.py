"""The lock of a run in an object store: an object that its holder renews, and that others take when it is stale.

Stores have no locks, but conditional puts: create an object only where there is none, replace it only where it still
is what was read. Age is measured by the store's own clock, so clocks that differ or jump don't matter.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import psutil

from tiling.errors import ChangedError, RunError, StorageError
from tiling.storage.object_facts import ObjectFacts, Tag
from tiling.storage.object_path import ObjectPath
from tiling.storage.run_lock import holder_text

logger = logging.getLogger(__name__)

BEAT_SECONDS = 20.0
STALE_SECONDS = 180.0
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Holder:
    """Holder of a run. `machine` and `started` tell a process from others that have had its number."""

    host: str
    process: int
    since: str
    machine: str
    started: float
    token: str = field(default_factory=lambda: uuid4().hex)
    beat: int = 0  # so that every renewal is another object to the store

    @classmethod
    def here(cls) -> Holder:
        since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        started = psutil.Process().create_time()
        return cls(socket.gethostname(), os.getpid(), since, _machine(), started)

    @classmethod
    def parse(cls, data: bytes) -> Holder | None:
        """The holder; None where the lock was handed back, or holds what no driver wrote."""
        try:
            return cls(**json.loads(data))
        except (ValueError, RecursionError, TypeError):
            return None

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def __str__(self) -> str:
        return holder_text(self.host, self.process, self.since)

    @property
    def is_dead(self) -> bool:
        """True if it was a process of this very machine that is no more; False where that can't be known from here."""
        if self.machine != _machine():
            return False
        try:
            return abs(psutil.Process(self.process).create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return True


def is_leased(folder: ObjectPath) -> bool:
    """True if a driver holds a run; one of another machine counts until it hands it back."""
    try:
        holder = Holder.parse((folder / "driver.lock").read_bytes())
    except (StorageError, OSError):
        return False
    return holder is not None and not holder.is_dead


class Lease:
    """One driver per run, where the run is in an object store.

    A driver that was killed is followed at once on its own machine, elsewhere when its lease is stale. A driver that
    merely slept so long finds its lease gone, and its next ledger segment refused.

    Raises:
        RunError: another driver holds the run; the message names its host, process and start.
    """

    def __init__(
        self, folder: ObjectPath, *, beat_seconds: float = BEAT_SECONDS, stale_seconds: float = STALE_SECONDS
    ) -> None:
        self._folder = folder
        self._object = folder / "driver.lock"
        self._beat_seconds, self._stale_seconds = beat_seconds, stale_seconds
        self._mine = Holder.here()
        self._held: Tag | None = None
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        return self._held is not None

    def __enter__(self) -> Lease:
        self._held = self._acquire()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        if self._held is None:
            return
        try:
            self._object.put(b"", only_if=self._held)
        except StorageError as failure:
            # What the run did is stored; the next driver waits until this lease is stale.
            logger.warning("run %s could not be handed back: %s", self._folder, failure)
        self._held = None

    def _acquire(self) -> Tag:
        self._object.expect_writable()
        seen: ObjectFacts | None = None
        for _ in range(_TRIES):
            try:
                return self._object.put(self._mine.dump(), only_if=seen and seen.tag, only_new=seen is None)
            except ChangedError:
                try:
                    data, seen = self._object.read_with_facts()
                except FileNotFoundError:
                    seen = None
                    continue
            holder = Holder.parse(data)
            if holder is None or holder.is_dead:
                continue
            if holder.token == self._mine.token:
                return seen.tag  # the answer to our own put was lost
            age = self._age_seconds(seen)
            if age < self._stale_seconds:
                raise RunError(
                    f"{self._folder} is being worked on by another driver ({holder}, last heard from {age:.0f} s "
                    f"ago): two drivers would write one ledger; wait for it or stop it"
                )
            logger.warning("run %s is taken over from %s, silent for %.0f s", self._folder, holder, age)
        raise RunError(f"run {self._folder} changes hands all the time: several drivers want it; stop all but one")

    def _age_seconds(self, seen: ObjectFacts) -> float:
        """Age of the lease, by the store's clock: that of an object written now."""
        probe = self._folder / f"driver.lock.{self._mine.token}"
        probe.put(b"")
        try:
            return (probe.facts().modified - seen.modified).total_seconds()
        finally:
            with suppress(StorageError):
                probe.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            assert self._held is not None
            self._mine = replace(self._mine, beat=self._mine.beat + 1)
            try:
                self._held = self._object.put(self._mine.dump(), only_if=self._held)
            except ChangedError:
                if not self._is_still_mine():
                    logger.error("run %s was taken over by another driver; this one will be stopped", self._folder)
                    self._held = None
                    return
            except StorageError as error:
                logger.warning("run %s: the lease was not renewed: %s", self._folder, error)

    def _is_still_mine(self) -> bool:
        """True if the lock may hold our own renewal, the answer to which was lost."""
        try:
            data, facts = self._object.read_with_facts()
        except FileNotFoundError:
            return False
        except StorageError:
            return True  # the next renewal will tell
        holder = Holder.parse(data)
        if holder is None or holder.token != self._mine.token:
            return False
        self._held = facts.tag
        return True


def _machine() -> str:
    """The machine since its last start, and the namespace that its process numbers are from."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
