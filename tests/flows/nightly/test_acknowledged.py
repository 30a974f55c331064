"""Failures that somebody has seen: they stay seen until the file changes, and a night begins for none of it."""

from __future__ import annotations

import shlex
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli import Cli, clean_environment
from nights import archive_at

from flows.config.archive import ArchiveConfig
from flows.nightly.scan import scan
from tiling.archives.archive import Archive
from tiling.archives.listing import find_slides
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import RunError
from tiling.escaping import word

FAILED = SlideRecord("a.svs", SlideState.FAILED, "slides/a.svs", 10, "v1", reason="cut off", lasting=True, night="n1")


def reopened(archive: Archive) -> SlideRecord:
    archive.ledger.flush()
    record = Archive.open(archive.path).ledger.get("a.svs")
    assert record is not None
    return record


def test_a_failure_stays_acknowledged_while_it_is_tried_again(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    archive.ledger.append(FAILED)
    archive.ledger.acknowledge("a.svs")
    assert reopened(archive).acknowledged
    archive.ledger.begin(replace(FAILED, state=SlideState.BEGUN))
    archive.ledger.append(FAILED)
    assert reopened(archive).acknowledged


@pytest.mark.parametrize(
    "later",
    [
        replace(FAILED, version="v2"),
        replace(FAILED, asked={"core": "64"}),
        replace(FAILED, state=SlideState.DONE),
        replace(FAILED, state=SlideState.GONE),
    ],
)
def test_a_changed_file_or_another_outcome_is_news(tmp_path: Path, later: SlideRecord) -> None:
    archive = archive_at(tmp_path)
    archive.ledger.append(FAILED)
    archive.ledger.acknowledge("a.svs")
    archive.ledger.append(later)
    archive.ledger.append(replace(later, state=SlideState.FAILED))
    assert not reopened(archive).acknowledged


def test_only_what_stands_failed_is_acknowledged(tmp_path: Path) -> None:
    archive = archive_at(tmp_path)
    archive.ledger.append(FAILED)
    archive.ledger.append(replace(FAILED, slide="b.svs", state=SlideState.DONE))
    for name, said in (("nope", "not known here"), ("b.svs", "is done")):
        with pytest.raises(RunError, match=f"{said}; failed are a.svs"):
            archive.ledger.acknowledge(name)


def test_a_link_that_is_refused_every_night_is_news_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere.svs").write_bytes(b"x")
    (tmp_path / "in/a.svs").symlink_to(tmp_path / "elsewhere.svs")
    config = ArchiveConfig(source=str(tmp_path / "in"), out=tmp_path / "out")
    archive = archive_at(tmp_path / "out")
    first = scan(config, archive)
    assert [slide.name for slide in first.refused] == ["a.svs"]
    (slide,) = find_slides(config.source, config.out)
    archive.ledger.refuse(SlideRecord("a.svs", SlideState.REFUSED, "", reason=slide.refused, night="n1"))
    second = scan(config, archive)
    assert (second.refused, [record.slide for record in second.known_failures]) == ((), ["a.svs"])
    (tmp_path / "in/a.svs").unlink()
    (tmp_path / "in/b.svs").write_bytes(b"x")
    assert scan(config, archive).gone == ("a.svs",)


def with_one_slide(folder: Path) -> tuple[ArchiveConfig, Archive, dict[str, Any]]:
    """An archive of one slide: its options, itself, and the stamp that a record of the slide has."""
    (folder / "in").mkdir()
    (folder / "in/a.svs").write_bytes(b"x")
    config = ArchiveConfig.model_validate({"source": str(folder / "in"), "out": folder / "out", "settle": 0})
    archive = archive_at(folder / "out")
    (slide,) = find_slides(config.source, config.out)
    assert slide.file_version is not None
    return config, archive, {"size_bytes": slide.file_version.size_bytes, "version": slide.file_version.version}


def test_what_failed_before_and_is_tried_again_is_known(tmp_path: Path) -> None:
    config, archive, stamp = with_one_slide(tmp_path)
    archive.ledger.append(replace(FAILED, lasting=False, **stamp))
    assert scan(config, archive).stood == {"a.svs"}
    assert scan(config.model_copy(update={"failed_only": True}), archive).stood == frozenset(), "that was asked for"
    archive.ledger.begin(replace(FAILED, state=SlideState.BEGUN, lasting=False, **stamp))
    assert scan(config, archive).stood == {"a.svs"}, "a night that ended in its second try changes nothing"
    archive.ledger.append(replace(FAILED, lasting=False))
    assert scan(config, archive).stood == frozenset(), "it is another file by now"


@pytest.mark.parametrize("lasting", [True, False])
def test_a_failure_that_a_dead_night_found_is_news_until_a_night_reports_it(lasting: bool, tmp_path: Path) -> None:
    config, archive, stamp = with_one_slide(tmp_path)
    failed = replace(FAILED, lasting=lasting, **stamp)

    def news() -> bool:
        found = scan(config, archive)
        if lasting:
            assert [record.slide for record in found.known_failures] == ["a.svs"]
            return "a.svs" in found.unreported
        assert [slide.name for slide in found.todo] == ["a.svs"]
        return "a.svs" not in found.stood

    archive.ledger.announce("night", {"night": "n1"})
    archive.ledger.append(replace(failed, night="n1"))
    assert news(), "the night of the failure has died"
    archive.ledger.announce("night", {"night": "n2"})
    archive.ledger.append(replace(failed, night="n2"))
    assert news(), "the second has died too"
    archive.ledger.announce("night", {"night": "n3"})
    archive.ledger.announce("morning", {"night": "n3", "told": "1 failed"})
    assert not news()
    archive.ledger.announce("night", {"night": "n4"})
    archive.ledger.append(replace(failed, night="n4"))
    assert not news(), "a dead night that tried it again makes it no news"


def test_failures_are_acknowledged_and_nothing_is_rerun_without_a_server(tmp_path: Path) -> None:
    """Prefect's address leads nowhere and Ray would take seconds: each command answers by the ledger alone."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/api"
    cut_off = Cli(clean_environment(tmp_path / "home", PREFECT_API_URL=nowhere))
    archive, name = archive_at(tmp_path / "my out"), "-it's a.svs"
    archive.ledger.append(replace(FAILED, slide=name))
    archive.ledger.flush()
    printed = f"--out {word(archive.path)} --acknowledge={word(name)}"
    ended = cut_off.run("archive", *shlex.split(printed))
    assert (ended.code, ended.err) == (0, "")
    assert "acknowledged: -it's a.svs: cut off" in ended.out
    status = cut_off.run("status", archive.path)
    assert "1 whose failure is acknowledged" in status.out
    archive = Archive.open(archive.path)
    archive.ledger.append(replace(FAILED, slide=name, state=SlideState.DONE))
    archive.ledger.flush()
    ended = cut_off.run("rerun", "--archive", archive.path, "--failed")
    assert (ended.code, ended.err) == (0, "")
    assert "stands failed: nothing to try again" in ended.out
