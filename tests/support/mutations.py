"""Seeded mutations of good image files: what bit rot does to them, and what an enemy would."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from source_oracle import imwrite, picture

EXTREMES = (0, 1, 2, 255, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
SIDES = (256, 257, 322, 323, 278, 277, 258, 317, 284)  # sides of image and tile, rows, samples, bits…
OFFSETS_AND_COUNTS = (324, 325, 273, 279)
LISTING = (324, 273)
DESCRIPTION, SUB_DIRECTORIES = 270, 330
MEGABYTES = 2**20

HOSTILE_XML = (
    '<!DOCTYPE o [<!ENTITY a SYSTEM "file:///etc/passwd">]><OME>&a;</OME>',
    '<!DOCTYPE o SYSTEM "http://127.0.0.1:9/x.dtd"><OME/>',
    '<!DOCTYPE o [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]><OME>&c;</OME>',
    "<OME><Image><Pixels SizeX='99999999' SizeY='99999999' SizeC='99999999'/></Image></OME>",
    "<OME><Image><Pixels><TiffData><UUID FileName='../../../x.tif'>x</UUID></TiffData></Pixels></Image></OME>",
    "<OME>" + "<a>" * 200,
    "<OME><Image><Pixels SizeC='-1' SizeZ='NaN' PhysicalSizeX='1e999'/></Image></OME>",
)


@dataclass(frozen=True, slots=True)
class Field:
    """A tag's values in the file: where they lie and how each is packed."""

    code: int
    offset: int
    packed: str
    count: int


@dataclass(frozen=True, slots=True)
class Good:
    """A good file and the places in it that hold structure rather than pixels."""

    name: str
    data: bytes
    order: str  # of struct
    directories: tuple[int, ...]
    links: tuple[tuple[int, str], ...]  # where each directory names the next
    fields: tuple[Field, ...]
    segments: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, path: Path) -> Good:
        data = path.read_bytes()
        if data[:2] not in {b"II", b"MM"}:
            return cls(path.name, data, "<", (0,), (), (), ((0, len(data)),))
        with tifffile.TiffFile(path) as tif:
            pages = list(_first_pages(tif))
            order = tif.byteorder
            packing = {1: "B", 2: "s", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
            fields = [
                Field(tag.code, tag.valueoffset, packing.get(int(tag.dtype), "B"), tag.count)
                for page in pages
                for tag in page.tags.values()
            ]
            big = bool(tif.is_bigtiff)
            links = [
                (page.offset + (8 + 20 * len(page.tags) if big else 2 + 12 * len(page.tags)), "Q" if big else "I")
                for page in pages
            ]
            segments = [
                (int(o), int(n)) for page in pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)
            ]
        return cls(
            path.name,
            data,
            order,
            tuple(page.offset for page in pages),
            tuple((place, kind) for place, kind in links if place + 8 <= len(data)),
            tuple(fields),
            tuple((o, n) for o, n in segments[:4096] if 0 < n <= len(data) - o),
        )

    def fields_of(self, *codes: int) -> list[Field]:
        return [field for field in self.fields if field.code in codes and field.packed in "HIQ"]


def _first_pages(tif: tifffile.TiffFile) -> Iterator[Any]:
    """Whole pages, up to the first that the file doesn't hold as it says: some good files are odd."""
    for index in range(8):
        try:
            page = tif.pages.get(index)
        except (IndexError, ValueError, KeyError, struct.error, tifffile.TiffFileError):
            return
        if isinstance(page, tifffile.TiffPage):
            yield page


Mutation = Callable[[Good, bytearray, random.Random], bytearray]


def flip_structure(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    """Bits of the header and of the directories' entries."""
    for _ in range(chance.choice((1, 1, 2, 8))):
        start = chance.choice((0, *good.directories))
        place = min(start + chance.randrange(260), len(data) - 1)
        data[place] ^= 1 << chance.randrange(8)
    return data


def extreme_structure(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    """Extreme numbers anywhere in the directories."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = min(chance.choice((0, *good.directories)) + chance.randrange(260), len(data) - 4)
        struct.pack_into(good.order + "I", data, max(0, place), chance.choice(EXTREMES))
    return data


def flip_pixels(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    """Bits of compressed tiles and strips."""
    for _ in range(chance.choice((1, 3, 30))):
        offset, count = chance.choice(good.segments) if good.segments else (0, len(data))
        data[offset + chance.randrange(count)] ^= 1 << chance.randrange(8)
    return data


def head_of_a_segment(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    """The first bytes of a tile's stream, in which codecs keep their own sizes."""
    offset, count = chance.choice(good.segments) if good.segments else (0, len(data))
    for _ in range(chance.choice((1, 2, 6))):
        data[offset + chance.randrange(min(count, 64))] = chance.choice((0, 1, 127, 128, 254, 255))
    return data


def truncate(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    del good
    return data[: chance.randrange(len(data))]


def swap_offsets(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    """Two entries of a table of offsets or lengths change places, or one points elsewhere."""
    fields = [field for field in good.fields_of(*OFFSETS_AND_COUNTS) if field.count > 1]
    if not fields:
        return extreme_structure(good, data, chance)
    field = chance.choice(fields)
    size = struct.calcsize(field.packed)
    one, other = (field.offset + size * chance.randrange(field.count) for _ in range(2))
    held = bytes(data[one : one + size])
    if chance.random() < 0.5:
        data[one : one + size] = data[other : other + size]
        data[other : other + size] = held
    else:
        wanted = chance.choice((0, 1, len(data) - 1, len(data), 2**32 - 1, chance.randrange(len(data))))
        struct.pack_into(good.order + field.packed, data, one, min(wanted, 2 ** (8 * size) - 1))
    return data


def absurd_dimensions(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    """Sides, tiles, samples and bits that nobody could hold."""
    fields = good.fields_of(*SIDES)
    if not fields:
        return extreme_structure(good, data, chance)
    for field in chance.sample(fields, min(len(fields), chance.choice((1, 2, 3)))):
        largest = 2 ** (8 * struct.calcsize(field.packed)) - 1
        wanted = chance.choice((0, 1, 3, 17, 20_480, 65_535, 1_000_000, 2**31 - 1, 2**32 - 1))
        struct.pack_into(good.order + field.packed, data, field.offset, min(wanted, largest))
    return data


def loop_directories(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    """A directory that names itself, an earlier one or nonsense as the next, or as its own child."""
    if not good.links:
        return flip_structure(good, data, chance)
    children = good.fields_of(SUB_DIRECTORIES)
    if children and chance.random() < 0.5:
        field = chance.choice(children)
        place, kind = field.offset, field.packed
    else:
        place, kind = chance.choice(good.links)
    wanted = chance.choice((*good.directories, *good.directories, 4, len(data) - 2, chance.randrange(len(data))))
    struct.pack_into(good.order + kind, data, place, wanted)
    return data


def hostile_description(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    """XML with external and exploding entities, at the end of the file, as the first page's description."""
    entry = next((f for f in good.fields if f.code == DESCRIPTION), None)
    if entry is None or len(good.order) != 1 or not good.directories:
        return flip_structure(good, data, chance)
    text = b'<?xml version="1.0"?>' + chance.choice(HOSTILE_XML).encode() + b"\0"
    place = good.directories[0]
    is_big = bytes(data[2:4]) in {b"\x2b\0", b"\0\x2b"}
    count, size, head = (
        (struct.unpack_from(good.order + "Q", data, place)[0], 20, 8)
        if is_big
        else (struct.unpack_from(good.order + "H", data, place)[0], 12, 2)
    )
    for at in range(place + head, place + head + size * count, size):
        if struct.unpack_from(good.order + "H", data, at)[0] == DESCRIPTION:
            struct.pack_into(good.order + ("QQ" if is_big else "II"), data, at + 4, len(text), len(data))
    return data + text


def splice(good: Good, data: bytearray, chance: random.Random) -> bytearray:
    """A piece of the file is written over another."""
    del good
    length = chance.randrange(1, min(4096, len(data)))
    source, target = chance.randrange(len(data) - length + 1), chance.randrange(len(data) - length + 1)
    data[target : target + length] = data[source : source + length]
    return data


MUTATIONS: tuple[Mutation, ...] = (
    flip_structure,
    extreme_structure,
    flip_pixels,
    head_of_a_segment,
    truncate,
    swap_offsets,
    absurd_dimensions,
    loop_directories,
    hostile_description,
    splice,
)


def mutate(files: list[Good], seed: int) -> tuple[str, str, bytes]:
    """The seed's mutation: the good file's name, what was done to it, and the bytes."""
    chance = random.Random(seed)
    good, mutation = files[seed % len(files)], chance.choice(MUTATIONS)
    try:
        return good.name, mutation.__name__, bytes(mutation(good, bytearray(good.data), chance))
    except (struct.error, IndexError):  # an odd file names a place outside itself
        return good.name, truncate.__name__, bytes(truncate(good, bytearray(good.data), chance))


def write_good_files(folder: Path) -> Iterator[Path]:
    """Good files of every layout and codec, small."""
    rgb, deep = picture(), picture(dtype="uint16")
    tiled: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    for codec in ("none", "jpeg", "deflate", "lzw", "zstd", "webp", "jpeg2000", "png", "lzma", "packbits"):
        compression = None if codec == "none" else codec
        yield saved(folder / f"{codec}.tif", rgb, **tiled, compression=compression)
    yield saved(folder / "big.tif", rgb, **tiled, bigtiff=True, compression="deflate")
    yield saved(folder / "endian.tif", deep, **tiled, byteorder=">", compression="deflate", predictor=True)
    yield saved(folder / "strips.tif", rgb, photometric="rgb", metadata=None, rowsperstrip=16, compression="lzw")
    yield saved(
        folder / "planar.tif", np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate", tile=(64, 64)
    )
    yield saved(folder / "float.tif", picture(1, "float32"), tile=(64, 64), compression="deflate", predictor=True)
    yield saved(folder / "stack.ome.tif", picture(1).repeat(2, 0), ome=True, metadata={"axes": "YX"}, tile=(64, 64))
    yield pyramid(folder / "pyramid.tif", rgb)
    for kind in ("png", "jpeg", "webp", "jp2"):
        path = folder / f"image.{kind}"
        Image.fromarray(rgb).save(path, format="JPEG2000" if kind == "jp2" else kind)
        yield path


def saved(path: Path, pixels: Any, **options: Any) -> Path:
    imwrite(path, pixels, **options)
    return path


def pyramid(path: Path, rgb: Any) -> Path:
    with tifffile.TiffWriter(path) as tif:
        write: Any = tif.write
        write(rgb, subifds=1, tile=(64, 64), photometric="rgb", compression="jpeg", metadata=None)
        write(rgb[::2, ::2], subfiletype=1, tile=(64, 64), photometric="rgb", compression="jpeg", metadata=None)
    return path


def real_files(data: Path) -> list[Path]:
    """Good and odd files of the open imagery, up to 2 MB."""
    kinds = {".tif", ".tiff", ".svs", ".png", ".jp2", ".j2k"}
    files = [p for kind in ("slides", "geo", "malformed") for p in sorted((data / kind).rglob("*"))]
    return [p for p in files if p.suffix.lower() in kinds and p.stat().st_size < 2 * MEGABYTES]
