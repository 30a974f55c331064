"""Content of a scene: every file that its pixels depend on, in a fixed order."""

from __future__ import annotations

from pathlib import Path

from tiling.sources.gdal.formats import files_beside, gdal_format
from tiling.sources.magic import HEAD_BYTES, is_claimed
from tiling.sources.packed.name import packed_name
from tiling.sources.scene import naming
from tiling.sources.scene.vrt import SUFFIX, read_vrt
from tiling.sources.tiff.sidecars import pixel_sidecars
from tiling.storage.place import Place

FORMAT = "scene"


def is_vrt(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and path.is_file()


def is_scene(path: Place) -> bool:
    """True if a path names a scene of several files, or a URL an item of some."""
    if isinstance(path, Path) and not naming.is_list(path) and is_vrt(path):
        return True
    return naming.is_scene(path)


def content_of(path: Place) -> list[tuple[str, Place]]:
    """The files of a scene, each with what is known of it besides: a band's name, or what it belongs to.

    Raises:
        SourceError: one of them is missing.
        OSError, StorageError: they can't be looked for.
    """
    parts: list[tuple[str, Place]]
    if isinstance(path, Path) and not naming.is_list(path) and is_vrt(path):
        parts = [("vrt", path), *(("", file) for file in read_vrt(path).files)]
    else:
        parts = [("description", file) for file in naming.descriptions(path)]
        for band in naming.scene_files(path):
            parts += [(f"{band.name} {len(band.files)}", file) for file in band.files]
    found: list[tuple[str, Place]] = []
    for label, file in parts:
        if isinstance(file, Path) and (packed := packed_name(file)) is not None:
            found.append((f"{label} {packed.inner}", packed.archive))
            continue
        found.append((label, file))
        found += [(Path(each.name).suffix, each) for each in _beside(file)]
    return found


def _beside(file: Place) -> list[Place]:
    """Files beside one of a scene that its pixels depend on."""
    if isinstance(file, Path):
        with file.open("rb", buffering=0) as opened:
            head = opened.read(HEAD_BYTES)
        if not is_claimed(head) and gdal_format(file, head) is not None:
            return list[Place](files_beside(file))
    return pixel_sidecars(file)
