"""Measurements on a GPU: exactness, the device's own ceilings, the bare network, staged tiles to labels.

    python -m benchmarks.gpu --json gpu.json            on a machine with a GPU
    python -m benchmarks.gpu --device cpu --quick       the same path on a processor, in a minute

Needs torch, numpy, zarr, tifffile, imagecodecs, Pillow, pydantic, safetensors, psutil, obstore, and openslide-python
with openslide-bin; neither Ray, Prefect, dask, SciPy nor GDAL, and no network: what an actor does with a tile is
`flows.worker.tile_worker.TileWorker`, which is used here as it is. The image is scikit-image's photograph of stained
tissue where that is installed, `--image FILE.npy` (y, x, RGB, uint8), or else noise.
Exits 1 where float32 labels differ from the whole image's by more than one in a million.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.staged import Pixels, new_run, one_of_each_kind, picture, plan_of, process, region_of, stage
from flows.worker.tile_worker import TileWorker
from tiling.geometry import Box
from unet_core.bundles.bundle import Bundle, load_bundle, save_bundle
from unet_core.inference.predictor import Precision, Predictor, decide, fold
from unet_core.models.unet import UNet

MOST_DIFFERENT = 1e-6


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work. Sides in pixels; `tiles` per side of the large image; `threads` of the worker."""

    whole: int = 4096
    exact_core: int = 1024
    product: int = 8192
    copy_bytes: int = 4 * 2**30
    bare: int = 4096
    core: int = 4096
    tiles: int = 8
    threads: int = 8
    repeats: int = 10


QUICK = Sizes(256, 128, 256, 2**24, 128, 128, tiles=4, threads=3, repeats=2)


@dataclass(frozen=True, slots=True)
class Exactness:
    """Share of labels that differ from one float32 pass over the whole image, and the share of foreground."""

    way: str
    precision: str
    different: float
    foreground: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one network, in pixels per second.

    bare: the network alone, on a float tile that lies on the device, without halo. inside: the predictor's step
    with its halo, in core pixels, copies not counted. staged: staged tiles to labels on disk; `busy` is the share
    of that time in which the device computed, `seconds` what the threads spent in all.
    """

    first_channels: int
    precision: str
    bare: dict[str, float]
    inside: dict[str, float]
    staged: float
    busy: float
    seconds: dict[str, float]
    tiles: int


# Exactness


def whole_image_labels(bundle: Bundle, pixels_HWC: Pixels, device: str) -> Pixels:
    """Labels of one plain pass in float32: nothing folded, nothing fused, NCHW memory, no TF32."""
    given = bundle.card.normalization
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (given.mean, given.std))
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    with torch.inference_mode():
        image_NCHW = torch.from_numpy(pixels_HWC).to(device).permute(2, 0, 1)[None].float().contiguous()
        logits_NCHW = bundle.module.to(device)((image_NCHW - mean) / std)
        labels = decide(logits_NCHW, bundle.card.decision)[0].cpu().numpy()
    bundle.module.to("cpu")
    return labels


def exactness(pixels: Pixels, sizes: Sizes, device: str, ways: list[bool], folder: Path) -> list[Exactness]:
    """The trained network, tile by tile: by each way of computing, and by the worker from disk to disk."""
    bundle = load_bundle("nuclei-small")
    expected = whole_image_labels(bundle, pixels, device)
    plan = plan_of(bundle, (pixels.shape[0], pixels.shape[1]), sizes.exact_core)
    found: list[Exactness] = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        for compiled in ways:
            predictor = Predictor(bundle, precision=precision, device=device, compiled=compiled)
            labels = np.empty_like(expected)
            for tile in plan.tiles():
                labels[tile.valid.slices] = predictor.predict(pixels[tile.read.slices], region_of(plan, tile))
            found.append(_compared(way_of(compiled), precision, labels, expected))
        run = new_run(folder / precision, bundle, "nuclei-small", plan, precision)
        stage(run, range(plan.count), lambda box: pixels[box.slices], sizes.threads)
        process(TileWorker(device), run, range(plan.count), sizes.threads)
        found.append(_compared("worker", precision, run.open_mask().read(Box(0, 0, *plan.extent)), expected))
    return found


def _compared(way: str, precision: str, labels: Pixels, expected: Pixels) -> Exactness:
    return Exactness(way, precision, float((labels != expected).mean()), float((expected > 0).mean()))


def way_of(compiled: bool) -> str:
    return "compiled" if compiled else "eager"


# Ceilings


def seconds_of(step: Callable[[], object], repeats: int, device: str) -> float:
    """The median time of one step, by the device's own clock on a GPU."""
    for _ in range(3):
        step()
    times: list[float] = []
    for _ in range(repeats):
        if device == "cpu":
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        else:
            before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            before.record()
            step()
            after.record()
            after.synchronize()
            times.append(before.elapsed_time(after) / 1000)
    return statistics.median(times)


def ceilings(sizes: Sizes, device: str) -> dict[str, float]:
    """Operations per second of a bfloat16 matrix product, and bytes per second read and written by a copy."""
    a, b = (torch.randn(sizes.product, sizes.product, device=device).bfloat16() for _ in range(2))
    product_s = seconds_of(lambda: a @ b, sizes.repeats, device)
    source = torch.randint(0, 256, (sizes.copy_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = seconds_of(lambda: target.copy_(source), sizes.repeats, device)
    return {
        "bf16_product_flop_per_s": 2 * sizes.product**3 / product_s,
        "copy_bytes_per_s": 2 * sizes.copy_bytes / copy_s,
    }


# Rates


def network_bundle(first_channels: int, folder: Path) -> tuple[Bundle, str]:
    """The trained network, or one of another width whose weights are random: its speed is the same."""
    trained = load_bundle("nuclei-small")
    if first_channels == trained.card.parameters["first_channels"]:
        return trained, "nuclei-small"
    torch.manual_seed(0)
    parameters = {**trained.card.parameters, "first_channels": first_channels}
    path = folder / f"unet{first_channels}"
    card = trained.card.model_copy(update={"parameters": parameters, "name": path.name, "training": {}})
    save_bundle(path, card, UNet(**parameters))
    return load_bundle(path), str(path)


def bare_rates(bundle: Bundle, sizes: Sizes, device: str, ways: list[bool]) -> dict[str, float]:
    """The network alone: folded, channels-last, bfloat16."""
    network = fold(bundle.module).to(device, torch.bfloat16).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    tile_NCHW = torch.randn(1, len(bundle.card.bands), sizes.bare, sizes.bare, device=device).bfloat16()
    tile_NCHW = tile_NCHW.contiguous(memory_format=torch.channels_last)
    rates: dict[str, float] = {}
    with torch.inference_mode():
        for compiled in ways:
            run: nn.Module = torch.compile(network, dynamic=False) if compiled else network  # type: ignore[assignment]
            seconds = seconds_of(lambda run=run: run(tile_NCHW), sizes.repeats, device)
            rates[way_of(compiled)] = sizes.bare**2 / seconds
    return rates


def inside_rates(bundle: Bundle, sizes: Sizes, device: str, ways: list[bool]) -> dict[str, float]:
    """The predictor on one tile inside the image, by the seconds that it reports itself."""
    rates: dict[str, float] = {}
    for compiled in ways:
        predictor = Predictor(bundle, precision="bfloat16", device=device, compiled=compiled)
        read_px, region = predictor.inside(sizes.core)
        tile_HWC = np.random.default_rng(0).integers(0, 256, (*read_px, len(bundle.card.bands)), np.uint8)
        predictor.predict(tile_HWC, region)
        seconds = statistics.median(predictor.run(tile_HWC, region).seconds for _ in range(sizes.repeats))
        rates[way_of(compiled)] = sizes.core**2 / seconds
    return rates


def measure(first_channels: int, pixels: Pixels, sizes: Sizes, device: str, ways: list[bool], folder: Path) -> Rates:
    """All rates of one network in bfloat16. Tiles at the image's corner warm every kind up and don't count."""
    bundle, reference = network_bundle(first_channels, folder)
    bare, inside = bare_rates(bundle, sizes, device, ways), inside_rates(bundle, sizes, device, ways)
    side = sizes.core * sizes.tiles
    plan = plan_of(bundle, (side, side), sizes.core)
    run = new_run(folder / f"run{first_channels}", bundle, reference, plan, "bfloat16")

    def content(box: Box) -> Pixels:
        rows, cols = (np.arange(low, high) % pixels.shape[0] for low, high in ((box.y0, box.y1), (box.x0, box.x1)))
        return pixels[np.ix_(rows, cols)]

    worker, kinds = TileWorker(device), one_of_each_kind(plan)
    stage(run, range(plan.count), content, sizes.threads)
    process(worker, run, kinds, sizes.threads)
    results, wall_s = process(worker, run, [i for i in range(plan.count) if i not in kinds], sizes.threads)
    seconds = {name: sum(result.seconds[name] for result in results) for name in ("read", "compute", "write")}
    labelled = sum(result.pixels for result in results)
    busy = seconds["compute"] / wall_s
    return Rates(first_channels, "bfloat16", bare, inside, labelled / wall_s, busy, seconds, len(results))


# Report


def describe(device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device != "cpu" else platform.processor() or platform.machine()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"device": name, **versions}


def print_table(checks: list[Exactness], ceiling: dict[str, float], rates: list[Rates]) -> None:
    print(f"\nbf16 product {ceiling['bf16_product_flop_per_s'] / 1e12:.1f} TFLOP/s, ", end="")
    print(f"copy {ceiling['copy_bytes_per_s'] / 1e12:.3f} TB/s (read and written)")
    for check in checks:
        print(f"{check.precision:9} {check.way:9} {check.different:.2e} of labels differ", end="")
        print(f" ({check.foreground:.1%} foreground)")
    print("channels  way        bare MPix/s  inside MPix/s")
    for rate in rates:
        for way, inside in rate.inside.items():
            print(f"{rate.first_channels:8}  {way:9} {rate.bare[way] / 1e6:12.2f} {inside / 1e6:14.2f}")
    for rate in rates:
        print(f"{rate.first_channels:8}  staged tiles to labels on disk: {rate.staged / 1e6:.2f} MPix/s, ", end="")
        print(f"device busy {rate.busy:.0%} of the time, {rate.tiles} tiles")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure overtile on one GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs, not how fast")
    parser.add_argument("--image", type=Path, help="a .npy file (y, x, RGB) of uint8")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--work", type=Path, help="where run folders go; a temporary folder by default")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 64])
    given = parser.parse_args()
    sizes = QUICK if given.quick else Sizes()
    # Compiling takes minutes on a processor and gains nothing there.
    ways = [False] if given.device == "cpu" else [False, True]
    pixels, name = picture(given.image, sizes.whole)
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        checks = exactness(pixels, sizes, given.device, ways, Path(folder))
        ceiling = ceilings(sizes, given.device)
        rates = [measure(c, pixels, sizes, given.device, ways, Path(folder)) for c in given.channels]
    report = {
        **describe(given.device),
        "image": name,
        "sizes": asdict(sizes),
        "exactness": [asdict(check) for check in checks],
        "ceilings": ceiling,
        "rates": [asdict(rate) for rate in rates],
    }
    given.json.write_text(json.dumps(report, indent=1) + "\n")
    print_table(checks, ceiling, rates)
    if any(check.precision == "float32" and check.different > MOST_DIFFERENT for check in checks):
        sys.exit("float32 labels differ from those of the whole image")


if __name__ == "__main__":
    main()
