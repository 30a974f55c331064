"""Image in a zip, tar or gzip file: the scene, the mosaic or the one file that its unpacked content is."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tiling.errors import SourceError
from tiling.escaping import some
from tiling.sources.gdal.formats import files_beside
from tiling.sources.packed.content import content_of_packed
from tiling.sources.packed.name import MARK, PackedName
from tiling.sources.packed.unpacked import Unpacked
from tiling.sources.scene import naming
from tiling.storage.file_version import ZARR_METADATA

_NO_IMAGES = (".txt", ".xml", ".json", ".geojson", ".html", ".pdf", ".md", ".csv", ".vrt", ".kml", ".md5")
"""Suffixes of files that lie beside images, and are one only where they are named."""


@contextmanager
def image_in(packed: PackedName) -> Generator[tuple[Unpacked, Path]]:
    """The unpacked content of a file, and of it the image that is meant; what is wrong with it names the file.

    Raises:
        SourceError: it can't be unpacked, or there is no such image in it.
    """
    with content_of_packed(packed) as content:
        image = _image(content.folder, packed)
        _expect_local(image)
        yield content, image


def _image(folder: Path, packed: PackedName) -> Path:
    place = folder / packed.inner
    if not place.exists():
        held = sorted(each.name for each in folder.iterdir())
        raise SourceError(f"{packed.archive}: holds no {packed.inner!r}, but {some(held)}; correct the name")
    while place.is_dir() and not _is_whole(place):
        entries = sorted(each for each in place.iterdir() if not each.name.startswith("."))
        folders, files = [each for each in entries if each.is_dir()], [each for each in entries if each.is_file()]
        images = naming.images_of(files) or _others(files)
        if len(images) > 1 and all(naming.is_image_name(each) for each in images):
            return place
        if len(images) == 1:
            return images[0]
        if images or len(folders) != 1:
            held = [each.name for each in images or entries]
            raise SourceError(
                f"{place}: holds {some(held)}, and nothing says which is meant; name it "
                f"({packed.archive.name}{MARK}/{(place / (held or ['file.tif'])[0]).relative_to(folder)})"
            )
        place = folders[0]
    return place


def _is_whole(folder: Path) -> bool:
    """True of a folder that is one image: a delivery, or a Zarr."""
    return naming.is_delivery(folder) or any((folder / name).is_file() for name in ZARR_METADATA)


def _others(files: list[Path]) -> list[Path]:
    """Files that may be images by no name that says so, without those beside another."""
    own = [each for each in files if each.suffix.lower() not in _NO_IMAGES]
    beside = {other for each in own for other in files_beside(each)}
    return [each for each in own if each not in beside]


def _expect_local(image: Path) -> None:
    """Refuse a scene whose files lie elsewhere, which count into no fingerprint of this file's."""
    bands = naming.scene_files(image) if naming.is_scene(image) else ()
    if any(not isinstance(file, Path) for band in bands for file in band.files):
        raise SourceError(f"{image}: leads to files on the web; unpack it, and give that")
