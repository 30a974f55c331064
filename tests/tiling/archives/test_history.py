"""History of nights from the ledger's events: deaths, and nights that were due and did not begin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from past_nights import DAY, HOUR, begun, died, ended

from tiling.archives.history import NightHistory


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_night_that_never_ended_has_died_and_the_next_names_it() -> None:
    history = NightHistory.of([begun(0), ended(HOUR, "n0"), begun(DAY)])
    (warning,) = history.warnings(2 * DAY, DAY)
    assert warning.startswith("the night of 1970-01-02 00:00 UTC died: its process ended without a word")
    assert NightHistory.of([begun(0), ended(HOUR, "n0")]).warnings(DAY, DAY) == ()


def test_a_night_that_could_still_say_why_it_died_says_it() -> None:
    history = NightHistory.of([begun(0), died(9, "the disk is full")])
    assert history.recent_deaths[0].death == "the night of 1970-01-01 00:00 UTC died: the disk is full"


def test_a_death_is_named_until_a_night_ends() -> None:
    history = NightHistory.of([begun(0), begun(DAY), begun(2 * DAY), ended(2 * DAY + 9, "n172800")])
    assert history.recent_deaths == []
    assert len(NightHistory.of([begun(0), begun(DAY)]).recent_deaths) == 2


@pytest.mark.parametrize(
    ("now", "every", "said"),
    [
        (DAY + 300, DAY, ""),
        (1.1 * DAY, DAY, ""),
        (DAY + 7 * HOUR, DAY, "1 night was due"),
        (2 * DAY, DAY, "1 night was due"),
        (4 * DAY, DAY, "3 nights were due"),
        (4 * DAY, None, ""),
        (4 * DAY, 3 * DAY, "1 night was due"),
        (3 * DAY, 3 * DAY, ""),
    ],
)
def test_nights_that_were_due_and_did_not_begin_are_counted(now: float, every: float | None, said: str) -> None:
    missed = NightHistory.of([begun(0), ended(HOUR, "n0")]).missed(now, every)
    assert said in missed
    assert bool(missed) == bool(said)


def test_a_rerun_by_hand_is_no_night_that_was_due() -> None:
    history = NightHistory.of([begun(0), ended(9, "n0"), begun(DAY, rerun=True), ended(DAY + 9, "n86400")])
    assert "1 night was due" in history.missed(2 * DAY, DAY)


def test_ledgers_of_earlier_versions_are_read() -> None:
    old = [{"event": "night", "time": 5.0, "facts": {"config": {"failed_only": False}}}, ended(9, "x")]
    (night,) = NightHistory.of(old).nights
    assert (night.name, night.began, night.ended, night.todo) == ("x", 5.0, 9, None)
