"""Scheduling of tiles: the rules one by one, then any order of deaths, failures and delays."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from flows.pool.scheduler import Attempt, Limits, Scheduler, TileOutcome
from flows.worker.result import ReadyTile, TileResult

LIMITS = Limits(in_flight=2, attempts=3, tile_seconds=100, straggler_factor=4, straggler_seconds=10)


RUN, OTHER = Path("run"), Path("other")


def ready(tile: int, run: Path = RUN) -> ReadyTile:
    return ReadyTile(run, TileResult(tile, None, 0, {"stage": 0.5}))


def done(attempt: Attempt) -> TileResult:
    return TileResult(attempt.index, f"digest of {attempt.index}", 1, {"compute": 1.0})


def failed(attempt: Attempt) -> TileResult:
    return TileResult(attempt.index, None, 0, {}, "can't be decoded")


def crew(*workers: int) -> Scheduler:
    scheduler = Scheduler(LIMITS)
    for worker in workers:
        scheduler.join(worker, 0.0)
    return scheduler


def test_every_worker_gets_two_tiles_and_the_freest_comes_first() -> None:
    dispatch = crew(1, 2)
    given_to = [dispatch.start(ready(tile), 0.0).worker for tile in range(4)]
    assert given_to == [1, 2, 1, 2]
    assert not dispatch.has_capacity


def test_a_result_carries_the_seconds_of_staging() -> None:
    dispatch = crew(1)
    attempt = dispatch.start(ready(7), 0.0)
    ended = dispatch.end(attempt, done(attempt), 1.0)
    assert ended == TileOutcome(ready(7), TileResult(7, "digest of 7", 1, {"stage": 0.5, "compute": 1.0}), 1)
    assert not dispatch.is_open


def test_tiles_of_two_runs_with_one_number_are_two() -> None:
    dispatch = crew(1, 2)
    first, second = dispatch.start(ready(0, RUN), 0.0), dispatch.start(ready(0, OTHER), 0.0)
    ended = dispatch.end(second, done(second), 1.0)
    assert ended is not None
    assert ended.run == OTHER
    assert dispatch.is_open, "the other run's tile is still out"
    assert dispatch.worker_lost(first.worker, "killed", 1.0) == []
    dispatch.join(3, 1.0)
    again = dispatch.next_retry(2.0, nothing_fresh=False)
    assert again is not None
    assert (again.ready.run, again.index) == (RUN, 0)


def test_a_lost_tile_is_tried_alone_so_that_its_neighbour_is_not_blamed() -> None:
    dispatch = crew(1, 2)
    killer, innocent = dispatch.start(ready(0), 0.0), dispatch.start(ready(1), 0.0)
    neighbour = dispatch.start(ready(2), 0.0)
    assert (killer.worker, innocent.worker, neighbour.worker) == (1, 2, 1)
    assert dispatch.worker_lost(1, "killed", 1.0) == []
    dispatch.join(3, 1.0)
    again = dispatch.next_retry(1.0, nothing_fresh=False)
    assert again is not None
    assert (again.index, again.worker) == (0, 3)
    fresh = dispatch.start(ready(3), 1.0)
    assert fresh.worker == 2, "nothing joins a tile under suspicion"
    assert not dispatch.has_capacity
    assert dispatch.worker_lost(3, "killed", 1.0) == []
    dispatch.join(4, 1.0)
    second = dispatch.next_retry(2.0, nothing_fresh=False)
    assert second is not None
    assert second.index == 2
    assert dispatch.end(second, done(second), 3.0) == TileOutcome(
        ready(2), TileResult(2, "digest of 2", 1, {"stage": 0.5, "compute": 1.0}), 2
    )
    third = dispatch.next_retry(3.0, nothing_fresh=False)
    assert third is not None
    assert third.index == 0
    (ended,) = dispatch.worker_lost(third.worker, "killed", 1.0)
    assert ended.attempts == 3
    assert ended.result.reason == "its worker died 3 times: killed"


def test_a_retry_gets_a_worker_though_fresh_tiles_never_end() -> None:
    dispatch = crew(1, 2)
    first, *others = (dispatch.start(ready(tile), 0.0) for tile in range(4))
    dispatch.worker_lost(first.worker, "killed", 1.0)
    running = [attempt for attempt in others if attempt.worker == 2]
    for tile in range(4, 20):
        attempt = running.pop(0)
        dispatch.end(attempt, done(attempt), 1.0)
        again = dispatch.next_retry(1.0, nothing_fresh=False)
        if again is not None:
            assert again.index == 0
            return
        if dispatch.has_capacity:
            running.append(dispatch.start(ready(tile), 1.0))
    raise AssertionError("the lost tile was never tried again")


def test_a_straggler_gets_a_second_worker_and_the_first_success_counts() -> None:
    dispatch = crew(1, 2)
    slow, quick = dispatch.start(ready(0), 0.0), dispatch.start(ready(1), 0.0)
    dispatch.end(quick, done(quick), 1.0)
    assert dispatch.next_retry(9.0, nothing_fresh=True) is None
    assert dispatch.next_retry(11.0, nothing_fresh=False) is None, "a fresh tile comes first"
    second = dispatch.next_retry(11.0, nothing_fresh=True)
    assert second is not None
    assert (second.index, second.worker) == (0, 2)
    assert dispatch.next_retry(50.0, nothing_fresh=True) is None, "two are enough"
    ended = dispatch.end(second, done(second), 12.0)
    assert ended is not None
    assert ended.attempts == 2
    assert not dispatch.is_open
    assert dispatch.end(slow, done(slow), 60.0) is None


def test_a_failure_waits_for_the_other_attempt() -> None:
    dispatch = crew(1, 2)
    slow, quick = dispatch.start(ready(0), 0.0), dispatch.start(ready(1), 0.0)
    dispatch.end(quick, done(quick), 1.0)
    second = dispatch.next_retry(11.0, nothing_fresh=True)
    assert second is not None
    assert dispatch.end(second, failed(second), 12.0) is None
    ended = dispatch.end(slow, done(slow), 13.0)
    assert ended is not None
    assert ended.result.reason is None


def test_a_tile_that_waits_behind_another_is_not_overdue() -> None:
    dispatch = crew(1)
    first, second = dispatch.start(ready(0), 0.0), dispatch.start(ready(1), 0.0)
    assert dispatch.overdue(100.0) == []
    assert dispatch.overdue(100.5) == [1]
    dispatch.end(first, done(first), 99.0)
    assert dispatch.overdue(150.0) == []
    assert dispatch.overdue(200.0) == [1]
    dispatch.end(second, done(second), 200.0)
    assert dispatch.overdue(900.0) == []


def test_a_tile_never_costs_more_workers_than_it_may() -> None:
    """Killed twice, then slow: nobody is sent beside the third worker, whose failure is the tile's end."""
    dispatch = crew(1)
    first, other = dispatch.start(ready(0), 0.0), dispatch.start(ready(1), 0.0)
    dispatch.end(other, done(other), 0.1)
    for worker in (2, 3):
        assert dispatch.worker_lost(worker - 1, "killed", 1.0) == []
        dispatch.join(worker, 1.0)
        again = dispatch.next_retry(0.1, nothing_fresh=True)
        assert again is not None
        assert (again.index, again.worker) == (first.index, worker)
    dispatch.join(4, 1.0)
    assert dispatch.next_retry(50.0, nothing_fresh=True) is None
    (ended,) = dispatch.worker_lost(3, "killed", 1.0)
    assert (ended.attempts, ended.result.reason) == (3, "its worker died 3 times: killed")


def test_workers_that_come_and_go_count_for_as_long_as_they_are_there() -> None:
    dispatch = crew(1)
    first = dispatch.start(ready(0), 100.0)
    dispatch.join(2, 140.0)
    second = dispatch.start(ready(1), 140.0)
    assert second.worker == 2
    dispatch.worker_lost(2, "its node is gone", 150.0)
    again = dispatch.next_retry(150.0, nothing_fresh=True)
    assert again is None, "the one that is left has a tile"
    dispatch.join(3, 190.0)
    dispatch.end(first, done(first), 200.0)
    busy = dispatch.utilisation(500.0)
    assert (busy.seconds, busy.present_seconds) == (110.0, 120.0), "alone for 100 s, a second for 10 s, a third idle"
    assert busy.share == 110 / 120


def test_workers_that_are_still_at_it_are_busy_until_now() -> None:
    dispatch = crew(1, 2)
    first, _ = dispatch.start(ready(0), 10.0), dispatch.start(ready(1), 10.0)
    dispatch.end(first, done(first), 20.0)
    busy = dispatch.utilisation(30.0)
    assert (busy.seconds, busy.present_seconds, busy.share) == (30.0, 40.0, 0.75)


@given(tiles=st.integers(1, 12), workers=st.integers(1, 4), choices=st.data())
@settings(max_examples=150, deadline=None)
def test_every_tile_ends_exactly_once_whatever_happens(tiles: int, workers: int, choices: st.DataObject) -> None:
    """Any order of results, failures, deaths and delays against the simplest model: each tile ends once."""
    dispatch, fresh, now, next_worker = crew(*range(workers)), list(range(tiles)), 0.0, workers
    running: list[Attempt] = []
    outcome: dict[int, TileOutcome] = {}

    def take(found: list[TileOutcome]) -> None:
        for each in found:
            assert each.result.tile not in outcome
            outcome[each.result.tile] = each

    for _ in range(400):
        if len(outcome) == tiles:
            break
        while (attempt := dispatch.next_retry(now, nothing_fresh=not fresh)) is not None:
            running.append(attempt)
        while fresh and dispatch.has_capacity:
            running.append(dispatch.start(ready(fresh.pop(0)), now))
        assert running, "nobody works, and tiles are left"
        for worker in {attempt.worker for attempt in running}:
            assert sum(attempt.worker == worker for attempt in running) <= LIMITS.in_flight
        now += choices.draw(st.sampled_from([0.1, 1.0, 30.0]))
        attempt = choices.draw(st.sampled_from(running))
        what = choices.draw(st.sampled_from(["done", "done", "done", "failed", "dies", "waits"]))
        if what == "dies":
            running = [each for each in running if each.worker != attempt.worker]
            take(dispatch.worker_lost(attempt.worker, "killed", now))
            dispatch.join(next_worker, now)
            next_worker += 1
        elif what != "waits":
            running.remove(attempt)
            result = done(attempt) if what == "done" else failed(attempt)
            last = dispatch.end(attempt, result, now)
            take([last] if last else [])
    else:
        # Undisturbed from here on, all must end.
        for _ in range(200):
            while (attempt := dispatch.next_retry(now, nothing_fresh=not fresh)) is not None:
                running.append(attempt)
            while fresh and dispatch.has_capacity:
                running.append(dispatch.start(ready(fresh.pop(0)), now))
            if not running:
                break
            attempt = running.pop(0)
            last = dispatch.end(attempt, done(attempt), now)
            take([last] if last else [])
    assert sorted(outcome) == list(range(tiles))
    assert all(1 <= each.attempts <= LIMITS.attempts for each in outcome.values())
    busy = dispatch.utilisation(now)
    assert busy.seconds <= busy.present_seconds * (1 + 1e-9), "nobody is busy who isn't there"


def quick(attempt: Attempt, seconds: float = 0.001) -> TileResult:
    return TileResult(attempt.index, f"digest of {attempt.index}", 1, {"compute": seconds})


def known(seconds: float) -> Scheduler:
    """A crew of two that has computed some tiles, each in so many seconds."""
    dispatch = crew(1, 2)
    for tile in range(100, 110):
        attempt = dispatch.start(ready(tile), 0.0)
        dispatch.end(attempt, quick(attempt, seconds), 0.0)
    return dispatch


def test_a_call_has_as_many_tiles_as_take_a_moment() -> None:
    assert crew(1, 2).tiles_of_call(100) == 1, "nobody knows yet how long they take"
    assert known(0.5).tiles_of_call(100) == 1
    assert known(0.004).tiles_of_call(100) == 5
    assert known(0.0).tiles_of_call(100) == 16
    assert known(0.0).tiles_of_call(9) == 3, "a fair share of what is ready: four calls have room"
    assert known(0.0).tiles_of_call(1) == 1


def test_a_worker_has_two_calls_whatever_they_hold() -> None:
    dispatch = known(0.001)
    calls = [dispatch.start_call([ready(tile) for tile in range(3 * n, 3 * n + 3)], 0.0) for n in range(4)]
    assert [call[0].worker for call in calls] == [1, 2, 1, 2]
    assert not dispatch.has_capacity
    for attempt in calls[0]:
        assert not dispatch.has_capacity
        dispatch.end(attempt, quick(attempt), 1.0)
    assert dispatch.has_capacity


def test_tiles_of_a_lost_call_are_tried_one_by_one_and_only_the_deadly_one_fails() -> None:
    dispatch = known(0.001)
    call = dispatch.start_call([ready(tile) for tile in range(4)], 0.0)
    assert dispatch.worker_lost(call[0].worker, "killed", 1.0) == []
    outcome: dict[int, TileOutcome] = {}
    for worker in range(3, 20):
        dispatch.join(worker, 1.0)
        while (again := dispatch.next_retry(2.0, nothing_fresh=True)) is not None:
            assert not dispatch.has_capacity or again.worker not in {number for _, number in dispatch._with_room()}  # pyright: ignore[reportPrivateUsage]
            if again.index == 2:
                break
            ended = dispatch.end(again, quick(again), 2.0)
            assert ended is not None
            outcome[again.index] = ended
        if again is None:
            break
        outcome |= {each.ready.tile: each for each in dispatch.worker_lost(again.worker, "killed", 2.0)}
    assert sorted(outcome) == [0, 1, 2, 3]
    assert {tile: each.attempts for tile, each in outcome.items()} == {0: 2, 1: 2, 2: 3, 3: 2}
    assert [tile for tile, each in outcome.items() if each.result.reason] == [2]
    assert not dispatch.is_open


def test_tiles_that_a_call_came_not_to_are_tried_by_themselves_at_no_cost() -> None:
    dispatch = known(0.001)
    first, second, third = dispatch.start_call([ready(tile) for tile in range(3)], 0.0)
    ended = dispatch.end(first, quick(first), 1.0)
    assert ended is not None
    dispatch.give_back(second, 1.0)
    dispatch.give_back(third, 1.0)
    assert dispatch.is_open
    again = [dispatch.start_returned(1.0), dispatch.start_returned(1.0)]
    assert dispatch.start_returned(1.0) is None
    assert [each.index for each in again if each is not None] == [1, 2]
    for attempt in again:
        assert attempt is not None
        last = dispatch.end(attempt, quick(attempt), 2.0)
        assert last is not None
        assert last.attempts == 1
    assert not dispatch.is_open
    busy = dispatch.utilisation(3.0)
    assert busy.seconds <= busy.present_seconds


def test_a_call_is_not_overdue_for_the_one_before_it() -> None:
    dispatch = crew(1)
    first = dispatch.start_call([ready(0), ready(1)], 0.0)
    second = dispatch.start_call([ready(2), ready(3)], 0.0)
    for attempt in first:
        dispatch.end(attempt, quick(attempt), 99.0)
    assert dispatch.overdue(150.0) == []
    assert dispatch.overdue(200.0) == [1]
    for attempt in second:
        dispatch.end(attempt, quick(attempt), 200.0)
    assert dispatch.overdue(900.0) == []
