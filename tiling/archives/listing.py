"""Listing of an archive's slides: a folder, a glob, a manifest, or a prefix in an object store.

A slide's name is its path below the source, with `/` between its parts; it names the slide in every ledger, and its
run folder follows from it. No image is opened here: a listing says how large a file is and when it changed.

A folder in which ESA or the USGS deliver a scene is one slide, and so is a zip or tar file of one, by its name; other
folders are scenes where a glob that ends in `/` names them, and VRTs and STAC items where a glob or a manifest does.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from tiling.archives.manifest import read_manifest
from tiling.archives.slide import ZARR, Slide, base_name, file_version, is_zarr
from tiling.errors import SourceError, StorageError, TilingError
from tiling.sources.limits import one_line
from tiling.sources.scene.naming import is_delivery, is_packed_delivery
from tiling.sources.scene.stac import may_be_item
from tiling.storage.file_version import ZARR_METADATA, FileVersion
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, place_of

SUFFIXES = (
    *(".svs", ".tif", ".tiff", ".btf", ".tf8", ".qptiff", ".ndpi", ".scn", ".mrxs", ".vms", ".vmu", ".bif", ".svslide"),
    *(".png", ".jpg", ".jpeg", ".jp2", ".j2k", ".webp", ".zarr", ".zarr.zip", ".ozx"),
)
"""By which names what a folder holds is taken for images; a glob or a manifest may name any."""


RESULT_CARDS = ("run.json", "archive.json")
"""A folder with one of these holds results, whose pictures are no slides."""

_DESCRIPTIONS = (".vrt", ".json", ".geojson", ".xml", ".txt")
"""Of files that may say which others are a scene."""

_MAGIC = re.compile(r"[*?\[]")


def is_manifest(source: str) -> bool:
    """True if a source is a manifest, which names slides wherever they are."""
    return source.lower().endswith(".csv")


def is_gone(source: str, name: str) -> bool:
    """True if a slide that a source held, and that its listing lacks now, is no longer there.

    What a narrower glob leaves out still is, and of a folder that can't be looked into nothing is known. A manifest
    holds what it names.
    """
    if is_manifest(source):
        return True
    try:
        return file_version(place_of(split_glob(source)[0]) / name) is None
    except (OSError, TilingError):
        return False


def find_slides(source: str, exclude: Place, columns: Sequence[str] = ()) -> Iterator[Slide]:
    """Every slide of a source, except below `exclude`, where the results are; `columns` as in `read_manifest`.

    Raises:
        SourceError: there is no such source, it holds no slide, or its manifest can't be read.
    """
    slide = None
    for slide in _found(source, exclude, columns):
        yield slide
    if slide is None:
        raise SourceError(f"{_nothing_in(source)}; a share that is not mounted looks like this, too")


def expect_slides(source: str, exclude: Place, columns: Sequence[str] = ()) -> None:
    """Refuse a source without slides, by a look for the first one; raises SourceError as `find_slides` does."""
    next(find_slides(source, exclude, columns))


def _nothing_in(source: str) -> str:
    if is_manifest(source):
        return (
            f"{source} names no slide: nothing would be segmented; add a line for each below the names of the columns"
        )
    if split_glob(source)[1] is not None:
        return (
            f"{source}: the glob matches nothing (no file matches): nothing would be segmented; correct the pattern "
            f"(**/ is any number of folders)"
        )
    return f"{source} holds no image: nothing would be segmented; taken are the endings {' '.join(SUFFIXES)}"


def _found(source: str, exclude: Place, columns: Sequence[str]) -> Iterator[Slide]:
    if source.lower().endswith(".csv"):
        yield from read_manifest(place_of(source), columns)
        return
    root, pattern = split_glob(source)
    place = place_of(root)
    if isinstance(place, ObjectPath):
        found = _listed(place, exclude)
    elif place.is_dir():
        found = _walked(place, exclude, pattern, of_folders=source.endswith("/"))
    elif pattern is not None:
        raise SourceError(
            f"{source}: the glob matches nothing, for {root} is no folder: nothing would be segmented; correct the path"
        )
    else:
        what = (
            "it is a file" if place.exists() else "nothing is there (a share that is not mounted looks like this, too)"
        )
        raise SourceError(
            f"{source}: an archive is a folder, a glob, a manifest (.csv) or a prefix in a bucket, and {what}: nothing "
            f"would be segmented; correct the path"
        )
    for slide in found:
        is_closed_folder = slide.refused is not None and slide.name.endswith("/")
        is_asked = _is_asked(slide, pattern) if pattern else slide.is_folder or _is_image(slide.name)
        if is_closed_folder or is_asked:
            yield _item(slide) if isinstance(slide.place, ObjectPath) and may_be_item(slide.place) else slide


def _item(slide: Slide) -> Slide:
    """Entry of a listing for an object that may be a STAC item, with the version of all that it leads to."""
    try:
        version = file_version(slide.place)
        lacks = "a file that it names is missing; restore it, or write the item again"
        return replace(slide, file_version=version, refused=lacks if version is None else None)
    except (SourceError, StorageError) as error:
        return replace(slide, file_version=None, refused=one_line(error))


def _is_asked(slide: Slide, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.fullmatch(slide.name) or (slide.is_folder and pattern.fullmatch(f"{slide.name}/")))


def expect_disjoint(source: str, results: Place) -> None:
    """Refuse results that would lie among the slides, or slides among the results.

    Raises:
        SourceError: the source is the results' folder, or lies in it.
    """
    if source.lower().endswith(".csv"):
        return
    root = place_of(split_glob(source)[0]).resolve()
    below = f"{root}/".startswith(f"{results.resolve()}/")
    if below:
        raise SourceError(
            f"{source} lies in {results}, where the results go: runs would lie among the slides; choose another --out"
        )


def split_glob(source: str) -> tuple[str, re.Pattern[str] | None]:
    """The folder above the first part with `*`, `?` or `[`, and the pattern below it; no pattern without one."""
    if not _MAGIC.search(source) or ("://" not in source and Path(source).exists()):
        return source, None
    parts = source.split("/")
    first = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
    root = "/".join(parts[:first]) or ("/" if source.startswith("/") else ".")
    return root, glob_pattern("/".join(parts[first:]))


def glob_pattern(glob: str) -> re.Pattern[str]:
    """`*` and `?` stay within one part of a path, `**/` stands for any number of parts."""
    text, rest = "", glob
    while rest:
        if rest.startswith("**/"):
            text, rest = f"{text}(?:[^/]+/)*", rest[3:]
        elif rest == "**":
            text, rest = f"{text}.*", ""
        elif rest[0] == "[" and "]" in rest[2:]:
            end = rest.index("]", 2)
            inside = rest[1:end].replace("\\", r"\\")
            negated = inside.startswith("!")
            text, rest = f"{text}[{'^' if negated else ''}{inside[negated:]}]", rest[end + 1 :]
        else:
            text, rest = text + {"*": "[^/]*", "?": "[^/]"}.get(rest[0], re.escape(rest[0])), rest[1:]
    try:
        return re.compile(text, re.DOTALL)
    except re.error as error:
        raise SourceError(f"{glob!r} is no pattern of names ({error}); * ? [abc] and **/ may be used") from error


def _is_image(name: str) -> bool:
    """True of a name that is an image's, or a zip or tar file's in which ESA or the USGS deliver a scene."""
    base = base_name(name)
    return is_packed_delivery(base) or (base.endswith(SUFFIXES) and base not in SUFFIXES)


def _holds_image(zarr: Place) -> bool:
    """True if a folder of Zarr is an image's, as its name may say; else its metadata does."""
    if base_name(zarr.name).endswith(f".ome{ZARR}"):
        return True
    for name in ZARR_METADATA:
        try:
            message = (zarr / name).read_bytes()
        except OSError:
            continue
        if b'"multiscales"' in message or b'"bioformats2raw.layout"' in message:
            return True
    return False


def _walked(
    root: Path, exclude: Place, pattern: re.Pattern[str] | None, *, of_folders: bool = False
) -> Iterator[Slide]:
    """Regular files and scenes below a folder, by name. Links to folders are not followed, so there are no circles.

    Raises:
        SourceError: the folder can't be read, or is a scene itself.
    """
    real, results = root.resolve(), exclude.resolve()
    if is_delivery(root):
        raise SourceError(f"{root} is one scene and no archive: give the folder above, or use overtile segment")
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise SourceError(f"{root}: {error.strerror or error}") from error
            yield Slide(f"{folder.relative_to(root).as_posix()}/", folder, None, refused=f"{error.strerror or error}")
            continue
        if any(entry.name in RESULT_CARDS for entry in listed):
            continue
        inner: list[Path] = []
        for entry in listed:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if entry.is_symlink():
                yield from _linked(path, root, real)
            elif entry.is_dir():
                if path.resolve() == results:
                    continue
                if not is_zarr(entry.name):
                    name = path.relative_to(root).as_posix()
                    is_named = pattern is not None and pattern.fullmatch(f"{name}/" if of_folders else name) is not None
                    # A glob may name the files in a scene and not the scene.
                    if (of_folders and is_named) or ((is_named or pattern is None) and is_delivery(path)):
                        yield _scene(name, path)
                    else:
                        inner.append(path)
                elif _holds_image(path):
                    yield Slide(path.relative_to(root).as_posix(), path, file_version(path))
            elif entry.is_file():
                name = path.relative_to(root).as_posix()
                may_describe = entry.name.lower().endswith(_DESCRIPTIONS) or may_be_item(path)
                if may_describe and pattern is not None and pattern.fullmatch(name):
                    yield _scene(name, path)
                    continue
                try:
                    stamp = FileVersion.of_file(entry.stat())
                except FileNotFoundError:
                    continue  # gone since the listing
                yield Slide(name, path, stamp)
        folders += reversed(inner)


def _scene(name: str, path: Path) -> Slide:
    """A scene of several files; one that is incomplete is refused."""
    try:
        return Slide(name, path, file_version(path), is_folder=path.is_dir())
    except (SourceError, OSError) as error:
        return Slide(name, path, None, refused=one_line(error), is_folder=path.is_dir())


def _linked(path: Path, root: Path, real: Path) -> Iterator[Slide]:
    """A link to a file of the archive is that file under another name; one to elsewhere is refused."""
    name = path.relative_to(root).as_posix()
    try:
        target = path.resolve(strict=True)
        facts = target.stat()
    except (OSError, RuntimeError):
        yield Slide(name, path, None, refused="a symbolic link that leads nowhere: restore its target or remove it")
        return
    if not target.is_relative_to(real):
        kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a file"
        reason = (
            f"a symbolic link to {kind} outside the archive: not followed; move the target, or name it in a manifest"
        )
        yield Slide(name, path, None, refused=reason)
    elif stat.S_ISREG(facts.st_mode):
        yield Slide(name, path, FileVersion.of_file(facts))


def _listed(root: ObjectPath, exclude: Place) -> Iterator[Slide]:
    """Objects below a prefix; an object's name may hold any part, its folder's name holds none that climbs."""
    start = len(root.key) + 1 if root.key else 0
    results, slides, own = f"{exclude}/", list[Slide](), set[str]()
    for zarr, listed in groupby(root.listed(), key=lambda each: _zarr_above(each[0].key[start:])):
        if zarr and not _is_hidden(zarr):
            # The objects of one Zarr are listed one after another, for their names begin alike.
            slides.append(Slide(zarr, root / zarr, FileVersion.of_objects(listed)))
            continue
        for path, facts in listed:
            name = path.key[start:]
            folder, _, base = name.rpartition("/")
            if base in RESULT_CARDS:
                own.add(folder)
            elif base and not zarr and not _is_hidden(name):
                slides.append(Slide(name, path, FileVersion.of_object(facts)))
    for slide in slides:
        is_result = f"{slide.place}".startswith(results) or not own.isdisjoint(_folders_above(slide.name))
        if not is_result and (not is_zarr(slide.name) or _holds_image(slide.place)):
            yield slide


def _folders_above(name: str) -> set[str]:
    parts = name.split("/")
    return {"/".join(parts[:end]) for end in range(len(parts))}


def _zarr_above(name: str) -> str:
    """The outermost Zarr in which an object lies; nothing where it lies in none."""
    parts = name.split("/")
    ends = [end for end, part in enumerate(parts[:-1], 1) if is_zarr(part)]
    return "/".join(parts[: ends[0]]) if ends else ""


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
