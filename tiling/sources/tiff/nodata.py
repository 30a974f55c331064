"""No-data values of a TIFF, brought to its bands: values of samples that bands are made of, and tuples of them.

GDAL compares samples as they are stored; bands may be greys that are turned, or few bits spread over 0 to 255.
"""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import numpy.typing as npt
from tifffile import TiffPage

from tiling.errors import SourceError
from tiling.sources.tiff.directory import Directory
from tiling.sources.tiff.samples import Interpretation
from tiling.sources.tiff.sidecars import Sidecars

Samples = npt.NDArray[np.generic]

_GDAL_METADATA = 42112
_TUPLES = re.compile(r'<(?:Item name|MDI key)="NODATA_VALUES">([^<]{1,4000})</(?:Item|MDI)>')
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|nan|inf)", re.IGNORECASE)
_PLANAR = 2


def nodata_in_bands(nodata: float | None, directory: Directory, interpretation: Interpretation) -> float | None:
    """A value of the stored samples as the bands have it; None where no sample can be it.

    A palette's bands are colours, among which the number of one means nothing.
    """
    if nodata is None or interpretation.photometric == "palette":
        return None
    if interpretation.convert is None or interpretation.photometric == "ycbcr":
        return nodata
    kind, bits = interpretation.dtype, directory.number(258, 1)
    limits = np.iinfo(str(kind))
    highest = min(limits.max, (1 << bits) - 1) if kind.kind == "u" else limits.max
    if nodata != np.rint(nodata) or not limits.min <= nodata <= highest:
        return None
    return float(interpretation.convert(np.full((1, 1, 1), nodata, kind))[0, 0, 0])


def nodata_tuple(directory: Directory, beside: Sidecars, samples: int) -> tuple[float, ...] | None:
    """GDAL's `NODATA_VALUES`: a value per sample, of which a pixel without data has all. None where there is none.

    It counts before a single value for no data, and after a mask.
    """
    noted = "" if beside.aux is None else beside.aux.decode("utf-8", "replace")
    found = _TUPLES.search(noted) or _TUPLES.search(directory.text(_GDAL_METADATA))
    if found is None:
        return None
    values = tuple(_number(each) for each in unescape(found[1]).split(" ") if each)
    return values if len(values) == samples else None  # as GDAL has it, another count means nothing


def _number(text: str) -> float:
    """Number that begins the text, as C's `atof` has it: 0 where there is none."""
    found = _NUMBER.match(text)
    return float(found[0]) if found else 0.0


def interpret_tuple(page: TiffPage, values: tuple[float, ...]) -> Interpretation:
    """Mask of the pixels that hold data: those of which a sample is another than its value.

    Raises:
        SourceError: the samples of a pixel lie apart, so that none is seen whole.
    """
    if int(page.planarconfig) == _PLANAR and len(values) > 1:
        named = " ".join(f"{value:g}" for value in values)
        raise SourceError(
            f"NODATA_VALUES ({named}) of bands that are stored one by one can't be matched; convert it with "
            f"gdal_translate -co INTERLEAVE=PIXEL"
        )
    assert page.dtype is not None
    wanted = np.array(values, np.float32 if page.dtype == np.float32 else np.float64)
    if page.dtype.kind != "f":
        wanted = np.trunc(wanted)  # as GDAL takes them for integers

    def convert(segment: Samples) -> Samples:
        return (segment.astype(wanted.dtype) != wanted).any(axis=-1, keepdims=True).astype(np.uint8)

    samples = tuple(range(len(values)))
    return Interpretation("values", ("data",), np.dtype(np.uint8), samples, False, convert)
