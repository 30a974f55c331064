"""A level is what the format says is one: never by shape alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import tifffile
import zarr
from source_oracle import assert_reads_like, picture

from tiling.errors import SourceError
from tiling.source import open_source

Pixels = npt.NDArray[Any]
TILED: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb"}


def sizes(path: Path, **_: object) -> list[tuple[int, int]]:
    with open_source(path) as source:
        return [(level.height, level.width) for level in source.levels]


@pytest.mark.parametrize("name", ["j03_square_scenes.ome.tif", "a10c_two_scenes.ome.tif"])
def test_scenes_of_an_ome_tiff_are_no_levels_of_each_other(cases_dir: Path, name: str) -> None:
    with open_source(cases_dir / name) as source:
        assert len(source.levels) == 1
        assert source.series == 0
        assert [image.name for image in source.images][:2] == ["scene 1", "scene 2"]
        assert_reads_like(source, 0, tifffile.imread(cases_dir / name, series=0))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_scenes_that_halve_each_other_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    scenes = [picture(3, height=256 >> each, width=256 >> each) + np.uint8(each) for each in range(3)]
    path = tmp_path / "scenes.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for each in order:
            writer.write(scenes[each], metadata={"axes": "YXS", "Name": f"scene {each}"}, **TILED)
    with open_source(path) as source:
        assert len(source.levels) == 1
        assert source.images[source.series].name == "scene 0"
        assert_reads_like(source, 0, scenes[0])


def test_subifds_of_each_ome_image_are_its_own_levels(tmp_path: Path) -> None:
    scenes = [picture(3, height=128, width=192), picture(3, height=256, width=320)]
    path = tmp_path / "scenes.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for scene in scenes:
            writer.write(scene, subifds=1, metadata={"axes": "YXS"}, **TILED)
            writer.write(scene[::2, ::2], subfiletype=1, **TILED)
    with open_source(path) as source:
        assert source.series == 1
        assert_reads_like(source, 1, scenes[1][::2, ::2])


@pytest.mark.parametrize("georeferenced", [False, True])
def test_pages_without_the_flag_are_images_and_with_it_levels(tmp_path: Path, georeferenced: bool) -> None:
    pixels = picture(3, height=256, width=384)
    scale: Any = (33550, "d", 3, (2.0, 2.0, 0.0), True)
    ties: Any = (33922, "d", 6, (0.0, 0.0, 0.0, 5000.0, 9000.0, 0.0), True)
    keys: Any = (34735, "H", 8, (1, 1, 0, 1, 3072, 0, 1, 32631), True)
    extra: dict[str, Any] = {"extratags": [scale, ties, keys]} if georeferenced else {}
    for flagged in (False, True):
        path = tmp_path / f"{flagged}.tif"
        with tifffile.TiffWriter(path) as writer:
            writer.write(pixels, metadata=None, **TILED, **extra)
            writer.write(pixels[::2, ::2], subfiletype=int(flagged), metadata=None, **TILED)
            writer.write(pixels[::4, ::4], subfiletype=int(flagged), metadata=None, **TILED)
        expected = [(256, 384), (128, 192), (64, 96)] if flagged else [(256, 384)]
        assert sizes(path) == expected
        with open_source(path) as source:
            assert len(source.images) == (0 if flagged else 3)
            assert source.format == ("geotiff" if georeferenced else "tiff")


def test_levels_belong_to_the_full_page_before_them(tmp_path: Path) -> None:
    """The larger image comes second, and what comes before it is not its pyramid."""
    small, large = picture(3, height=128, width=128), picture(3, height=256, width=256)
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(small, metadata=None, **TILED)
        writer.write(small[::2, ::2], subfiletype=1, metadata=None, **TILED)
        writer.write(large, metadata=None, **TILED)
        writer.write(large[::4, ::4], subfiletype=1, metadata=None, **TILED)
    with open_source(path) as source:
        assert sizes(path) == [(256, 256), (64, 64)]
        assert_reads_like(source, 1, large[::4, ::4])


@pytest.mark.parametrize("flag", [0, 1])
def test_subifds_of_a_plain_tiff_are_levels_where_they_say_so(tmp_path: Path, flag: int) -> None:
    pixels = picture(3, height=256, width=256)
    path = tmp_path / "subifd.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, subifds=1, metadata=None, **TILED)
        writer.write(pixels[::2, ::2], subfiletype=flag, metadata=None, **TILED)
    assert len(sizes(path)) == 1 + flag


def test_an_aperio_label_of_the_slides_proportions_is_no_level(tmp_path: Path) -> None:
    pixels = picture(3, height=512, width=512)
    path = tmp_path / "slide.svs"
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, description="Aperio Image Library v11\n512x512 |MPP = 0.5", metadata=None, **TILED)
        writer.write(pixels[::2, ::2], description="Aperio\n512x512 -> 256x256", metadata=None, **TILED)
        writer.write(pixels[:128, :128], description="Aperio\nlabel 128x128", metadata=None, **TILED)
        writer.write(pixels[:64, :64], description="Aperio\nmacro 64x64", subfiletype=9, metadata=None, **TILED)
    assert sizes(path) == [(512, 512), (256, 256)]


def test_a_thumbnail_before_the_raw_photograph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "raw.dng"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture(3, height=64, width=64), subfiletype=1, subifds=1, photometric="rgb", metadata=None)
        writer.write(picture(3, height=256, width=256), subfiletype=0, photometric="rgb", metadata=None)
    with pytest.raises(SourceError, match="the full one lies in a SubIFD"):
        open_source(path)


def test_gdals_overviews_are_levels(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    with rasterio.open(path, "w", driver="GTiff", width=512, height=384, count=1, dtype="uint8", tiled=True) as file:
        file.write(picture(1, height=384, width=512)[np.newaxis])
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert sizes(path) == [(384, 512), (192, 256), (96, 128)]


def ome_zarr(path: Path, shapes: list[int], scales: list[float]) -> Path:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    axes = [{"name": "y", "type": "space", "unit": "micrometer"}, {"name": "x", "type": "space", "unit": "micrometer"}]
    datasets: list[dict[str, Any]] = []
    for index, (side, scale) in enumerate(zip(shapes, scales, strict=True)):
        array = group.create_array(str(index), shape=(side, side), chunks=(32, 32), dtype="uint8")
        array[:] = np.full((side, side), side % 250 + 1, np.uint8)
        transform = [{"type": "scale", "scale": [scale, scale]}]
        datasets.append({"path": str(index), "coordinateTransformations": transform})
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return path


def test_the_finest_level_of_an_ome_zarr_is_the_first_wherever_it_stands(cases_dir: Path) -> None:
    with open_source(cases_dir / "c04_order.ome.zarr") as source:
        assert [(level.height, level.width) for level in source.levels] == [(150, 200), (75, 100)]
        size = source.levels[0].pixel_size
        assert size is not None
        assert (size.y, size.x) == (0.5, 0.5)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_levels_of_an_ome_zarr_are_sorted(tmp_path: Path, order: tuple[int, ...]) -> None:
    shapes, scales = [128, 64, 32], [0.25, 0.5, 1.0]
    path = ome_zarr(tmp_path / "z.ome.zarr", [shapes[each] for each in order], [scales[each] for each in order])
    with open_source(path) as source:
        assert [level.height for level in source.levels] == shapes
        size = source.levels[0].pixel_size
        assert size is not None
        assert size.x == 0.25
        assert (source.read(1, source.levels[1].box) == 65).all()


def test_scales_that_contradict_the_arrays_are_refused(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "z.ome.zarr", [64, 128], [0.25, 0.5])
    with pytest.raises(SourceError, match="level '1' has more pixels than '0', and larger ones"):
        open_source(path)
    assert json.loads((path / ".zattrs").read_text())
