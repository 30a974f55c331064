"""The benchmark of the steps around the network: what stands beside each step is what its libraries take."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import table
from benchmarks.slide import write_slide
from benchmarks.steps import WHERE, Clock, measure

RAW_PARTS = {
    "fingerprint": {"sha256"},
    "plan": {"JPEG", "means"},
    "stage": {"JPEG", "gather", "crc32c", "file"},
    "read": {"file", "crc32c"},
    "write": {"blake2b", "counts", "zstd", "file", "majority"},
    "pyramid": {"zstd", "majority", "file"},
    "pictures": {"JPEG", "means", "png", "report JPEG"},
}
MACHINE: dict[str, Any] = {
    "date": "today",
    "processor": "P",
    "cores": 2,
    "memory_bytes": 2**30,
    "bfloat16": True,
    "system": "S",
    "python": "3",
    "commit": "c",
    "versions": {"torch": "2"},
}
PAGE: dict[str, Any] = {"machine": MACHINE, "load_before": 0.0, "peers": {}}
OTHERS = {"record", "report"}


def test_each_step_stands_beside_its_libraries_over_the_same_pixels(tmp_path: Path) -> None:
    pixels = np.full((600, 600, 3), 240, np.uint8)
    pixels[100:400, 100:400] = np.random.default_rng(1).integers(60, 200, (300, 300, 3))
    image = write_slide(tmp_path / "slide.svs", 2048, pixels, reduced=(4,))
    found = measure(image, tmp_path / "run", 512)  # compares what it stages with what was staged
    assert {step: {*parts} for step, parts in found["raw_cpu_seconds_per_gigapixel"].items()} == RAW_PARTS
    assert {*found["cpu_seconds_per_gigapixel"]} == {*RAW_PARTS, *OTHERS}
    drivers = ("fingerprint", "plan", "record", "pyramid", "report")
    of_driver = sum(found["cpu_seconds_per_gigapixel"][step] for step in drivers)
    assert found["driver_cpu_seconds"] == pytest.approx(of_driver * found["pixels"] / 1e9)
    assert not (tmp_path / "raw").exists()
    direct = measure(image, tmp_path / "direct", 512, staged=False)
    parts = {step: {*each} for step, each in direct["raw_cpu_seconds_per_gigapixel"].items()}
    assert parts == {step: each for step, each in RAW_PARTS.items() if step != "stage"} | {"read": {"JPEG", "gather"}}
    assert {*direct["cpu_seconds_per_gigapixel"]} == {*parts, *OTHERS}
    assert direct["bytes_per_pixel"]["staged"] == 0


def test_table_shows_steps_beside_their_libraries(tmp_path: Path) -> None:
    def row(number: int, stage: float, **more: Any) -> dict[str, Any]:
        return {"levels": 1, "pixels": 2**26, "core_px": 1024, "round": number} | {
            "cpu_seconds_per_gigapixel": {"plan": 1.0, "stage": stage},
            **more,
        }

    raw = {"raw_cpu_seconds_per_gigapixel": {"stage": {"JPEG": 4.0, "lz4": 2.0}}}
    (tmp_path / "steps.json").write_text(json.dumps({**PAGE, "rows": [row(n, 9.0 * n, **raw) for n in (0, 1, 2)]}))
    text = table.write(tmp_path)
    assert "8192² px, one level, core 1024:" in text
    assert "| plan | 1.0 | | | |" in text
    assert "| stage | 9.0 | 6.0 | 1.5 | JPEG 4.00, lz4 2.00 |" in text
    assert "| together | 10.0 | 6.0 | 1.7 |  |" in text
    (tmp_path / "steps.json").write_text(json.dumps({**PAGE, "rows": [row(0, 9.0)]}))  # of an earlier version
    assert "| stage | 9.0 | | | |" in table.write(tmp_path)
    (tmp_path / "steps.json").write_text(json.dumps({**PAGE, "rows": [row(0, 9.0), row(0, 0.0, staged=False)]}))
    assert "8192² px, one level, core 1024, without staging:" in table.write(tmp_path)


def test_a_step_of_another_process_is_not_counted_with_the_driver_that_waits_for_it(tmp_path: Path) -> None:
    clock = Clock()

    def burn(seconds: float) -> None:
        ends = time.process_time() + seconds
        while time.process_time() < ends:
            pass

    def plan() -> None:
        burn(0.02)
        clock.time("look", lambda: burn(0.3))

    clock.time("plan", plan)
    clock.time("look", lambda: burn(0.1))
    assert 0.4 <= clock.cpu["look"] < 0.5
    assert 0.02 <= clock.cpu["plan"] < 0.1


def test_table_says_what_the_driver_takes_for_each_slide_and_gigapixel(tmp_path: Path) -> None:
    def row(side: int, seconds: float) -> dict[str, Any]:
        facts = {"levels": 3, "pixels": side**2, "core_px": 1024, "round": 0, "driver_cpu_seconds": seconds}
        return facts | {"where": WHERE, "cpu_seconds_per_gigapixel": {"plan": 1.0, "look": 3.0, "report": 0.5}}

    pixels = 1e9 / 2**26
    page = {**PAGE, "rows": [row(8192, 0.1 + 2.0 / pixels), row(16384, 0.1 + 8.0 / pixels)]}
    (tmp_path / "steps.json").write_text(json.dumps(page))
    text = table.write(tmp_path)
    assert "| of it the driver's | 3.5 | | | plan, report |" in text
    assert "The driver, by these sides of 3 levels: 0.10 s for each slide and 2.0 for each gigapixel." in text
