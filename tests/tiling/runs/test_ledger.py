"""The ledger and the run folder: what is written is whole, what is read is the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from interrupted import fill_disk

from tiling.errors import DiskError, PlaceError, RunError
from tiling.runs.ledger import STITCHED, Ledger, TileRecord, TileState
from tiling.runs.run import Run
from tiling.storage.place import RunLock, write_atomic


def test_the_last_line_about_a_tile_wins(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 5)
    ledger.append(TileRecord(1, TileState.FAILED, 3, reason="it broke"))
    ledger.append(TileRecord(2, TileState.DONE, 1, "aa", seconds={"read": 0.5}, pixels=100, time=10.0))
    ledger.flush()
    later = Ledger(tmp_path, 5)
    later.append(TileRecord(1, TileState.DONE, 1, "bb", seconds={"read": 0.25}, pixels=50, time=12.0))
    later.announce("stitched", {"shards": "all"})
    state = Ledger(tmp_path, 5).fold()
    assert state.states.tolist() == [0, 1, 1, 0, 0]
    assert state.failed == {}
    assert state.seconds == {"read": 0.75}
    assert (state.pixels, state.first_time, state.last_time) == (150, 10.0, 12.0)
    event = state.last_event("stitched")
    assert event is not None
    assert event.facts == {"shards": "all"}


def test_tiles_written_after_stitching_are_unstitched(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 4)
    ledger.append(TileRecord(0, TileState.SKIPPED))
    ledger.append(TileRecord(1, TileState.FAILED, 1, reason="it broke"))
    ledger.announce(STITCHED, {})
    assert ledger.fold().unstitched.tolist() == [False] * 4
    ledger.append(TileRecord(1, TileState.DONE, 1, "aa"))
    ledger.flush()
    assert ledger.fold().unstitched.tolist() == [False, True, False, False]


def test_a_failed_tile_is_named_with_its_reason(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 3)
    ledger.append(TileRecord(2, TileState.FAILED, 1, reason="no such segment"))
    ledger.flush()
    assert {i: r.reason for i, r in ledger.fold().failed.items()} == {2: "no such segment"}


def test_lines_that_were_not_flushed_are_not_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 3)
    ledger.append(TileRecord(0, TileState.DONE))
    ledger.append(TileRecord(1, TileState.DONE))
    assert Ledger(tmp_path, 3).fold().count(TileState.DONE) == 1
    ledger.flush()
    assert Ledger(tmp_path, 3).fold().count(TileState.DONE) == 2


def test_events_of_moments_share_a_segment_and_others_take_them_along(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 3)
    ledger.announce("planned", {}, soon=True)
    ledger.announce("asked", {}, soon=True)
    assert [event.name for event in Ledger(tmp_path, 3).fold().events] == ["planned"]
    ledger.announce(STITCHED, {})
    assert [event.name for event in Ledger(tmp_path, 3).fold().events] == ["planned", "asked", STITCHED]
    assert ledger.revision() == 2


@pytest.mark.parametrize("line", ["{not json", '{"tile": 99, "state": "done"}', '{"tile": 0, "state": "eaten"}', "[]"])
def test_a_damaged_segment_is_told(line: str, tmp_path: Path) -> None:
    (tmp_path / "00000001.jsonl").write_text(line + "\n")
    with pytest.raises(RunError, match=r"00000001\.jsonl holds a line that is no record"):
        Ledger(tmp_path, 3).fold()


def test_any_flipped_bit_in_a_segment_is_told_or_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, 3)
    ledger.append(TileRecord(1, TileState.DONE, digest="0" * 32, counts={0: 5, 2: 7}))
    ledger.flush()
    ledger.announce("drawn", {"mask": "0", "seals": {"overlay.png": {"bytes": 5}}})
    segments = sorted(tmp_path.glob("*.jsonl"))
    kept = [path.read_bytes() for path in segments]
    whole, refused = Ledger(tmp_path, 3).fold(held=True), list[str]()
    for path, data in zip(segments, kept, strict=True):
        for bit in range(0, 8 * len(data), 5):  # each of a byte's eight in turn
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            try:
                found = Ledger(tmp_path, 3).fold(held=True)
            except RunError as error:
                refused.append(str(error))
                continue
            assert (str(found.counts), str(found.held)) == (str(whole.counts), str(whole.held))
            assert found.events == whole.events
        path.write_bytes(data)
    assert all("holds a line that is no record" in each for each in refused)
    bits = sum(map(len, kept)) * 8 // 5
    assert len(refused) >= bits - 2 * 8 * len(',"crc":""}') // 5, "all but in the checksum's own name, and line ends"


def test_lines_of_earlier_versions_have_no_checksum(tmp_path: Path) -> None:
    (tmp_path / "00000001.jsonl").write_text('{"tile":1,"state":"done","attempts":1,"time":0}\n')
    assert Ledger(tmp_path, 3).fold().count(TileState.DONE) == 1


@pytest.mark.parametrize(
    "more",
    ['"counts":{"0":-1}', '"counts":{"0":99999999999}', '"counts":[]', '"attempts":-1', '"seconds":[]', '"empty":[]'],
)
def test_numbers_that_no_plan_has_are_no_record(more: str, tmp_path: Path) -> None:
    (tmp_path / "00000001.jsonl").write_text(f'{{"tile":1,"state":"done","time":0,{more}}}\n')
    with pytest.raises(RunError, match="no record"):
        Ledger(tmp_path, 3).fold(held=True)


def test_a_tile_before_the_first_is_none(tmp_path: Path) -> None:
    (tmp_path / "00000001.jsonl").write_text('{"tile": -1, "state": "done", "attempts": 1, "time": 0}\n')
    with pytest.raises(RunError, match="no record"):
        Ledger(tmp_path, 3).fold()


@pytest.mark.parametrize("place", ["file", "file/below", "dangling", "/dev/null/run", "/proc/run"])
def test_where_no_folder_can_be_no_run_begins(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone" / "far")
    with (
        pytest.raises(PlaceError, match=r"can be no run's folder \(.*\).*choose another --out"),
        RunLock(tmp_path / place),
    ):
        pass
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize("place", ["file/run", "file/more/run", "/dev/null/run"])
def test_a_run_in_a_file_is_refused_before_anything_starts(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(RunError, match=r"would lie in the file .*(file|/dev/null), and a run needs a folder; choose"):
        Run.expect_room(tmp_path / place)
    Run.expect_room(tmp_path / "new" / "run")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_run_where_the_system_makes_no_folder_is_refused_before_anything_starts() -> None:
    with pytest.raises(RunError, match=r"no folder can be made in /proc \(.+\), for /proc/run; choose"):
        Run.expect_room(Path("/proc/run"))


def test_a_lock_on_a_full_disk_says_what_helps(small_disk: Path) -> None:
    fill_disk(small_disk / "ballast")
    with pytest.raises(DiskError, match=r"driver.lock can't be written \(No space left on device\): make space"):
        RunLock(small_disk / "run").__enter__()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "card.json", b"old")
    blocked = tmp_path / "folder"
    blocked.mkdir()
    (blocked / "inside").write_bytes(b"")
    with pytest.raises(DiskError, match=r"folder can't be written \(.*\): make space"):
        write_atomic(blocked, b"new")  # a name that is a folder can't be replaced by a file
    assert (tmp_path / "card.json").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.json", "folder"]


def test_a_second_driver_is_refused_and_told_who_holds_the_run(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(RunError, match=r"process \d+ of "), RunLock(tmp_path):
        pytest.fail("two drivers hold one run")
    with RunLock(tmp_path):
        pass
