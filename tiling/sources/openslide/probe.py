"""Probe of a slide: opens it with OpenSlide in a process of its own, which may crash, and reports its facts.

Run as a file, with the slide's path and the limits as arguments; writes one line of JSON. It imports nothing of this
package, so that it starts fast.
"""

from __future__ import annotations

import json
import resource
import sys

import openslide

_SAMPLE_PX = 256
_PROPERTIES = (
    openslide.PROPERTY_NAME_VENDOR,
    openslide.PROPERTY_NAME_MPP_X,
    openslide.PROPERTY_NAME_MPP_Y,
    openslide.PROPERTY_NAME_BACKGROUND_COLOR,
    openslide.PROPERTY_NAME_BOUNDS_X,
    openslide.PROPERTY_NAME_BOUNDS_Y,
)


def probe(path: str) -> dict[str, object]:
    """Facts of a slide, once a piece from the middle of every level has been read."""
    try:
        with openslide.OpenSlide(path) as slide:
            levels = list(zip(slide.level_dimensions, slide.level_downsamples, strict=True))
            for level, ((width, height), downsample) in enumerate(levels):
                corner = int(width // 2 * downsample), int(height // 2 * downsample)
                slide.read_region(corner, level, (min(_SAMPLE_PX, width), min(_SAMPLE_PX, height)))
            return {
                "levels": [[height, width, downsample] for (width, height), downsample in levels],
                "properties": {name: slide.properties.get(name) for name in _PROPERTIES},
            }
    except (openslide.OpenSlideError, OSError, ValueError, MemoryError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    path, memory_bytes, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    json.dump(probe(path), sys.stdout)


if __name__ == "__main__":
    main()
