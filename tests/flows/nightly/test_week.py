"""A week of nights on one archive, with a clock that the test moves: every state of a night is met, and sent."""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import tifffile
from cli import tissue
from faulty_actors import plan_fault
from nights import records
from numpy.typing import NDArray
from prefect.settings import PREFECT_API_URL, temporary_settings
from scipy import ndimage

from flows import archive as flow
from flows.commands.archive import acknowledge_failures, exit_code_of
from flows.commands.doctor import notify_missing
from flows.config.archive import ArchiveConfig
from flows.doctor.checks import DoctorConfig
from flows.doctor.nights import check_nights
from flows.errors import IncompleteError
from flows.lifecycle.stopping import StopRequest
from flows.nightly.clock import clock
from flows.nightly.night import NightSummary
from flows.nightly.notified import notified
from flows.nightly.watch import NightWatch
from flows.pool.pool import Pool
from tiling.archives.archive import Archive
from tiling.archives.slide_record import SlideState
from tiling.errors import DiskError

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = dt.datetime(2026, 11, 23, 1, 0, tzinfo=BERLIN)
OLD = time.time() - 7 * 86400


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Week:
    """Nights of one archive, each at one o'clock of a day, and what the notifying command was given."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.source, self.out, self.told = folder / "slides", folder / "segmented", folder / "told.txt"
        self.source.mkdir()
        self._stop, self._tiles_left = StopRequest(), float("inf")
        patch.setattr(flow, "stop_on_signals", self._stopping)
        seen = NightWatch.update

        def update(watch: NightWatch, *given: Any) -> None:
            seen(watch, *given)
            self._tiles_left -= 1
            if self._tiles_left <= 0:
                self._stop.ends_at = 0.0  # the clock strikes six in the middle of a slide

        patch.setattr(NightWatch, "update", update)

    @contextmanager
    def _stopping(self, ends_at: float) -> Generator[StopRequest]:
        self._stop = StopRequest(ends_at=ends_at)
        yield self._stop

    @property
    def lines(self) -> list[str]:
        return self.told.read_text().splitlines() if self.told.is_file() else []

    def at(self, day: int) -> dt.datetime:
        return MONDAY + dt.timedelta(days=day)

    def night(self, day: int, tiles: float = float("inf"), **options: object) -> NightSummary:
        """Hold the night of a day, which ends after so many tiles; as the command does, it sends its line."""
        self._tiles_left = tiles
        asked = {"source": str(self.source), "out": self.out, "model": "nuclei", "core": 64, "every": "1d"}
        more = {
            "foreground": "none",
            "until": "06:00",
            "settle": "1h",
            "notify": f"tee -a {self.told}",
            "export": "statistics",
        }
        config = ArchiveConfig.model_validate({**asked, **more, **options})
        token = clock.set(lambda: self.at(day))
        try:
            return notified(config, partial(flow.segment_archive, config))
        except IncompleteError as error:
            return cast("NightSummary", error.outcome)
        finally:
            clock.reset(token)

    def add(self, name: str, make: Callable[[Path], object]) -> Path:
        path = self.source / name
        make(path)
        os.utime(path, (OLD, OLD))
        return path

    def fill(self) -> None:
        """Thirty slides: good ones, some that can't be segmented, and some whose masks can't be right."""
        for number in range(22):
            self.add(f"case-{number:02}.tif", lambda path, at=number: painted(path, stained(128, 128, at)))
        self.add("black.tif", lambda path: painted(path, np.zeros((128, 128, 3), np.uint8)))
        self.add("blank.tif", lambda path: painted(path, np.full((128, 128, 3), 243, np.uint8)))
        soft = ndimage.gaussian_filter(tissue(256, 128), (4, 4, 0))
        self.add("soft.tif", lambda path: painted(path, soft))
        whole = (self.source / "case-00.tif").read_bytes()
        self.add("cut.tif", lambda path: path.write_bytes(whole[: len(whole) // 3]))
        self.add("faulty.tif", lambda path: painted(path, stained(256, 256, 90)))
        (self.told.with_name("elsewhere.tif")).write_bytes(whole)
        (self.source / "link.tif").symlink_to(self.told.with_name("elsewhere.tif"))
        (self.source / "scanning.tif").write_bytes(whole)  # its time is now: it is still being written
        self.add("leaves.tif", lambda path: path.write_bytes(whole[:1000]))
        assert len(list(self.source.iterdir())) == 30


def stained(height: int, width: int, at: int) -> NDArray[np.uint8]:
    """Real stained tissue, another part of the photograph for each number."""
    y, x = np.random.default_rng(at).integers(0, (512 - height, 512 - width))
    return tissue(512, 512)[y : y + height, x : x + width]


def painted(path: Path, pixels: Any) -> None:
    half_um = (20_000, 20_000)  # per cm
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(128, 128), resolution=half_um, resolutionunit="CENTIMETER")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_week_of_nights_meets_every_state_and_says_each_in_one_line(
    tmp_path: Path, pool: Pool, faults: Path, prefect_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with temporary_settings({PREFECT_API_URL: prefect_url}):
        hold_a_week(Week(tmp_path, monkeypatch), pool, faults, monkeypatch)


def hold_a_week(week: Week, pool: Pool, faults: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "open_pool", lambda _config: nullcontext(pool))
    week.fill()

    plan_fault(faults, "before", 15, times=3)  # only faulty.tif has so many tiles
    monday = week.night(0)
    assert {each.slide for each in monday.new_failures} == {"cut.tif", "faulty.tif", "link.tif", "leaves.tif"}
    assert [each.slide for each in monday.of(SlideState.CHANGING)] == ["scanning.tif"]
    assert {"black.tif", "blank.tif", "soft.tif"} <= set(monday.flags)
    assert monday.flags["black.tif"][0] == "black"
    assert exit_code_of(monday, strict=False) == 3

    plan_fault(faults, "before", 15, times=3)
    os.utime(week.source / "scanning.tif", (OLD, OLD))
    week.add("copy.tif", lambda path: path.write_bytes((week.source / "case-01.tif").read_bytes()))
    tuesday = week.night(1)
    assert tuesday.new_failures == []
    assert {each.slide for each in tuesday.standing} == {"cut.tif", "faulty.tif", "link.tif", "leaves.tif"}
    assert [each.slide for each in tuesday.of(SlideState.SAME)] == ["copy.tif", "scanning.tif"]
    assert exit_code_of(tuesday, strict=False) == 0

    acknowledge_failures(str(week.out), ["cut.tif"])
    (week.source / "leaves.tif").unlink()
    for number in range(8):
        week.add(f"large-{number}.tif", lambda path, at=number: painted(path, stained(256, 192, 70 + at)))
    wednesday = week.night(2, tiles=5)
    assert (wednesday.ended_by, exit_code_of(wednesday, strict=False)) == ("the time", 4)
    assert 1 <= wednesday.left.begun < wednesday.left.slides <= 8
    assert [each.slide for each in wednesday.of(SlideState.GONE)] == ["leaves.tif"]
    assert [each.slide for each in wednesday.acknowledged] == ["cut.tif"]

    with monkeypatch.context() as full:
        full.setattr(flow, "open_pool", full_disk)
        with pytest.raises(DiskError):
            week.night(3)
    missed = DoctorConfig(archive=week.out)
    notify_missing(missed, check_nights(week.out, week.at(4).timestamp() + 7 * 3600), f"tee -a {week.told}")

    saturday = week.night(5)
    assert len(saturday.warnings) == 2
    assert exit_code_of(saturday, strict=True) == 0 if not saturday.flags else 5
    assert {record.slide for record in records(week.out).values() if not record.is_settled} == {
        "cut.tif",
        "leaves.tif",
        "link.tif",
    }

    acknowledge_failures(str(week.out), ["link.tif"])
    sunday = week.night(6)
    assert (sunday.standing, sunday.warnings, exit_code_of(sunday, strict=True)) == ([], (), 0)
    assert [bool(re.search(said, line)) for said, line in zip(SAID, week.lines, strict=True)] == [True] * 7, week.lines
    events = Archive.open(week.out).ledger.events
    assert [event["event"] for event in events].count("night") == 6
    assert (week.out / "nights.csv").read_text().count("\n") == 7


def full_disk(_config: object) -> Any:
    raise DiskError("no space left on the disk of segmented: free some, then run the same command again")


SAID = (
    r"^overtile segmented, night of 2026-11-23 01:00 CET: new failures; 25 slides done, 4 new failures \(cut\.tif, ",
    r"night of 2026-11-24 01:00 CET: (complete|slides to look at); 0 slides done, 4 known failures, ",
    r"night of 2026-11-25 01:00 CET: backlog remains; .* left \(\d begun\): about \d+ tiles, .* of computing",
    r"night of 2026-11-26 01:00 CET: died: no space left on the disk of segmented",
    r"^overtile doctor .*: no night began between 2026-11-26 01:00 CET and 2026-11-27 08:00 CET: 1 night was due",
    r"night of 2026-11-28 01:00 CET: .* \d slides done, 1 known failure, 1 acknowledged, .* died: .*; no night began",
    r"night of 2026-11-29 01:00 CET: complete; 0 slides done, 2 acknowledged, ended by its work; file:///",
)
