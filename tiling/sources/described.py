"""Description of an image or of a view of it: its levels, bands, pixel type and georeference, without its pixels."""

from __future__ import annotations

import numpy as np

from tiling.sources.facts import Georeference, ImageFacts, Level
from tiling.sources.series import FileImage
from tiling.storage.place import Place


class DescribedImage:
    """An image's metadata, known before any of its pixels is read."""

    def __init__(self, path: Place, facts: ImageFacts) -> None:
        self._path = path
        self._facts = facts

    @property
    def path(self) -> Place:
        """The file's absolute path, or its URL's place."""
        return self._path

    @property
    def format(self) -> str:
        """aperio-svs, tiff, ome-tiff, imagej-tiff, qptiff, geotiff, ome-zarr-0.4 or -0.5, png, jpeg, jpeg2000, webp,
        or the scanner's maker as OpenSlide calls it: hamamatsu, mirax, leica, dicom…
        """
        return self._facts.format

    @property
    def is_slide(self) -> bool:
        """True if the format is one that slide scanners alone write, whatever the file says of its pixels' size."""
        return self._facts.is_slide

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, alpha excluded: colours, OME channel names, or numbers from 1."""
        return self._facts.bands

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the pixels, in the machine's byte order."""
        return self._facts.dtype

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, largest first; each level is a true downsample of level 0."""
        return self._facts.levels

    @property
    def photometric(self) -> str:
        """Photometric interpretation of the samples, before they became bands: rgb, ycbcr, palette, min-is-white…"""
        return self._facts.photometric

    @property
    def nodata(self) -> float | None:
        """The value that means no data (GDAL_NODATA), NaN included."""
        return self._facts.nodata

    @property
    def georeference(self) -> Georeference | None:
        """Georeference of level 0."""
        return self._facts.georeference

    def origin_px(self, level: int) -> tuple[float, float]:
        """Centre of a level's first pixel in the file's own coordinates, in its pixels, y before x."""
        origins = self._facts.origins_px
        return origins[level] if level < len(origins) else (0.0, 0.0)

    @property
    def bounds_px(self) -> tuple[int, int]:
        """The pixel of the file's level 0 that QuPath calls the first, y before x: where the scanner's bounds begin."""
        return self._facts.bounds_px

    @property
    def orientation(self) -> int:
        """Orientation that a photograph's viewer gives the image (TIFF 6.0, EXIF): 1 to 8; 1 leaves it as stored."""
        return self._facts.orientation

    @property
    def has_alpha(self) -> bool:
        """True if the file has an alpha channel, which `bands` leaves out."""
        return self._facts.has_alpha

    @property
    def alpha(self) -> tuple[str, ...]:
        """Names of the alpha channels, which a view's bands may count after the bands."""
        return self._facts.alpha

    @property
    def scales(self) -> tuple[tuple[float, float], ...]:
        """Scale and offset of each band, which make its values of the stored ones; empty where the file says none."""
        return self._facts.scales

    @property
    def resampled(self) -> tuple[tuple[str, str], ...]:
        """Bands of a scene that don't lie on its grid as they are, each with how they are resampled."""
        return self._facts.resampled

    @property
    def focal_planes(self) -> int:
        """Number of focal planes in the file, of which one is read."""
        return self._facts.focal_planes

    @property
    def times(self) -> int:
        """Number of points in time in the file, of which one is read."""
        return self._facts.times

    @property
    def images(self) -> tuple[FileImage, ...]:
        """The images of a file that has several; empty where it has one."""
        return self._facts.images

    @property
    def series(self) -> int:
        """The number of the image that is read, from 0."""
        return self._facts.series

    @property
    def has_mask(self) -> bool:
        """True if the file says which pixels hold data, so that `read_mask` gives a mask."""
        return self._facts.has_mask

    @property
    def may_lack_data(self) -> bool:
        """True if some pixel may hold no data, by a no-data value, a mask, alpha or NaN."""
        return self._facts.may_lack_data

    @property
    def memory_bytes(self) -> int:
        """The most memory that reading holds in one process, besides the boxes that it returns."""
        return self._facts.memory_bytes

    def describe(self) -> str:
        """One line for people: format, size, bands, levels, pixel size."""
        first = self.levels[0]
        size = first.pixel_size
        pixel = f", {size.x:.4g} x {size.y:.4g} {size.unit}/px" if size else ", pixel size unknown"
        levels = f"{len(self.levels)} level{'s' if len(self.levels) > 1 else ''}"
        bands = "/".join(self.bands[:6]) + ("/…" if len(self.bands) > 6 else "")
        stack = f", first of {self._facts.pages} pages" if self._facts.pages > 1 else ""
        image = f", image {self.series} of {len(self.images)}" if self.images else ""
        return f"{self.format} {first.width} x {first.height} px, {bands} {self.dtype}, {levels}{pixel}{stack}{image}"
