"""Mosaic of an archive's masks, written at a night's end beside its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine
from scenes import CRS, WHERE

from flows.nightly.page import write_mosaics
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.slide_ledger import SlideRecord, SlideState


def write_mask(path: Path, value: int, x: int = 0, crs: str = CRS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind: dict[str, Any] = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255}
    where = WHERE @ Affine.translation(x, 0)
    with rasterio.open(path, "w", width=20, height=10, crs=crs, transform=where, **kind) as file:
        file.write(np.full((1, 10, 20), value, np.uint8))
        file.write_colormap(1, {0: (0, 0, 0, 255)})


def test_the_masks_of_all_slides_lie_together_and_what_is_gone_goes(tmp_path: Path) -> None:
    card = ArchiveCard(created="now", model="m", model_digest="d", maths_version=1, asked={})
    archive = Archive.create_or_resume(tmp_path / "out", card)
    write_mosaics(archive)
    assert not list((tmp_path / "out").glob("*.vrt")), "an archive without maps has none"
    for name, state in (("b", SlideState.DONE), ("a", SlideState.DONE), ("c", SlideState.FAILED)):
        archive.ledger.append(SlideRecord(name, state, f"slides/{name}"))
    for number, name in enumerate("abc"):
        write_mask(tmp_path / "out" / "slides" / name / "exports" / "mask.tif", number + 1, 15 * number)
    write_mosaics(archive)
    with rasterio.open(tmp_path / "out" / "masks.vrt") as file:
        labels = file.read(1)
    assert labels.shape == (10, 35), "the failed slide is not in it"
    assert np.array_equal(labels[0], [1] * 20 + [2] * 15), "the first by name lies on top"
    write_mask(tmp_path / "out" / "slides" / "b" / "exports" / "mask.tif", 2, 15, "EPSG:32633")
    write_mosaics(archive)
    with rasterio.open(tmp_path / "out" / "masks-2.vrt") as file:
        assert file.crs == "EPSG:32633"
    write_mask(tmp_path / "out" / "slides" / "b" / "exports" / "mask.tif", 2, 15)
    write_mosaics(archive)
    assert [path.name for path in (tmp_path / "out").glob("*.vrt")] == ["masks.vrt"]
