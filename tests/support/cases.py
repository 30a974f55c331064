"""The folder of small inputs through `overtile segment`, each held against its right result: `make cases`.

Prints a line per input: right, refused with the line that says why, or wrong with what was found. Exits 1 where one is
wrong. Arguments are parts of the names of those to try; all without any.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
import zarr
from numpy.typing import NDArray

from tiling.runs.mask import NOT_PREDICTED
from tiling.runs.run import Run
from tiling.source import open_source

CASES = Path(__file__).parents[3] / "shared" / "cases"
OVERTILE = Path(sys.executable).parent / "overtile"
RGB, RGB05 = ("--model", "models/rgb"), ("--model", "models/rgb05")

BUSY, ATTEMPTS = "no Ray cluster answers at localhost", 3
"""What is said where the machine is too busy for Ray to start in time: that is nothing about the image."""

Check = Callable[[Path], str]
"""What is wrong with a run; nothing where it is right."""


def call(command: list[str]) -> tuple[subprocess.CompletedProcess[str], str]:
    """The command's end, and what it said on one line."""
    ended = subprocess.run(command, cwd=CASES, capture_output=True, text=True, check=False)
    return ended, " ".join((ended.stderr or ended.stdout).split())


@dataclass(frozen=True, slots=True)
class Case:
    """One input with the options that it is tried with. `check` is None where it can only be refused."""

    image: str
    options: tuple[str, ...]
    check: Check | None

    def run(self, out: Path) -> str:
        """The outcome as it is printed."""
        command = [str(OVERTILE), "segment", self.image, *self.options, "--workers", "1", "--out", str(out)]
        ended, said = call(command)
        for _ in range(1, ATTEMPTS):
            if BUSY not in said:
                break
            ended, said = call(command)
        if ended.returncode == 2 and self.image in said:
            return f"refused   {said[:160]}"
        if ended.returncode != 0:
            return f"WRONG     exit {ended.returncode}: {said[-300:]}"
        if self.check is None:
            return "WRONG     it is segmented, and should be refused"
        fault = self.check(out)
        return f"WRONG     {fault}" if fault else "right"


def labels(run: Path) -> NDArray[np.uint8]:
    return np.asarray(Run.open(run).open_mask().levels[0][:])


def notes(run: Path) -> dict[str, str]:
    return json.loads((run / "run.json").read_text())["notes"]


def rows(run: Path) -> dict[str, dict[str, str]]:
    with (run / "exports" / "statistics.csv").open() as file:
        return {row["class"]: row for row in csv.DictReader(file)}


def pixels(label: int, wanted: int) -> Check:
    def check(run: Path) -> str:
        found = int(np.count_nonzero(labels(run) == label))
        return "" if found == wanted else f"{found} px of label {label}, {wanted} are right"

    return check


def only(*wanted: int) -> Check:
    def check(run: Path) -> str:
        found = {int(label) for label in np.unique(labels(run))} - {0}
        return "" if found == set(wanted) else f"labels {sorted(found)}, {sorted(wanted)} are right"

    return check


def shape(height: int, width: int) -> Check:
    def check(run: Path) -> str:
        found = labels(run).shape
        return "" if found == (height, width) else f"a mask of {found} px, {(height, width)} is right"

    return check


def area(label: str, unit: str, wanted: float) -> Check:
    def check(run: Path) -> str:
        found = float(rows(run)[label][f"area_{unit}"])
        return "" if abs(found / wanted - 1) < 0.002 else f"{found:.7g} {unit} of {label}, {wanted:.7g} are right"

    return check


def whole_area(column: str, wanted: float) -> Check:
    """Of all rows, which add up to the image; `wanted` is known to four decimals."""

    def check(run: Path) -> str:
        found = sum(float(row[column]) for row in rows(run).values())
        return "" if round(found, 4) == wanted else f"{found:.7g} in {column} in all, {wanted:.7g} are right"

    return check


def noted(key: str, word: str) -> Check:
    def check(run: Path) -> str:
        return "" if word in notes(run).get(key, "") else f"the run doesn't say '{word}': {notes(run)}"

    return check


def together(*checks: Check) -> Check:
    def check(run: Path) -> str:
        return "; ".join(filter(None, (each(run) for each in checks)))

    return check


def channels(run: Path) -> str:
    """Labels of the first three pages as bands, worked out here."""
    stack = tifffile.imread(CASES / "a15_cyx_pages.tif").astype(float)[:3] - 127.5
    wanted = np.concatenate([np.zeros((1, *stack.shape[1:])), stack]).argmax(axis=0)
    differing = int(np.count_nonzero(labels(run) != wanted))
    return "" if differing == 0 else f"{differing} labels differ from the channels'"


def no_data_as_gdal(name: str) -> Check:
    def check(run: Path) -> str:
        with rasterio.open(CASES / name) as source:
            lacks_data = source.dataset_mask() == 0
        differing = int(np.count_nonzero((labels(run) == NOT_PREDICTED) != lacks_data))
        return "" if differing == 0 else f"{differing} px without a class, or with one, are otherwise by GDAL's mask"

    return check


def tissue(run: Path) -> str:
    """What is darker than the glass of the slide without a pen has to be computed with and without one."""
    full = np.asarray(tifffile.imread(CASES / "g01_pale_full.tif"))
    is_tissue = full.min(axis=-1) < full[0, 0].min() - 5
    lost = int(np.count_nonzero(labels(run)[is_tissue] == 0))
    return "" if lost == 0 else f"{lost} of {np.count_nonzero(is_tissue)} px of tissue are not computed"


def percentiles(run: Path) -> str:
    stretch = json.loads((run / "run.json").read_text())["image"]["view"]["stretch"]
    found = round(stretch["low"][0], 3), round(stretch["high"][0], 3)
    return "" if found == (0.5, 2.0) else f"the range is {found}, (0.5, 2.0) is right"


def as_gdal_places(name: str) -> Check:
    def check(run: Path) -> str:
        with rasterio.open(CASES / name) as source, rasterio.open(run / "exports" / "mask.tif") as mask:
            same = source.transform.almost_equals(mask.transform, 1e-6)
            return "" if same else f"the mask lies at {mask.transform}, GDAL has the image at {source.transform}"

    return check


def everything_with_data(label: int) -> Check:
    """Of an image that is bright wherever it holds data."""

    def check(run: Path) -> str:
        found = labels(run)
        with rasterio.open(Run.open(run).card.image.path) as source:
            held = np.isfinite(source.read(1))
        wrong = int(np.count_nonzero(found != np.where(held, label, NOT_PREDICTED)))
        failed = Run.open(run).ledger.fold().failed
        return "" if wrong == 0 and not failed else f"{wrong} px are wrong, {len(failed)} tiles failed"

    return check


def as_it_is(run: Path) -> str:
    """The finest level's labels, worked out here."""
    card = Run.open(run).card
    with open_source(CASES / Path(card.image.path).name) as source:
        pixels = source.read(0, source.levels[0].box)[..., :3].astype(float) - 127.5
    wanted = np.concatenate([np.zeros((*pixels.shape[:2], 1)), pixels], -1).argmax(-1)
    found = labels(run)
    if found.shape != wanted.shape:
        return f"a mask of {found.shape} px, {wanted.shape} is right"
    # Glass that was skipped holds 0.
    differing = int(np.count_nonzero((found != wanted) & (found != 0)))
    return "" if differing == 0 else f"{differing} labels differ from the finest level's"


def objects_within(west: float, east: float) -> Check:
    def check(run: Path) -> str:
        with rasterio.open(run / "exports" / "mask.tif") as mask:
            found = mask.bounds.left, mask.bounds.right
        return "" if np.allclose(found, (west, east), atol=1.0) else f"x {found}, {(west, east)} is right"

    return check


def translation(y: float, x: float) -> Check:
    def check(run: Path) -> str:
        group: Any = zarr.open_group(run / "mask.ome.zarr", mode="r")
        attributes = dict(group.attrs)
        image = attributes.get("ome", attributes)["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        found = next((each["translation"] for each in image if "translation" in each), [0, 0])[-2:]
        return "" if np.allclose(found, (y, x)) else f"the mask's translation is {found}, {[y, x]} is right"

    return check


def first_object_at(y: float, x: float) -> Check:
    def check(run: Path) -> str:
        found = json.loads((run / "exports" / "qupath.geojson").read_text())["features"]
        corners = np.array([point[:2] for each in found for point in _points(each["geometry"]["coordinates"])])
        left, top = corners.min(axis=0)
        return "" if (top, left) == (y, x) else f"objects begin at {(top, left)}, {(y, x)} is right"

    return check


def _points(nested: Sequence[Any]) -> list[Sequence[float]]:
    if isinstance(nested[0], (int, float)):
        return [nested]
    return [point for each in nested for point in _points(each)]


NAD27 = ("--region", "g06_nad27.geojson")
NONE = ("--foreground", "none")
MAP = ("--export", "statistics,cog")
ALL = (
    Case("j03_square_scenes.ome.tif", (*RGB05, *NONE), only(1)),
    Case("a10c_two_scenes.ome.tif", (*RGB05, *NONE), together(only(1, 2, 3), shape(300, 400))),
    Case("a10_macro_first.ome.tif", ("--model", "nuclei"), noted("image", "of 2")),
    Case("a10b_macro_first_nosize.ome.tif", RGB, noted("image", "of 2")),
    Case("a15_cyx_pages.tif", (*RGB, "--bands", "1,2,3"), channels),
    Case("g01_pale_full.tif", (*RGB05, "--core", "128"), tissue),
    Case("g01_pale_pen.tif", (*RGB05, "--core", "128"), tissue),
    Case(
        "b05_nodata255.tif",
        (*RGB, "--core", "64", *MAP),
        together(area("r", "km2", 625e-6), no_data_as_gdal("b05_nodata255.tif")),
    ),
    Case(
        "b05_nodata255.tif",
        (*RGB, "--core", "256", *MAP),
        together(area("r", "km2", 625e-6), no_data_as_gdal("b05_nodata255.tif")),
    ),
    Case("b06_mask.tif", RGB, no_data_as_gdal("b06_mask.tif")),
    Case("b06_alpha.tif", RGB, no_data_as_gdal("b06_alpha.tif")),
    Case("h01_nan.tif", ("--model", "models/mean7", "--core", "64"), everything_with_data(1)),
    Case("b07_float_nodata.tif", ("--model", "models/onef", "--normalise", "percentiles:1,99"), pixels(1, 3600)),
    Case(
        "b07_float_nodata_short.tif",
        ("--model", "models/onef", "--normalise", "percentiles:1,99"),
        together(pixels(1, 3600), percentiles),
    ),
    Case("b04_ftus_key.tif", (*RGB, *MAP), area("r", "km2", 167.2e-6)),
    Case("b04_ftus_nokey.tif", (*RGB, *MAP), area("r", "km2", 167.2e-6)),
    Case("g06_utm13.tif", (*RGB, "--core", "64", *MAP, *NAD27), objects_within(500150, 500250)),
    Case(
        "g06_utm13.tif",
        (*RGB, "--core", "64", *MAP, "--region", "g06_wgs84.geojson"),
        objects_within(500150, 500250),
    ),
    # None of its tiles was ever written, which is refused first; test_regions_anywhere.py holds its region's edges.
    Case("g08_s2.tif", ("--model", "models/one8", "--region", "g08_box.geojson"), None),
    Case("b03_negscale.tif", (*RGB, *MAP), as_gdal_places("b03_negscale.tif")),
    Case("b08_tfw.tif", (*RGB, *MAP), as_gdal_places("b08_tfw.tif")),
    Case(
        "j01_3857.tif",
        (*RGB, *MAP),
        together(whole_area("area_km2", 0.0075), whole_area("area_projected_km2", 0.03)),
    ),
    Case("c01b_translated.ome.zarr", RGB, translation(1000, 2000)),
    Case("e01_bounds.mrxs", (*RGB05, "--export", "qupath"), first_object_at(0, 0)),
    Case("d01_plain.svs", RGB, as_it_is),
    Case("d04_zero_tiles.svs", ("--level", "1", *RGB), pixels(2, 190)),
    Case("c05_dots.ome.zarr", RGB, None),
    Case("c04_order.ome.zarr", RGB05, as_it_is),
    Case("a07_orient3.tif", RGB, noted("orientation", "as they are stored")),
    Case("a07_orient6.tif", RGB, noted("orientation", "as they are stored")),
    Case("g05_exif6.jpg", RGB, noted("orientation", "as they are stored")),
)


def main() -> int:
    """Run them all; 1 where one is wrong."""
    if not CASES.is_dir():
        print(f"the small inputs are absent: {CASES}")  # noqa: T201
        return 0
    asked = sys.argv[1:]
    chosen = [case for case in ALL if not asked or any(part in case.image for part in asked)]
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(chosen):
            outcome = case.run(Path(folder) / str(number))
            wrong += outcome.startswith("WRONG")
            print(f"{case.image:34} {' '.join(case.options):70} {outcome}", flush=True)  # noqa: T201
    print(f"{len(chosen) - wrong} right or refused, {wrong} wrong")  # noqa: T201
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
