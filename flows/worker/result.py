"""Results of tiles, as workers report them to the driver."""

from __future__ import annotations

from dataclasses import dataclass, field

from tiling.runs.no_data import ALL_DATA, NoDataCounts
from tiling.runs.pyramid import Chunks
from tiling.storage.place import Place


@dataclass(frozen=True, slots=True)
class TileResult:
    """The outcome of a tile: a digest, or the reason why there is none; `worker` names the process that reported."""

    tile: int
    digest: str | None
    pixels: int
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    reason: str | None = None
    worker: str | None = None
    probabilities: str | None = None  # their digest, where the run keeps them
    empty: NoDataCounts = ALL_DATA
    counts: dict[int, int] | None = None  # of pixels by label; None where it has very many labels
    reduced: tuple[Chunks, ...] = ()  # encoded chunks of the mask's coarser levels that show nothing but this tile

    @property
    def work_seconds(self) -> float:
        """Seconds that the worker spent on the tile, without loading the model."""
        return sum(self.seconds.get(stage, 0.0) for stage in ("read", "compute", "write"))


@dataclass(frozen=True, slots=True)
class ReadyTile:
    """A tile of a run that inference may begin, or whose staging failed with a reason.

    staged: whether it is read from the staged array, or from the image itself.
    """

    run: Place
    result: TileResult
    staged: bool = False

    @property
    def tile(self) -> int:
        return self.result.tile

    def goes_with(self, other: ReadyTile) -> bool:
        """True if one call of a worker may compute both."""
        return other.run == self.run and other.staged == self.staged and other.result.reason is None


@dataclass(frozen=True, slots=True)
class RecheckResult:
    """A place of the image computed again: how many of its labels are not those of the mask, and where it lies.

    `place` is `(y0, x0, y1, x1)` in mask pixels.
    """

    place: tuple[int, int, int, int]
    pixels: int
    differing: int
