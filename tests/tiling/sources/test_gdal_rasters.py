"""Rasters that GDAL alone reads: equal to its arrays and place, and contained in a process that may end at any time."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio
from killed_reader import kill_while_it_reads
from numpy.typing import NDArray
from rasterio.shutil import copy as copy_raster
from scenes import CRS, WHERE, scene_pixels
from scipy.io import netcdf_file

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import ImageSource, open_source
from tiling.sources.gdal import process
from tiling.sources.gdal.netcdf_length import netcdf_length
from tiling.sources.gdal.reader import GdalReader
from tiling.sources.shared import SharedReader
from tiling.view import View

PIXELS = scene_pixels(180, 210, 2)


def write(path: Path, driver: str, pixels: NDArray[Any] = PIXELS, **more: Any) -> Path:
    height, width, bands = pixels.shape
    place: dict[str, Any] = {"crs": CRS, "transform": WHERE, "dtype": pixels.dtype, **more}
    with rasterio.open(path, "w", driver=driver, height=height, width=width, count=bands, **place) as file:
        file.write(np.moveaxis(pixels, 2, 0))
    return path


def copy(path: Path, driver: str, pixels: NDArray[Any], **more: Any) -> Path:
    """A file of a format that GDAL writes from another alone."""
    other = write(path.with_name("other.tif"), "GTiff", pixels)
    with rasterio.open(other) as file:
        copy_raster(file, path, driver=driver, **more)
    other.unlink()
    return path


def whole(source: ImageSource, level: int = 0) -> NDArray[Any]:
    return source.read(level, source.levels[level].box)


def child_of(source: ImageSource) -> process.GdalProcess:
    """The process that reads for an open image."""
    shared = source._reader  # pyright: ignore[reportPrivateUsage]
    assert isinstance(shared, SharedReader)
    assert isinstance(shared.file, GdalReader)
    assert shared.file.process is not None
    return shared.file.process


@pytest.fixture(scope="module")
def erdas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("erdas") / "scene.img"
    write(path, "HFA", nodata=7)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    return path


def test_an_erdas_image_is_its_array_and_place(erdas: Path) -> None:
    with open_source(erdas) as source, rasterio.open(erdas) as file:
        assert (source.format, source.bands, source.nodata) == ("erdas", ("1", "2"), 7)
        assert np.array_equal(whole(source), PIXELS)
        place = source.georeference
        assert place is not None
        assert (place.crs, place.affine) == (CRS, tuple(file.transform)[:6])
        assert [level.box.shape for level in source.levels] == [(180, 210), (90, 105), (45, 53)]
        with rasterio.open(erdas, overview_level=1) as smaller:
            assert np.array_equal(whole(source, 2), np.moveaxis(smaller.read(), 0, 2))
        part = Box(20, 30, 25, 32)
        assert np.array_equal(source.viewed(View(bands=(1,))).read(0, part), PIXELS[20:25, 30:32, 1:])
        again: ImageSource = pickle.loads(pickle.dumps(source))
        assert again.fingerprint() == source.fingerprint()
        with again:
            assert np.array_equal(again.read(0, part), PIXELS[20:25, 30:32])


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.bil", lambda path: write(path, "EHdr", PIXELS[..., :1])),
        ("a.dat", lambda path: write(path, "ENVI", PIXELS.astype(np.float32), nodata=-1)),
        ("a.asc", lambda path: copy(path, "AAIGrid", PIXELS[..., :1].astype(np.int32))),
        ("a.bmp", lambda path: write(path, "BMP", scene_pixels(40, 50, 3, "uint8"))),
        ("a.nc", lambda path: copy(path, "netCDF", PIXELS[..., :1].astype(np.float32))),
        ("a.h5", lambda path: copy(path.with_suffix(".nc"), "netCDF", PIXELS[..., :1], format="NC4").rename(path)),
        ("b.bmp", lambda path: write(path, "BMP", scene_pixels(40, 50, 3, "uint8"), crs=None, transform=None)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_formats_are_what_gdal_reads(name: str, make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path / name)
    driver = "netCDF" if name == "a.h5" else None  # GDAL's own driver of HDF5 reads no place
    with open_source(path) as source, rasterio.open(path, driver=driver) as file:
        assert np.array_equal(whole(source), np.moveaxis(file.read(), 0, 2))
        assert source.dtype == file.dtypes[0]
        if file.crs:
            place = source.georeference
            assert place is not None
            assert place.wkt is not None
            assert rasterio.CRS.from_wkt(place.wkt) == file.crs
            assert place.affine == tuple(file.transform)[:6]
        else:
            assert source.georeference is None


def test_a_variable_of_a_netcdf_is_named(tmp_path: Path) -> None:
    path = copy(tmp_path / "a #1?.nc", "netCDF", PIXELS)
    with open_source(path, View(series="Band2")) as source:
        assert [image.name for image in source.images] == ["Band1", "Band2"]
        assert np.array_equal(whole(source), PIXELS[..., 1:])
        assert source.georeference is not None
    with pytest.raises(
        SourceError, match="there is no series 'nir'; give --series a number from 0 or a name of 0: 'Band1'"
    ):
        open_source(path, View(series="nir"))


@pytest.mark.parametrize(
    ("name", "driver", "more"),
    [
        ("a.nc", "netCDF", {}),
        pytest.param("b.nc", "netCDF", {"FORMAT": "NC2"}, marks=pytest.mark.slow),
        pytest.param("c.nc", "netCDF", {"FORMAT": "NC4"}, marks=pytest.mark.slow),
        pytest.param("a.img", "HFA", {}, marks=pytest.mark.slow),
        ("a.dat", "ENVI", {}),
        ("a.bil", "EHdr", {}),
    ],
)
def test_a_file_that_was_cut_is_refused_and_not_read_as_zeros(
    name: str, driver: str, more: dict[str, str], tmp_path: Path
) -> None:
    path = copy(tmp_path / name, driver, PIXELS[..., :1] + 1, **more)
    data = path.read_bytes()
    with open_source(path) as source:
        assert np.array_equal(whole(source), PIXELS[..., :1] + 1)
    for length in (len(data) // 2, len(data) - 200):
        path.write_bytes(data[:length])
        if name == "a.img" and length > len(data) // 2:
            with open_source(path) as source:
                assert np.array_equal(whole(source), PIXELS[..., :1] + 1), "its end holds no pixels"
            continue
        with pytest.raises(SourceError) as error, open_source(path) as source:
            whole(source)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_variables_with_records_have_the_length_that_their_header_says(tmp_path: Path) -> None:
    for kind, records in (("NETCDF3_CLASSIC", 1), ("NETCDF3_64BIT", 3)):
        for types in (("i1",), ("i1", "f8"), ("i2", "i1", "f4")):
            path = write_records(tmp_path / "a.nc", 1 if kind == "NETCDF3_CLASSIC" else 2, records, types)
            with path.open("rb") as file:
                whole_bytes = netcdf_length(file)
            assert 0 <= path.stat().st_size - whole_bytes < 4, "but for what fills the last one up"
    path.write_bytes(path.read_bytes()[:60])
    with path.open("rb") as file, pytest.raises(EOFError):
        netcdf_length(file)
    path.write_bytes(b"CDF\x01" + b"\xff" * 100)
    with path.open("rb") as file, pytest.raises((ValueError, LookupError, EOFError)):
        netcdf_length(file)


def write_records(path: Path, version: Literal[1, 2], records: int, types: tuple[str, ...]) -> Path:
    """A netCDF of SciPy's, apart from GDAL, with a fixed variable and some that grow."""
    file: Any = netcdf_file(str(path), "w", version=version)
    file.title = "three"
    file.createDimension("time", None)
    file.createDimension("x", 5)
    file.createVariable("fixed", "f4", ("x",))[:] = 1
    for number, kind in enumerate(types):
        grown = file.createVariable(f"v{number}", kind, ("time", "x"))
        grown.units = "m"
        for record in range(records):
            grown[record] = np.arange(5)
    file.close()
    return path


def test_a_palette_is_its_colours_and_a_mask_says_where_data_is(tmp_path: Path) -> None:
    numbers = (PIXELS[..., :1] % 3).astype(np.uint8)
    path = write(tmp_path / "classes.img", "HFA", numbers, nodata=0)
    colours = {0: (0, 0, 0, 255), 1: (250, 10, 20, 255), 2: (5, 6, 7, 255)}
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, colours)
    with open_source(path) as source:
        assert source.bands == ("red", "green", "blue")
        table = np.array([colours[number][:3] for number in range(3)], np.uint8)
        assert np.array_equal(whole(source), table[numbers[..., 0]])
        held = source.read_mask(0, source.levels[0].box)
        assert held is not None
        assert np.array_equal(held, numbers[..., 0] != 0)


def test_a_process_that_is_killed_fails_one_read_and_is_replaced(erdas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_source(erdas) as source:
        first = child_of(source).pid
        kill_while_it_reads(first, monkeypatch)
        with pytest.raises(SourceError) as caught:
            whole(source)
        line = str(caught.value)
        assert line.startswith(f"{erdas}: level 0, box ")
        assert "GDAL ends with SIGKILL" in line
        assert "\n" not in line
        assert np.array_equal(whole(source), PIXELS)
        assert child_of(source).pid != first


def test_a_read_that_takes_too_long_is_ended(erdas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_source(erdas) as source:
        stopped = child_of(source)
        whole(source)
        os.kill(stopped.pid, signal.SIGSTOP)
        monkeypatch.setattr(process, "READ_SECONDS", 1)
        with pytest.raises(SourceError, match="GDAL takes longer than 1 s for one read; convert it to a GeoTIFF"):
            whole(source)
        monkeypatch.undo()
        assert not stopped.is_open
        assert np.array_equal(whole(source), PIXELS)


def test_what_eats_memory_is_one_line(erdas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.dat"
    with path.open("wb") as file:
        file.truncate(2_000_000_000)
    header = "ENVI\nsamples = 2000000000\nlines = 1\nbands = 1\ndata type = 1\ninterleave = bsq\nbyte order = 0\n"
    path.with_suffix(".hdr").write_text(header)
    with pytest.raises(SourceError, match=r"a.dat: GDAL can't read it [^\n]*$"):
        open_source(path)
    monkeypatch.setattr(process, "MEMORY_BYTES", 0)
    with pytest.raises(SourceError, match=r"GDAL (can't read it|ends with) [^\n]*$"), open_source(erdas) as source:
        whole(source)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xml", b"<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/</ServerUrl></Service></GDAL_WMS>"),
        ("a.pix", b"PCIDSK  SDW V1.00"),
        ("a.img", b"DERIVED_SUBDATASET:AMPLITUDE:a.tif"),
    ],
)
def test_other_drivers_are_off(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match="not a supported image") as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_overviews_beside_a_file_are_opened_by_no_other_driver(erdas: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.bmp", "BMP", scene_pixels(40, 50, 3, "uint8"))
    secret = write(tmp_path / "secret.tif", "GTiff", scene_pixels(20, 25, 3, "uint8"))
    with rasterio.open(secret) as file:
        copy_raster(file, f"{path}.ovr", driver="VRT")
    with open_source(path) as source:
        assert len(source.levels) == 1


def test_files_beside_one_count_and_all_others_are_out_of_reach(tmp_path: Path) -> None:
    """An ERDAS image whose pixels are in another file, which is called as the one names it."""
    path = write(tmp_path / "a.img", "HFA", USE_SPILL="YES")
    with open_source(path) as source:
        assert np.array_equal(whole(source), PIXELS)
        before = source.fingerprint()
    spill = path.with_suffix(".ige")
    data = bytearray(spill.read_bytes())
    data[-1] ^= 1
    spill.write_bytes(data)
    with open_source(path) as source:
        assert source.fingerprint() != before
    spill.rename(tmp_path / "b.ige")
    path.write_bytes(path.read_bytes().replace(b"a.ige", b"b.ige"))
    with pytest.raises(SourceError, match=r"leads to|can't read it"), open_source(path) as source:
        whole(source)


def test_a_header_of_another_file_of_that_name_is_not_its_own(tmp_path: Path) -> None:
    one, other = PIXELS[..., :1], PIXELS[::-1, :, 1:]
    for path, driver, pixels in (("a.img", "HFA", one), ("a.dat", "ENVI", other)):
        write(tmp_path / path, driver, pixels)
    with open_source(tmp_path / "a.img") as erdas, open_source(tmp_path / "a.dat") as envi:
        assert (erdas.format, envi.format) == ("erdas", "envi")
        assert np.array_equal(whole(erdas), one)
        assert np.array_equal(whole(envi), other)


def test_a_file_that_changes_is_read_by_no_second_process(tmp_path: Path) -> None:
    path = write(tmp_path / "a.img", "HFA")
    with open_source(path) as source:
        os.kill(child_of(source).pid, signal.SIGKILL)
        write(path, "HFA", PIXELS[::-1], nodata=3)
        with pytest.raises(SourceError, match=r"GDAL ends with SIGKILL|the file changed after"):
            whole(source)
        with pytest.raises(SourceError, match="the file changed after it was opened"):
            whole(source)
