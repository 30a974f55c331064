"""A mosaic's mask as a file for each of its members: the labels of the whole, on the part that each fills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from scene_network import PIXELS, asked_of, two_layers
from scenes import CRS, WHERE, cut, write_raster
from torch import nn

from flows.api.segment_image import segment_image
from flows.config.export import ExportConfig
from flows.run.exports import export_here
from tiling.errors import ExportError

ASKED: dict[str, Any] = asked_of("cell") | {"export": "none"}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return two_layers(6, 2, seed=3)


def test_each_file_of_a_mosaic_has_the_masks_pixels_at_its_own_place(network: nn.Module, tmp_path: Path) -> None:
    files = cut(tmp_path / "parts", PIXELS, nodata=0)
    result = segment_image(tmp_path / "parts", tmp_path / "run", model=network, **ASKED)
    asked = ExportConfig(run=result.path, formats="none", split=tmp_path / "new" / "masks")
    written = export_here(asked)
    assert [path.name for path in written] == ["mask.tif", *(f"{file.stem}.tif" for file in files)]
    labels = result.labels.compute()
    for path, file in zip(written[1:], files, strict=True):
        with rasterio.open(str(path)) as part, rasterio.open(file) as member, rasterio.open(str(written[0])) as mask:
            assert (part.crs, part.transform, part.shape) == (member.crs, member.transform, member.shape)
            x, y = (round(at) for at in ~WHERE @ (member.transform.c, member.transform.f))
            assert np.array_equal(part.read(1), labels[y : y + part.height, x : x + part.width])
            assert (part.nodata, part.colormap(1), part.tags()["CLASS_1"]) == (255, mask.colormap(1), "cell")
            assert part.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert [path.name for path in export_here(asked)] == [file.name for file in files], "mask.tif stands"


def test_files_of_other_pixels_and_of_one_name_have_a_part_each(network: nn.Module, tmp_path: Path) -> None:
    fine = write_raster(tmp_path / "a" / "scene.tif", PIXELS[:, :100], nodata=0)
    beside = WHERE @ Affine.translation(100, 3) @ Affine.scale(2)
    coarse = write_raster(tmp_path / "b" / "scene.tif", PIXELS[:80:2, 100:180:2], nodata=0, transform=beside, crs=CRS)
    result = segment_image(tmp_path / "{a,b}/scene.tif", tmp_path / "run", model=network, **ASKED)
    _, *written = export_here(ExportConfig(run=result.path, formats="none", split=tmp_path / "masks"))
    assert [path.name for path in written] == ["scene.tif", "scene-2.tif"]
    labels = result.labels.compute()
    for path, file, at in zip(written, (fine, coarse), ((0, 0), (3, 100)), strict=True):
        with rasterio.open(str(path)) as part, rasterio.open(file) as member:
            assert part.bounds == member.bounds
            assert np.array_equal(part.read(1), labels[at[0] : at[0] + part.height, at[1] : at[1] + part.width])


def test_what_has_no_parts_is_refused_and_nothing_is_written(network: nn.Module, tmp_path: Path) -> None:
    one = write_raster(tmp_path / "one.tif", PIXELS, nodata=0)
    for band, name in enumerate(("red", "green", "blue")):
        write_raster(tmp_path / f"{name}.tif", PIXELS[..., band : band + 1], nodata=0)
    bands = tmp_path / "red=red.tif,green=green.tif,blue=blue.tif"
    for number, (image, said) in enumerate(((one, "this image is one file"), (bands, "all files of this scene fill"))):
        result = segment_image(image, tmp_path / f"run{number}", model=network, **ASKED)
        with pytest.raises(ExportError, match=f"{said}.*: leave out --split"):
            export_here(ExportConfig(run=result.path, split=tmp_path / "masks"))
        assert not (tmp_path / f"run{number}" / "exports" / "mask.tif").exists()
    assert not (tmp_path / "masks").exists()
