"""Bounds inference: the footprint of a network and the minimal computation of a core, from its own graph."""

from __future__ import annotations

from unet_core.bounds.footprint import (
    Footprint,
    Halo,
    Reason,
    Reasons,
    Unbounded,
    approximate_footprint,
    footprint,
    footprint_of,
    unbounded_layers,
)
from unet_core.bounds.macs import Operations, operations
from unet_core.bounds.minimal import Edges, minimal
from unet_core.bounds.network import Network, inferred
from unet_core.bounds.strips import Strip, has_strips, minimal_strips

__all__ = [
    "Edges",
    "Footprint",
    "Halo",
    "Network",
    "Operations",
    "Reason",
    "Reasons",
    "Strip",
    "Unbounded",
    "approximate_footprint",
    "footprint",
    "footprint_of",
    "has_strips",
    "inferred",
    "minimal",
    "minimal_strips",
    "operations",
    "unbounded_layers",
]
