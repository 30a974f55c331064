"""Pictures hold the pixels that they were given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tiling.export.overlay import TINT, outline, tint
from tiling.sources.downsample import display_range, to_display
from tiling.storage.picture import write_png


@pytest.mark.parametrize(("mode", "bands"), [("L", ()), ("RGB", (3,)), ("RGBA", (4,))])
@pytest.mark.parametrize("shape", [(1, 1), (37, 200), (301, 2)])
def test_a_png_holds_the_pixels_of_the_picture(
    tmp_path: Path, shape: tuple[int, int], mode: str, bands: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, *bands)).astype(np.uint8)
    pixels[: shape[0] // 2] = 9
    write_png(tmp_path / "picture.png", Image.fromarray(pixels))
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.mode == mode
        np.testing.assert_array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize("color", ["#d55e00", "#000000", "#ffffff"])
def test_a_class_is_tinted_and_outlined_as_the_mean_of_its_colour_and_the_image(color: str) -> None:
    picture = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=-1)
    covered = np.random.default_rng(2).random((16, 16)) < 0.6
    rgb = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)], np.float32)
    expected = picture.copy()
    expected[covered] = (expected[covered] * (1 - TINT) + rgb * TINT).astype(np.uint8)
    expected[outline(covered)] = rgb.astype(np.uint8)
    tinted = Image.fromarray(picture)
    tint(tinted, covered, color)
    np.testing.assert_array_equal(np.asarray(tinted), expected)


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ((0, 255), (0, 255)),
        ((3, 1.5), (0, 255)),
        ((np.nan, 200), (0, 255)),
        ((np.nan, np.nan), (0, 255)),
        ((0, 1), (0.01, 0.99)),
        ((-10, 90), (-9, 89)),
        ((0, 1000), (10, 990)),
        ((np.inf, 200), (0, 255)),
    ],
)
def test_means_of_eight_bits_are_shown_as_they_are_and_others_stretched(
    values: tuple[float, float], limits: tuple[float, float]
) -> None:
    known = np.linspace(*values, 101) if np.isfinite(values).all() else np.array(values)
    means = known.astype(np.float32)[:, np.newaxis, np.newaxis]
    assert display_range(means) == pytest.approx(limits, abs=1e-4)
    low, high = display_range(means)
    with np.errstate(invalid="ignore"):
        share = np.clip((np.where(np.isnan(means), low, means) - low) / (high - low), 0, 1)
    np.testing.assert_array_equal(to_display(means), np.repeat((share * 255).round().astype(np.uint8), 3, axis=-1))
