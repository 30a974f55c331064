"""Naming of a scene: which files its bands are made of, from a folder, a glob, or a list of bands by name.

A scene is named by one path, so that a run's card, a manifest and a command line hold it as they hold a file:

- `folder`: a scene as ESA (`.SAFE`) or the USGS deliver it, whose metadata may name it too; else every image in it, as
  a mosaic;
- `item.json`: a STAC item, whose assets are the bands; it alone may be a URL;
- `tiles/*.tif`, `{west,east}.tif`: the files that a glob finds, as a mosaic, in the order of the braces and, of one
  pattern, by name;
- `red=B04.tif,nir=B08.tif`: a band for each name; what stands behind a name may be a glob;
- `scene.zip!/**/*_B04.jp2`: what lies in a zip, tar or gzip file, wherever a file may stand (`tiling.sources.packed`);
- `scene.tif`: one file, where it is wanted in another CRS.

Relative names begin at the deepest folder that the path names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tiling.errors import SourceError
from tiling.sources.facts import Georeference, Scale
from tiling.sources.packed.content import packed_files
from tiling.sources.scene.landsat import landsat_band, landsat_bands, landsat_folder, landsat_metadata, landsat_scales
from tiling.sources.scene.radiometry import sentinel2_metadata, sentinel2_radiometry
from tiling.sources.scene.sentinel2 import sentinel2_band, sentinel2_bands, sentinel2_folder
from tiling.sources.scene.stac import is_stac, stac_assets
from tiling.storage.object_path import ObjectPath
from tiling.storage.packed_place import unpacked_name
from tiling.storage.place import Place

MAX_MEMBERS = 65_536
_BAND = re.compile(r"([A-Za-z_][\w.-]*)=(.+)", re.DOTALL)
_MAGIC = re.compile(r"[*?\[{]")
_WILD = re.compile(r"[*?\[]")
_PACKED_DELIVERY = re.compile(
    r"S2[A-Z]_MSIL(?:1C|2A)_\w+(?:\.SAFE)?\.zip|L[A-Z]\d\d_L\w+\.(?:tar|tar\.gz|tgz|zip)", re.IGNORECASE
)
_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".webp")
_BESIDE = (".ovr", ".msk", ".aux.xml")


@dataclass(frozen=True, slots=True)
class BandFiles:
    """Files of one band, or of all bands where it has no name; the first lies on top."""

    name: str | None
    files: tuple[Place, ...]
    georeference: Georeference | None = None
    """Where they lie, if they don't say so themselves."""
    nodata: float | None = None
    """Which value of theirs is no data, if they name none themselves."""
    scales: tuple[Scale, ...] = ()
    """Scale and offset of each of their bands, if they name none themselves."""
    holds_classes: bool = False
    """True where a description says that their numbers name classes."""
    shape: tuple[int, int] | None = None
    """Of each, where a description says it: where one lies is said of that shape."""


def is_list(path: Path) -> bool:
    """True if a path is a glob or a list of bands by name, at which no file lies."""
    try:
        if path.exists() or path.is_symlink():
            return False
    except OSError:
        pass  # longer than a file's name can be
    text = _below(path)[1]
    return bool(_MAGIC.search(text) or _BAND.match(text))


def is_scene(path: Place) -> bool:
    """True if a path names a scene: a glob or a list, a folder, a delivery's metadata, or a STAC item."""
    if isinstance(path, ObjectPath):
        return is_stac(path)
    if is_list(path):
        return True
    return bool(path.is_dir() or landsat_folder(path) or sentinel2_folder(path) or is_stac(path))


def is_delivery(folder: Path) -> bool:
    """True if a folder is a scene as ESA or the USGS deliver it; one that can't be read is none."""
    try:
        return landsat_folder(folder) is not None or sentinel2_folder(folder) is not None
    except OSError:
        return False


def is_packed_delivery(name: str) -> bool:
    """True if a file's name is that of a zip or tar file in which ESA or the USGS deliver a scene."""
    return bool(_PACKED_DELIVERY.fullmatch(name))


def scene_files(path: Place) -> tuple[BandFiles, ...]:
    """The bands of a scene and their files.

    Raises:
        SourceError: a part of the name is empty, finds no file, or stands twice.
        OSError: the folder can't be read.
        StorageError: the item's server fails.
    """
    if isinstance(path, ObjectPath):
        return _of_item(path)
    if not is_list(path):
        return _described(path)
    folder, text = _below(path)
    if not _BAND.match(text):
        return (BandFiles(None, _expect_mosaic(_found(folder, text, path), path)),)
    bands: list[BandFiles] = []
    for item in _split(text):
        named = _BAND.fullmatch(item.strip())
        if named is None:
            raise SourceError(f"{path}: {item.strip()!r} is no band of a scene; write each as NAME=FILE, with commas")
        name, pattern = named.groups()
        if any(band.name == name for band in bands):
            raise SourceError(f"{path}: the band {name!r} stands twice; give each band a name of its own")
        bands.append(BandFiles(name, _found(folder, pattern, path)))
    return tuple(bands)


def descriptions(path: Place) -> list[Place]:
    """Files that say what a scene is made of, beside those that hold its pixels."""
    if isinstance(path, ObjectPath):
        return [path]
    if is_list(path):
        return []
    if delivered := sentinel2_folder(path):
        return [*sorted(delivered.glob("GRANULE/*/MTD_TL.xml")), *sentinel2_metadata(delivered)]
    if delivered := landsat_folder(path):
        return list[Place](landsat_metadata(delivered))
    return [path] if is_stac(path) else []


def _described(path: Path) -> tuple[BandFiles, ...]:
    """The bands of what is there: a delivery, a STAC item, or a folder of images."""
    if delivered := sentinel2_folder(path):
        radiometry = sentinel2_radiometry(delivered)
        return tuple(
            BandFiles(
                band.name,
                (band.file,),
                band.place,
                radiometry.nodata,
                radiometry.scales(band.name),
                shape=band.shape,
            )
            for band in sentinel2_bands(delivered)
        )
    if delivered := landsat_folder(path):
        scales = landsat_scales(delivered)
        return tuple(BandFiles(name, (file,), scales=scales.get(name, ())) for name, file in landsat_bands(delivered))
    if is_stac(path):
        return _of_item(path)
    if path.is_file():
        return (BandFiles(None, (path,)),)
    return (BandFiles(None, _expect_mosaic(_in_folder(path), path)),)


def _of_item(item: Place) -> tuple[BandFiles, ...]:
    return tuple(
        BandFiles(each.name, each.files, None, each.nodata, each.scales, each.holds_classes)
        for each in stac_assets(item)
    )


def _below(path: Path) -> tuple[Path, str]:
    """The deepest folder that there is on the way, and what is named below it."""
    parts = path.parts
    folder, count = Path(parts[0]), 1
    try:
        while count < len(parts) and (folder / parts[count]).is_dir():
            folder, count = folder / parts[count], count + 1
    except OSError:
        pass  # longer than a file's name can be
    return folder, "/".join(parts[count:])


def _in_folder(folder: Path) -> tuple[Path, ...]:
    found = images_of(sorted(folder.iterdir()))
    if not found:
        raise SourceError(f"{folder}: is a folder without an image; as a scene it holds files {' '.join(_SUFFIXES)}")
    return _limited(found, folder)


def is_image_name(path: Path) -> bool:
    """True if a file in a folder is taken for an image of its mosaic, by its name."""
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def images_of(files: list[Path]) -> list[Path]:
    """Those of a folder's files that its mosaic is of."""
    return [each for each in files if is_image_name(each) and _is_file(each)]


def _expect_mosaic(files: tuple[Path, ...], scene: Path) -> tuple[Path, ...]:
    """Refuse bands of one scene, by their names, as a mosaic: one would lie over the others and hide them."""
    seen: dict[str, tuple[str, Path]] = {}
    for file in files:
        named = landsat_band(file.name) or sentinel2_band(file.name)
        if named is None:
            continue
        own, band = named
        other, first = seen.setdefault(f"{file.parent} {own}", (band, file))
        if other != band:
            raise SourceError(
                f"{scene}: {first.name} and {file.name} are bands of one scene, and as a mosaic one would hide the "
                f"other; name each ({other}={first.name} {band}={file.name}), or give the folder with its metadata "
                "(…_MTL.txt, MTD_MSIL….xml)"
            )
    return files


def _found(folder: Path, pattern: str, scene: Path) -> tuple[Path, ...]:
    """Files that a pattern with braces finds, each once; a name without `*`, `?` and `[` is a file that must be."""
    files: dict[Path, None] = {}
    for each in map(unpacked_name, _braced(pattern)):
        place = folder / each
        if place.is_file():
            files[place] = None
            continue
        matches = packed_files(folder, each, _globbed) or (_globbed(folder, each) if _WILD.search(each) else [])
        if not matches:
            what = "the glob finds no file" if _WILD.search(each) else "there is no such file"
            raise SourceError(f"{scene}: {place}: {what}; correct the name, or leave it out")
        files |= dict.fromkeys(matches)
        if len(files) > MAX_MEMBERS:
            break
    return _limited(list(files), scene)


def _globbed(folder: Path, pattern: str) -> list[Path]:
    """Files by name; `**` is any number of folders."""
    absolute = Path(pattern).anchor
    try:
        matches = sorted((Path(absolute) if absolute else folder).glob(pattern.removeprefix(absolute)))
    except (ValueError, NotImplementedError) as error:
        raise SourceError(f"{pattern!r} is no pattern of names ({error}); * ? [abc] and **/ may be used") from error
    return [
        match
        for match in matches
        if not match.name.startswith(".") and not match.name.endswith(_BESIDE) and _is_file(match)
    ]


def _is_file(path: Path) -> bool:
    """True of a file.

    Raises:
        SourceError: a link that leads nowhere, whose pixels would be missing unseen.
    """
    if path.is_file():
        return True
    if path.is_symlink() and not path.exists():
        raise SourceError(f"{path}: is a link that leads nowhere, and a scene lacks its file; restore it, or remove it")
    return False


def _limited(files: list[Path], scene: Path) -> tuple[Path, ...]:
    if len(files) > MAX_MEMBERS:
        raise SourceError(f"{scene}: more than {MAX_MEMBERS} files; split the scene")
    return tuple(files)


def _split(text: str) -> Iterator[str]:
    """Parts between commas that no brace holds."""
    depth = start = 0
    for at, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _braced(pattern: str) -> Iterator[str]:
    """Every name that braces stand for, in their order; one that closes nowhere is a name's own."""
    opened = pattern.find("{")
    closed = _closing(pattern, opened) if opened >= 0 else -1
    if closed < 0:
        yield pattern
        return
    for count, choice in enumerate(_split(pattern[opened + 1 : closed])):
        if count >= MAX_MEMBERS:
            return
        yield from _braced(pattern[:opened] + choice + pattern[closed + 1 :])


def _closing(pattern: str, opened: int) -> int:
    depth = 0
    for at in range(opened, len(pattern)):
        depth += (pattern[at] == "{") - (pattern[at] == "}")
        if depth == 0:
            return at
    return -1
