"""Scenes of several files, cut from one picture or drawn over one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

CRS, WHERE = "EPSG:32632", Affine(10, 0, 500_000, 0, -10, 5_500_000)


def scene_pixels(height: int = 130, width: int = 155, bands: int = 3, dtype: str = "uint16") -> NDArray[Any]:
    """Smooth pixels `(y, x, band)` from 100 on."""
    y, x = np.mgrid[:height, :width]
    layers = [np.sin(y / (7 + band)) + np.cos(x / (9 - band)) for band in range(bands)]
    return (1100 + 450 * np.stack(layers, axis=-1)).astype(dtype)


def write_raster(
    path: Path, pixels: NDArray[Any], *, transform: Affine | None = WHERE, crs: str | None = CRS, **more: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = pixels.shape
    place: dict[str, Any] = {} if transform is None else {"transform": transform, "crs": crs}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=pixels.dtype, **place, **more
    ) as file:
        file.write(np.moveaxis(pixels, 2, 0))
    return path


def cut(folder: Path, pixels: NDArray[Any], rows: int = 3, cols: int = 3, **more: Any) -> list[Path]:
    """One picture as files of unequal sizes, each in its own place."""
    ys = np.linspace(0, pixels.shape[0], rows + 1).astype(int)
    xs = np.linspace(0, pixels.shape[1], cols + 1).astype(int)
    return [
        write_raster(
            folder / f"part_{row}_{col}.tif",
            pixels[ys[row] : ys[row + 1], xs[col] : xs[col + 1]],
            transform=WHERE @ Affine.translation(xs[col], ys[row]),
            **more,
        )
        for row in range(rows)
        for col in range(cols)
    ]


def split(scene: Path, folder: Path) -> None:
    """Four files of a scene, as deliveries cut what is large, with its no-data value and its fourth band as it is."""
    with rasterio.open(scene) as file:
        pixels, where = np.moveaxis(file.read(), 0, 2), file.transform
        y, x = file.height // 2, file.width // 3
        for top, bottom in ((0, y), (y, file.height)):
            for left, right in ((0, x), (x, file.width)):
                write_raster(
                    folder / f"{top}_{left}.tif",
                    pixels[top:bottom, left:right],
                    transform=where @ Affine.translation(left, top),
                    crs=file.crs,
                    photometric="RGB",
                    alpha="YES",
                    nodata=file.nodata,
                )


SENTINEL2_METADATA = """<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product">
<n1:General_Info><Product_Image_Characteristics>
<Special_Values>
<SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
</Special_Values><Special_Values>
<SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX>
</Special_Values><QUANTIFICATION_VALUES_LIST>
<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
</QUANTIFICATION_VALUES_LIST>
<BOA_ADD_OFFSET_VALUES_LIST><BOA_ADD_OFFSET band_id="3">-1000</BOA_ADD_OFFSET>
<BOA_ADD_OFFSET band_id="7">-900</BOA_ADD_OFFSET></BOA_ADD_OFFSET_VALUES_LIST>
</Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>"""
"""What a product of baseline 04.00 says of its values; B08 has an offset of its own here, to tell bands apart."""

LANDSAT_METADATA = """GROUP = LANDSAT_METADATA_FILE
  GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
    REFLECTANCE_MULT_BAND_4 = 2.75e-05
    REFLECTANCE_ADD_BAND_4 = -0.2
    REFLECTANCE_MULT_BAND_5 = 2.75e-05
    REFLECTANCE_ADD_BAND_5 = -0.2
  END_GROUP = LEVEL2_SURFACE_REFLECTANCE_PARAMETERS
  GROUP = LEVEL2_SURFACE_TEMPERATURE_PARAMETERS
    TEMPERATURE_MULT_BAND_ST_B10 = 0.00341802
    TEMPERATURE_ADD_BAND_ST_B10 = 149.0
  END_GROUP = LEVEL2_SURFACE_TEMPERATURE_PARAMETERS
  GROUP = LEVEL1_RADIOMETRIC_RESCALING
    RADIANCE_MULT_BAND_4 = 9.8E-03
    RADIANCE_ADD_BAND_4 = -49.0
    REFLECTANCE_MULT_BAND_4 = 2.0E-05
    REFLECTANCE_ADD_BAND_4 = -0.1
  END_GROUP = LEVEL1_RADIOMETRIC_RESCALING
END_GROUP = LANDSAT_METADATA_FILE
END
"""


def write_sentinel2(folder: Path, bands: dict[str, tuple[int, NDArray[Any]]], crs: str = CRS) -> Path:
    """A `.SAFE` folder of level 2A: bands `(y, x)` by name and metres, lossless JPEG 2000."""
    safe = folder / "S2A_MSIL2A_20200601T101031_N0500_R022_T32UQD_20200601T120000.SAFE"
    granule = safe / "GRANULE" / "L2A_T32UQD_A025812_20200601T101031"
    for name, (metres, pixels) in bands.items():
        file = granule / "IMG_DATA" / f"R{metres}m" / f"T32UQD_20200601T101031_{name}_{metres}m.jp2"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, codecformat="jp2"))
    places = "".join(
        f'<Geoposition resolution="{metres}"><ULX>{WHERE.c}</ULX><ULY>{WHERE.f}</ULY>'
        f"<XDIM>{metres}</XDIM><YDIM>-{metres}</YDIM></Geoposition>"
        for metres in (10, 20, 60)
    )
    (granule / "MTD_TL.xml").write_text(
        '<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">'
        f"<n1:Geometric_Info><Tile_Geocoding><HORIZONTAL_CS_CODE>{crs}</HORIZONTAL_CS_CODE>{places}</Tile_Geocoding>"
        "</n1:Geometric_Info></n1:Level-2A_Tile_ID>"
    )
    (safe / "MTD_MSIL2A.xml").write_text(SENTINEL2_METADATA)
    return safe


def write_landsat(folder: Path, bands: dict[str, NDArray[Any]]) -> Path:
    """A Landsat folder of Collection 2, level 2: bands `(y, x)` by name, beside flags and metadata."""
    scene = folder / "LC08_L2SP_193026_20200601_20200824_02_T1"
    for name, pixels in bands.items():
        write_raster(scene / f"{scene.name}_{name}.TIF", pixels[..., None], nodata=0)
    write_raster(scene / f"{scene.name}_QA_PIXEL.TIF", np.ones((*next(iter(bands.values())).shape, 1), np.uint16))
    (scene / f"{scene.name}_MTL.txt").write_text(LANDSAT_METADATA)
    return scene
