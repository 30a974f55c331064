"""Child that reads one raster with GDAL, and may hang, crash or run out of memory in place of its parent.

Run as a file, with what it may do as its argument, in JSON; answers requests of its standard input until that ends. A
request is a line of JSON, an answer a line of JSON and as many bytes as that says. It imports nothing of this package,
so that it starts fast.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags

_MOST_IMAGES = 64
_MOST_LEVELS = 32
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_NO_NEW_PRIVILEGES = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3


class Raster:
    """The file, and of it the image that is open: a dataset for each level."""

    def __init__(self, path: str, driver: str) -> None:
        self._path, self._driver = path, driver
        self._levels: list[Any] = []
        self._bands: list[int] = []
        self._colours: np.ndarray[Any, Any] | None = None

    def images(self) -> dict[str, Any]:
        """The images of a file that has several, by the names that GDAL opens them by; none of a plain file."""
        with self._opened(self._path) as file:
            names = [] if file.count else list(file.subdatasets)
        found: list[list[Any]] = []
        for name in names[:_MOST_IMAGES]:
            try:
                with self._opened(name) as image:
                    found.append([name, image.height, image.width])
            except rasterio.RasterioIOError:
                continue  # a table, or an axis
        return {"images": found}

    def facts(self, name: str) -> dict[str, Any]:
        """All that is known of an image, which is read from here on."""
        first = self._opened(name)
        self._levels = [first]
        for number in range(min(len(first.overviews(1)), _MOST_LEVELS - 1) if first.count else 0):
            self._levels.append(self._opened(name, overview_level=number))
        colours = list(first.colorinterp)
        self._bands = [at + 1 for at, colour in enumerate(colours) if colour != ColorInterp.alpha]
        is_palette = len(self._bands) == 1 and colours[self._bands[0] - 1] == ColorInterp.palette
        self._colours = _table(first.colormap(self._bands[0])) if is_palette else None
        flags = first.mask_flag_enums[self._bands[0] - 1] if self._bands else []
        points, points_crs = first.gcps
        crs = first.crs or points_crs
        kept = [band - 1 for band in self._bands]
        return {
            "shapes": [[level.height, level.width] for level in self._levels],
            "dtypes": [first.dtypes[at] for at in kept],
            "nodata": [first.nodatavals[at] for at in kept],
            "names": [first.descriptions[at] for at in kept],
            "bits": [int(first.tags(at + 1, ns="IMAGE_STRUCTURE").get("NBITS", 0)) for at in kept],
            "colours": [colours[at].name for at in kept],
            "scales": [[first.scales[at], first.offsets[at]] for at in kept],
            "transform": None if first.transform.is_identity else list(first.transform)[:6],
            "wkt": crs.to_wkt(version="WKT2_2019") if crs else None,
            "epsg": crs.to_epsg() if crs else None,
            "points": [[point.col, point.row, 0.0, point.x, point.y, point.z or 0.0] for point in points],
            "is_palette": is_palette,
            "has_alpha": len(kept) < len(colours),
            "has_mask": MaskFlags.per_dataset in flags
            or MaskFlags.alpha in flags
            or (is_palette and MaskFlags.nodata in flags),
            "files": list(first.files),
        }

    def read(self, level: int, box: list[int], *, mask: bool) -> bytes:
        """Pixels `(y, x, band)` of a box of the open image, or its mask `(y, x)`."""
        y0, x0, y1, x1 = box
        window, image = ((y0, y1), (x0, x1)), self._levels[level]
        if mask:
            return (image.read_masks(self._bands[0], window=window) != 0).tobytes()
        pixels = image.read(self._bands, window=window)
        if self._colours is not None:
            return self._colours[pixels[0]].tobytes()
        return np.ascontiguousarray(np.moveaxis(pixels, 0, 2)).tobytes()

    def _opened(self, name: str, **options: Any) -> Any:
        return rasterio.open(name, driver=self._driver, **options)


def answer(raster: Raster, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Answer a request, with its bytes."""
    try:
        if request["do"] == "images":
            return raster.images(), b""
        if request["do"] == "open":
            return raster.facts(request["name"]), b""
        data = raster.read(request["level"], request["box"], mask=request["mask"])
    except MemoryError:
        return {"error": "it takes more memory than such a file is given"}, b""
    except Exception as error:  # noqa: BLE001  of a library in C, whose errors are many
        return {"error": f"{error}" or type(error).__name__}, b""
    return {"bytes": len(data)}, data


def _table(colours: dict[int, tuple[int, ...]]) -> np.ndarray[Any, Any]:
    """Red, green and blue of every number that a pixel may be; black where the palette names none."""
    table = np.zeros((65_536, 3), np.uint8)
    for number, colour in colours.items():
        if 0 <= number < len(table):
            table[number] = colour[:3]
    return table


def keep_drivers(names: set[str]) -> None:
    """Remove every other driver, so that no file beside the image is opened by one either."""
    with rasterio.Env() as env:
        others = set(env.drivers()) - names
    gdal = ctypes.CDLL(_library())
    gdal.GDALGetDriverByName.restype = ctypes.c_void_p
    gdal.GDALGetDriverByName.argtypes = [ctypes.c_char_p]
    gdal.GDALDeregisterDriver.argtypes = [ctypes.c_void_p]
    os.environ["GDAL_SKIP"] = ",".join(sorted(others))
    for name in others:
        gdal.GDALDeregisterDriver(gdal.GDALGetDriverByName(name.encode()))
    with rasterio.Env() as env:
        if left := set(env.drivers()) - names:
            raise RuntimeError(f"GDAL keeps the drivers {sorted(left)}")


def _library() -> str:
    """The file of GDAL that rasterio has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return next(line.split(maxsplit=5)[5] for line in lines if "libgdal" in line)


def keep_to_files(files: list[str], folder: str) -> None:
    """Refuse every other file and every connection from here on, where the kernel has Landlock (Linux 5.13).

    Libraries and their tables stay readable.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    handled = (1 << (13 + (version >= 2) + (version >= 3))) - 1
    rules = struct.pack("QQ", handled, 0b11) if version >= 4 else struct.pack("Q", handled)
    ruleset = libc.syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    libraries = [sys.prefix, sys.base_prefix, "/usr/lib", "/usr/share", "/lib", "/lib64"]
    libraries += [os.environ[name] for name in ("GDAL_DATA", "PROJ_DATA", "PROJ_LIB") if name in os.environ]
    allowed = [(name, _READ_FILE | _READ_DIR) for name in libraries if Path(name).is_dir()]
    for name, rights in [*allowed, (folder, _READ_DIR), *((name, _READ_FILE) for name in files)]:
        descriptor = os.open(name, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights, descriptor)
        if libc.syscall(_LANDLOCK_ADD, ruleset, 1, rule, 0):
            raise OSError(ctypes.get_errno(), f"no rule for {name}")
        os.close(descriptor)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0):
        raise OSError(ctypes.get_errno(), "Landlock refuses the rules")


def limit(memory_bytes: int) -> None:
    """Bound what is taken beyond the libraries, and every file that would be written."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def confine(asked: dict[str, Any]) -> None:
    """Keep to the drivers, files and memory that the parent names."""
    keep_drivers({asked["driver"], *asked["beside"]})
    limit(asked["memory_bytes"])
    keep_to_files(asked["files"], asked["folder"])


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)  # GDAL's words would stand among the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        confine(asked)
    except (OSError, RuntimeError, ValueError) as error:
        answers.write(json.dumps({"error": f"its process can't be confined: {error}"}).encode() + b"\n")
        return
    raster = Raster(asked["path"], asked["driver"])
    with rasterio.Env(**asked["options"]):
        for line in requests:
            signal.alarm(asked["seconds"])  # ends it even where its parent is gone
            facts, data = answer(raster, json.loads(line))
            answers.write(json.dumps(facts).encode() + b"\n" + data)
            answers.flush()
            signal.alarm(0)


if __name__ == "__main__":
    main()
