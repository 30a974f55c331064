"""Slides that the source no longer holds: reported once, no failure for ever, and no mask lost."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from cli import Cli, mask_files
from faulty_actors import plan_fault
from nights import QUICK, archive_at, carry, context_of, hold, latest, records
from tiny import write_noise

from flows.config.archive import ArchiveConfig
from flows.nightly.scan import ScanResult, scan
from flows.pool.pool import Pool
from tiling.archives.archive import Archive
from tiling.archives.listing import find_slides, is_gone
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.archives.table import SlideTable
from tiling.runs.run import Run


@pytest.mark.soak
def test_a_failed_slide_that_is_gone_is_told_once_and_fails_no_night(cli: Cli, model: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    whole = write_noise(source / "good.tif", 100, 100).read_bytes()
    (source / "cut.tif").write_bytes(whole[: len(whole) // 3])
    command = ("archive", source, "--out", out, "--model", model, *QUICK)
    assert cli.run(*command).code == 3
    failed = records(out)["cut.tif"]
    (source / "cut.tif").unlink()
    second = cli.run(*command)
    assert second.code == 0, second.err
    assert "1 gone" in second.out
    assert f"cut.tif: no longer in the source; it was failed: {failed.reason}" in second.out
    assert "waiting" not in second.out
    assert latest(out)["complete"] is True
    assert "no longer in the source" in (out / "nights/latest.html").read_text()
    (*_, newest) = sorted(out.glob("nights/2*.csv"))
    for table in (newest, out / "slides.csv"):
        states = {row["slide"]: row["state"] for row in csv.DictReader(table.open())}
        assert states["cut.tif"] == "gone"
    status = cli.run("status", out)
    assert "1 done, 1 gone" in status.out
    assert "cut.tif" not in status.out


@pytest.mark.slow
def test_the_run_of_a_slide_that_is_gone_stays_and_goes_on_when_it_is_back(
    tmp_path: Path, model: Path, pool: Pool, faults: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_noise(source / "scan.tif", 192, 192, seed=1)
    write_noise(source / "other.tif", 64, 64, seed=2)
    plan_fault(faults, "before", 8, times=3)  # only scan.tif has so many tiles
    assert hold(source, model, pool)["scan.tif"].state is SlideState.FAILED
    run = source.parent / "out/slides/scan.tif"
    before = mask_files(run)
    (source / "scan.tif").rename(tmp_path / "aside.tif")
    context = context_of(source, model, pool)
    found = scan(context.config, context.archive)
    assert (found.gone, found.todo, found.known_failures) == (("scan.tif",), (), ())
    context.archive.ledger.mark_gone("scan.tif", "second")
    context.archive.ledger.flush()
    again = scan(context.config, Archive.open(context.archive.path))
    assert again.gone == ()
    assert mask_files(run) == before
    (tmp_path / "aside.tif").rename(source / "scan.tif")
    context = context_of(source, model, pool)
    tiles, known = carry(context, slides=scan(context.config, context.archive).todo)
    assert tiles == [("scan.tif", 8)], "only what failed is computed"
    assert known["scan.tif"].state is SlideState.DONE
    assert Run.open(run).ledger.fold().failed == {}


def test_what_a_look_leaves_out_or_can_not_see_is_not_gone(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.svs").write_bytes(b"a")
    assert not is_gone(f"{tmp_path}/*.svs", "sub/a.svs")
    assert is_gone(f"{tmp_path}/*.svs", "sub/b.svs")
    assert is_gone(str(tmp_path), "sub/a.svs/c.svs")
    assert is_gone(f"{tmp_path}/list.csv", "sub/a.svs"), "a manifest holds what it names"


def test_of_a_folder_that_can_not_be_looked_into_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may look into any, so the system's answer is scripted."""

    def refuse(path: Path, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    assert not is_gone(str(tmp_path), "closed/a.svs")


def archive_of_two(tmp_path: Path, source: str) -> tuple[ArchiveConfig, Archive]:
    """Two slides that are done, and an archive that knows them."""
    config = ArchiveConfig.model_validate({"source": source, "out": tmp_path / "out", "settle": 0})
    archive = archive_at(tmp_path / "out")
    for slide in find_slides(str(tmp_path / "in"), config.out):
        assert slide.file_version is not None
        stamp = slide.file_version.size_bytes, slide.file_version.version
        archive.ledger.append(SlideRecord(slide.name, SlideState.DONE, f"slides/{slide.name}", *stamp, night="n1"))
        run = tmp_path / "out/slides" / slide.name
        run.mkdir(parents=True)
        (run / "run.json").touch()
    archive.ledger.flush()
    return config, archive


@pytest.fixture
def two(tmp_path: Path) -> Path:
    (tmp_path / "in/old").mkdir(parents=True)
    for name in ("in/a.svs", "in/old/b.svs"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def said(archive: Archive, found: ScanResult, night: str) -> tuple[str, ...]:
    """What a night says of done slides that are away, and stores."""
    for since, slides in ((night, found.missing), ("", found.back)):
        for slide in slides:
            archive.ledger.mark_missing(slide, since)
    archive.ledger.flush()
    return found.missing


def test_a_done_slide_that_vanishes_is_told_once_and_again_only_after_it_was_back(two: Path) -> None:
    config, archive = archive_of_two(two, str(two / "in"))
    aside = two / "aside.svs"
    missing: list[tuple[str, ...]] = []
    for night, move in enumerate(
        (None, ("in/old/b.svs", aside), None, (aside, "in/old/b.svs"), ("in/old/b.svs", aside))
    ):
        if move is not None:
            (two / move[0]).rename(two / move[1])
        archive = Archive.open(archive.path)
        missing.append(said(archive, scan(config, archive), f"n{night + 2}"))
        record = archive.ledger.get("old/b.svs")
        assert record is not None
        assert record.state is SlideState.DONE, "its mask is there, and another name of its content is the same"
    assert missing == [(), ("old/b.svs",), (), (), ("old/b.svs",)]
    rows = {row["slide"]: row for row in SlideTable(archive.ledger, "m", {}).rows()}
    assert (rows["a.svs"]["missing_since"], rows["old/b.svs"]["missing_since"]) == (None, "n6")


@pytest.mark.parametrize("left_out", ["narrower glob", "manifest", "closed folder"])
def test_what_is_left_out_of_a_night_has_not_vanished(
    two: Path, left_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, archive = archive_of_two(two, str(two / "in"))
    if left_out == "narrower glob":
        config = config.model_copy(update={"source": f"{two}/in/*.svs"})
    elif left_out == "manifest":
        (two / "in/list.csv").write_text("slide\na.svs\n")
        config = config.model_copy(update={"source": f"{two}/in/list.csv"})
    else:
        listed, closed = os.scandir, two / "in/old"

        def scandir(path: Path) -> object:  # root may look into any folder
            if Path(path) == closed:
                raise PermissionError(13, "Permission denied", str(path))
            return listed(path)

        monkeypatch.setattr(os, "scandir", scandir)
    assert scan(config, archive).missing == ()


def test_slides_and_masks_that_moved_together_have_not_vanished(two: Path) -> None:
    archive_of_two(two, str(two / "in"))
    (two / "in").rename(two / "moved")
    (two / "out").rename(two / "masks")
    config = ArchiveConfig.model_validate({"source": str(two / "moved"), "out": two / "masks", "settle": 0})
    found = scan(config, Archive.open(two / "masks"))
    assert (found.missing, found.gone) == ((), ())
    assert found.unchanged + len(found.todo) == 2
