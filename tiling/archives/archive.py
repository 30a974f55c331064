"""The archive folder: the runs of many slides, made with one model, and the ledger with the outcome of each.

Its layout is in docs/archives.md.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from tiling.archives.slide_ledger import SlideLedger
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import RunError
from tiling.export.foreign_files import sentence
from tiling.runs.card import RunCard, read_card
from tiling.storage.place import Place, delete_tree, move_tree, write_atomic

logger = logging.getLogger(__name__)

CARD_NAME = "archive.json"
FORMAT_VERSION = 1
LONGEST_PART_BYTES = 200
"""File systems allow 255 for a name; what is written beside it needs some."""

_ESCAPED = '%\\:*?"<>|'


class ArchiveCard(BaseModel):
    """`archive.json`: written once. `asked` is everything that can change a label, the same for all slides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    created: str
    model: str
    model_digest: str
    maths_version: int
    asked: dict[str, Any]

    def differences(self, other: ArchiveCard) -> list[str]:
        """One line per point in which the other card would give other labels."""
        mine, others = self._identity(), other._identity()
        keys = [*mine, *(key for key in others if key not in mine)]
        return [
            f"{key}: {_said(mine, key, 'not given')} here, {_said(others, key, 'none')} asked for"
            for key in keys
            if (mine[key] != others[key] if key in mine and key in others else not _is_unsaid(mine, others, key))
        ]

    def _identity(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "model digest": self.model_digest,
            "version of the maths": self.maths_version,
            **self.asked,
        }


def _said(card: Mapping[str, Any], key: str, nothing: str) -> str:
    value = card.get(key)
    return nothing if value is None else str(value)


def _is_unsaid(mine: Mapping[str, Any], others: Mapping[str, Any], key: str) -> bool:
    """True if a card says nothing by an option that the other's version doesn't know."""
    return all(said.get(key) in (None, False, "auto") for said in (mine, others))


class Archive:
    """An opened archive folder.

    `moving` is held while a run moves or goes, and from a look at a run until the record that refers to it is written.
    """

    def __init__(self, path: Place, card: ArchiveCard) -> None:
        self.path = path.resolve()
        self.card = card
        self.ledger = SlideLedger(self.path / "ledger")
        self.moving = threading.Lock()

    @classmethod
    def create_or_resume(cls, path: Place, card: ArchiveCard) -> Archive:
        """Make the folder, or resume it when its slides are segmented in the same way.

        Raises:
            RunError: it holds an archive of another model or other options (the differences are named), or
                something else.
        """
        if (path / CARD_NAME).is_file():
            archive = cls.open(path)
            archive.expect(card)
            archive.ledger.compact()
            if message := sentence([f"ledger/{each.name}" for each in archive.ledger.unknown_files()]):
                logger.warning("archive %s: %s", archive.path, message)
            return archive
        if (path / "run.json").is_file():
            raise RunError(f"{path} holds a run of one image: an archive would lie inside it; choose another --out")
        write_atomic(path / CARD_NAME, (card.model_dump_json(indent=2) + "\n").encode())
        return cls(path, card)

    @classmethod
    def open(cls, path: Place) -> Archive:
        """Open an archive that exists.

        Raises:
            RunError: no archive there, or its card is damaged.
        """
        return cls(path, read_card(path, CARD_NAME, ArchiveCard, "archive"))

    def expect(self, card: ArchiveCard) -> None:
        """Raises RunError, which names the differences, where another card would give other labels."""
        if differences := self.card.differences(card):
            raise RunError(
                f"{self.path} holds an archive segmented in another way ({'; '.join(differences)}): half of its slides "
                f"would be of one kind and half of the other; choose another --out, or repeat its command"
            )

    @property
    def nights(self) -> Place:
        return self.path / "nights"

    def run_path(self, folder: str) -> Place:
        return self.path / folder

    def folder_of(self, slide: str) -> str:
        """The run folder of a slide, below the archive: always the same, and no other slide's."""
        known = self.ledger.get(slide)
        if known is not None and known.folder and known.state is not SlideState.SAME:
            return known.folder
        folder = folder_name(slide)
        return folder if self.ledger.claim(folder, slide) else _flat_name(slide)

    def set_aside(self, slide: str, folder: str, now: dt.datetime, fingerprint: str) -> str:
        """Move a slide's run, of a content that it no longer has, to where earlier ones are; nothing is deleted.

        Slides of that content, whose mask it is too, find it there. Only while `moving` is held.
        """
        name = f"earlier/{folder.removeprefix('slides/')}/{now:%Y%m%dT%H%M%S}-{fingerprint.rsplit(maxsplit=1)[-1][:8]}"
        # In this order a kill in between costs time alone: what no record promises is looked at again.
        self.ledger.withdraw(slide)
        move_tree(self.run_path(folder), self.path / name, last="run.json")
        self.ledger.relocate(folder, fingerprint, name)
        return name

    def earlier(self, folder: str) -> list[Place]:
        """Runs of a slide's former contents, oldest first."""
        place = self.path / "earlier" / folder.removeprefix("slides/")
        if not place.is_dir():
            return []
        found = [place / entry.name for entry in place.iterdir()]
        return sorted((run for run in found if (run / "run.json").is_file()), key=lambda run: run.name)

    def forget_earlier(self, folder: str, keep: int) -> int:
        """Delete all but the newest runs of former contents, and those that another slide has too; returns how many."""
        with self.moving:
            old = self.earlier(folder)
            where = f"earlier/{folder.removeprefix('slides/')}"
            doomed = [run for run in old[: max(0, len(old) - keep)] if not self.ledger.refers_to(f"{where}/{run.name}")]
            for run in doomed:
                delete_tree(run)
        return len(doomed)

    def is_there(self, record: SlideRecord) -> bool:
        """True if the run of a record is still in its folder, and of the same content."""
        place = self.run_path(record.folder)
        if not (place / "run.json").is_file():
            return False
        try:
            return read_card(place, "run.json", RunCard, "run").image.fingerprint == record.fingerprint
        except RunError:  # a damaged card: opening the run tells of it
            return False


def folder_name(slide: str) -> str:
    """Name of the folder of a slide's run: the slide's name, part by part, with unsafe characters escaped.

    Two names never give one folder: `%` itself is written out too.
    """
    parts = [_escaped(part) for part in slide.split("/")]
    if any(len(part.encode()) > LONGEST_PART_BYTES for part in parts) or len(slide) > 1000:
        return _flat_name(slide)
    return "/".join(["slides", *parts])


def _escaped(part: str) -> str:
    if not part.strip(". "):  # '', '.', '..' and what some systems take for them
        return "%" + "".join(f"%{ord(letter):02X}" for letter in part)
    return "".join(letter if letter.isprintable() and letter not in _ESCAPED else _hex(letter) for letter in part)


def _hex(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in os.fsencode(letter))


def _flat_name(slide: str) -> str:
    digest = hashlib.sha256(os.fsencode(slide)).hexdigest()
    return f"slides/%{digest[:32]}"
