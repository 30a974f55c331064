"""Real files: each reads as its oracle says, or is refused on one line, soon."""

from __future__ import annotations

import gzip
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from source_oracle import SECONDS, assert_reads_like, bands_of, whole_page

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.source import open_source

# What the standards call errors, and colours that would come out wrong.
REFUSED = {
    "slides/unopenable.tiff": "compression 52479 is not supported",
    "geo/rasterio/corrupt.tif": "cut off by the end of the file",
    "slides/unreadable.svs": "Bogus marker length",
    "malformed/libvips/issue412.jp2": "JPEG 2000 image with a palette",
    "malformed/pillow/hopper.Lab.tif": "cielab",
    "malformed/pillow/lab.tif": "cielab",
    "malformed/pillow/lab-green.tif": "cielab",
    "malformed/pillow/lab-red.tif": "cielab",
    "malformed/pillow/tiff_strip_cmyk_jpeg.tif": "cmyk",
    "malformed/pillow/tiff_strip_cmyk_16l_jpeg.tif": "cmyk",
    "malformed/pillow/tiff_tiled_cmyk_jpeg.tif": "cmyk",
}


def test_the_slide_reads_as_tifffile_reads_it(data_dir: Path) -> None:
    path = data_dir / "slides" / "CMU-1-Small-Region.svs"
    with open_source(path) as source:
        assert source.describe() == ("aperio-svs 2220 x 2967 px, red/green/blue uint8, 1 level, 0.499 x 0.499 um/px")
        assert source.levels[0].pixel_size == PixelSize(0.499, 0.499, "um")
        assert_reads_like(source, 0, tifffile.imread(path), boxes=12)


def test_every_file_of_the_collection_reads_like_its_oracle_or_is_refused(data_dir: Path) -> None:
    files = [p for kind in ("slides", "geo", "malformed") for p in sorted((data_dir / kind).rglob("*.*"))]
    images = [p for p in files if p.suffix.lower() in {".tif", ".tiff", ".svs", ".png", ".jp2", ".j2k"}]
    assert len(images) > 140
    for path in images:
        started = time.process_time()
        refusal = REFUSED.get(str(path.relative_to(data_dir)))
        if refusal is not None:
            with pytest.raises(SourceError, match=refusal):
                read_whole(path)
        else:
            compare(path)
        assert time.process_time() - started < SECONDS, path


def read_whole(path: Path) -> None:
    with open_source(path) as source:
        source.read(0, source.levels[0].box)


def compare(path: Path) -> None:
    if path.suffix in {".png", ".jp2", ".j2k"}:
        image = Image.open(path)
        expected: Any = np.asarray(image.convert("RGB") if image.mode == "P" else image)
        with open_source(path) as source:
            assert_reads_like(source, 0, np.atleast_3d(expected), boxes=2)
        return
    with open_source(path) as source, tifffile.TiffFile(path) as tif:
        if source.format == "ome-tiff":
            stack = tif.series[0].asarray()  # CYX or CZYX
            assert_reads_like(source, 0, np.moveaxis(stack if stack.ndim == 3 else stack[:, 0], 0, -1), boxes=2)
            return
        # Of pages of several sizes, the largest is the image.
        page = max(map(tif.pages.get, range(len(tif.pages))), key=lambda each: each.shape) if source.images else None
        assert_reads_like(source, 0, bands_of(page or tif.pages.first), boxes=2)


def test_a_packed_image_reads_like_the_unpacked_one(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    packed = next((data_dir / "geo" / "cogeotiff").glob("*.tif.gz"))
    path = tmp_path / packed.stem
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    with open_source(path) as source:
        assert source.describe().startswith("geotiff 9600 x 14400 px, red/green/blue uint8, 5 levels, 0.05 x 0.05 m/px")
        assert_reads_like(source, 4, whole_page(path, 4), boxes=3)
        with open_source(packed) as same:
            assert (same.describe(), same.georeference) == (source.describe(), source.georeference)
            assert_reads_like(same, 4, whole_page(path, 4), boxes=3)


def test_overviews_and_georeferences_of_real_maps(data_dir: Path) -> None:
    with open_source(data_dir / "geo" / "rio-tiler" / "cog.tif") as source:
        assert [(level.height, level.width) for level in source.levels][:3] == [(2667, 2658), (1334, 1329), (667, 665)]
        assert source.georeference is not None
        assert source.georeference.crs == "EPSG:32621"
        assert_reads_like(source, 2, whole_page(data_dir / "geo" / "rio-tiler" / "cog.tif", 2), boxes=2)
    with open_source(data_dir / "geo" / "rio-tiler" / "cog_rgb_mask.tif") as source:
        assert len(source.levels) == 1  # the mask is no level
    with open_source(data_dir / "geo" / "rasterio" / "float_nan.tif") as source:
        assert np.isnan(source.nodata or 0)
    with open_source(data_dir / "geo" / "rio-tiler" / "cog_gcps.tif") as source:
        assert source.georeference is not None
        assert source.georeference.affine is None
        assert len(source.georeference.tiepoints) > 100


def test_one_corrupt_tile_fails_alone(data_dir: Path) -> None:
    with open_source(data_dir / "geo" / "rasterio" / "corrupt.tif") as source:
        whole = open_source(data_dir / "geo" / "rasterio" / "cogeo.tif")
        for box in (Box(0, 0, 512, 1024), Box(512, 0, 1024, 512)):
            np.testing.assert_array_equal(source.read(0, box), whole.read(0, box))
        with pytest.raises(SourceError, match=r"level 0, box \[500:520, 500:520\]: segment 3 \[512:1024, 512:1024\]"):
            source.read(0, Box(500, 500, 520, 520))
