"""Names and sentences of the networks, without loading them."""

from __future__ import annotations

import inspect

from unet_core.bundles.networks import network_summaries
from unet_core.models import MODELS


def test_summaries_are_those_of_the_registered_classes() -> None:
    found = network_summaries()
    assert list(found) == list(MODELS)
    for name, network in MODELS.items():
        assert found[name] == " ".join((inspect.getdoc(network) or "").partition("\n\n")[0].split())
        assert found[name].endswith("."), name
