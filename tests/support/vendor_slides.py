"""Small slides in scanners' own formats, written byte by byte from their specifications.

NDPI: TIFF 6.0 whose links to the next directory have eight bytes, one JPEG stream per level. DICOM: PS3.3 A.32.8 (VL
Whole Slide Microscopy), PS3.5 in explicit VR little endian, one JPEG stream per frame. SCN: TIFF with Leica's XML.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

_SHORT, _LONG, _RATIONAL, _SIGNED, _FLOAT = 3, 4, 5, 9, 11
_PATTERNS = {_SHORT: "<H", _LONG: "<I", _RATIONAL: "<II", _SIGNED: "<i", _FLOAT: "<f"}


def jpeg(pixels: Pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def decoded(stream: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(stream)).convert("RGB"))


def write_ndpi(path: Path, levels: list[Pixels], mpp: float = 0.5) -> list[Pixels]:
    """Write levels, largest first; gives what the JPEG streams of them hold."""
    data = bytearray(struct.pack("<2sHQ", b"II", 42, 0))
    streams = [jpeg(pixels) for pixels in levels]
    link = 4
    for number, (pixels, stream) in enumerate(zip(levels, streams, strict=True)):
        at = len(data)
        data += stream + b"\0" * (len(stream) % 2)
        height, width = pixels.shape[:2]
        per_cm = round(10_000 / mpp / 2**number)
        tags: list[tuple[int, int, tuple[Any, ...]]] = [
            (256, _LONG, (width,)),
            (257, _LONG, (height,)),
            (258, _SHORT, (8,)),
            (259, _SHORT, (7,)),
            (262, _SHORT, (6,)),
            (273, _LONG, (at,)),
            (277, _SHORT, (3,)),
            (278, _LONG, (height,)),
            (279, _LONG, (len(stream),)),
            (282, _RATIONAL, (per_cm, 1)),
            (283, _RATIONAL, (per_cm, 1)),
            (296, _SHORT, (3,)),
            (65420, _LONG, (1,)),
            (65421, _FLOAT, (20.0 / 2**number,)),
            (65422, _SIGNED, (0,)),
            (65423, _SIGNED, (0,)),
            (65424, _SIGNED, (0,)),
        ]
        link = _append_directory(data, tags, link)
    path.write_bytes(data)
    return [decoded(stream) for stream in streams]


def _append_directory(data: bytearray, tags: list[tuple[int, int, tuple[Any, ...]]], link: int) -> int:
    """Append a directory, point the previous link at it, and give the place of its own link."""
    entries = b""
    for code, kind, values in tags:
        value = struct.pack(_PATTERNS[kind], *values)
        if len(value) > 4:
            place = len(data)
            data += value
            value = struct.pack("<I", place)
        entries += struct.pack("<HHI", code, kind, 1) + value.ljust(4, b"\0")
    start = len(data)
    struct.pack_into("<Q", data, link, start)
    data += struct.pack("<H", len(tags)) + entries + struct.pack("<Q", 0)
    data += b"\0" * (4 * len(tags))  # the high words of the values
    return start + 2 + len(entries)


def write_dicom(folder: Path, levels: list[Pixels], tile_px: int = 256, mpp: float = 0.5) -> list[Pixels]:
    """Write one file per level; gives what the JPEG streams of the frames hold."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _write_instance(folder / f"level-{number}.dcm", pixels, tile_px, mpp * 2**number, number)
        for number, pixels in enumerate(levels)
    ]


def _write_instance(path: Path, pixels: Pixels, tile_px: int, mpp: float, number: int) -> Pixels:
    height, width = pixels.shape[:2]
    rows, cols = -(-height // tile_px), -(-width // tile_px)
    padded = np.pad(pixels, ((0, rows * tile_px - height), (0, cols * tile_px - width), (0, 0)), mode="edge")
    frames = [
        jpeg(padded[y : y + tile_px, x : x + tile_px])
        for y in range(0, height, tile_px)
        for x in range(0, width, tile_px)
    ]
    shown = np.empty_like(padded)
    for index, frame in enumerate(frames):
        y, x = index // cols * tile_px, index % cols * tile_px
        shown[y : y + tile_px, x : x + tile_px] = decoded(frame)
    kind = "1.2.840.10008.5.1.4.1.1.77.1.6"
    uid = f"1.2.826.0.1.3680043.2.1143.{number + 10}"
    syntax = "1.2.840.10008.1.2.4.50"
    meta = _element(2, 1, "OB", b"\0\1") + _element(2, 2, "UI", kind) + _element(2, 3, "UI", uid)
    meta += _element(2, 0x10, "UI", syntax) + _element(2, 0x12, "UI", "1.2.826.0.1.3680043.2.1143.1")
    measures = _item(_element(0x28, 0x30, "DS", f"{mpp / 1000:.6f}\\{mpp / 1000:.6f}"))
    shared = _item(_sequence(0x28, 0x9110, measures))
    resampled = "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if number == 0 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
    body = _element(8, 8, "CS", resampled) + _element(8, 0x16, "UI", kind) + _element(8, 0x18, "UI", uid)
    body += _element(8, 0x60, "CS", "SM") + _element(8, 0x70, "LO", "overtile tests")
    body += _element(0x20, 0xD, "UI", "1.2.826.0.1.3680043.2.1143.2") + _element(
        0x20, 0xE, "UI", "1.2.826.0.1.3680043.2.1143.3"
    )
    body += _element(0x20, 0x13, "IS", str(number + 1)) + _element(0x20, 0x9311, "CS", "TILED_FULL")
    body += _element(0x28, 2, "US", 3) + _element(0x28, 4, "CS", "YBR_FULL_422") + _element(0x28, 6, "US", 0)
    body += _element(0x28, 8, "IS", str(len(frames))) + _element(0x28, 0x10, "US", tile_px)
    body += _element(0x28, 0x11, "US", tile_px) + _element(0x28, 0x100, "US", 8) + _element(0x28, 0x101, "US", 8)
    body += _element(0x28, 0x102, "US", 7) + _element(0x28, 0x103, "US", 0)
    body += _element(0x48, 6, "UL", width) + _element(0x48, 7, "UL", height)
    body += _element(0x48, 0x302, "UL", 1) + _element(0x48, 0x303, "UL", 1)
    body += _sequence(0x5200, 0x9229, shared) + _pixel_data(frames)
    path.write_bytes(b"\0" * 128 + b"DICM" + _element(2, 0, "UL", len(meta)) + meta + body)
    return shown[:height, :width]


def _element(group: int, number: int, kind: str, value: str | int | bytes) -> bytes:
    match value:
        case int():
            data = struct.pack("<H" if kind == "US" else "<I", value)
        case str():
            data = value.encode() + (b"" if len(value) % 2 == 0 else b"\0" if kind == "UI" else b" ")
        case _:
            data = value
    head = struct.pack("<HH", group, number) + kind.encode()
    return head + (struct.pack("<HI", 0, len(data)) if kind in {"OB", "SQ"} else struct.pack("<H", len(data))) + data


def _sequence(group: int, number: int, items: bytes) -> bytes:
    return struct.pack("<HH2sHI", group, number, b"SQ", 0, len(items)) + items


def _item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def _pixel_data(frames: list[bytes]) -> bytes:
    """Encapsulated frames behind a table of their offsets (PS3.5 A.4)."""
    items = [_item(frame + b"\0" * (len(frame) % 2)) for frame in frames]
    offsets = np.cumsum([0, *(len(item) for item in items[:-1])]).astype("<u4").tobytes()
    head = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
    return head + _item(offsets) + b"".join(items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def write_scn(path: Path, levels: list[Pixels], mpp: float = 0.5) -> list[Pixels]:
    """Write a slide of one brightfield image; gives what the tiles hold."""
    height, width = levels[0].shape[:2]
    nm = round(mpp * 1000)
    dimensions = "".join(
        f'<dimension sizeX="{each.shape[1]}" sizeY="{each.shape[0]}" r="{number}" ifd="{number}"/>'
        for number, each in enumerate(levels)
    )
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="1">'
        f'<collection name="c" uuid="2" sizeX="{4 * width * nm}" sizeY="{4 * height * nm}">'
        f'<image name="i" uuid="3"><creationDate>2020-01-01T00:00:00Z</creationDate><device model="m" version="1"/>'
        f'<pixels sizeX="{width}" sizeY="{height}">{dimensions}</pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="0" offsetY="0" spacingZ="0"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
        "</illuminationSettings></scanSettings></image></collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, each in enumerate(levels):
            writer.write(
                each,
                photometric="ycbcr",
                tile=(256, 256),
                compression="jpeg",
                compressionargs={"level": 95},
                subfiletype=0 if number == 0 else 1,
                resolution=(10_000 / mpp / 2**number,) * 2,
                resolutionunit=3,
                description=xml if number == 0 else None,
                metadata=None,
            )
    with tifffile.TiffFile(path) as tif:
        return [page.asarray() for page in tif.pages]  # type: ignore[union-attr]


def write_mrxs(
    path: Path,
    pixels: Pixels,
    tile_px: int = 256,
    levels: int = 3,
    mpp: float = 0.5,
    left_out: frozenset[tuple[int, int]] = frozenset(),
) -> list[Pixels]:
    """Write a slide of whole tiles, each level half of the one below; gives what the JPEG streams hold.

    The thumbnail `path` and beside it a folder of the index, the data and Slidedat.ini. `left_out` are row and column
    of tiles that the scanner took at no level: the tiles of coarser ones must hold none but such.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(jpeg(pixels[::16, ::16]))
    rows, cols = pixels.shape[0] // tile_px, pixels.shape[1] // tile_px
    assert pixels.shape[:2] == (rows * tile_px, cols * tile_px)
    data = bytearray(b"01.02" + b"0" * 32)
    pages: list[list[tuple[int, int, int]]] = []
    shown: list[Pixels] = []
    for level in range(levels):
        step = 2**level
        level_pixels = np.ascontiguousarray(pixels[::step, ::step])
        decoded_level, items = np.empty_like(level_pixels), list[tuple[int, int, int]]()
        for y in range(0, level_pixels.shape[0], tile_px):
            for x in range(0, level_pixels.shape[1], tile_px):
                if (y // tile_px * step, x // tile_px * step) in left_out:
                    continue
                stream = jpeg(level_pixels[y : y + tile_px, x : x + tile_px])
                items.append((y // tile_px * step * cols + x // tile_px * step, len(data), len(stream)))
                data += stream
                decoded_level[y : y + tile_px, x : x + tile_px] = decoded(stream)
        pages.append(items)
        shown.append(decoded_level)
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(_mirax_index(pages))
    (folder / "Slidedat.ini").write_text(_mirax_ini(rows, cols, tile_px, levels, mpp))
    return shown


def _mirax_index(pages: list[list[tuple[int, int, int]]]) -> bytes:
    """Pointers to one list of (image, offset, length, file) per level."""
    head = b"01.02" + b"0" * 32
    roots = len(head) + 8
    lists, pointers = b"", list[int]()
    at = roots + 4 * len(pages)
    for items in pages:
        pointers.append(at + len(lists))
        place = at + len(lists) + 8
        lists += struct.pack("<ii", 0, place) + struct.pack("<ii", len(items), 0)
        lists += b"".join(struct.pack("<iiii", image, offset, length, 0) for image, offset, length in items)
    return head + struct.pack("<ii", roots, roots) + struct.pack(f"<{len(pages)}i", *pointers) + lists


def _mirax_ini(rows: int, cols: int, tile_px: int, levels: int, mpp: float) -> str:
    lines = [
        "[GENERAL]",
        f"SLIDE_ID={'0' * 32}",
        f"IMAGENUMBER_X={cols}",
        f"IMAGENUMBER_Y={rows}",
        "OBJECTIVE_MAGNIFICATION=20",
        "CURRENT_SLIDE_VERSION=2.3",
        "[HIERARCHICAL]",
        "HIER_COUNT=1",
        "NONHIER_COUNT=0",
        "INDEXFILE=Index.dat",
        "HIER_0_NAME=Slide zoom level",
        f"HIER_0_COUNT={levels}",
        *(f"HIER_0_VAL_{level}_SECTION=LEVEL_{level}" for level in range(levels)),
        "[DATAFILE]",
        "FILE_COUNT=1",
        "FILE_0=Data0000.dat",
    ]
    for level in range(levels):
        lines += [
            f"[LEVEL_{level}]",
            "OVERLAP_X=0",
            "OVERLAP_Y=0",
            f"MICROMETER_PER_PIXEL_X={mpp * 2**level}",
            f"MICROMETER_PER_PIXEL_Y={mpp * 2**level}",
            "IMAGE_FILL_COLOR_BGR=16777215",
            f"DIGITIZER_WIDTH={tile_px}",
            f"DIGITIZER_HEIGHT={tile_px}",
            f"IMAGE_CONCAT_FACTOR={0 if level == 0 else 1}",
            "IMAGE_FORMAT=JPEG",
        ]
    return "\n".join(lines) + "\n"
