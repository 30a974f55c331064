"""LZW streams as TIFF 6.0 (section 13) has them: whether every code is one that the table then holds.

The decoder takes a code that its table doesn't hold yet for an address, and dies of it.
"""

from __future__ import annotations

import numpy as np

from tiling.errors import SourceError

CLEAR, END, FIRST_FREE = 256, 257, 258
_WIDEST_BITS = 12
_RUN_CODES = 4096  # no run between two clears is longer: the table is full before


def _widths() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Bits of the n-th code after a clear: one more from the code on at which the table has one free entry left."""
    filled = FIRST_FREE - 1 + np.arange(_RUN_CODES)
    return np.select([filled < 511, filled < 1023, filled < 2047], [9, 10, 11], _WIDEST_BITS)


_WIDTHS = _widths()
_STARTS = np.concatenate([[0], np.cumsum(_WIDTHS)[:-1]])
_LIMITS = np.minimum(FIRST_FREE - 1 + np.arange(_RUN_CODES), 2**_WIDEST_BITS - 1)
_LIMITS[0] = CLEAR - 1


def check_lzw(data: bytes) -> None:
    """Refuse a stream that doesn't begin with a clear, or has a code that its table doesn't hold when it comes.

    Raises:
        SourceError: the stream is damaged.
    """
    if len(data) < 2 or data[0] != 0x80 or data[1] & 0x80:
        raise SourceError("its LZW stream doesn't begin with a clear of the table; write it again as TIFF 6.0 has it")
    bits = 8 * len(data)
    padded = np.frombuffer(data + b"\0\0\0", np.uint8)
    position = 9  # behind the clear that every stream begins with
    while position < bits:
        starts = position + _STARTS
        starts = starts[starts + _WIDTHS[: starts.size] <= bits]
        if not starts.size:
            return
        first = starts >> 3
        held = padded[first].astype(np.uint32) << 16 | padded[first + 1].astype(np.uint32) << 8 | padded[first + 2]
        widths = _WIDTHS[: starts.size]
        codes = held >> (24 - (starts & 7) - widths).astype(np.uint32) & ((1 << widths) - 1).astype(np.uint32)
        ends = np.flatnonzero((codes == CLEAR) | (codes == END))
        stop = int(ends[0]) if ends.size else codes.size
        wrong = np.flatnonzero(codes[:stop] > _LIMITS[:stop])
        if wrong.size:
            at = int(starts[wrong[0]])
            raise SourceError(f"its LZW stream names code {codes[wrong[0]]} at bit {at}, which is not in its table yet")
        if not ends.size or codes[stop] == END:
            return
        position = int(starts[stop] + widths[stop])
