"""Colours that everybody can tell apart, by the distance that is left in each kind of colour vision."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab

from flows.reporting import palette
from flows.reporting.palette import OKABE_ITO, STATE_COLORS
from unet_core.bundles.card import list_bundles

# G. Machado, M. Oliveira, L. Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# table 1, severity 1.0; of linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
APART = 10.0
"""In CIEDE2000; about 1 is just noticeable side by side."""


def seen(color: str, vision: NDArray[np.float64]) -> NDArray[np.float64]:
    """A colour as such an eye has it, in CIELAB."""
    rgb = np.array([int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    left = np.clip(vision @ linear, 0, 1)
    return np.asarray(rgb2lab(np.where(left <= 0.0031308, left * 12.92, 1.055 * left ** (1 / 2.4) - 0.055)))


@pytest.mark.parametrize("vision", [*VISION])
@pytest.mark.parametrize("colors", [OKABE_ITO, (*STATE_COLORS.values(),)], ids=["classes", "states"])
def test_every_two_stay_apart(vision: str, colors: Collection[str]) -> None:
    near = {
        (a, b): float(deltaE_ciede2000(seen(a, VISION[vision]), seen(b, VISION[vision])))
        for a, b in combinations(colors, 2)
    }
    assert min(near.values()) > APART, min(near.items(), key=lambda pair: pair[1])


def test_the_page_shows_the_states_that_the_report_shows() -> None:
    script = (Path(palette.__file__).parents[1] / "viewer" / "static" / "api.js").read_text()
    shown = dict(re.findall(r'key: "(\w+)", name: "[^"]+", color: "(#\w+)"', script))
    assert shown == {state.name.lower(): color for state, color in STATE_COLORS.items()}


def test_shipped_models_take_their_colours_from_it() -> None:
    for card in list_bundles():
        assert {item.color for item in card.classes[1:]} <= {*OKABE_ITO}, card.name
