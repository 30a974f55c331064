"""The sentence about what limited a run follows from the measured seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.reporting.bottleneck import StageTimes
from tiling.runs.ledger import Ledger, TileRecord, TileState


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"stage": 10, "read": 2, "compute": 190, "write": 2}, "the neural network: it kept the workers busy 95%"),
        (
            {"stage": 98, "read": 2, "compute": 90, "write": 2},
            "decoding: staging was busy 98% of the time; add CPU workers",
        ),
        ({"stage": 10, "read": 150, "compute": 60, "write": 2}, "reading tiles: 75% of the workers' time"),
        ({"stage": 10, "read": 2, "compute": 60, "write": 180}, "writing the mask: 90% of the workers' time"),
        ({"stage": 10, "read": 2, "compute": 60, "write": 2}, "waiting: the workers computed 30% of the time"),
    ],
)
def test_the_busiest_stage_is_named(seconds: dict[str, float], expected: str) -> None:
    assert StageTimes(seconds, wall=100, workers=2, stagers=1).sentence().startswith(expected)


def test_a_driver_that_was_killed_worked_as_long_as_its_tiles_took(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", 12)
    for index in range(10):
        ledger.append(TileRecord(index, TileState.DONE, seconds={"compute": 9.0}, time=1000.0 + 10 * index))
    ledger.announce("inferred", {"workers": 1, "stagers": 1, "seconds": 5.0})
    times = StageTimes.of(ledger.fold())
    assert times.wall == 90.0
    assert times.share("compute") == 1.0, "and never longer than there was"


@pytest.mark.parametrize("wall", [0.0, 1.5])
def test_a_run_of_a_moment_is_not_judged(wall: float) -> None:
    assert StageTimes({"compute": wall}, wall, workers=2, stagers=1).sentence().startswith("start-up")
