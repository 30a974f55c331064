"""Slides in their scanners' own formats, through OpenSlide (https://openslide.org): NDPI, MRXS, SCN, DICOM and others.

OpenSlide is a library in C: a file is opened in a process of its own first, within limits of time and memory, and only
what survives that is opened here.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import openslide
from PIL import Image

from tiling.errors import SourceError
from tiling.geometry import Box, PixelSize
from tiling.sources.cache import SegmentCache
from tiling.sources.facts import FIRST, ImageFacts, Moment, make_levels
from tiling.sources.limits import MAX_LEVELS, MAX_SIDE_PX, one_line, source_errors
from tiling.sources.tiff.pixel_size import plausible_um
from tiling.sources.tiff.segments import Grid

Pixels = npt.NDArray[np.generic]

PROBE_SECONDS = 30
PROBE_BYTES = 4 * 1024**3  # of addresses, most of which libraries reserve and never touch

_PROBE = Path(__file__).with_name("probe.py")
_CELL_PX = 1024
_CACHE_BYTES = 32 * 1024**2
_OPENSLIDE_CACHE_BYTES = 32 * 1024**2
_WHITE = (255, 255, 255)
_BANDS = ("red", "green", "blue")
_WHOLE = frozenset({"hamamatsu"})
"""Makers whose slides are whole rectangles; those of others may lack what the scanner found empty."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Facts of a slide, as the probe reports them."""

    vendor: str
    shapes: tuple[tuple[int, int], ...]
    downsamples: tuple[float, ...]
    pixel_size: PixelSize | None
    background: tuple[int, int, int]
    bounds_px: tuple[int, int]


class SlideReader:
    """An open slide. Safe to call from several threads at once.

    Pixels are read in cells on a fixed grid: where a level's pixels don't lie on whole pixels of level 0, OpenSlide
    shifts them by a fraction that depends on where a read begins, and neighbouring tiles would see different pixels.
    What the scanner left out has the slide's background colour, and holds no data: OpenSlide gives it as transparent.
    """

    def __init__(self, path: Path, moment: Moment = FIRST) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._slide: openslide.OpenSlide | None = None
        self.cache = SegmentCache(_CACHE_BYTES)
        with source_errors(str(path)):
            moment.expect_in(1, 1)
            moment.expect_one_image()
            self._found = _probed(path)
        levels = make_levels(list(self._found.shapes), self._found.pixel_size)
        memory = _CACHE_BYTES + _OPENSLIDE_CACHE_BYTES + 16 * _CELL_PX * _CELL_PX
        self._facts = ImageFacts(
            self._found.vendor,
            _BANDS,
            np.dtype(np.uint8),
            levels,
            "rgb",
            memory_bytes=memory,
            bounds_px=self._found.bounds_px,
            is_slide=True,
            has_mask=self._found.vendor not in _WHOLE,
        )

    @property
    def facts(self) -> ImageFacts:
        return self._facts

    def read(self, level: int, box: Box) -> Pixels:
        """Pixels `(y, x, band)` of a box inside the level."""
        return np.ascontiguousarray(self._read(level, box)[..., : len(_BANDS)])

    def read_mask(self, level: int, box: Box) -> npt.NDArray[np.bool_] | None:
        """Mask of the pixels of a box that the scanner took; None where its maker's slides leave nothing out."""
        return self._read(level, box)[..., len(_BANDS)] != 0 if self._facts.has_mask else None

    def _read(self, level: int, box: Box) -> Pixels:
        """Pixels with OpenSlide's alpha after the bands."""
        whole = self._facts.levels[level]
        out = np.empty((*box.shape, len(_BANDS) + 1), np.uint8)
        for index, place in Grid(whole.height, whole.width, _CELL_PX, _CELL_PX).under(box):
            cell = self.cache.get((level, index), place.area * 4, lambda place=place: self._cell(level, place))
            common = place.intersect(box)
            out[common.relative_to(box).slices] = cell[common.relative_to(place).slices]
        return out

    def chunk_px(self, level: int) -> tuple[int, int]:
        whole = self._facts.levels[level]
        return min(_CELL_PX, whole.height), min(_CELL_PX, whole.width)

    def close(self) -> None:
        self.cache.clear()
        with self._lock:
            slide, self._slide = self._slide, None
        if slide is not None:
            slide.close()

    def _cell(self, level: int, place: Box) -> Pixels:
        downsample = self._found.downsamples[level]
        corner = round(place.x0 * downsample), round(place.y0 * downsample)
        slide = self._opened()
        try:
            region = slide.read_region(corner, level, (place.width, place.height))
        except openslide.OpenSlideError as error:
            # Once it has failed, OpenSlide refuses all else: one damaged tile must not take the slide with it.
            self._forget(slide)
            raise SourceError(f"OpenSlide can't read it ({one_line(error)})") from error
        canvas = Image.new("RGB", region.size, self._found.background)
        canvas.paste(region, (0, 0), region)
        return np.dstack([np.asarray(canvas), np.asarray(region.getchannel("A"))])

    def _opened(self) -> openslide.OpenSlide:
        with self._lock:
            if self._slide is None:
                try:
                    self._slide = openslide.OpenSlide(self._path)
                except (openslide.OpenSlideError, OSError) as error:
                    raise SourceError(f"OpenSlide can't open it ({one_line(error)})") from error
                self._slide.set_cache(openslide.OpenSlideCache(_OPENSLIDE_CACHE_BYTES))
            return self._slide

    def _forget(self, slide: openslide.OpenSlide) -> None:
        """Let the next read open the slide again; other threads' reads end before the library lets go of it."""
        with self._lock:
            if self._slide is slide:
                self._slide = None


def _probed(path: Path) -> _Found:
    """Ask a process of its own what a slide is.

    Raises:
        SourceError: OpenSlide refuses the slide, dies of it, or takes too long or too much.
    """
    command = [sys.executable, "-I", str(_PROBE), str(path), str(PROBE_BYTES), str(PROBE_SECONDS)]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=2 * PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"OpenSlide takes longer than {2 * PROBE_SECONDS} s to open it") from error
    if ended.returncode:
        name = signal.Signals(-ended.returncode).name if ended.returncode < 0 else f"exit code {ended.returncode}"
        raise SourceError(f"OpenSlide ends with {name} when it opens it: the slide is damaged or hostile")
    try:
        answer = cast("dict[str, Any]", json.loads(ended.stdout))
    except ValueError as error:
        raise SourceError("OpenSlide opened it and said nothing of it: the slide is damaged") from error
    if "error" in answer:
        text = " ".join(str(answer["error"]).split())[:200]
        raise SourceError(f"OpenSlide can't open it ({text}); is the slide whole, with the files that belong to it?")
    return _found(answer)


def _found(answer: dict[str, Any]) -> _Found:
    """Hold what the probe says against the limits."""
    properties: dict[str, str | None] = answer["properties"]
    levels: list[tuple[int, int, float]] = [(int(h), int(w), float(d)) for h, w, d in answer["levels"][:MAX_LEVELS]]
    if not levels or any(min(h, w) < 1 or max(h, w) > MAX_SIDE_PX for h, w, _ in levels):
        raise SourceError(f"its levels have sides below 1 px or over {MAX_SIDE_PX} px: the slide is damaged")
    kept = levels[:1]
    for height, width, downsample in levels[1:]:
        if width < kept[-1][1] and height <= kept[-1][0] and math.isfinite(downsample) and downsample >= 1:
            kept.append((height, width, downsample))
    return _Found(
        vendor=str(properties.get(openslide.PROPERTY_NAME_VENDOR) or "openslide")[:40],
        shapes=tuple((height, width) for height, width, _ in kept),
        downsamples=tuple(downsample for _, _, downsample in kept),
        pixel_size=_pixel_size(properties),
        background=_background(properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)),
        bounds_px=_bounds(properties, levels[0]),
    )


def _pixel_size(properties: dict[str, str | None]) -> PixelSize | None:
    try:
        y = float(properties.get(openslide.PROPERTY_NAME_MPP_Y) or "nan")
        x = float(properties.get(openslide.PROPERTY_NAME_MPP_X) or "nan")
    except ValueError:
        return None
    return plausible_um(y, x)


def _bounds(properties: dict[str, str | None], whole: tuple[int, int, float]) -> tuple[int, int]:
    """Corner of what the scanner took, y before x: there QuPath counts pixels from."""
    try:
        y = int(properties.get(openslide.PROPERTY_NAME_BOUNDS_Y) or 0)
        x = int(properties.get(openslide.PROPERTY_NAME_BOUNDS_X) or 0)
    except ValueError:
        return 0, 0
    return (y, x) if 0 <= y < whole[0] and 0 <= x < whole[1] else (0, 0)


def _background(text: str | None) -> tuple[int, int, int]:
    if text is None or len(text) != 6 or any(digit not in "0123456789abcdefABCDEF" for digit in text):
        return _WHITE
    return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)
