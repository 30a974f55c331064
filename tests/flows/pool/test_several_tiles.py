"""Several tiles in one call of an actor: each ends by itself, whatever happens to its neighbours."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

from faulty_actors import SeveralActor

from flows.pool.backlog import Backlog
from flows.pool.pool import Pool

TILES = 300
DEADLY, BROKEN = 57, 83  # as the actor has them


def test_of_a_call_only_the_tile_fails_that_kills_or_raises() -> None:
    """In a process of its own: Ray keeps the first token that a process has, and other tests have others."""
    process = multiprocessing.get_context("spawn").Process(target=infer_with_faults)
    process.start()
    process.join(240)
    assert process.exitcode == 0, "what failed stands in what it printed"


def infer_with_faults() -> None:
    """Each tile ends, and none but the deadly and the broken one fails."""
    for name in [each for each in os.environ if each.startswith("RAY_AUTH")]:
        del os.environ[name]
    backlog = Backlog(limit=TILES)
    backlog.offer_unstaged(Path("run"), range(TILES))
    backlog.close()
    with Pool(2, actor=SeveralActor) as pool:
        ended = {each.ready.tile: each for each in pool.infer(backlog)}
    assert sorted(ended) == list(range(TILES))
    assert [tile for tile, each in ended.items() if each.result.reason is None] != []
    assert sorted(tile for tile, each in ended.items() if each.result.digest is None) == [DEADLY, BROKEN]
    assert (ended[DEADLY].result.reason or "").startswith("its worker died 3 times")
    assert ended[BROKEN].result.reason == f"RuntimeError: tile {BROKEN} is broken"
    assert isinstance(ended[BROKEN].fatal_error, RuntimeError)
    assert [tile for tile, each in ended.items() if each.fatal_error is not None] == [BROKEN]
    assert ended[BROKEN].attempts <= 2, "its own, and one where it shared a call with the deadly tile"
    calls = [int(each.result.worker or 0) for each in ended.values() if each.result.digest is not None]
    assert max(calls) > 4
