"""Rates at which scenes were read, as a table and a sentence tell them."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

FOUR_BANDS = "four bands of one grid"
TWO_SIZES = "two bands and two of half the resolution"
MOSAIC = "a mosaic of nine files"
JPEG_2000 = "a band of JPEG 2000 in tiles"
SCENES = (FOUR_BANDS, TWO_SIZES, MOSAIC, JPEG_2000)
READERS = ("overtile", "rasterio")
_BEGIN = "- Beside plain rasterio windows of the same files"


def medians(page: dict[str, Any]) -> dict[str, dict[str, tuple[float, float]]]:
    """By scene and reader: the median of million values per second of a processor, and the highest peak in MB."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for scene in SCENES:
        for reader in READERS:
            rows = [row for row in page["rows"] if (row["scene"], row["reader"]) == (scene, reader)]
            if rows:
                rate, peak = median(row["mvalues_per_cpu_second"] for row in rows), max(_peak_mb(row) for row in rows)
                found.setdefault(scene, {})[reader] = rate, peak
    return {scene: readers for scene, readers in found.items() if len(readers) == len(READERS)}


def sentence(page: dict[str, Any]) -> str:
    """What the figures say, as a point of a list."""
    rates = {scene: readers["overtile"][0] / readers["rasterio"][0] for scene, readers in medians(page).items()}
    told = ", ".join(f"{scene} {rate:.2f}" for scene, rate in rates.items())
    side = page["rows"][0]["side_px"]
    return f"{_BEGIN}, a scene of {side} px is read at this part of the rate for each processor: {told}."


def tell(page: dict[str, Any], file: Path) -> None:
    """Write the sentence into a page, in place of the one before or after all others."""
    lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    kept = [line for line in lines if not line.startswith(_BEGIN)]
    at = next((number for number, line in enumerate(lines) if line.startswith(_BEGIN)), len(kept))
    file.write_text("\n".join([*kept[:at], sentence(page), *kept[at:]]) + "\n", encoding="utf-8")


def _peak_mb(row: dict[str, Any]) -> float:
    """Memory of the process as it was seen from outside; its own figure holds that of the one that started it."""
    return row["memory"]["largest"] / 1e6 if "memory" in row else row["peak_mb"]
