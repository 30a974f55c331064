"""Content of a scene: every file that its pixels depend on, in a fixed order."""

from __future__ import annotations

from pathlib import Path

from tiling.sources.openslide.vendor import companions
from tiling.sources.scene import naming
from tiling.sources.scene.vrt import SUFFIX, read_vrt

FORMAT = "scene"

_LIKE = "geotiff"
"""What every file of a scene is taken for here: those of other formats have no file beside them that counts."""


def is_vrt(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and path.is_file()


def is_scene(path: Path) -> bool:
    """True if a path names a scene of several files."""
    return naming.is_list(path) or is_vrt(path) or naming.is_scene(path)


def content_of(path: Path) -> list[tuple[str, Path]]:
    """The files of a scene, each with what is known of it besides: a band's name, or what it belongs to.

    Raises:
        SourceError: one of them is missing.
        OSError: they can't be looked for.
    """
    if not naming.is_list(path) and is_vrt(path):
        parts = [("vrt", path), *(("", file) for file in read_vrt(path).files)]
    else:
        parts = [("description", file) for file in naming.descriptions(path)]
        for band in naming.scene_files(path):
            parts += [(f"{band.name} {len(band.files)}", file) for file in band.files]
    found: list[tuple[str, Path]] = []
    for label, file in parts:
        found.append((label, file))
        found += [(each.suffix, each) for each in companions(file, _LIKE)]
    return found
