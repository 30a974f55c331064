"""Maps of one operator along one axis: from intervals of its output back to its input.

Bounds inference (Halide: Ragan-Kelley et al., PLDI 2013) asks from the output backwards which part of every
intermediate is needed. Every operator that overtile knows is separable as to bounds, so an operator is a pair
of these maps, one for y and one for x. Coordinates are absolute: pixel 0 is the first pixel of the value when
the network runs on the whole image. Integers only; no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Half-open interval [lo, hi) of pixels of one value."""

    lo: int
    hi: int

    def __len__(self) -> int:
        return self.hi - self.lo

    def union(self, other: Span) -> Span:
        return Span(min(self.lo, other.lo), max(self.hi, other.hi))

    def shift(self, by: int) -> Span:
        return Span(self.lo + by, self.hi + by)

    def holds(self, other: Span) -> bool:
        return self.lo <= other.lo and other.hi <= self.hi

    def clip(self, first: int | None, last: int | None) -> Span:
        """The part inside [first, last), None being no bound; the nearest single pixel if there is none."""
        lo = self.lo if first is None else max(self.lo, first)
        hi = self.hi if last is None else min(self.hi, last)
        if lo < hi:
            return Span(lo, hi)
        if last is not None and lo >= last:
            return Span(last - 1, last)
        return Span(hi - 1, hi) if first is None or hi > first else Span(first, first + 1)


class AxisMap(Protocol):
    """One operator along one axis.

    `first` and `last` bound the input where the image has an edge on that side (None: it goes on).
    """

    @property
    def step(self) -> Fraction:
        """Input pixels per output pixel."""
        ...

    @property
    def shift(self) -> Fraction:
        """Shift of output pixel 0's low border, in input pixels."""
        ...

    def extent(self, length: int) -> int:
        """Output pixels for an input of `length` pixels."""
        ...

    def back(self, out: Span, first: int | None = None, last: int | None = None) -> Span:
        """Input pixels that the output pixels `out` depend on."""
        ...


@dataclass(frozen=True, slots=True)
class Same:
    """Pixel to pixel."""

    step: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    def extent(self, length: int) -> int:
        return length

    def back(self, out: Span, first: int | None = None, last: int | None = None) -> Span:
        return out.clip(first, last)


@dataclass(frozen=True, slots=True)
class Window:
    """Convolution and pooling: output o sees input stride*o - before + dilation*[0, kernel)."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    ceil: bool = False

    @property
    def reach(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def step(self) -> Fraction:
        return Fraction(self.stride)

    @property
    def shift(self) -> Fraction:
        return Fraction(self.reach - self.stride, 2) - self.before

    def extent(self, length: int) -> int:
        room = length + self.before + self.after - self.reach
        if not self.ceil:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        # PyTorch drops a last pooling region that would start in the far padding.
        return count - 1 if (count - 1) * self.stride >= length + self.before else count

    def taps(self, out: Span) -> Span:
        """Span that `out` sees, padding included."""
        return Span(self.stride * out.lo - self.before, self.stride * (out.hi - 1) - self.before + self.reach)

    def back(self, out: Span, first: int | None = None, last: int | None = None) -> Span:
        return self.taps(out).clip(first, last)


@dataclass(frozen=True, slots=True)
class TransposedConvolution:
    """Transposed convolution: input i reaches output stride*i - before + dilation*[0, kernel)."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    extra: int = 0

    @property
    def reach(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def step(self) -> Fraction:
        return Fraction(1, self.stride)

    @property
    def shift(self) -> Fraction:
        return (Fraction(self.stride - self.reach, 2) + self.before) / self.stride

    def extent(self, length: int) -> int:
        return (length - 1) * self.stride - 2 * self.before + self.reach + self.extra

    def back(self, out: Span, first: int | None = None, last: int | None = None) -> Span:
        lo = -((self.reach - 1 - out.lo - self.before) // self.stride)
        hi = (out.hi - 1 + self.before) // self.stride + 1
        return Span(lo, max(hi, lo + 1)).clip(first, last)


@dataclass(frozen=True, slots=True)
class Upsample:
    """Upsampling by a whole factor; `radius` is 0 for nearest and pixel shuffle, 1 bilinear, 2 bicubic."""

    factor: int
    radius: int = 0

    @property
    def step(self) -> Fraction:
        return Fraction(1, self.factor)

    @property
    def shift(self) -> Fraction:
        return Fraction(0)

    def extent(self, length: int) -> int:
        return length * self.factor

    def back(self, out: Span, first: int | None = None, last: int | None = None) -> Span:
        if not self.radius:
            return Span(out.lo // self.factor, -(-out.hi // self.factor)).clip(first, last)
        # Where a sample falls on an input pixel, its neighbour may look further out than the outermost one.
        near_lo, near_hi = min(out.lo + 1, out.hi - 1), max(out.hi - 2, out.lo)
        low = min(self._taps(out.lo).lo, self._taps(near_lo).lo)
        high = max(self._taps(out.hi - 1).hi, self._taps(near_hi).hi)
        return Span(low, high).clip(first, last)

    def _taps(self, out: int) -> Span:
        source = Fraction(2 * out + 1, 2 * self.factor) - Fraction(1, 2)
        if source.denominator == 1:
            return Span(int(source), int(source) + 1)  # all weight on one pixel
        return Span(math.floor(source) - self.radius + 1, math.floor(source) + self.radius + 1)


@dataclass(frozen=True, slots=True)
class Downsample:
    """Downsampling by a whole factor: output o sees input factor*o + [first_tap, last_tap]."""

    factor: int
    first_tap: int
    last_tap: int

    @property
    def step(self) -> Fraction:
        return Fraction(self.factor)

    @property
    def shift(self) -> Fraction:
        return Fraction(0)

    def extent(self, length: int) -> int:
        return length // self.factor

    def back(self, out: Span, first: int | None = None, last: int | None = None) -> Span:
        taps = Span(self.factor * out.lo + self.first_tap, self.factor * (out.hi - 1) + self.last_tap + 1)
        return taps.clip(first, last)


@dataclass(frozen=True, slots=True)
class Border:
    """Padding by `before` and `after` pixels; negative amounts crop."""

    before: int
    after: int
    mode: Literal["constant", "reflect", "replicate"] = "constant"

    @property
    def step(self) -> Fraction:
        return Fraction(1)

    @property
    def shift(self) -> Fraction:
        return Fraction(-self.before)

    def extent(self, length: int) -> int:
        return length + self.before + self.after

    def back(self, out: Span, first: int | None = None, last: int | None = None) -> Span:
        taps = out.shift(-self.before)
        seen = taps.clip(first, last)
        if self.mode != "reflect":
            return seen
        # A mirrored pixel -k is pixel k; the mirror itself, the edge pixel, stays in so that torch can mirror.
        if first is not None and taps.lo < first:
            seen = seen.union(Span(first, first + (first - taps.lo) + 1))
        if last is not None and taps.hi > last:
            seen = seen.union(Span(last - (taps.hi - last) - 1, last))
        return seen
