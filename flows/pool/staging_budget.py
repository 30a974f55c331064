"""Budget of staged tiles: the space of those on their way to inference, and of those left from earlier nights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flows.worker.result import ReadyTile, TileResult
from tiling.archives.archive import Archive
from tiling.runs.staging import STAGED_NAME, staged_sizes
from tiling.storage.place import Place


@dataclass(frozen=True, slots=True)
class Batch:
    """Tiles of a run that are staged together; each takes `tile_bytes` at most."""

    run: Place
    tiles: Sequence[int]
    tile_bytes: int = 0


class StagingBudget:
    """Counts staged tiles by run and number, as they are on disk or in the bucket; without a budget it counts nothing.

    One that was staged before and is staged again is still one. Whoever shares it guards it.
    """

    def __init__(self, budget_bytes: int | None = None, *, keeps: bool = False) -> None:
        self._budget_bytes, self._keeps = budget_bytes, keeps
        self._ahead: dict[tuple[Place, int], int] = {}
        self._leftover: dict[tuple[Place, int], int] = {}

    @property
    def taken_bytes(self) -> int:
        """Bytes of all staged tiles."""
        return sum(self._ahead.values()) + self.leftover_bytes

    @property
    def leftover_bytes(self) -> int:
        """Bytes of those that are not queued for inference."""
        return sum(self._leftover.values())

    def at_once(self, most: int, tile_bytes: int) -> int:
        """Number of tiles that a batch may have."""
        if self._budget_bytes is None or not tile_bytes:
            return most
        return max(1, min(most, self._budget_bytes // tile_bytes))

    def has_room(self, batch: Batch) -> bool:
        """True if a batch may be staged now."""
        return self._fits(batch, self.taken_bytes)

    def will_have_room(self, batch: Batch) -> bool:
        """True if a batch may be staged once all that are on their way are inferred."""
        return self._fits(batch, self.leftover_bytes)

    def take(self, batch: Batch) -> None:
        """Take the space of a batch that is being staged."""
        if self._budget_bytes is not None:
            for tile in batch.tiles:
                key = (batch.run, tile)
                self._ahead[key] = self._leftover.pop(key, batch.tile_bytes)

    def tile_finished(self, ready: ReadyTile, result: TileResult) -> None:
        """Free the space of a tile that has ended; what its worker hasn't given back counts as leftover."""
        key = (ready.run, ready.tile)
        size_bytes = self._ahead.pop(key, None)
        is_given_back = ready.staged and result.digest is not None and not self._keeps
        if size_bytes is not None and not is_given_back and ready.result.reason is None:
            self._leftover[key] = size_bytes

    def cancel(self, batch: Batch) -> None:
        """Count a batch that nobody waits for any more as leftover: it may have been staged."""
        for key in ((batch.run, tile) for tile in batch.tiles):
            if key in self._ahead:
                self._leftover[key] = self._ahead.pop(key)

    def recount(self, run: Place, sizes: Mapping[int, int]) -> None:
        """Set the sizes of a run's staged tiles; those in the queue are counted already."""
        if self._budget_bytes is not None:
            self._leftover = {key: size for key, size in self._leftover.items() if key[0] != run}
            found = {(run, tile): size for tile, size in sizes.items()}
            self._leftover |= {key: size for key, size in found.items() if key not in self._ahead}

    def _fits(self, batch: Batch, beside_bytes: int) -> bool:
        """True if it fits; what is stored already takes no more than it does."""
        keys = [(batch.run, tile) for tile in batch.tiles]
        more_bytes = sum(batch.tile_bytes for key in keys if key not in self._ahead and key not in self._leftover)
        return self._budget_bytes is None or not more_bytes or beside_bytes + more_bytes <= self._budget_bytes


def leftover_staged_tiles(archive: Archive) -> Iterator[tuple[Place, dict[int, int]]]:
    """Runs in which nights have left staged tiles, with what each takes: one listing per slide that isn't done."""
    for record in archive.ledger:
        if record.folder and not record.is_settled:
            run = archive.run_path(record.folder)
            if sizes := staged_sizes(run / STAGED_NAME):
                yield run, sizes
