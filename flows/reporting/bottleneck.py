"""Bottleneck of a run, in one sentence, from measured times."""

from __future__ import annotations

from dataclasses import dataclass

from tiling.runs.ledger import LedgerState

BUSY = 0.85
SHORTEST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds of work per stage, summed over all tiles, and what they were spent with.

    Attributes:
        seconds: per stage: `stage` (decoding and writing staged tiles), `read`, `compute`, `write`.
        wall: seconds between the first and the last tile's end.
        workers: tile actors that computed side by side.
        stagers: staging actors that staged side by side.
    """

    seconds: dict[str, float]
    wall: float
    workers: int
    stagers: int

    @classmethod
    def of(cls, state: LedgerState) -> StageTimes:
        """Over all drivers of a run; the last one's workers stand for all."""
        inferred = [event.facts for event in state.events if event.name == "inferred"]
        last = inferred[-1] if inferred else {"workers": 1, "stagers": 1}
        # A driver that is killed says nothing of its time, but its tiles do, all but the first.
        wall = max(state.elapsed, sum(facts["seconds"] for facts in inferred))
        return cls(state.seconds, wall, last["workers"], last["stagers"])

    def share(self, stage: str) -> float:
        """Share of the time in which the stage's workers were busy with it; 1 at most, also where threads overlap."""
        hands = self.stagers if stage == "stage" else self.workers
        return min(1.0, self.seconds.get(stage, 0.0) / (self.wall * hands)) if self.wall > 0 and hands else 0.0

    def sentence(self) -> str:
        """Advice on what to change to make the next run faster."""
        if self.wall < SHORTEST_SECONDS:
            return "start-up: the run was too short to be limited by anything else"
        if self.share("compute") >= BUSY:
            busy = f"{self.share('compute'):.0%}"
            return f"the neural network: it kept the workers busy {busy} of the time; that is the limit"
        if self.share("stage") >= BUSY:
            return f"decoding: staging was busy {self.share('stage'):.0%} of the time; add CPU workers"
        slow = max(("read", "write"), key=self.share)
        if self.share(slow) > 1 - self.share("compute"):
            storage = "reading tiles" if slow == "read" else "writing the mask"
            return f"{storage}: {self.share(slow):.0%} of the workers' time; use faster storage for the run folder"
        return (
            f"waiting: the workers computed {self.share('compute'):.0%} of the time and neither staging nor storage "
            f"was busy; the image has too few tiles for the workers, or other programs take the processors"
        )
