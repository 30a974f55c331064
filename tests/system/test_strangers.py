"""Files that are not ours, in a run's folders: never read, never removed, never written through, and named."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from accounts import NOBODY
from tiny import save_tiny, write_noise

from flows.config.run import SegmentConfig
from flows.errors import ConfigError
from flows.pool.embedded import private_folder
from flows.run.custom_model import workplace
from flows.run.prepare import prepare
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.slide_ledger import SlideLedger
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import LinkError, RunError, StagingError
from tiling.export.destination import replacing
from tiling.export.foreign_files import sentence, unknown_files
from tiling.runs.array_image import write_array
from tiling.runs.ledger import Ledger, TileRecord, TileState
from tiling.runs.run import Run
from tiling.storage.disk import is_partial, partial_of
from tiling.storage.place import size_of_tree, sweep, sweep_partials
from unet_core.files import write_whole
from unet_core.inference.memo import Memo

LITTER = (
    "00000001.sync-conflict-20261129-050000-ABCDEFG.jsonl",
    "00000001 (conflicted copy).jsonl",
    "1.jsonl",
    ".DS_Store",
    "Thumbs.db",
    "._00000001.jsonl",
    "00000001.jsonl~",
    ".00000001.jsonl.swp",
    ".nfs0000000000a1b2c300000007",
    "00000001.jsonl.partial",
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    image, model = write_noise(tmp_path / "noise.tif", 128, 256), save_tiny(tmp_path / "tiny")
    config = SegmentConfig(image=image, out=tmp_path / "run", model=str(model), core=128, foreground="none")
    return prepare(config, 1, lambda *_: None)  # type: ignore[arg-type,return-value]


def litter(folder: Path) -> None:
    for name in LITTER:
        (folder / name).write_bytes(b"\x00not ours\xff")
    (folder / "00000002").mkdir()


def test_foreign_files_among_segments_are_neither_read_nor_removed_and_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 2)
    ledger.append(TileRecord(0, TileState.DONE))
    ledger.flush()
    litter(tmp_path)
    assert Ledger(tmp_path, 2).fold().count(TileState.DONE) == 1
    assert {path.name for path in ledger.unknown_files()} == {*LITTER, "00000002"}
    ledger.announce("stitched", {})
    sweep_partials(tmp_path)
    assert {path.name for path in ledger.unknown_files()} == {*LITTER, "00000002"}


def test_foreign_files_in_an_archives_ledger_are_left_alone(tmp_path: Path) -> None:
    ledger = SlideLedger(tmp_path / "ledger")
    ledger.begin(SlideRecord("a.svs", SlideState.BEGUN, "slides/a.svs"))
    litter(tmp_path / "ledger")
    assert [record.slide for record in SlideLedger(tmp_path / "ledger")] == ["a.svs"]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'{"tile": 0, "state": "done"', "no record"),
        (b"\x00" * 4096, "no record"),
        (b'{"tile": 0, "state": "done"}\n\x00\x00\n', "no record"),
        (b'{"tile": 0, "reason": "' + b"x" * (17 * 2**20) + b'"}\n', "more than 16777216 bytes"),
    ],
)
def test_a_segment_that_a_disk_has_spoilt_is_told(data: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / "00000001.jsonl").write_bytes(data)
    with pytest.raises(RunError, match=rf"00000001\.jsonl holds a line .*{fault}.*restore the segment, or delete it"):
        Ledger(tmp_path, 3).fold()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_has_a_segments_name_and_is_no_file_is_told(kind: str, tmp_path: Path) -> None:
    ledger, segment = tmp_path / "ledger", tmp_path / "ledger" / "00000001.jsonl"
    ledger.mkdir()
    (tmp_path / "elsewhere").write_text('{"tile": 0, "state": "done"}\n')
    if kind == "link":
        segment.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(segment) if kind == "pipe" else segment.mkdir()
    with pytest.raises(RunError, match=r"is (a symbolic link|no file), which no driver writes"):
        Ledger(ledger, 3).fold()


def test_a_copy_of_a_segment_undoes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 2)
    ledger.append(TileRecord(0, TileState.FAILED, reason="it broke"))
    ledger.flush()
    ledger.append(TileRecord(0, TileState.DONE, pixels=10))
    ledger.flush()
    (tmp_path / "00000003.jsonl").write_bytes((tmp_path / "00000001.jsonl").read_bytes())
    (tmp_path / "00000004.jsonl").write_bytes((tmp_path / "00000002.jsonl").read_bytes())
    state = Ledger(tmp_path, 2).fold()
    assert (state.states[0], state.pixels) == (TileState.DONE, 10)


def test_times_of_a_host_whose_clock_is_wrong_harm_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 4)
    for tile, time in enumerate((4e9, 5.0, 4e9 + 1, -7.0)):
        ledger.append(TileRecord(tile, TileState.DONE, time=time))
    ledger.flush()
    state = Ledger(tmp_path, 4).fold()
    assert state.count(TileState.DONE) == 4
    assert state.elapsed >= 0


def test_a_runs_strangers_are_named_and_stay(run: Run) -> None:
    assert isinstance(run.path, Path)
    assert unknown_files(run, thorough=True) == []
    assert isinstance(run.exports, Path)
    run.exports.mkdir(exist_ok=True)
    run.ledger.announce("planned", {})
    for name in ("ledger/.DS_Store", "exports/notes.txt", "mask.ome.zarr/0/c/.nfs01", "mask.ome.zarr/0/a.partial"):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("theirs")
    found = unknown_files(run, thorough=True)
    assert found == ["exports/notes.txt", "ledger/.DS_Store", "mask.ome.zarr/0/a.partial", "mask.ome.zarr/0/c/.nfs01"]
    assert sentence(found).startswith("not written by overtile, and left alone: exports/notes.txt")
    run.sweep()
    sweep(run.mask_path)
    assert unknown_files(run, thorough=True) == found


def test_litter_alone_doesnt_keep_a_run_from_its_folder(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "._x", ".nfs000000000000000100000001"):
        (tmp_path / name).touch()
    Run.expect_room(tmp_path)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RunError, match="nothing in it is overwritten"):
        Run.expect_room(tmp_path)


def test_only_names_that_we_have_made_are_swept(tmp_path: Path) -> None:
    ours, theirs = partial_of(tmp_path / "mask.tif", ".tif"), tmp_path / "download.partial.tif"
    ours.touch()
    theirs.touch()
    (tmp_path / f"folder.{'0' * 32}.partial").mkdir()
    assert is_partial(ours.name)
    sweep_partials(tmp_path)
    assert not ours.exists()
    assert theirs.exists()


@pytest.mark.parametrize("name", ["ledger", "exports", "mask.ome.zarr", "mask.ome.zarr/0", "mask.ome.zarr/0/c"])
def test_no_link_in_a_run_is_written_through(name: str, run: Run, tmp_path: Path) -> None:
    assert isinstance(run.path, Path)
    away, place = tmp_path / "away", run.path / name
    away.mkdir()
    if place.exists():
        away.rmdir()
        place.rename(away)
    before = size_of_tree(away)
    place.symlink_to(away)
    with pytest.raises(LinkError, match=rf"{name} is a symbolic link: .*put a real folder in its place"):
        write_into(name, run)
    assert size_of_tree(away) == before


def write_into(name: str, run: Run) -> None:
    if name == "ledger":
        run.ledger.announce("planned", {})
    elif name == "exports":
        with replacing(run.exports / "overlay.tif") as path:
            path.write_bytes(b"")
    else:
        tile = run.plan.tile(0)
        run.open_mask().write(tile, np.ones(tile.valid.shape, np.uint8))


@pytest.mark.parametrize("shape", ["link", "folder"])
def test_staged_tiles_behind_an_owners_link_are_removed_and_nothing_else(shape: str, run: Run, tmp_path: Path) -> None:
    fast, place = tmp_path / "fast-disk", run.staged_path
    assert isinstance(place, Path)
    if shape == "link":
        fast.mkdir()
        place.symlink_to(fast)
    staged = run.create_staged()
    staged.write(0, np.ones((*run.plan.read_shape, 3), np.uint8))
    staged.write(1, np.ones((*run.plan.read_shape, 3), np.uint8))
    assert run.open_staged().read(1).all()
    staged.discard(0)
    theirs = ("other-job.txt", ".nfs01", "spares/notes", "c/notes", "c/1/0/0/.nfs02", "mine/zarr.json")
    for name in theirs:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("theirs")
    (place / "c" / "9").symlink_to(tmp_path)
    run.remove_staged()
    left = sorted(str(each.relative_to(place.resolve())) for each in place.resolve().rglob("*") if not each.is_dir())
    assert left == sorted(theirs)
    assert place.is_symlink() == (shape == "link")
    run.create_staged()
    for name in (*theirs, "c/9"):
        (place / name).unlink()
    (place / "mine").rmdir()
    run.remove_staged()
    assert place.exists() == (shape == "link"), "a link stays, with its empty folder"
    assert [*place.iterdir()] == [] if shape == "link" else True
    assert (tmp_path / "noise.tif").is_file()


def test_a_link_where_a_model_is_made_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "kept").touch()
    (tmp_path / "model.new").symlink_to(tmp_path / "away")
    with workplace(tmp_path) as new:
        save_tiny(new)
    assert [path.name for path in (tmp_path / "away").iterdir()] == ["kept"]


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_files_of_a_model_are_never_written_through_links(name: str, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    model = tmp_path / "model"
    model.mkdir()
    for each in (name, f"{name}.new"):
        (model / each).symlink_to(tmp_path / "theirs")
    save_tiny(model)
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert not (model / name).is_symlink()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_whole(tmp_path / "curves.png", fail)
    assert [*tmp_path.iterdir()] == []


def test_a_memo_that_is_a_pipe_is_none(tmp_path: Path) -> None:
    memo = Memo(tmp_path)
    memo.keep({"a": 1}, {"b": 2})
    (known,) = tmp_path.iterdir()
    known.unlink()
    os.mkfifo(known)
    assert memo.recall({"a": 1}) is None


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with TemporaryDirectory(prefix="t-", dir="/tmp") as short:  # a socket's path has an end
        monkeypatch.setattr("tempfile.tempdir", short)
        yield Path(short) / f"overtile-{os.getuid()}"


def expect_private(folder: Path) -> None:
    facts = folder.lstat()
    assert folder.is_dir()
    assert facts.st_uid == os.getuid()
    assert not facts.st_mode & 0o077


@pytest.mark.parametrize("taken", ["file", "link", "pipe", "open folder", "nothing", "readable folder"])
def test_a_private_folder_is_had_whoever_took_its_name(taken: str, temporary: Path) -> None:
    if taken == "file":
        temporary.touch()
    elif taken == "link":
        temporary.symlink_to(temporary.parent)
    elif taken == "pipe":
        os.mkfifo(temporary)
    elif taken != "nothing":
        temporary.mkdir()
        temporary.chmod(0o777 if taken == "open folder" else 0o755)
    found = private_folder()
    expect_private(found)
    assert (found == temporary) == (taken in {"nothing", "readable folder"})


def test_a_private_folder_is_had_where_another_user_took_its_name(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_folder))
    taken = open_folder / f"overtile-{os.getuid()}"
    subprocess.run(["mkdir", "-m", "700", str(taken)], user=NOBODY, check=True)
    found = private_folder()
    expect_private(found)
    assert found.parent == open_folder
    assert found != taken


def test_without_room_for_a_private_folder_one_line_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    monkeypatch.setattr("flows.pool.socket_folder.LONGEST_BYTES", 0)
    with pytest.raises(ConfigError, match=r"no folder for Ray's sockets can be made .*: set TMPDIR, or RAY_TMPDIR"):
        private_folder()


def test_an_array_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "image.ome.zarr").symlink_to(tmp_path / "away")
    with pytest.raises(LinkError, match="is a symbolic link"):
        write_array(np.ones((8, 8), np.uint8), tmp_path / "image.ome.zarr", lambda *_: None)
    assert [*(tmp_path / "away").iterdir()] == []


def test_an_archives_strangers_are_named_in_the_log_of_a_night(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    card = ArchiveCard(created="now", model="tiny", model_digest="0", maths_version=1, asked={})
    Archive.create_or_resume(tmp_path, card).ledger.announce("night", {})
    (tmp_path / "ledger" / "00000001.sync-conflict-2026.jsonl").write_text("{not json")
    Archive.create_or_resume(tmp_path, card)
    assert "left alone: ledger/00000001.sync-conflict-2026.jsonl" in caplog.text


def test_a_staged_tile_does_not_bring_a_removed_run_back(run: Run, tmp_path: Path) -> None:
    assert isinstance(run.path, Path)
    staged = run.create_staged()
    run.path.rename(tmp_path / "moved")
    with pytest.raises(StagingError, match="the run was removed or moved"):
        staged.write(0, np.ones((*run.plan.read_shape, 3), np.uint8))
    assert not run.path.exists()
