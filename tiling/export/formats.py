"""Every format that a run can be exported to: the one list for the command line, the flow and the documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tiling.export.finished import Finished
    from tiling.export.subject import Subject
    from tiling.georeference.placement import Placement


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        name: as a person gives it.
        files: below the run's `exports`.
        what: one line for a person.
        module: in this package, with the function that writes it, which some formats load GDAL for.
        writer: that function's name.
        check: the name of the function that refuses what the format can't say; empty where it can say all.
        of_objects: whether it is made of the mask's objects.
        of_instances: whether these have to be numbered, as in `objects.ome.zarr`.
        measured: whether it says of numbered objects what was measured of them.
    """

    name: str
    files: tuple[str, ...]
    what: str
    module: str
    writer: str
    check: str = ""
    of_objects: bool = False
    of_instances: bool = False
    measured: bool = False

    def expect(self, subject: Subject) -> None:
        """Raise ExportError where the run is something that the format can't say, or lacks what it needs."""
        if self.check:
            cast("Callable[[Subject], None]", self._function(self.check))(subject)

    def write(self, finished: Finished, paths: Sequence[Path]) -> None:
        """Write the files under other names."""
        cast("Callable[[Finished, Sequence[Path]], None]", self._function(self.writer))(finished, paths)

    def _function(self, name: str) -> object:
        return getattr(import_module(f"tiling.export.{self.module}"), name)


FORMATS = {
    each.name: each
    for each in (
        Format(
            "statistics",
            ("statistics.csv", "statistics.parquet"),
            "areas and objects per class, as CSV and Parquet",
            "statistics",
            "write_statistics",
            of_objects=True,
        ),
        Format("ome-tiff", ("mask.ome.tif",), "pyramidal OME-TIFF of the labels", "ome_tiff", "write_ome_tiff"),
        Format("cog", ("mask.tif",), "Cloud-optimised GeoTIFF of the labels", "cog", "write_cog", "expect_cog"),
        Format(
            "stac",
            ("item.json",),
            "STAC item of the COG, which comes with it",
            "stac_item",
            "write_stac",
            "expect_stac",
        ),
        Format(
            "qupath",
            ("qupath.geojson",),
            "objects for QuPath, in pixels of the image",
            "qupath",
            "write_qupath",
            of_objects=True,
            measured=True,
        ),
        Format(
            "qupath-full",
            ("qupath-full.geojson",),
            "the same in pixels of the whole slide, where QuPath crops it to the scanner's bounds",
            "qupath",
            "write_qupath_full",
            of_objects=True,
            measured=True,
        ),
        Format(
            "geojson",
            ("objects.geojson",),
            "objects in longitude and latitude (RFC 7946)",
            "geojson",
            "write_geojson",
            "expect_geojson",
            of_objects=True,
        ),
        Format(
            "geopackage",
            ("objects.gpkg",),
            "objects in the image's CRS, with a spatial index",
            "geopackage",
            "write_geopackage",
            "expect_geopackage",
            of_objects=True,
            measured=True,
        ),
        Format(
            "geoparquet",
            ("objects.parquet",),
            "objects in the image's CRS, or in its pixels, by columns",
            "geoparquet",
            "write_geoparquet",
            of_objects=True,
            measured=True,
        ),
        Format(
            "table",
            ("objects-table.csv", "objects-table.parquet"),
            "a row for each object with all that is measured of it, as CSV and Parquet",
            "table",
            "write_table",
            "expect_table",
            of_objects=True,
            of_instances=True,
            measured=True,
        ),
        Format(
            "anndata",
            ("objects.h5ad",),
            "the same as AnnData for scanpy and squidpy (pip install 'overtile[anndata]')",
            "anndata_table",
            "write_anndata",
            "expect_anndata",
            of_objects=True,
            of_instances=True,
            measured=True,
        ),
        Format(
            "qgis",
            ("mask.qml", "objects.qml"),
            "names and colours of the classes for QGIS, beside what it opens",
            "qgis",
            "write_qgis",
        ),
        Format("thumbnail", ("thumbnail.png",), "the image itself at screen size", "thumbnail", "write_thumbnail"),
        Format(
            "probabilities-ome-tiff",
            ("probabilities.ome.tif",),
            "pyramidal OME-TIFF of the probabilities, in 8 bits",
            "probabilities",
            "write_ome_tiff",
            "expect_probabilities",
        ),
        Format(
            "probabilities-cog",
            ("probabilities.tif",),
            "Cloud-optimised GeoTIFF of the probabilities, in 8 bits",
            "probabilities",
            "write_cog",
            "expect_probabilities_on_map",
        ),
    )
}

NONE, AUTO, COG = "none", "auto", "cog"

_WITH = {"stac": ["cog", "stac"]}
"""Formats that mean nothing without another."""


def parse_formats(text: str) -> str:
    """Check a choice of formats: `none`, `auto`, or names with commas in between; `auto` may be one of the names.

    Raises:
        ValueError: a name that is none.
    """
    names = [name.strip() for name in text.split(",")]
    known = (NONE, AUTO, *FORMATS)
    for name in names:
        if name not in known or (name == NONE and len(names) > 1):
            raise ValueError(f"{name!r} is no format; give none, auto, or names of {', '.join(FORMATS)}")
    return ",".join(names)


def chosen_formats(text: str, placement: Placement, *, probabilities: bool, numbered: bool = False) -> list[Format]:
    """The formats that were chosen for a run.

    `auto` is what suits the source: statistics, and for a map a COG and a GeoPackage with their style for QGIS, else an
    OME-TIFF and QuPath's GeoJSON; of the probabilities, where there are any, the same kind of image; the table of
    objects, where they are numbered.
    """
    names: list[str] = []
    for name in parse_formats(text).split(","):
        suitable = _suitable(placement, probabilities=probabilities)
        names += [*suitable, *(["table"] if numbered else [])] if name == AUTO else _WITH.get(name, [name])
    return [FORMATS[name] for name in dict.fromkeys(names) if name != NONE]


def _suitable(placement: Placement, *, probabilities: bool) -> list[str]:
    if placement.to_map is not None:
        return ["statistics", "cog", "geopackage", "qgis", *(["probabilities-cog"] if probabilities else [])]
    return ["statistics", "ome-tiff", "qupath", *(["probabilities-ome-tiff"] if probabilities else [])]
