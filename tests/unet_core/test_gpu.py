"""Computing on a GPU; and, anywhere, that the GPU benchmark runs and needs neither Ray nor Prefect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_bundles import noise, small_unet, stitched, whole_labels

from unet_core.bounds import footprint
from unet_core.bundles.bundle import load_bundle
from unet_core.inference.device import CudaDevice, device_for
from unet_core.inference.predictor import Predictor
from unet_core.inference.tta import tta_footprint

ROOT = Path(__file__).resolve().parents[2]
without_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def run_python(*arguments: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_benchmark_and_worker_need_only_what_a_bare_machine_is_given(tmp_path: Path) -> None:
    unwanted = "('ray', 'prefect', 'typer', 'fastapi', 'starlette', 'rich', 'dask', 'scipy', 'rasterio', 'shapely')"
    code = f"import sys, benchmarks.gpu; print([m for m in {unwanted} if m in sys.modules])"
    assert run_python("-c", code, folder=tmp_path).strip() == "[]"


@pytest.mark.slow
def test_benchmark_runs_on_a_processor(tmp_path: Path) -> None:
    arguments = ["-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--channels", "4", "--json", "found.json"]
    table = run_python(*arguments, folder=tmp_path)
    assert "staged tiles to labels on disk" in table
    found = json.loads((tmp_path / "found.json").read_text())
    checks = {(check["precision"], check["way"]): check for check in found["exactness"]}
    assert set(checks) == {(p, w) for p in ("float32", "bfloat16") for w in ("eager", "worker")}
    assert checks["float32", "eager"]["different"] == checks["float32", "worker"]["different"] == 0
    assert checks["float32", "eager"]["foreground"] > 0.001
    assert checks["bfloat16", "worker"]["different"] == checks["bfloat16", "eager"]["different"] < 0.01
    (rates,) = found["rates"]
    assert rates["tiles"] == 7, "of 16 tiles one of each of 9 kinds warms up"
    assert 0 < rates["busy"] <= 1.01
    assert not list(tmp_path.glob("tmp*"))


@pytest.fixture
def photograph() -> NDArray[np.uint8]:
    from skimage.data import immunohistochemistry

    return immunohistochemistry()


@pytest.mark.gpu
@without_gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_gpu_labels_in_float32_are_the_processors(photograph: NDArray[np.uint8], compiled: bool) -> None:
    nuclei = load_bundle("nuclei")
    expected = whole_labels(nuclei, photograph)
    predictor = Predictor(nuclei, device="cuda", compiled=compiled)
    labels = stitched(predictor, photograph, 128, footprint(nuclei.module, 3))
    assert int(np.count_nonzero(labels != expected)) <= 1
    rounded = Predictor(nuclei, device="cuda", precision="bfloat16", compiled=compiled)
    assert (stitched(rounded, photograph, 128, footprint(nuclei.module, 3)) == expected).mean() > 0.99


@pytest.mark.gpu
@without_gpu
def test_threads_that_share_a_gpu_get_their_own_labels() -> None:
    bundle = small_unet()
    predictor = Predictor(bundle, device="cuda", compiled=False)
    read_px, region = predictor.inside(64)
    tiles = [noise(*read_px, seed) for seed in range(8)]
    expected = [Predictor(bundle).predict(tile, region) for tile in tiles]
    answers: dict[int, NDArray[np.uint8]] = {}

    def label(place: int) -> None:
        for _ in range(20):
            answers[place] = predictor.predict(tiles[place], region)

    threads = [threading.Thread(target=label, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, labels in enumerate(expected):
        np.testing.assert_array_equal(answers[place], labels)


@pytest.mark.gpu
@without_gpu
def test_gpu_that_runs_out_of_memory_gets_halves() -> None:
    bundle = small_unet(depth=2)
    pixels = noise(2048, 2048)
    expected = Predictor(bundle).predict(pixels, Predictor(bundle).whole(2048, 2048))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(200 * 2**20 / total)
    try:
        predictor = Predictor(bundle, device="cuda", compiled=False)
        labels = predictor.predict(pixels, predictor.whole(2048, 2048))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (labels != expected).mean() <= 1e-6


@pytest.mark.gpu
@without_gpu
def test_augmentation_and_probabilities_on_a_gpu() -> None:
    bundle = small_unet(depth=2)
    found = tta_footprint(footprint(bundle.module, 3), "d4")
    pixels = noise(112, 144)
    predictor = Predictor(bundle, device="cuda", tta="d4", compiled=False)
    np.testing.assert_array_equal(stitched(predictor, pixels, 32, found), whole_labels(bundle, pixels, "d4"))
    region = predictor.whole(112, 144)
    here = predictor.run(pixels, region, probabilities=True).probabilities
    there = Predictor(bundle, tta="d4").run(pixels, region, probabilities=True).probabilities
    assert here is not None
    assert there is not None
    assert np.abs(here.astype(int) - there).max() <= 1


@pytest.mark.gpu
@without_gpu
def test_gpu_is_one_object_for_all_models() -> None:
    assert isinstance(device_for("cuda"), CudaDevice)
    assert device_for("cuda") is device_for("cuda")
