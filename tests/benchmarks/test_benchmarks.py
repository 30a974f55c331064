"""The benchmarks' own parts: slides, rates, labels counted, tables. Speed itself is never tested."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import scene_rates, scenes, table
from benchmarks.export_runs import disc_labels, make
from benchmarks.exported import compare
from benchmarks.exports import export
from benchmarks.limit import shared_rate
from benchmarks.memory import Sampler
from benchmarks.peers.inputs import labels_of
from benchmarks.process import run
from benchmarks.reference import differing
from benchmarks.slide import mirrored, write_slide
from tiling.geometry import Box
from tiling.source import open_source
from unet_core.bundles.card import locate, read_card

MB = 10**6


def test_mirrored_indices_walk_forth_and_back() -> None:
    assert mirrored(3, 8).tolist() == [0, 1, 2, 2, 1, 0, 0, 1]


def test_slide_is_tiled_jpeg_with_the_pixel_size_and_the_mirrored_pixels(tmp_path: Path) -> None:
    ramp_YXC = np.repeat(np.linspace(30, 220, 200, dtype=np.uint8)[:, None, None], 100, 1).repeat(3, 2)
    path = write_slide(tmp_path / "slide.svs", 512, ramp_YXC)
    with open_source(path) as source:
        size = source.levels[0].pixel_size
        assert size is not None
        assert (size.y, size.x, size.unit) == (0.499, 0.499, "um")
        assert source.format == "aperio-svs"
        found_YXC = source.read(0, Box(0, 0, 512, 512)).astype(int)
    expected_YXC = ramp_YXC[np.ix_(mirrored(200, 512), mirrored(100, 512))].astype(int)
    assert np.abs(found_YXC - expected_YXC).max() <= 8  # JPEG, quality 85
    assert [each.name for each in tmp_path.iterdir()] == ["slide.svs"]


def test_slide_of_no_whole_tiles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple"):
        write_slide(tmp_path / "slide.svs", 500, np.zeros((8, 8, 3), np.uint8))


def test_rate_counts_only_what_all_processes_shared() -> None:
    one = [0.0, 1.0, 2.0, 3.0, 4.0]
    other = [1.0, 3.0, 5.0]
    assert shared_rate([one, other], pixels=10) == pytest.approx((3 + 1.5) * 10 / 3)


def test_differing_labels_are_counted_row_by_row(tmp_path: Path) -> None:
    labels_YX = np.zeros((3000, 40), np.uint8)
    np.save(tmp_path / "reference.npy", labels_YX)
    labels_YX[[0, 1500, 2999], 7] = 1
    np.save(tmp_path / "labels.npy", labels_YX)
    assert differing(tmp_path / "reference.npy", tmp_path / "labels.npy") == 3


def test_peers_get_the_labels_of_the_card() -> None:
    logits_CHW = np.array([[[-1.0, 0.0, 1.0]]], np.float32)
    assert labels_of(logits_CHW, read_card(locate("nuclei-small"))).tolist() == [[0, 0, 1]]


def test_drawn_discs_are_as_many_and_come_back_from_what_they_are_exported_to(tmp_path: Path) -> None:
    side_px, rows = disc_labels(530)
    whole = rows(0, side_px)
    assert (side_px, whole.shape) == (1200, (1200, 1200))
    np.testing.assert_array_equal(rows(90, 310), whole[90:310])
    run = make(tmp_path, side_px, rows)
    np.testing.assert_array_equal(run.open_mask(read_only=True).levels[0][:], whole)
    assert export(run, ["qupath", "geopackage"])["bytes"] > 100_000
    for name in ("qupath", "geopackage"):
        assert compare(run, name) == {"objects": 530, "differing": 0}
    mask, tile = run.open_mask(), run.plan.at(0, 0)
    wrong = whole[tile.valid.slices].copy()
    wrong[:1, :7] = 2
    mask.write(tile, wrong)
    assert compare(run, "qupath")["differing"] == 7


def test_sampler_sees_this_process(tmp_path: Path) -> None:
    import os
    import time

    sampler = Sampler(os.getpid(), 0.01)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not sampler.seen:
        time.sleep(0.01)
    peaks = sampler.stop()
    assert peaks.by_kind["driver"] > 20 * MB
    assert peaks.tree_pss > 20 * MB


def test_table_gives_medians_shares_and_ratios(tmp_path: Path) -> None:
    def row(key: str, kind: str, rate: float, number: int, **facts: Any) -> dict[str, Any]:
        memory = {"tree_pss": 2e9, "largest": 1e9, "by_kind": {"driver": 1e9}}
        return {"key": key, "kind": kind, "round": number, "pixels_per_second": rate, "memory": memory, **facts}

    rows = [row("network bfloat16", "limit", rate * MB, n, precision="bfloat16") for n, rate in enumerate((3, 4, 9))]
    ours: dict[str, Any] = {
        "precision": "bfloat16",
        "core_px": 512,
        "differing": 2,
        "pixels": 1000,
        "seconds": 1.0,
        "workers": 2,
    }
    ours["stage_seconds"] = {"compute": 1.5}
    rows += [row("overtile bfloat16 512 staged", "overtile", 3 * MB, 0, **ours)]
    rows += [row("peer", "peer", 0.5 * MB, 0, label="A peer", note="", differing=0, pixels=1000)]
    rows += [row("lost", "peer", 0, 0, label="Lost", note="", error="it broke")]
    machine = {"date": "today", "processor": "P", "cores": 2, "memory_bytes": 2**30, "bfloat16": True}
    machine |= {"system": "S", "python": "3", "commit": "c", "versions": {"torch": "2"}}
    page = {"machine": machine, "load_before": 0.0, "tissue": "t", "side_px": 64, "peers": {}, "rows": rows}
    (tmp_path / "contest.json").write_text(json.dumps(page))
    text = table.write(tmp_path)
    assert "| limit, bfloat16: network bfloat16 | 4.00 | 100 %" in text
    assert "| overtile bfloat16 512 staged | 3.00 | 75 % | 2.0e-03 (2) |" in text
    assert "| A peer | 6.0 |" in text
    assert "| Lost | failed: it broke |" in text
    for each in rows:
        each.pop("differing", None)
    (tmp_path / "large.json").write_text(json.dumps(page))
    large = table.write(tmp_path).partition("## A larger slide, 32² px")[2]
    assert "| overtile bfloat16 512 staged | 3.00 | 75 % |  | 2.00 GB |" in large


def test_scenes_are_read_alike_and_their_figures_told(tmp_path: Path) -> None:
    """Drawn once; of both readers the same number of values."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    found = [
        {"round": 0, **asdict(each)} for each in scenes.readings(folder, 192, scene_rates.SCENES, scene_rates.READERS)
    ]
    assert [(row["scene"], row["reader"]) for row in found] == [*product(scene_rates.SCENES, scene_rates.READERS)]
    assert {row["side_px"] for row in found} == {192}
    drawn = (folder / "j.jp2").stat().st_mtime_ns
    assert len([*scenes.readings(folder, 192, [scene_rates.JPEG_2000], ["rasterio"])]) == 1
    assert (folder / "j.jp2").stat().st_mtime_ns == drawn
    rows = [{**row, "mvalues_per_cpu_second": 50.0 if row["reader"] == "overtile" else 100.0} for row in found]
    page = tmp_path / "scenes.md"
    page.write_text("# Scenes\n\n- One.\n- Two.\n")
    for _ in range(2):
        scene_rates.tell({"rows": rows}, page)
        lines = page.read_text().splitlines()
        assert lines[:4] == ["# Scenes", "", "- One.", "- Two."]
        assert len(lines) == 5
        assert "a mosaic of nine files 0.50, a band of JPEG 2000 in tiles 0.50." in lines[4]


def test_a_part_sees_libraries_in_a_folder_of_their_own_and_another_python_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library_of_its_own.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    other = tmp_path / "python"
    other.symlink_to(sys.executable)
    look = "import json, importlib.util as i; print(json.dumps({n: i.find_spec(n) is not None for n in NAMES}))"
    asked = look.replace("NAMES", "('library_of_its_own', 'benchmarks')")
    for python, is_seen in ((sys.executable, True), (str(other), False)):
        found = run([python, "-c", asked], sample_seconds=0.05)
        assert (found["library_of_its_own"], found["benchmarks"]) == (is_seen, True)
