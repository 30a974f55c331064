"""A manifest: a CSV file that names an archive's slides one by one, with what is asked for each alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import cast

from tiling.archives.slide import Slide, file_version
from tiling.errors import PlaceError, SourceError, StorageError
from tiling.storage.object_path import ObjectPath
from tiling.storage.packed_place import unpacked_name
from tiling.storage.place import Place, place_of

SLIDE, NAME = "slide", "name"

LONGEST_BYTES = 256 * 2**20


def read_manifest(place: Place, columns: Sequence[str]) -> Iterator[Slide]:
    """The slides that a manifest names, in its order.

    Its columns: `slide`, a path (relative to the manifest's folder) or URL; `name`, by default that path where it is
    relative and climbs nowhere, else the file's own name; and any of `columns`, options by their names, of which
    `foreground` may be a path as `slide` is. An empty cell asks for nothing.

    Raises:
        SourceError: no such file, no CSV, or a column that there isn't.
    """
    rows = csv.DictReader(io.StringIO(_text(place)), strict=True)
    try:
        given = [column.strip().lower() for column in rows.fieldnames or []]
        _expect_columns(place, given, (SLIDE, NAME, *columns))
        rows.fieldnames = given
        seen: set[str] = set()
        for row in rows:
            slide = _slide(place, {column: (row.get(column) or "").strip() for column in given}, rows.line_num)
            beyond = cast("dict[str | None, list[str]]", row).get(None, [])
            if any(cell.strip() for cell in beyond):
                reason = (
                    f"line {rows.line_num} of the manifest has more cells than there are columns: what it asks for "
                )
                yield Slide(slide.name, slide.place, None, refused=f"{reason}can't be known; quote cells with a comma")
                continue
            if slide.name in seen:
                yield Slide(
                    slide.name, slide.place, None, refused=f"line {rows.line_num} of the manifest names it again"
                )
                continue
            seen.add(slide.name)
            yield slide
    except csv.Error as error:
        raise SourceError(f"{place}, line {rows.line_num}: no CSV ({error}); save the table as CSV in UTF-8") from error


def _text(place: Place) -> str:
    try:
        size = place.facts().size_bytes if isinstance(place, ObjectPath) else place.stat().st_size
        if size > LONGEST_BYTES:
            raise SourceError(f"{place}: {size} bytes are no manifest; {LONGEST_BYTES} are allowed")
        return place.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{place} is no UTF-8 ({error.reason}); save the table as CSV in UTF-8") from error
    except OSError as error:
        raise SourceError(f"{place}: {error.strerror or error}") from error


def _expect_columns(place: Place, columns: Sequence[str], known: Sequence[str]) -> None:
    unknown = [column for column in columns if column not in known]
    if SLIDE not in columns or unknown:
        problem = f"column {unknown[0]!r} is not known" if unknown else f"a column {SLIDE!r} is needed"
        raise SourceError(f"{place}: {problem}: what it asks for would be left out; known are {', '.join(known)}")
    if len(set(columns)) < len(columns):
        raise SourceError(f"{place}: two columns have one name; give each once")


def _slide(manifest: Place, row: dict[str, str], line: int) -> Slide:
    given = row[SLIDE]
    overrides = {column: cell for column, cell in row.items() if cell and column not in {SLIDE, NAME}}
    if "foreground" in overrides:
        overrides["foreground"] = _foreground(manifest, overrides["foreground"])
    if not given:
        return Slide(f"line {line}", manifest, None, refused=f"line {line} of the manifest names no slide")
    relative = PurePosixPath(given)
    is_inside = "://" not in given and not relative.is_absolute() and ".." not in relative.parts
    name = row.get(NAME) or (relative.as_posix() if is_inside else given.rstrip("/").rpartition("/")[2])
    try:
        place = _place(manifest, given, relative if is_inside else None)
    except PlaceError as error:
        # Its name may hold what must not be repeated.
        return Slide(f"line {line}", manifest, None, refused=f"line {line} of the manifest: {error}")
    except SourceError as error:
        return Slide(name, manifest, None, refused=f"{error}")
    try:
        stamp = file_version(place)
    except (SourceError, StorageError) as error:
        return Slide(name, place, None, overrides, refused=str(error))
    if stamp is None:
        return Slide(name, place, None, overrides, refused="there is no such file; correct the manifest")
    return Slide(name, place, stamp, overrides)


def _place(manifest: Place, given: str, inside: PurePosixPath | None) -> Place:
    """A slide's place; `inside` where it is named as one below the manifest's folder.

    Raises:
        PlaceError: it is no place.
        SourceError: it leads where a manifest may not.
    """
    if "://" in given and isinstance(place := place_of(given), ObjectPath):
        return place
    if isinstance(manifest, ObjectPath):
        if inside is None:
            raise SourceError("a path that leads out of the manifest's bucket; give a URL")
        return manifest.parent / inside.as_posix()
    place = manifest.parent / Path(unpacked_name(given))
    if inside is not None and not place.resolve().is_relative_to(manifest.parent.resolve()):
        raise SourceError(
            "a symbolic link out of the manifest's folder: not followed; name its target by its absolute path"
        )
    return place


def _foreground(manifest: Place, given: str) -> str:
    """A mask image lies where a slide would lie by that name."""
    if given in {"auto", "none"} or "://" in given or isinstance(manifest, ObjectPath):
        return given
    return str((manifest.parent / given).absolute())
