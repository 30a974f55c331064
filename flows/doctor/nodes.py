"""Checks that every node of a cluster sees the runs' storage and the image as this machine does."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from flows.doctor.storage import answered
from tiling.errors import TilingError
from tiling.source import open_source
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, delete_tree, place_of

DRIVERS = "driver"


@dataclass(frozen=True, slots=True)
class Probe:
    """A folder of its own in the runs' storage, with a word in it that only who sees that storage can repeat."""

    folder: str
    word: str

    @property
    def place(self) -> Place:
        return place_of(self.folder)

    @property
    def remedy(self) -> str:
        if isinstance(self.place, ObjectPath):
            return "start Ray there with the store's credentials in its environment, and let it reach the store"
        return "mount the runs' storage on every node at the same path, writable for the user who starts Ray there"

    def begin(self) -> str | None:
        """On the driver: write the word; what is in the way, if anything."""
        return _fault(self._begin)

    def answer(self, node_id: str) -> str | None:
        """On a node: read the word and repeat it; what is in the way, if anything."""
        return _fault(lambda: self._answer(node_id))

    def expect_answer(self, node_id: str) -> str | None:
        """On the driver: read what the node has written; what is in the way, if anything."""
        return _fault(lambda: self._expect(node_id))

    def _begin(self) -> None:
        if isinstance(self.place, Path):
            self.place.mkdir()
        (self.place / DRIVERS).write_bytes(self.word.encode())

    def _answer(self, node_id: str) -> None:
        self._expect(DRIVERS)
        (self.place / node_id).write_bytes(self.word.encode())  # makes no folder: the driver may have removed it

    def _expect(self, name: str) -> None:
        if (self.place / name).read_bytes() != self.word.encode():
            raise OSError(f"{self.place / name} holds something else")


@contextmanager
def shared_probe(out: Place | None) -> Generator[Probe | None]:
    """A probe that leaves nothing behind; none where this machine itself can't write, which another check tells."""
    if out is None:
        yield None
        return
    above = out
    if isinstance(out, Path):
        above = next(each for each in (out.absolute(), *out.absolute().parents) if each.is_dir())
    probe = Probe(str(above / f".overtile-doctor-{uuid4().hex}"), uuid4().hex)
    try:
        yield probe if probe.begin() is None else None
    finally:
        answered(lambda: _remove(probe.place))


def _remove(place: Place) -> None:
    with suppress(OSError, TilingError):
        delete_tree(place)


def image_fault(image: str) -> str | None:
    """On a node: why the image can't be opened, if it can't."""
    return _fault(lambda: open_source(image).close())


def _fault(act: Callable[[], object]) -> str | None:
    """Reason why it can't be done, on one line; storage that is dead never says so."""

    def fault() -> str | None:
        try:
            act()
        except (OSError, TilingError) as error:
            return " ".join(str(error).split()) or type(error).__name__
        return None

    found = answered(fault)
    return found[0] if found else "no answer"
