"""Bands computed of a file's, with a file's own reading interface: each by a formula, in float32.

Values are those of the bands in their own units: stored ones times the band's scale plus its offset, where the file
says them. Where a band in the formula holds no data, or the result is no number, there is no data: NaN.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tiling.errors import PlanError, SourceError
from tiling.geometry import Box
from tiling.sources.facts import ImageFacts, Reader
from tiling.sources.formula import bands_of, computed
from tiling.sources.present import read_present
from tiling.view import Formula

Pixels = npt.NDArray[np.generic]

_BYTES = 16 * 1024**2


class ComputedReader:
    """An open file whose bands are formulas of its own. Safe to call from several threads at once.

    Raises:
        SourceError: a formula names a band that isn't there.
    """

    def __init__(self, reader: Reader, formulas: tuple[Formula, ...]) -> None:
        self._reader, self._formulas = reader, formulas
        facts = reader.facts
        try:
            self._used = tuple(bands_of(each.text) for each in formulas)
        except PlanError as error:
            raise SourceError(str(error)) from error
        self._bands = tuple(sorted({band for each in self._used for band in each}))
        if self._bands and self._bands[-1] >= len(facts.bands):
            raise SourceError(f"band {self._bands[-1] + 1} is not in the image; it has {len(facts.bands)}")
        self._facts = replace(
            facts,
            bands=tuple(each.name for each in formulas),
            dtype=np.dtype(np.float32),
            photometric="min-is-black",
            nodata=None,
            has_alpha=False,
            alpha=(),
            has_mask=False,
            lacks_by_value=None,
            scales=(),
            memory_bytes=facts.memory_bytes + _BYTES,
        )

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    def read(self, level: int, box: Box) -> Pixels:
        """Values `(y, x, band)` of a box inside the level, NaN where there is no data."""
        out = np.empty((*box.shape, len(self._formulas)), np.float32)
        stored, held = read_present(self._reader, level, box, self._bands)
        rows = max(1, _BYTES // (box.width * 8 * (2 + len(self._bands))))
        for top in range(0, box.height, rows):
            part = slice(top, top + rows)
            out[part] = self._computed(stored[part], None if held is None else held[part])
        return out

    def read_mask(self, level: int, box: Box) -> None:
        """Nothing: values say which of them are data."""

    def chunk_px(self, level: int) -> tuple[int, int]:
        return self._reader.chunk_px(level)

    def close(self) -> None:
        self._reader.close()

    def _computed(self, stored: Pixels, held: npt.NDArray[np.bool_] | None) -> Pixels:
        values: dict[int, npt.NDArray[np.float64]] = {}
        for at, band in enumerate(self._bands):
            scale, offset = self._reader.facts.scales[band] if self._reader.facts.scales else (1.0, 0.0)
            values[band] = stored[..., at].astype(np.float64) * scale + offset
            if held is not None:
                values[band][~held[..., at if held.shape[-1] > 1 else 0]] = np.nan
        out = np.empty((*stored.shape[:2], len(self._formulas)), np.float32)
        for at, each in enumerate(self._formulas):
            result = np.broadcast_to(computed(each.text, values), stored.shape[:2])
            with np.errstate(over="ignore"):
                out[..., at] = result
        out[~np.isfinite(out)] = np.nan
        return out
