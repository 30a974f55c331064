"""The errors that `unet_core` raises. Each message names the rule, the value and the remedy, on one line."""

from __future__ import annotations


class UnetCoreError(Exception):
    """Root of every error that the package raises for a user's or the world's mistake."""


class BundleError(UnetCoreError):
    """A bundle that can't be found, read or trusted, or whose weights don't fit its card."""


class FootprintError(UnetCoreError):
    """A network with no finite footprint, or a read that doesn't hold what the core needs."""


class PredictionError(UnetCoreError):
    """A tile that can't be predicted: wrong bands or dtype, or logits that are not finite."""


class TrainingError(UnetCoreError):
    """Training data or a configuration that can't give a trustworthy model."""
