"""Number of pixels of each label of an array in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tiling.runs.ledger import MOST_LABELS_COUNTED
from tiling.runs.mask import NOT_PREDICTED

COMMON = (1, NOT_PREDICTED, 2, 3, 4, 5)


def label_counts(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Number of pixels of each label, 0 to 255; comparing with the few that most masks have is the quickest."""
    counts, left = np.zeros(256, np.int64), int(np.count_nonzero(labels))
    counts[0] = labels.size - left
    for label in COMMON:
        if not left:
            return counts
        counts[label] = np.count_nonzero(labels == label)
        left -= int(counts[label])
    return np.bincount(labels.ravel(), minlength=256).astype(np.int64) if left else counts


def tile_counts(labels: NDArray[np.uint8]) -> dict[int, int] | None:
    """Number of pixels of each label that a tile holds; None where it has more labels than ledgers count."""
    counts = label_counts(labels)
    held = np.flatnonzero(counts).tolist()
    return {label: int(counts[label]) for label in held} if len(held) <= MOST_LABELS_COUNTED else None
