"""Damage to the files of a run, as functions of its folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

Deed = Callable[[Path], object]


def emptied(name: str) -> Deed:
    return lambda folder: (folder / name).write_bytes(b"")


def removed(name: str) -> Deed:
    def deed(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return deed


def flipped(name: str) -> Deed:
    """A bit in the middle: the size stays."""

    def deed(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 0x10
        (folder / name).write_bytes(data)

    return deed


def replaced(name: str, by: str) -> Deed:
    return lambda folder: shutil.copy(folder / by, folder / name)


def rewritten(name: str, old: str, new: str) -> Deed:
    def deed(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return deed


def pipe(name: str) -> Deed:
    """At which a reader would wait for ever."""

    def deed(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return deed


def link_to_device(name: str) -> Deed:
    """Which has no end."""

    def deed(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")

    return deed


def all_of(*deeds: Deed) -> Deed:
    def deed(folder: Path) -> None:
        for each in deeds:
            each(folder)

    return deed


def lost_segment_with(text: str) -> Deed:
    """The last segment of the ledger that says it."""

    def deed(folder: Path) -> None:
        [*(path for path in sorted((folder / "ledger").iterdir()) if text in path.read_text())][-1].unlink()

    return deed
