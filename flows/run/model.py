"""Model of a run: a network and the footprint that its graph has."""

from __future__ import annotations

from dataclasses import dataclass

from flows.config.run import SegmentConfig
from flows.worker.model import local_bundle
from unet_core.bounds import Footprint, approximate_footprint, footprint
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.inference.tta import tta_footprint


@dataclass(frozen=True, slots=True)
class Model:
    """A network and what its graph says; the same for every image."""

    bundle: Bundle
    found: Footprint


def load_model(config: SegmentConfig) -> Model:
    """Load the bundle that was asked for, and walk its graph."""
    with local_bundle(config.model) as folder:
        bundle = load_bundle(folder)
    return Model(bundle, find_footprint(bundle, config))


def find_footprint(bundle: Bundle, config: SegmentConfig) -> Footprint:
    """The exact footprint, or the approximate one that the user gave leave for."""
    bands, halo_px = len(bundle.card.bands), config.approximate_halo_px
    found = footprint(bundle.module, bands) if halo_px is None else approximate_footprint(bundle.module, bands, halo_px)
    return tta_footprint(found, config.tta)
