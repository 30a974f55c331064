"""Model of a run: a network and the footprint that its graph has."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from flows.config.run import SegmentConfig
from flows.worker.model import local_bundle
from unet_core.bounds import Footprint, approximate_footprint, footprint
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.bundles.card import bundle_digest, read_card
from unet_core.inference.tta import tta_footprint

MODELS_KEPT = 4


@dataclass(frozen=True, slots=True)
class Model:
    """A network and what its graph says; the same for every image."""

    bundle: Bundle
    found: Footprint


_kept: OrderedDict[Hashable, Model] = OrderedDict()
_loading = threading.Lock()


def load_model(config: SegmentConfig) -> Model:
    """Load the bundle that was asked for, and walk its graph; once per process as long as its files stay the same."""
    with local_bundle(config.model) as folder, _loading:
        key = bundle_digest(folder), read_card(folder).model_dump_json(), config.approximate_halo_px, config.tta
        if key not in _kept:
            bundle = load_bundle(folder)
            _kept[key] = Model(bundle, find_footprint(bundle, config))
        _kept.move_to_end(key)
        while len(_kept) > MODELS_KEPT:
            _kept.popitem(last=False)
        return _kept[key]


def find_footprint(bundle: Bundle, config: SegmentConfig) -> Footprint:
    """The exact footprint, or the approximate one that the user gave leave for."""
    bands, halo_px = len(bundle.card.bands), config.approximate_halo_px
    found = footprint(bundle.module, bands) if halo_px is None else approximate_footprint(bundle.module, bands, halo_px)
    return tta_footprint(found, config.tta)
