"""Labels are the same for any core, whatever type the pixels have and wherever they hold no data."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tifffile
from finished import labels_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from segmented import segmented
from small_bundles import bundle_of

from unet_core.bundles.bundle import save_bundle
from unet_core.models.unet import UNet

DTYPES = {"uint8": (0, 255), "uint16": (0, 65535), "int16": (-32768, -9999), "float32": (-9999.0, -3.4028235e38)}
CORES = (64, 128, 256, 512, 1024)


def model(folder: Path) -> Path:
    """A network of stride 4, whose halo is a quarter of a core of 64."""
    bundle = bundle_of(UNet(3, 3, first_channels=2, depth=2), 3)
    shape = {"bands": 3, "classes": 3, "first_channels": 2, "depth": 2}
    card = bundle.card.model_copy(update={"parameters": shape})
    save_bundle(folder, card, bundle.module)
    return folder


def random_mask(random: np.random.Generator, height: int, width: int) -> NDArray[np.bool_]:
    """Where there is data: holes of single pixels, rectangles, half planes."""
    held = random.random((height, width)) > random.choice([0.0, 0.001, 0.05])
    for _ in range(random.integers(0, 4)):
        y, x = random.integers(0, height), random.integers(0, width)
        held[y : y + random.integers(1, height), x : x + random.integers(1, width)] = False
    rows, cols = np.mgrid[:height, :width]
    slope = random.normal(size=2)
    return held & (slope[0] * (rows - height / 2) + slope[1] * (cols - width / 2) > -random.integers(0, height))


def write(
    path: Path, random: np.random.Generator, dtype: str, held: NDArray[np.bool_], garbage: Any, kind: str
) -> Path:
    blocks = random.integers(1, 180, (-(-held.shape[0] // 8), -(-held.shape[1] // 8), 3))
    coarse = np.repeat(np.repeat(blocks, 8, 0), 8, 1)[: held.shape[0], : held.shape[1]]
    pixels = (coarse + random.integers(0, 70, (*held.shape, 3))).astype(dtype)
    shown = np.where(held[..., None], pixels, np.asarray(garbage, dtype))
    more: dict[str, Any] = {}
    tags = [(42113, "s", 0, f"{garbage}", True)] if kind == "value" else []
    if kind == "alpha":
        alpha = np.where(held, np.iinfo(dtype).max, 0).astype(dtype)
        shown, more = np.concatenate([shown, alpha[..., None]], -1), {"extrasamples": ["unassalpha"]}
    tifffile.imwrite(path, shown, photometric="rgb", metadata=None, extratags=tags, tile=(64, 64), **more)
    return path


ASKED: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 2**32 - 1),
    "dtype": st.sampled_from([*DTYPES]),
    "cores": st.lists(st.sampled_from(CORES), min_size=2, max_size=2, unique=True),
    "first": st.booleans(),
    "alpha": st.booleans(),
}
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(**ASKED)
def test_labels_are_the_same_for_any_core(seed: int, dtype: str, cores: list[int], first: bool, alpha: bool) -> None:
    expect_same(seed, dtype, cores, 130, first=first, alpha=alpha)


@pytest.mark.soak
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(**ASKED)
def test_labels_of_larger_images_are(seed: int, dtype: str, cores: list[int], first: bool, alpha: bool) -> None:
    expect_same(seed, dtype, cores, 400, first=first, alpha=alpha)


def expect_same(seed: int, dtype: str, cores: list[int], most_px: int, *, first: bool, alpha: bool) -> None:
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(70, most_px, 2))
    held = random_mask(random, height, width)
    garbage = DTYPES[dtype][0 if first else 1]
    kind = "alpha" if alpha and dtype.startswith("u") else "value"
    stretch = {} if dtype == "uint8" else {"normalise": "0,255"}
    with TemporaryDirectory() as name:
        folder = Path(name)
        image, bundle = write(folder / "image.tif", random, dtype, held, garbage, kind), model(folder / "model")
        found = [labels_of(segmented(image, folder / str(core), bundle, core, **stretch)) for core in cores]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0] == 255, ~held)
