"""End of a night by the clock, also on days that are longer or shorter than others."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from flows.archive import dry_run, empty_card
from flows.config.archive import ArchiveConfig
from flows.nightly.model import archive_model
from tiling.archives.archive import Archive
from tiling.errors import RunError
from unet_core.errors import BundleError

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600


@pytest.fixture(autouse=True)
def berlin() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def left(now: str, until: str, fold: int = 0, budget: str | None = None) -> float:
    """Seconds from a local time, as a night has it: with the offset that holds just then."""
    then = dt.datetime.fromisoformat(now).replace(tzinfo=BERLIN, fold=fold).astimezone(dt.UTC).astimezone()
    config = ArchiveConfig.model_validate({"source": "in", "out": "out", "until": until, "budget": budget})
    return config.seconds_left(then)


@pytest.mark.parametrize(
    ("now", "until", "hours"),
    [("2026-11-26T22:00", "06:00", 8), ("2026-11-26T02:00", "06:00", 4), ("2026-11-26T06:00", "06:00", 24)],
)
def test_a_night_ends_when_the_clock_next_shows_its_end(now: str, until: str, hours: float) -> None:
    assert left(now, until) == hours * HOUR
    assert left(now, until, budget="2h") == 2 * HOUR


def test_a_night_over_a_change_of_the_clock_ends_by_the_clock() -> None:
    assert left("2026-10-24T22:00", "06:00") == 9 * HOUR
    assert left("2026-03-28T22:00", "06:00") == 7 * HOUR
    assert left("2026-03-29T01:00", "02:30") == 1.5 * HOUR, "clocks leave it out: it comes at 03:30"


@pytest.mark.parametrize(("fold", "until", "minutes"), [(0, "02:45", 15), (1, "02:45", 15), (0, "02:15", 45)])
def test_in_the_hour_that_is_shown_twice_the_next_time_counts(fold: int, until: str, minutes: int) -> None:
    assert left("2026-10-25T02:30", until, fold) == minutes * 60


def test_after_the_second_of_two_the_next_day_counts() -> None:
    assert left("2026-10-25T02:30", "02:15", fold=1) == 23.75 * HOUR


def test_a_dry_run_refuses_what_the_night_would_refuse(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_bytes(b"x")
    options = {"source": str(tmp_path / "in"), "out": tmp_path / "out", "settle": "0s"}
    whole, other = (ArchiveConfig.model_validate({**options, "core": core}) for core in (256, 512))
    Archive.create_or_resume(whole.out, empty_card(whole).model_copy(update={"model": "by its card"}))
    assert [name for name, _ in dry_run(whole).unreadable] == ["a.tif"]
    with pytest.raises(RunError, match="core: 256 here, 512 asked for"):
        dry_run(other)


def test_facts_beside_a_bundle_are_refused_before_the_night(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_bytes(b"x")
    (tmp_path / "card.toml").write_text('name = "other"\n')
    options = {"source": str(tmp_path / "in"), "out": tmp_path / "out", "settle": "0s", "card": tmp_path / "card.toml"}
    asked = ArchiveConfig.model_validate(options)
    for begin in (dry_run, archive_model):
        with pytest.raises(BundleError, match="brings its own card"):
            begin(asked)
