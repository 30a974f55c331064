"""Open water from red, green and blue: labels from the near infrared of the same scenes, figures and a picture.

    python -m benchmarks.water labels                      # runs/water-labels, which the recipe reads
    overtile train unet_core/recipes/water.toml --out runs/train-water
    python -m benchmarks.water measure --model runs/train-water/bundle --picture docs/water.webp

Water takes in near infrared light, and land gives it back: a scene's histogram has a valley between the two. A pixel
is water where its near infrared, the median of 3 x 3 pixels, lies below Otsu's threshold of its scene; patches and
holes of fewer than 16 pixels are the other. That is what labels are: nobody has drawn them. Emergent reeds count as
land, deep shadows as water.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_holes, remove_small_objects

from flows.training.drawing import INK, PAPER, font
from tiling.source import open_source
from unet_core.bundles.bundle import Bundle, load_bundle
from unet_core.training import metrics
from unet_core.training.evaluation import whole_image_labels
from unet_core.training.output_grid import OutputGrid

SCENES = Path("../shared/data/geo/naip")
LABELS = Path("runs/water-labels")
ROLES = {"2010": "chosen", "2012": "trained", "2015": "trained", "2016": "trained", "2017": "reported"}
_SPECK_PX = 16
_WATER, _MISSED, _INVENTED = (0, 114, 178), (240, 228, 66), (213, 94, 0)


def water(near_infrared_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """1 where there is open water, else 0."""
    smooth_HW = ndimage.median_filter(near_infrared_HW, 3)
    is_water_HW = smooth_HW <= threshold_otsu(smooth_HW)
    is_water_HW = remove_small_objects(is_water_HW, max_size=_SPECK_PX - 1, connectivity=1)
    return remove_small_holes(is_water_HW, max_size=_SPECK_PX - 1, connectivity=1).astype(np.uint8)


def year_of(path: Path) -> str:
    """The year in a scene's name, as in `m_4709963_se_14_1_20170827.tif`."""
    return path.stem.rpartition("_")[2][:4]


def near_infrared(path: Path) -> NDArray[np.uint8]:
    """The fourth band of a scene."""
    return tifffile.imread(path, key=0)[..., 3]


def write_labels(scenes: Path, folder: Path) -> None:
    """One TIFF of labels per scene, under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(scenes.glob("*.tif")):
        labels_HW = water(near_infrared(path))
        tifffile.imwrite(folder / path.name, labels_HW, compression="deflate")
        sys.stdout.write(f"{path.name}: {100 * labels_HW.mean():.1f} % water\n")


def measure(bundle: Bundle, scenes: Path) -> dict[str, Any]:
    """Scores of each year against the labels that its near infrared gives."""
    grid = OutputGrid.of(bundle.module, len(bundle.card.bands))
    figures: dict[str, Any] = {}
    for path in sorted(scenes.glob("*.tif")):
        found_HW = whole_image_labels(bundle.module, bundle.card, colours(path), grid)
        confusion = metrics.confusion_matrix(water(near_infrared(path)), found_HW, 2)
        of = (metrics.iou, metrics.dice, metrics.precision, metrics.recall)
        row = {metric.__name__: round(float(metric(confusion)[1]), 4) for metric in of}
        figures[year_of(path)] = {"role": ROLES.get(year_of(path), "reported"), **row}
        sys.stdout.write(f"{year_of(path)} {figures[year_of(path)]}\n")
    return figures


def write_picture(bundle: Bundle, scenes: Path, target: Path, years: tuple[str, ...] = ("2010", "2017")) -> None:
    """Each year as it is, and with what the bundle finds: right, missed and invented in colours."""
    grid = OutputGrid.of(bundle.module, len(bundle.card.bands))
    paths = [path for path in sorted(scenes.glob("*.tif")) if year_of(path) in years]
    height, width = colours(paths[0]).shape[:2]
    page = Image.new("RGB", (2 * width + 24, len(paths) * (height + 32) + 8), PAPER)
    draw = ImageDraw.Draw(page)
    for row, path in enumerate(paths):
        image_HW3, top = colours(path), 8 + row * (height + 32)
        found_HW = whole_image_labels(bundle.module, bundle.card, image_HW3, grid)
        truth_HW = water(near_infrared(path))
        iou = metrics.iou(metrics.confusion_matrix(truth_HW, found_HW, 2))[1]
        role = ROLES.get(year_of(path), "reported")
        draw.text((8, top), f"{year_of(path)} ({role} on): IoU {iou:.3f}", INK, font(16), "lt")
        shown_HW3 = image_HW3.copy()
        for colour, where_HW in (
            (_WATER, (truth_HW > 0) & (found_HW > 0)),
            (_MISSED, (truth_HW > 0) & (found_HW == 0)),
            (_INVENTED, (truth_HW == 0) & (found_HW > 0)),
        ):
            shown_HW3[where_HW] = (0.3 * image_HW3[where_HW] + 0.7 * np.array(colour)).astype(np.uint8)
        page.paste(Image.fromarray(image_HW3), (8, top + 24))
        page.paste(Image.fromarray(shown_HW3), (width + 16, top + 24))
    page.save(target, quality=85)


def colours(path: Path) -> NDArray[np.uint8]:
    """The first three bands of a scene: red, green and blue."""
    with open_source(path) as source:
        return source.read(0, source.levels[0].box)[..., :3].astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("labels", "measure"))
    parser.add_argument("--model", default="water")
    parser.add_argument("--scenes", type=Path, default=SCENES)
    parser.add_argument("--labels", type=Path, default=LABELS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    if given.step == "labels":
        write_labels(given.scenes, given.labels)
        return
    bundle = load_bundle(given.model)
    figures = measure(bundle, given.scenes)
    if given.out is not None:
        given.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if given.picture is not None:
        write_picture(bundle, given.scenes, given.picture)


if __name__ == "__main__":
    main()
