"""Linear normalisation: the steps that a package lists before its network, as one mean and deviation per band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from unet_core.errors import BundleError


class Linear:
    """`y = gain × x + offset` per band, grown step by step."""

    def __init__(self, bands: int) -> None:
        self.bands = bands
        self._gains = [1.0] * bands
        self._offsets = [0.0] * bands

    def scale(self, gain: Any, offset: Any) -> None:
        """Then multiply, then add; one number for all bands, or one each. Raises BundleError for others."""
        gains, offsets = self._each(gain), self._each(offset)
        self._gains = [a * b for a, b in zip(self._gains, gains, strict=True)]
        self._offsets = [a * b + c for a, b, c in zip(self._offsets, gains, offsets, strict=True)]

    def standardize(self, mean: Any, std: Any) -> None:
        """Then subtract a mean and divide by a deviation."""
        means, stds = self._each(mean), self._each(std)
        if any(number <= 0 for number in stds):
            raise BundleError(f"a deviation of {min(stds)} divides by nothing; correct the package")
        self.scale([1 / b for b in stds], [-a / b for a, b in zip(means, stds, strict=True)])

    @property
    def is_untouched(self) -> bool:
        return all(gain == 1 for gain in self._gains) and not any(self._offsets)

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The same as `(x - mean) / std`."""
        if any(gain <= 0 for gain in self._gains):
            raise BundleError(f"a gain of {min(self._gains)} turns pixels round; correct the package")
        pairs = list(zip(self._gains, self._offsets, strict=True))
        return tuple(-offset / gain + 0.0 for gain, offset in pairs), tuple(1 / gain for gain, _ in pairs)

    def _each(self, given: Any) -> list[float]:
        numbers = [float(number) for number in given] if isinstance(given, Sequence) else [float(given)] * self.bands
        if len(numbers) != self.bands or not all(map(math.isfinite, numbers)):
            raise BundleError(f"{numbers} are not {self.bands} numbers, one for each band; correct the package")
        return numbers
