"""Scenes that a VRT or a STAC item describes, of files that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import rasterio
from scenes import WHERE

_TYPES = {"uint8": "Byte", "uint16": "UInt16", "float32": "Float32"}
GEOTIFF = "image/tiff; application=geotiff; profile=cloud-optimized"


def source_xml(file: str, size: tuple[int, int], corner: tuple[int, int], band: int, nodata: str = "") -> str:
    """One source as gdalbuildvrt writes it, `(height, width)` at `(y, x)`."""
    kind = "ComplexSource" if nodata else "SimpleSource"
    wide = f'xSize="{size[1]}" ySize="{size[0]}"'
    return (
        f'<{kind}><SourceFilename relativeToVRT="1">{file}</SourceFilename><SourceBand>{band}</SourceBand>'
        f'<SrcRect xOff="0" yOff="0" {wide}/><DstRect xOff="{corner[1]}" yOff="{corner[0]}" {wide}/>'
        f"{f'<NODATA>{nodata}</NODATA>' if nodata else ''}</{kind}>"
    )


def write_vrt(path: Path, shape: tuple[int, int], dtype: str, bands: list[str], nodata: str = "") -> Path:
    """A VRT whose bands hold these sources."""
    a, b, c, d, e, f = tuple(WHERE)[:6]
    value = f"<NoDataValue>{nodata}</NoDataValue>" if nodata else ""
    filled = "".join(
        f'<VRTRasterBand dataType="{_TYPES[dtype]}" band="{number}">{value}{each}</VRTRasterBand>'
        for number, each in enumerate(bands, 1)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{shape[1]}" rasterYSize="{shape[0]}"><SRS>EPSG:32632</SRS>'
        f"<GeoTransform>{c}, {a}, {b}, {f}, {d}, {e}</GeoTransform>{filled}</VRTDataset>"
    )
    return path


def mosaic(folder: Path, files: list[Path], bands: int, dtype: str, nodata: str = "") -> Path:
    """A VRT of files in their own places."""
    texts = ["" for _ in range(bands)]
    height = width = 0
    for file in files:
        with rasterio.open(file) as each:
            left, top = ~WHERE @ (each.transform.c, each.transform.f)
            corner = round(top), round(left)
            height, width = max(height, corner[0] + each.height), max(width, corner[1] + each.width)
            for band in range(bands):
                texts[band] += source_xml(str(file.relative_to(folder)), each.shape, corner, band + 1, nodata)
    return write_vrt(folder / "scene.vrt", (height, width), dtype, texts, nodata)


def write_item(path: Path, assets: dict[str, Any], **more: Any) -> Path:
    path.write_text(json.dumps({"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": assets, **more}))
    return path


def asset(href: str, *bands: str, **more: Any) -> dict[str, Any]:
    return {"href": href, "type": GEOTIFF, "roles": ["data"], "eo:bands": [{"name": each} for each in bands], **more}
