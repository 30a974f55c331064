"""Masks of many runs as one VRT: equal to the COGs where they lie, the first on top, gaps not drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from scenes import CRS, WHERE

from tiling.export.mosaic import mosaics

COLORS = {0: (0, 0, 0, 255), 1: (230, 159, 0, 255), 2: (86, 180, 233, 255)}


def write_mask(path: Path, labels: NDArray[np.uint8], corner: tuple[float, float], **more: Any) -> Path:
    """A mask as a run's COG holds it, its first pixel at `(y, x)` of the grid."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place: dict[str, Any] = {"crs": CRS, "transform": WHERE @ Affine.translation(corner[1], corner[0])} | more
    height, width = labels.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8", nodata=255, **place
    ) as file:
        file.write(labels, 1)
        file.write_colormap(1, COLORS)
        file.update_tags(CLASS_0="background", CLASS_1="field", CLASS_2="water & <ice>")
    return path


def labels(seed: int, shape: tuple[int, int] = (50, 60)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), shape)


def test_masks_are_drawn_where_they_lie(tmp_path: Path) -> None:
    found = [labels(seed) for seed in range(3)]
    corners = [(0, 0), (30, 40), (-20, 110)]
    masks = [
        write_mask(tmp_path / "slides" / f"a & {number}" / "mask.tif", each, corner)
        for number, (each, corner) in enumerate(zip(found, corners, strict=True))
    ]
    (vrt,) = mosaics(tmp_path, masks)
    (tmp_path / "masks.vrt").write_bytes(vrt)
    expected = np.full((100, 170), 255, np.uint8)
    for each, (y, x) in reversed(list(zip(found, corners, strict=True))):
        part = expected[y + 20 : y + 70, x : x + 60]
        part[each != 255] = each[each != 255]
    with rasterio.open(tmp_path / "masks.vrt") as file:
        assert (file.crs, file.transform) == (CRS, WHERE @ Affine.translation(0, -20))
        assert np.array_equal(file.read(1), expected)
        assert file.nodata == 255
        assert file.colorinterp == (ColorInterp.palette,)
        assert [file.colormap(1)[label] for label in COLORS] == list(COLORS.values())
    assert [each.text for each in ET.fromstring(vrt).iter("Category")] == ["background", "field", "water & <ice>"]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "slides").rename(tmp_path / "elsewhere" / "slides")
    (tmp_path / "masks.vrt").rename(tmp_path / "elsewhere" / "masks.vrt")
    with rasterio.open(tmp_path / "elsewhere" / "masks.vrt") as file:
        assert np.array_equal(file.read(1), expected), "the archive may move"


def test_each_grid_has_a_vrt_of_its_own(tmp_path: Path) -> None:
    one = labels(1)
    masks = [
        write_mask(tmp_path / "other.tif", one, (0, 0), crs="EPSG:32633"),
        write_mask(tmp_path / "a.tif", one, (0, 0)),
        write_mask(tmp_path / "half.tif", one, (0.5, 0)),
        write_mask(tmp_path / "b.tif", one, (0, 60)),
        write_mask(tmp_path / "coarse.tif", one, (0, 0), transform=WHERE @ Affine.scale(2)),
    ]
    first, *others = mosaics(tmp_path, masks)
    assert [each.text for each in ET.fromstring(first).iter("SourceFilename")] == ["b.tif", "a.tif"]
    assert [ET.fromstring(each).findtext(".//SourceFilename") for each in others] == [
        *("other.tif", "half.tif", "coarse.tif")
    ]


def test_a_rotated_grid_is_one_too(tmp_path: Path) -> None:
    turned = WHERE @ Affine.rotation(30)
    found = [labels(1), labels(2)]
    masks = [
        write_mask(tmp_path / f"{number}.tif", each, (0, 0), transform=turned @ Affine.translation(60 * number, 0))
        for number, each in enumerate(found)
    ]
    (vrt,) = mosaics(tmp_path, masks)
    (tmp_path / "masks.vrt").write_bytes(vrt)
    with rasterio.open(tmp_path / "masks.vrt") as file:
        assert file.transform.almost_equals(turned)
        assert np.array_equal(file.read(1), np.concatenate(found, axis=1))


def test_what_cannot_be_read_or_lies_nowhere_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"II*\0no")
    nowhere = write_mask(tmp_path / "nowhere.tif", labels(1), (0, 0), crs=None, transform=Affine.identity())
    good = write_mask(tmp_path / "good.tif", labels(1), (0, 0))
    (vrt,) = mosaics(tmp_path, [tmp_path / "bad.tif", nowhere, good, tmp_path / "gone.tif"])
    assert [each.text for each in ET.fromstring(vrt).iter("SourceFilename")] == ["good.tif"]
    assert mosaics(tmp_path, []) == []


@pytest.mark.parametrize("far", [2.0**31, 1e15, -(2.0**30)])
def test_a_mask_that_lies_too_far_for_one_raster_has_one_of_its_own(tmp_path: Path, far: float) -> None:
    near = [write_mask(tmp_path / f"near{number}.tif", labels(number), (0, 60 * number)) for number in range(2)]
    odd = write_mask(tmp_path / "far.tif", labels(2), (0, far))
    found = mosaics(tmp_path, [odd, *near])
    assert [vrt.count(b"SourceFilename") // 2 for vrt in found] == [2, 1]
    for vrt in found:
        (tmp_path / "masks.vrt").write_bytes(vrt)
        with rasterio.open(tmp_path / "masks.vrt") as file:
            assert (file.read(1) != 255).any()


@pytest.mark.parametrize("transform", [Affine(math.nan, 0, 0, 0, -1, 0), Affine(1, 0, math.inf, 0, -1, 0)])
def test_a_mask_that_lies_nowhere_is_left_out(tmp_path: Path, transform: Affine) -> None:
    near, odd = write_mask(tmp_path / "near.tif", labels(0), (0, 0)), tmp_path / "odd.tif"
    write_mask(odd, labels(1), (0, 0), transform=transform)
    for masks in ([odd, near], [near, odd]):
        (vrt,) = mosaics(tmp_path, masks)
        assert b"odd.tif" not in vrt


def test_text_that_xml_has_no_place_for_keeps_no_vrt_from_being_read(tmp_path: Path) -> None:
    mask = write_mask(tmp_path / "mask.tif", labels(0), (0, 0))
    with rasterio.open(mask, "r+") as file:
        file.update_tags(CLASS_1="field\ufffe")
    odd = write_mask(tmp_path / "a\x1b\x07.tif", labels(1), (0, 60))
    (vrt,) = mosaics(tmp_path, [mask, odd])
    assert [each.text for each in ET.fromstring(vrt).iter("SourceFilename")] == ["mask.tif"]
