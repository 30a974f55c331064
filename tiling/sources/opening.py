"""Choice of the reader that opens an image: by its content, and where that can't tell, by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from tiling.errors import SourceError, TilingError
from tiling.sources.cache import DEFAULT_CACHE_BYTES
from tiling.sources.facts import FIRST, Moment, Reader
from tiling.sources.file import ImageFile, open_file
from tiling.sources.gdal.formats import GdalFormat, gdal_format
from tiling.sources.gdal.reader import GdalReader
from tiling.sources.jpeg2000 import Jpeg2000Reader
from tiling.sources.jpeg2000_tiles import find_tiles
from tiling.sources.limits import one_line, source_errors
from tiling.sources.magic import ARCHIVES, HEAD_BYTES, RASTER_MAGIC, RIFF, TIFF_MAGIC, is_claimed
from tiling.sources.omezarr.reader import OmeZarrReader
from tiling.sources.openslide.reader import SlideReader
from tiling.sources.openslide.vendor import vendor_format
from tiling.sources.packed.name import PackedName, expect_packed, packed_name
from tiling.sources.raster import RasterReader
from tiling.sources.scene.content import is_scene
from tiling.sources.scene.methods import AUTO
from tiling.sources.scene.naming import is_list
from tiling.sources.scene.packed_image import image_in
from tiling.sources.scene.reader import SceneReader
from tiling.sources.shared import SharedReader, moment_of, needs_alpha
from tiling.sources.tiff.reader import TiffReader
from tiling.sources.viewed import ViewReader
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place
from tiling.view import View

MEMBER_CACHE_BYTES = 8 * 1024**2
"""Decoded segments that each file of a scene keeps, of which many are open at once."""


def open_reader(path: Place, view: View | None) -> tuple[Reader, str]:
    """The reader of an image, and the image's identity."""
    moment = moment_of(view)
    reader, identity = _open(path, moment)
    if needs_alpha(reader.facts, view):
        reader.close()
        reader, identity = _open(path, replace(moment, alpha=True))
    return seen_as(path, reader, view), identity


def share_reader(path: Place, reader: Reader, view: View | None) -> Reader | None:
    """A view's reader of the file that another has open; None where the file has to be opened for it."""
    shared = reader.file if isinstance(reader, ViewReader) else reader
    if not isinstance(shared, SharedReader) or not shared.serves(view):
        return None
    return seen_as(path, shared.share(), view)


def seen_as(path: Place, reader: SharedReader, view: View | None) -> Reader:
    """An open file as a view shows it."""
    if view is None:
        return reader
    try:
        return ViewReader(reader, view)
    except SourceError as error:
        reader.close()
        raise SourceError(f"{path}: {error}") from error


def _open(path: Place, moment: Moment) -> tuple[SharedReader, str]:
    packed = packed_name(path) if isinstance(path, Path) and not is_list(path) else None
    if packed is None:
        if isinstance(path, Path) and not is_list(path):
            expect_packed(path)
        reader, identity = _open_plain(path, moment)
        return SharedReader(reader, moment), identity
    zarr = OmeZarrReader.at(path, moment) if _may_be_zarr(path) else None
    if zarr is not None:
        _expect_own_grid(path, moment, is_file=False)
        return SharedReader(zarr, moment), zarr.identity
    return _open_packed(packed, moment, partial(_open_plain, moment=moment))


def _open_packed(
    packed: PackedName, moment: Moment, opener: Callable[[Path], tuple[Reader, str]]
) -> tuple[SharedReader, str]:
    """An image in a zip, tar or gzip file, whose content stays unpacked while the reader is open."""
    with image_in(packed) as (content, image):
        reader, _ = opener(image)
        return SharedReader(reader, moment, content.shared().close), packed.identity


def _open_plain(path: Place, moment: Moment) -> tuple[Reader, str]:
    try:
        if isinstance(path, Path) and path.parts[1:2] and path.parts[1].startswith("vsi") and not path.exists():
            raise SourceError(
                f"{path}: GDAL's names for what is no file (/vsicurl, /vsimem, …) are not followed, but for /vsizip, "
                "/vsitar and /vsigzip; give its path or URL"
            )
        if isinstance(path, Path) and is_list(path):
            return _open_scene(path, moment)
        if isinstance(path, ObjectPath) and is_scene(path):
            return _open_scene(path, moment)
        if moment.crs is not None and not isinstance(path, Path):
            raise SourceError(f"{path}: --crs lays files on one grid, from disks only; copy it, or leave out --crs")
        zarr = OmeZarrReader.at(path, moment) if _may_be_zarr(path) else None
        if zarr is not None:
            _expect_own_grid(path, moment, is_file=False)
            return zarr, zarr.identity
        if isinstance(path, Path) and (is_scene(path) or (moment.crs is not None and path.is_file())):
            return _open_scene(path, moment)
        _expect_own_grid(path, moment, is_file=True)
        return _open_file_reader(path, moment)
    except OSError as error:
        raise SourceError(f"{path}: {one_line(error)}") from error


def _open_scene(path: Place, moment: Moment) -> tuple[Reader, str]:
    if moment.z or moment.t or moment.damaged:
        raise SourceError(f"{path}: a scene of several files has one focal plane and time; leave out --z and --t")
    with source_errors(str(path)):
        moment.expect_one_image()
    scene = SceneReader(path, partial(_open_member, alpha=moment.alpha), moment.crs, moment.resampling)
    return scene, scene.identity


def _expect_own_grid(path: Place, moment: Moment, *, is_file: bool) -> None:
    """Refuse a grid for what lies on its own."""
    if moment.crs is not None:
        raise SourceError(f"{path}: --crs lays files on one grid, and this is no such file; leave it out")
    if moment.resampling != AUTO:
        raise SourceError(
            f"{path}: --resampling is how files of a scene are laid on one grid, and this is one image on its own; "
            f"leave it out{', or give --crs' if is_file else ''}"
        )


def _open_member(path: Place, *, alpha: bool) -> tuple[Reader, str]:
    """A file of a scene."""
    try:
        packed = packed_name(path) if isinstance(path, Path) else None
        if packed is not None:
            return _open_packed(packed, FIRST, partial(_open_file_of_scene, alpha=alpha))
        return _open_file_of_scene(path, alpha=alpha)
    except OSError as error:
        raise SourceError(f"{path}: {one_line(error)}") from error


def _open_file_of_scene(path: Place, *, alpha: bool) -> tuple[Reader, str]:
    if isinstance(path, Path) and path.is_dir():
        raise SourceError(f"{path}: is a folder, and a file of a scene is one image; name that (scene.zip!/B04.tif)")
    reader, identity = _open_file_reader(path, Moment(alpha=alpha), MEMBER_CACHE_BYTES)
    if isinstance(reader, SlideReader):
        reader.close()
        raise SourceError(f"{path}: a slide is no part of a scene; segment it by itself, or convert it to a GeoTIFF")
    return reader, identity


def _may_be_zarr(path: Place) -> bool:
    """A local folder or zip file, or a URL whose name says so, or that has no suffix."""
    if isinstance(path, Path):
        return path.is_dir() or (path.suffix.lower() in {".zip", ".ozx"} and path.is_file())
    return ".zarr" in path.key or "." not in path.name


def _open_file_reader(path: Place, moment: Moment, cache_bytes: int = DEFAULT_CACHE_BYTES) -> tuple[Reader, str]:
    file = open_file(path)
    try:
        return _reader_of(path, file, moment, cache_bytes), file.identity
    except (OSError, TilingError):
        file.close()
        raise


def _reader_of(path: Place, file: ImageFile, moment: Moment, cache_bytes: int) -> Reader:
    head = file.read(HEAD_BYTES, 0)
    if not head:
        raise SourceError(f"{path}: the file is empty (0 bytes)")
    vendor = vendor_format(path.name, file, head)
    if vendor is not None:
        return _slide_reader(path, file, vendor, moment)
    if head.startswith(TIFF_MAGIC):
        return TiffReader(path, file, moment, cache_bytes)
    known = None if is_claimed(head) else gdal_format(path, head)
    if known is not None:
        return _gdal_reader(path, file, known, moment)
    if moment.z or moment.t:
        raise SourceError(f"{path}: the image has one focal plane and one point in time; leave out --z and --t")
    with source_errors(str(path)):
        moment.expect_one_image()
    for magic, kind in RASTER_MAGIC.items():
        if head.startswith(magic):
            with source_errors(str(path)):
                tiles = find_tiles(file) if kind == "jpeg2000" else None
            if tiles is not None:
                return Jpeg2000Reader(file, tiles)
            return RasterReader(path, file, kind, alpha=moment.alpha)
    if head[:4] == RIFF and head[8:12] == b"WEBP":
        return RasterReader(path, file, "webp")
    for magic, kind in ARCHIVES.items():
        if head.startswith(magic):
            raise SourceError(f"{path}: the file is compressed with {kind}{_where_packed(path, kind)}; unpack it first")
    raise SourceError(
        f"{path}: not a supported image (it starts with {head[:8].hex(' ')}); use TIFF, SVS, NDPI, MRXS, SCN, DICOM, "
        "OME-Zarr, PNG, JPEG, JPEG 2000, WebP, ERDAS Imagine, netCDF, HDF5 or ENVI"
    )


def _where_packed(path: Place, kind: str) -> str:
    """Reason for which a file isn't unpacked here."""
    if kind not in {"zip", "gzip"}:
        return ", and zip, tar and gzip alone are read"
    return ", and such files are read from disks only" if isinstance(path, ObjectPath) else " within another such file"


def _slide_reader(path: Place, file: ImageFile, vendor: str, moment: Moment) -> SlideReader:
    """OpenSlide opens the slide by its name, and with it the files that belong to it."""
    if isinstance(path, ObjectPath):
        raise SourceError(
            f"{path}: slides in {vendor} are read by OpenSlide, from disks only; copy it with its other files, or "
            "convert it to a tiled TIFF or OME-Zarr"
        )
    reader = SlideReader(path, moment)
    file.close()
    return reader


def _gdal_reader(path: Place, file: ImageFile, known: GdalFormat, moment: Moment) -> GdalReader:
    """GDAL opens the image by its name, and with it the files that belong to it."""
    if isinstance(path, ObjectPath):
        raise SourceError(
            f"{path}: {known.name} files are read by GDAL, from disks only; copy it with the files beside it, or "
            "convert it to a tiled TIFF"
        )
    reader = GdalReader(path, known, moment)
    file.close()
    return reader
