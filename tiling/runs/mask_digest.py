"""Digest of what a run's mask holds, by the ledger: it says which mask a picture, an export or objects show."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from tiling.runs.ledger import LedgerState

if TYPE_CHECKING:
    from tiling.runs.run import Run


def mask_digest(run: Run, state: LedgerState | None = None) -> str:
    """Of what every tile holds, as the ledger knows it: the same mask and probabilities have the same digest.

    A damaged tile counts as what it was: what shows it as it was is right once it is repaired. A state that was folded
    without what is held, or None, is folded anew.
    """
    known = None if state is None else state.held
    if known is None:
        known = run.ledger.fold(held=True).held
    assert known is not None
    held, kept = np.ascontiguousarray(known[:, :17]), np.ascontiguousarray(known[:, 17:])
    more = kept.tobytes() if kept.any() else b""  # a run without them keeps the digest that it had
    return hashlib.blake2b(held.tobytes() + more, digest_size=16).hexdigest()
