"""Layout of an operator over part of its input along one axis: what it reads, how it pads, what comes out.

PyTorch's operators pad both sides alike. Where the image ends on one side only, the other side gets padding
too, and what that spoils lies outside the needed span.
"""

from __future__ import annotations

from dataclasses import dataclass

from unet_core.bounds.axis import Span, TransposedConvolution, Window
from unet_core.bounds.network import Bounds

# A surplus of a few pixels costs less to compute than to cut off: the next convolution would copy the cut.
_SURPLUS_SHARE = 8


@dataclass(frozen=True, slots=True)
class Laid:
    """`read` of the input, filled up with `front` and `back` pixels, gives `out`.

    `pad` is the operator's own padding; `extra` the output padding of a transposed convolution.
    """

    read: Span
    out: Span
    front: int = 0
    back: int = 0
    pad: int = 0
    extra: int = 0


def is_nearly(have: Span, need: Span) -> bool:
    """True if computing on all of `have` is better than cutting it to `need`."""
    return _SURPLUS_SHARE * (len(have) - len(need)) <= len(need)


def lay_window(
    window: Window, need: Span, have: Span, bounds: Bounds, *, most_pad: int | None = None, can_fill: bool = True
) -> Laid:
    """Lay a convolution or pooling so that it gives at least `need` from `have`.

    `most_pad` limits the operator's own padding; without `can_fill` pixels that a needed output sees outside
    the image must be the operator's own padding.
    """
    layouts: list[Laid] = []
    low, high = _outside(window.taps(need), bounds)
    for pad in {0, low, high, window.before}:
        if most_pad is None or pad <= most_pad:
            laid = _laid(window, need, have, pad, low, high)
            if can_fill or not ((low and laid.front) or (high and laid.back)):
                layouts.append(laid)
    return min(layouts, key=lambda laid: (laid.front + laid.back > 0, laid.read != have, len(laid.out)))


def _outside(taps: Span, bounds: Bounds) -> tuple[int, int]:
    """Number of pixels of `taps` outside the image at its low and its high edge."""
    first, last = bounds
    return (
        max(0, first - taps.lo) if first is not None else 0,
        max(0, taps.hi - last) if last is not None else 0,
    )


def _laid(window: Window, need: Span, have: Span, pad: int, low: int, high: int) -> Laid:
    """The layout with `pad` pixels of padding by the operator itself on both sides."""
    taps = window.taps(need)
    if low:
        read_lo = taps.lo + low
        start = _aligned(read_lo - max(low, pad), window)
    else:
        # Padding inside the image must end before the first pixel that is seen.
        start, carried = _aligned(taps.lo - pad, window), have.lo - pad
        if carried <= start and carried == _aligned(carried, window) and is_nearly(have, taps):
            start = carried
        read_lo = max(start + pad, have.lo)
    front = read_lo - (start + pad)
    if high:
        read_hi, back = taps.hi - high, max(0, high - pad)
    else:
        read_hi, back = have.hi if is_nearly(have, taps) else taps.hi, 0
    first = (start + window.before) // window.stride
    count = (read_hi + back + pad - start - window.reach) // window.stride + 1
    return Laid(Span(read_lo, read_hi), Span(first, first + count), front, back, pad)


def _aligned(start: int, window: Window) -> int:
    """The nearest place at or before `start` where one of the window's positions starts."""
    return start - (start + window.before) % window.stride


def lay_transposed(spread: TransposedConvolution, need: Span, read: Span) -> Laid:
    """Lay a transposed convolution so that it gives at least `need` from `read`."""
    stride = spread.stride
    start = stride * read.lo - spread.before
    front = max(0, -(-(start - need.lo) // stride))
    start -= front * stride
    end = stride * (read.hi - 1) - spread.before + spread.reach
    missing = max(0, need.hi - end)
    back, extra = divmod(missing, stride)
    end += back * stride
    pad = 0 if missing else min(need.lo - start, end - need.hi)
    return Laid(read, Span(start + pad, end + extra - pad), front, back, pad, extra)
