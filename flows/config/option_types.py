"""Types of options: a place, a tile, and how an option is written on the command line."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, NonNegativeInt, PlainSerializer, PlainValidator, WithJsonSchema

from tiling.escaping import is_utf8
from tiling.storage.object_path import ObjectPath
from tiling.storage.place import Place, place_of

_Named = TypeVar("_Named", str, Path)


def from_home(path: _Named) -> _Named:
    """A path whose `~` no shell has expanded, as in `--out=~/run`, in a job's file or in Python."""
    if str(path).startswith("~"):
        with suppress(RuntimeError):  # of nobody's home: a name that begins so
            return type(path)(Path(path).expanduser())
    return path


def named_place(name: str | Place) -> Place:
    """A path or URL as a person names it."""
    return place_of(
        from_home(name) if isinstance(name, str) else name if isinstance(name, ObjectPath) else from_home(name)
    )


def _as_place(value: object) -> Place:
    if not isinstance(value, str | Path | ObjectPath):
        raise ValueError("a path or a URL is needed")
    if not is_utf8(value):
        raise ValueError(
            f"{str(value)[-80:]!a} is not UTF-8: neither run.json nor Prefect can name it; rename it, or give a "
            f"symbolic link to it"
        )
    return named_place(value)


def _as_output(value: object) -> Place:
    place = _as_place(value)
    if isinstance(place, ObjectPath):
        place.expect_writable()
    return place


_AS_TEXT = (PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string", "format": "path"}))

Where = Annotated[Path | ObjectPath, PlainValidator(_as_place), *_AS_TEXT]
"""A local path, or the URL of a place in an object store or of an image on the web."""

Output = Annotated[Path | ObjectPath, PlainValidator(_as_output), *_AS_TEXT]
"""The same, where a run can be."""

LocalFile = Annotated[Path, AfterValidator(from_home)]
"""A file on a disk of this machine."""


def _as_tile(value: object) -> object:
    """A tile as a person writes it: `3,12`."""
    if not isinstance(value, str):
        return value
    row, _, col = value.partition(",")
    if not (row.strip().isdecimal() and col.strip().isdecimal()):
        raise ValueError("a tile is ROW,COL, for example 3,12")
    return int(row), int(col)


TileName = Annotated[
    tuple[NonNegativeInt, NonNegativeInt],
    BeforeValidator(_as_tile),
    PlainSerializer(lambda tile: f"{tile[0]},{tile[1]}", return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+ *, *[0-9]+$", "title": "ROW,COL"}),
]
"""A tile by row and column; one text field in a form."""


def _as_text(value: object) -> object:
    """Items as one text: `[3, 2, 1]` is `3,2,1`; a number or a path is a text of one item."""
    if isinstance(value, list | tuple):
        items: list[object] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        if not items or any(isinstance(each, bool) or not isinstance(each, str | Real) for each in items):
            raise ValueError("numbers or texts are needed, one or more")
        if split := [each for each in items if isinstance(each, str) and "," in each]:
            raise ValueError(f"{split[0]!r} holds the comma that separates items; give its number")
        return ",".join(map(str, items))
    return str(value) if isinstance(value, int | Path) and not isinstance(value, bool) else value


Joined = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str)]
"""A text of items with commas in between, or a sequence of the items."""


@dataclass(frozen=True)
class Cli:
    """Spelling of an option on the command line, where its name and its type don't say so.

    flag: in place of `--its-name`. metavar: what stands for a value in the help. is_word: it has no flag, and is named
    by its place. is_repeatable: it may be given more than once. unit: of a default that is a bare number. short: one
    letter for the flag. former: a name that a switch had and still answers to, in no help.
    """

    flag: str = ""
    metavar: str | None = None
    is_word: bool = False
    is_repeatable: bool = False
    unit: str = ""
    short: str = ""
    former: str = ""
