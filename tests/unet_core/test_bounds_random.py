"""Networks drawn at random: the footprint is what gradients reach, and every tile equals the whole-image pass."""

from __future__ import annotations

import copy

from hypothesis import HealthCheck, given, settings
from random_networks import BANDS, same_padded, unpadded
from tiled import Tiled, halo_by_gradient, unlike_fresh
from torch import nn

QUICK = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    derandomize=True,
    database=None,
)


def check(drawn: nn.Module) -> None:
    # A drawn layer may be one object of the strategy, shared between examples.
    tiled = Tiled(unlike_fresh(copy.deepcopy(drawn)), BANDS)
    assert tiled.worst_at_all_edges() < 1e-9
    assert halo_by_gradient(tiled.module, BANDS, tiled.footprint) == tiled.footprint.halo


@settings(QUICK, max_examples=25)
@given(same_padded())
def test_padded_networks(drawn: nn.Module) -> None:
    check(drawn)


@settings(QUICK, max_examples=12)
@given(unpadded())
def test_networks_that_pad_nothing(drawn: nn.Module) -> None:
    check(drawn)
