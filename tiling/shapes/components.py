"""Connected components: areas of one label, joined by pixel edges, followed from band to band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from tiling.shapes.band import Band, Flags, Labels, Numbers, spread


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The objects of a band, numbered from 0: first those that came in from above, in the order of their numbers there.

    Attributes:
        starts: where each stretch of one label begins in the band's flat array.
        of_stretch: the object that each stretch belongs to.
        of_carried: the object here of each object that reached the last row of the band above.
        labels: of each object.
        pixels: of each object, so far.
        reaches_on: whether the object is in the band's last row, so that more of it may come.
    """

    starts: Numbers
    of_stretch: Numbers
    of_carried: Numbers
    labels: Labels
    pixels: Numbers
    reaches_on: Flags

    def at(self, places: Numbers) -> Numbers:
        """The objects that pixels, which are no background, belong to."""
        return self.of_stretch[np.searchsorted(self.starts, places, side="right") - 1]

    def carried_on(self) -> Numbers:
        """Each object's number in the next band; -1 for those that have ended."""
        return np.where(self.reaches_on, self.reaches_on.cumsum() - 1, -1)


class Components:
    """Finds the objects of band after band; what it remembers grows with one row, not with the image."""

    def __init__(self) -> None:
        self._of_last_row = np.empty(0, np.int64)  # the object of each stretch of the band's last row
        self._pixels = np.empty(0, np.int64)  # of each object in it

    def add(self, band: Band) -> Objects:
        """The objects of the next band."""
        bounds = np.flatnonzero(band.across) + 1
        labels = band.flat[bounds]
        # The last stretch of all is background, so that every other one has an end.
        real = np.flatnonzero(labels)
        starts, stops, labels = bounds[real], bounds[np.minimum(real + 1, bounds.size - 1)], labels[real]
        if not starts.size:
            none = np.empty(0, np.int64)
            return Objects(starts, none, none, labels, none, none.astype(np.bool_))
        carried, above = self._pixels.size, self._of_last_row.size
        upper, lower = _touching(starts, stops, labels, band.width)
        ends_above = np.concatenate([self._of_last_row, carried + upper])
        ends_below = carried + np.concatenate([np.arange(above), lower])
        size = carried + starts.size
        graph = csr_array((np.ones(ends_above.size, np.int8), (ends_above, ends_below)), shape=(size, size))
        count, of_node = connected_components(graph, directed=False)
        of_node = of_node.astype(np.int64)
        of_carried, of_stretch = of_node[:carried], of_node[carried:]
        of_label = np.zeros(count, labels.dtype)
        of_label[of_stretch] = labels
        pixels = _summed(of_stretch[above:], (stops - starts)[above:], count) + _summed(of_carried, self._pixels, count)
        in_last_row = of_stretch[np.searchsorted(starts, band.rows * band.width) :]
        reaches_on = np.zeros(count, np.bool_)
        reaches_on[in_last_row] = True
        found = Objects(starts, of_stretch, of_carried, of_label, pixels, reaches_on)
        self._of_last_row = found.carried_on()[in_last_row]
        self._pixels = pixels[reaches_on]
        return found


def _touching(starts: Numbers, stops: Numbers, labels: Labels, width: int) -> tuple[Numbers, Numbers]:
    """Pairs of stretches of one label of which the second lies below the first, if only in part."""
    first = np.searchsorted(stops, starts + width, side="right")
    counts = np.searchsorted(starts, stops + width, side="left") - first
    upper, lower = np.repeat(np.arange(starts.size), counts), spread(first, counts)
    same = labels[upper] == labels[lower]
    return upper[same], lower[same]


def _summed(of: Numbers, values: Numbers, count: int) -> Numbers:
    # As floats these sums are exact up to 2^53.
    return np.bincount(of, weights=values, minlength=count).astype(np.int64)
