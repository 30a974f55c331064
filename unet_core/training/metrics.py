"""Agreement of predicted with true labels, all from one confusion matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Metric = Callable[[NDArray[np.int64]], NDArray[np.float64]]


def confusion_matrix(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Pixel counts `[true label, predicted label]`, shape `(classes, classes)`.

    The two arrays have one shape and hold labels below `classes`; ValueError otherwise.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"truth is {truth.shape} and prediction {predicted.shape}: they must have one shape")
    for name, labels in (("truth", truth), ("prediction", predicted)):
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(f"{name} holds labels {labels.min()} to {labels.max()}: they must lie in 0..{classes - 1}")
    pairs = truth.astype(np.int64).ravel() * classes + predicted.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Intersection over union (Jaccard) per class; NaN for a class that neither side holds."""
    hits, true, predicted = _counts(confusion)
    return _ratio(hits, true + predicted - hits)


def dice(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice coefficient (F1) per class; NaN for a class that neither side holds."""
    hits, true, predicted = _counts(confusion)
    return _ratio(2 * hits, true + predicted)


def precision(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the pixels given a class that truly are of it; NaN for a class never predicted."""
    hits, _, predicted = _counts(confusion)
    return _ratio(hits, predicted)


def recall(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of a class's true pixels that were found; NaN for a class that is absent."""
    hits, true, _ = _counts(confusion)
    return _ratio(hits, true)


def _counts(confusion: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    return np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    ratio = np.full(part.shape, np.nan)
    return np.divide(part, whole, out=ratio, where=whole > 0)
