"""The database of an embedded Prefect server is new for each command, and begins as an empty migrated one."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.lifecycle.prefect_database import copy_empty, keep_empty


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "overtile" / "prefect"


@pytest.fixture
def migrated(tmp_path: Path) -> Path:
    """As a server leaves it: its version, rows of runs and keys, and a journal beside it."""
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "prefect.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("pragma journal_mode = wal")
        database.executescript(
            "create table alembic_version (version_num text); insert into alembic_version values ('abc');"
            "create table configuration (key text); insert into configuration values ('a secret');"
        )
        database.commit()
    return path


def rows(path: Path, table: str) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"select * from {table}").fetchall()


def test_a_copy_is_at_the_same_migration_and_has_no_row_of_another_command(migrated: Path, tmp_path: Path) -> None:
    assert not copy_empty(tmp_path / "new.db")
    keep_empty(migrated)
    assert copy_empty(tmp_path / "new.db")
    assert rows(tmp_path / "new.db", "alembic_version") == [("abc",)]
    assert rows(tmp_path / "new.db", "configuration") == []
    assert b"a secret" not in (tmp_path / "new.db").read_bytes()
    assert (tmp_path / "new.db").stat().st_mode & 0o077 == 0
    assert rows(migrated, "configuration") == [("a secret",)]
    assert [each.name for each in migrated.parent.iterdir() if "empty" in each.name or each.is_dir()] == []


@pytest.mark.parametrize("damage", ["bit", "cut", "link", "others may write", "pipe", "huge"])
def test_one_that_is_not_what_was_kept_is_not_used(damage: str, migrated: Path, cache: Path, tmp_path: Path) -> None:
    keep_empty(migrated)
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    if damage == "bit":
        kept.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    elif damage == "cut":
        kept.write_bytes(content[:-1])
    elif damage == "link":
        kept.rename(tmp_path / "elsewhere.db")
        kept.symlink_to(tmp_path / "elsewhere.db")
    elif damage == "others may write":
        kept.chmod(0o666)
    elif damage == "pipe":
        kept.unlink()
        os.mkfifo(kept)
    else:
        with kept.open("r+b") as file:
            file.truncate(2**40)
    assert not copy_empty(tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    keep_empty(migrated)
    assert copy_empty(tmp_path / "new.db")
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_empty(migrated)
    assert not copy_empty(tmp_path / "new.db")
