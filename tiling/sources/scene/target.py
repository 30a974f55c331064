"""Grid in a CRS that was asked for: the one that GDAL's warper gives a file there (`gdalwarp -t_srs`)."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape

from tiling.errors import SourceError
from tiling.sources.facts import Georeference

_CODE = re.compile(r"[A-Za-z]{2,16}:[\w.]{1,32}")


def crs_wkt(code: str) -> str:
    """WKT of a CRS by its code, as `EPSG:3857`.

    Raises:
        SourceError: it is none, or no map's or globe's.
    """
    from rasterio import Env
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if _CODE.fullmatch(code) is None:
        raise SourceError(f"--crs {code!r} is no code of a CRS; give an authority and a number, as EPSG:3857")
    try:
        with Env(PROJ_NETWORK="OFF"):
            crs = CRS.from_authority(*code.split(":", 1))
            if not (crs.is_projected or crs.is_geographic):
                raise SourceError(f"--crs {code} is neither a map's nor in degrees; give one of these, as EPSG:3857")
            return crs.to_wkt(version="WKT2_2019")
    except CRSError as error:
        raise SourceError(f"--crs {code} is no CRS that is known ({error}); give one, as EPSG:3857") from error


def suggested(own: Georeference, shape: tuple[int, int], code: str, name: str) -> tuple[Georeference, tuple[int, int]]:
    """Place and shape of the grid in a CRS on which an image lies with pixels of its own size.

    Raises:
        SourceError: the CRS isn't known, or the image lies beyond where it leads.
    """
    import rasterio
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError
    from rasterio.vrt import WarpedVRT

    wkt = crs_wkt(code)
    assert own.affine is not None
    a, b, c, d, e, f = own.affine
    empty = (
        f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}"><SRS>{escape(own.wkt or "")}</SRS>'
        f"<GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
    )
    try:
        with (
            rasterio.Env(PROJ_NETWORK="OFF"),
            rasterio.open(empty) as image,
            WarpedVRT(image, crs=wkt, tolerance=0) as warped,
        ):
            a, b, c, d, e, f = (float(value) for value in tuple(warped.transform)[:6])
            return Georeference(code.upper(), (a, b, c, d, e, f), wkt), (warped.height, warped.width)
    except (RasterioError, CPLE_BaseError) as error:
        # GDAL's words hold the whole of both where no way leads from one to the other.
        raise SourceError(f"{name} lies beyond where --crs {code} leads ({str(error)[:100]}…); give another") from error
