"""Every dialect of TIFF that is written here reads as tifffile reads it, by boxes."""

from __future__ import annotations

import io
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from source_oracle import HEIGHT, Pixels, assert_reads_like, bands_of, picture, whole_page, write

from tiling.errors import SourceError
from tiling.geometry import Box
from tiling.source import ImageSource, open_source
from tiling.sources.cache import SegmentCache
from tiling.sources.file import LocalFile
from tiling.sources.tiff.reader import TiffReader

DIALECTS: dict[str, tuple[Pixels, dict[str, Any]]] = {
    "one strip": (picture(), {}),
    "strips": (picture(), {"rowsperstrip": 7}),
    "tiles": (picture(), {"tile": (32, 64)}),
    "BigTIFF": (picture(), {"tile": (32, 32), "bigtiff": True}),
    "big-endian": (picture(3, "uint16"), {"tile": (32, 32), "byteorder": ">"}),
    "big-endian strips": (picture(1, "uint16"), {"rowsperstrip": 11, "byteorder": ">"}),
    "planar tiles": (np.moveaxis(picture(), -1, 0), {"tile": (32, 32), "planarconfig": "separate"}),
    "planar strips": (np.moveaxis(picture(), -1, 0), {"rowsperstrip": 9, "planarconfig": "separate"}),
    "planar deflate": (
        np.moveaxis(picture(), -1, 0),
        {"rowsperstrip": 9, "planarconfig": "separate", "compression": "deflate"},
    ),
    "gray": (picture(1), {"tile": (48, 48)}),
    "int16": (picture(1, "int16") - 100, {"tile": (48, 48)}),
    "uint32": (picture(1, "uint32") * 70_000, {"compression": "deflate", "rowsperstrip": 10}),
    "float32": (picture(2, "float32"), {"tile": (48, 48), "compression": "zstd", "planarconfig": "contig"}),
    "float predictor": (picture(1, "float32"), {"tile": (48, 48), "compression": "deflate", "predictor": 3}),
    "min is white": (picture(1), {"photometric": "miniswhite", "rowsperstrip": 16, "compression": "lzw"}),
    "six bands": (picture(6, "uint16"), {"photometric": "minisblack", "planarconfig": "contig", "tile": (32, 32)}),
    "alpha": (picture(4), {"photometric": "rgb", "extrasamples": ["unassalpha"], "tile": (32, 32)}),
    "alpha planar": (
        np.moveaxis(picture(4), -1, 0),
        {"photometric": "rgb", "extrasamples": ["unassalpha"], "planarconfig": "separate", "rowsperstrip": 32},
    ),
    "fourth band": (picture(4), {"photometric": "rgb", "extrasamples": ["unspecified"], "compression": "deflate"}),
    "jpeg": (picture(), {"tile": (64, 64), "compression": "jpeg", "photometric": "ycbcr"}),
    "jpeg rgb": (picture(), {"tile": (64, 64), "compression": "jpeg", "photometric": "rgb"}),
    "jpeg strips": (picture(), {"rowsperstrip": 16, "compression": "jpeg"}),
    "jpeg gray": (picture(1), {"tile": (64, 64), "compression": "jpeg"}),
    "deflate": (picture(), {"tile": (64, 64), "compression": "deflate"}),
    "lzw": (picture(), {"rowsperstrip": 16, "compression": "lzw"}),
    "lzw predictor": (picture(3, "uint16"), {"tile": (32, 32), "compression": "lzw", "predictor": True}),
    "zstd predictor": (picture(), {"tile": (32, 32), "compression": "zstd", "predictor": True}),
    "packbits": (picture(), {"rowsperstrip": 16, "compression": "packbits"}),
    "lzma": (picture(), {"tile": (64, 64), "compression": "lzma"}),
    "webp": (picture(), {"tile": (64, 64), "compression": "webp"}),
    "jpeg2000": (picture(), {"tile": (64, 64), "compression": "jpeg2000"}),
    "png": (picture(), {"tile": (64, 64), "compression": "png"}),
    "lerc": (picture(1), {"tile": (64, 64), "compression": "lerc"}),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_boxes_of_every_dialect_equal_the_whole_page(dialect: str, tmp_path: Path) -> None:
    pixels, options = DIALECTS[dialect]
    path = write(tmp_path / "image.tif", pixels, **options)
    with open_source(path) as source:
        assert source.format == "tiff"
        assert_reads_like(source, 0, whole_page(path))
        assert_reads_like(source, 0, np.asarray(source.lazy(0).compute()), boxes=1)


@pytest.mark.parametrize("mode", ["P", "1", "L", "RGB", "RGBA", "LA", "I;16"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_modes_that_pillow_writes_read_as_pillow_reads_them(mode: str, compression: str, tmp_path: Path) -> None:
    image = Image.fromarray(picture(4)).convert("RGBA")
    match mode:
        case "P":
            image = image.convert("RGB").quantize(31)
        case "I;16":
            image = Image.fromarray(picture(1, "uint16"))
        case _:
            image = image.convert("RGB").convert(mode) if mode != "RGBA" else image
    image.save(tmp_path / "image.tif", compression=compression)
    bands = {"P": "RGB", "1": "L", "RGBA": "RGB", "LA": "L"}.get(mode, mode)
    expected = np.asarray(Image.open(tmp_path / "image.tif").convert(bands) if bands != mode else image)
    with open_source(tmp_path / "image.tif") as source:
        assert source.has_alpha == mode.endswith("A")
        assert_reads_like(source, 0, expected if expected.ndim == 3 else expected[..., np.newaxis], boxes=3)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".jp2"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_whole_image_formats_read_as_pillow_reads_them(suffix: str, mode: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    Image.fromarray(picture()).convert(mode).save(path, lossless=True)
    stored = Image.open(path)
    expected = np.asarray(stored if suffix != ".webp" else stored.convert("RGB"))
    with open_source(path) as source:
        assert source.format == {".png": "png", ".jpg": "jpeg", ".webp": "webp", ".jp2": "jpeg2000"}[suffix]
        assert_reads_like(source, 0, expected if expected.ndim == 3 else expected[..., np.newaxis], boxes=3)


@pytest.mark.parametrize("mode", ["P", "1", "LA", "RGBA", "I;16"])
def test_png_palettes_alpha_and_depths_become_bands(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    rgba = Image.fromarray(picture(4))
    image = {
        "P": lambda: rgba.convert("RGB").quantize(9),
        "I;16": lambda: Image.fromarray(picture(1, "uint16") * 200),
    }.get(mode, lambda: rgba.convert(mode))()
    image.save(path)
    bands = {"P": "RGB", "1": "L", "RGBA": "RGB", "LA": "L"}.get(mode)
    expected = np.asarray(image.convert(bands) if bands else image)
    with open_source(path) as source:
        assert source.has_alpha == mode.endswith("A")
        assert_reads_like(source, 0, expected if expected.ndim == 3 else expected[..., np.newaxis], boxes=2)


def test_sparse_tiles_hold_nodata(tmp_path: Path) -> None:
    path = write(tmp_path / "image.tif", picture(1), tile=(64, 64), extratags=[(42113, "s", 0, "7", True)])
    with tifffile.TiffFile(path, mode="r+") as tif:
        for code in (324, 325):
            tag = tif.pages.first.tags[code]
            tag.overwrite((0, *tag.value[1:]))
    expected = picture(1)[..., np.newaxis]
    expected[:64, :64] = 7
    assert_reads_like(open_source(path), 0, expected)


def test_a_box_decodes_only_the_segments_under_it(tmp_path: Path) -> None:
    path = write(tmp_path / "image.tif", picture(3, height=2048, width=2048), tile=(128, 128), compression="zstd")
    reader = TiffReader(path, LocalFile(path))
    reader.read(0, Box(130, 130, 380, 250))
    assert reader.cache.decoded == 2
    reader.read(0, Box(200, 200, 300, 300))
    assert reader.cache.decoded == 4  # two of its four tiles were held
    tile_bytes = 128 * 128 * 3
    assert reader.facts.memory_bytes == reader.cache.limit_bytes + 2 * tile_bytes
    reader.close()


def test_the_cache_keeps_to_its_limit_and_drops_the_least_used() -> None:
    cache = SegmentCache(limit_bytes=1000)
    for key in (1, 2, 1, 3):
        cache.get(key, 400, lambda: np.zeros(400, np.uint8))
    cache.get(1, 400, lambda: np.zeros(400, np.uint8))
    assert cache.decoded == 3  # 2 was dropped for 3, 1 was held
    giant = cache.get("giant", 5000, lambda: np.zeros(5000, np.uint8))
    assert cache.get("giant", 5000, lambda: np.ones(5000, np.uint8)) is giant
    with pytest.raises(ValueError, match="read-only"):
        giant[0] = 1


def test_threads_read_the_same_pixels(tmp_path: Path) -> None:
    pixels = picture(3, height=600, width=700)
    path = write(tmp_path / "image.tif", pixels, tile=(64, 64), compression="deflate")
    source = open_source(path)
    problems: list[str] = []

    def read(seed: int) -> None:
        try:
            assert_reads_like(source, 0, pixels, boxes=20, seed=seed)
        except AssertionError as error:
            problems.append(str(error))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_a_pickled_source_reads_in_its_new_place_and_notices_a_changed_file(tmp_path: Path) -> None:
    path = write(tmp_path / "image.tif", picture(), tile=(64, 64))
    sent = pickle.dumps(open_source(path))
    assert len(sent) < 2000
    copy: ImageSource = pickle.loads(sent)
    assert_reads_like(copy, 0, picture(), boxes=1)
    copy.close()
    assert_reads_like(copy, 0, picture(), boxes=1)  # opened again
    write(path, picture()[:, :-1], tile=(64, 64))
    with pytest.raises(SourceError, match="changed after it was opened"):
        pickle.loads(sent).read(0, Box(0, 0, 1, 1))


def test_lazy_arrays_are_cut_along_tiles_and_read_only_what_is_asked(tmp_path: Path) -> None:
    pixels = picture(3, height=1500, width=2100)
    path = write(tmp_path / "image.tif", pixels, tile=(240, 240), compression="deflate")
    array = open_source(path).lazy(0)
    assert array.chunks == ((960, 540), (960, 960, 180), (3,))
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array[900:1000, 950:970].compute(), pixels[900:1000, 950:970])


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = write(tmp_path / "a.tif", picture())
    second = tmp_path / "b.tif"
    second.write_bytes(first.read_bytes())
    assert open_source(first).fingerprint() == open_source(second).fingerprint()
    second.write_bytes(first.read_bytes()[:-1] + b"\x01")
    assert open_source(first).fingerprint() != open_source(second).fingerprint()


@pytest.mark.parametrize("box", [Box(0, 0, HEIGHT + 1, 5), Box(-1, 0, 5, 5), Box(3, 3, 3, 9)])
def test_boxes_outside_the_level_are_refused(box: Box, tmp_path: Path) -> None:
    source = open_source(write(tmp_path / "image.tif", picture()))
    with pytest.raises(SourceError, match="not inside level 0 of 150 x 211 px"):
        source.read(0, box)
    with pytest.raises(SourceError, match="there is no level 1"):
        source.read(1, Box(0, 0, 1, 1))


def test_a_description_names_format_size_bands_and_pixel_size(tmp_path: Path) -> None:
    path = write(tmp_path / "image.tif", picture(), resolution=(20_000, 20_000), resolutionunit="centimeter")
    assert open_source(path).describe() == "tiff 211 x 150 px, red/green/blue uint8, 1 level, 0.5 x 0.5 um/px"


def test_a_stack_of_pages_reads_as_its_first_and_says_so(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for _ in range(300):
            writer.write(picture(1, height=16, width=16), metadata=None)
    path = tmp_path / "stack.tif"
    path.write_bytes(buffer.getvalue())
    with open_source(path) as source, tifffile.TiffFile(path) as tif:
        assert len(source.levels) == 1
        assert source.describe().endswith("first of 300 pages")
        assert_reads_like(source, 0, bands_of(tif.pages.first), boxes=1)
