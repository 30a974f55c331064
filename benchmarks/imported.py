"""Networks that come in the formats of others: labels of a megapixel of tissue, held against the network's own pass.

    python -m benchmarks.imported [NETWORK …] [--steps 60] [--folder .benchmarks/work/imported]

Each network of the registry learns nuclei for some steps, since weights at random put two classes near a tie
everywhere, and trained ones don't. It is exported as ONNX and segmented by overtile in tiles; where monai and
bioimageio.spec are installed, so are a MONAI bundle and a bioimage.io package that these libraries wrote.
Labels are compared with one float32 pass of the network as it is, over the whole image. What that pass itself owes to
rounding stands beside: its labels in float64, and in another layout of memory.
"""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import overtile
from benchmarks.foreign_packages import (
    is_installed,
    monai_network,
    smp_network,
    write_bioimageio,
    write_monai,
    write_smp,
)
from benchmarks.slide import ROOT, tissue
from unet_core.bounds import Footprint
from unet_core.bounds.footprint import footprint_of
from unet_core.bounds.network import inferred
from unet_core.bundles.networks import network_summaries
from unet_core.models import build
from unet_core.training.data import in_validation, modality

SIDE_PX, CORE_PX, CROP_PX, BATCH = 1024, 384, 128, 4
CLASSES = ("background", "nucleus", "border")
MONAI, BIOIMAGEIO = "MONAI bundle", "bioimage.io package"
RARE = (1.0, 2.0, 4.0)
"""Weights of the classes in the loss."""
MIDDLE = 127.5
NUCLEI = ROOT.parent / "shared" / "data" / "nuclei"
FEW: dict[str, dict[str, Any]] = {
    **{name: {"first_channels": 8, "head_channels": 32} for name in ("fcn32s", "fcn16s", "fcn8s")},
    "unet3p": {"first_channels": 8, "skip_channels": 8},
    "patch_classifier": {"channels": 8, "hidden": 16},
    "unet_configurable": {"first_channels": 8, "batch_norm": True},
}
"""Parameters of a network that two cores train in seconds; of those not named, eight first channels."""

Pixels = NDArray[np.uint8]
Writer = Callable[[nn.Module], nn.Module | Path]


@dataclass(frozen=True, slots=True)
class Network:
    """A network with what it needs of an image around the pixels that it labels."""

    module: nn.Module
    footprint: Footprint
    remainder: tuple[int, int]

    @classmethod
    def of(cls, module: nn.Module) -> Network:
        recorded = inferred(module, 3)
        return cls(module, footprint_of(recorded), (recorded.remainder(0), recorded.remainder(1)))

    def after(self, extent: int) -> int:
        """Pixels to mirror below and right of an extent."""
        before, stride = self.footprint.context.top, self.footprint.stride[0]
        least = self.footprint.context.bottom
        return least + (self.remainder[0] - before - extent - least) % stride

    def padded(self, pixels_HWC: Pixels) -> Pixels:
        """The image as one pass takes it: mirrored outside where the network needs it."""
        before = self.footprint.context.top
        return np.pad(
            pixels_HWC, [*((before, self.after(extent)) for extent in pixels_HWC.shape[:2]), (0, 0)], "reflect"
        )

    def logits(self, padded_HWC: Pixels, extents: tuple[int, int], module: nn.Module | None = None) -> Tensor:
        """Logits `(C, y, x)` of the image inside its padding."""
        module = module or self.module
        dtype = next(module.parameters()).dtype
        inputs = torch.from_numpy(np.ascontiguousarray(padded_HWC)).permute(2, 0, 1)[None].to(dtype).contiguous()
        return self.inside(module((inputs - MIDDLE) / MIDDLE), extents)[0]

    def inside(self, logits_NCHW: Tensor, extents: tuple[int, int]) -> Tensor:
        (y, x), before = self.footprint.scale, self.footprint.context.top
        top, left = int(y * before) - self.footprint.offset[0], int(x * before) - self.footprint.offset[1]
        return logits_NCHW[:, :, top : top + int(y * extents[0]), left : left + int(x * extents[1])]


def examples() -> list[tuple[Pixels, NDArray[np.int64]]]:
    """Stained images of nuclei that aren't held back, with the borders between nuclei as a class of their own."""
    from skimage import io

    found: list[tuple[Pixels, NDArray[np.int64]]] = []
    for path in sorted((NUCLEI / "images").glob("*.png")):
        if in_validation(path.stem):
            continue
        image = np.ascontiguousarray(io.imread(path)[..., :3])
        if modality(image) != "stained" or min(image.shape[:2]) < CROP_PX:
            continue
        instances = io.imread(NUCLEI / "labels" / path.name).astype(np.int32)
        labels = (instances > 0).astype(np.int64)
        for axis in (0, 1):
            for step in (1, -1):
                labels[(np.roll(instances, step, axis) != instances) & (instances > 0)] = 2
        found.append((image, labels))
    return found


def train(network: Network, given: list[tuple[Pixels, NDArray[np.int64]]], steps: int) -> float:
    """Let the network learn for some steps; returns the mean loss of the last tenth of them."""
    random, losses = np.random.default_rng(0), list[float]()
    optimiser = torch.optim.Adam(network.module.parameters(), lr=1e-3)
    scale, before = int(network.footprint.scale[0]), network.footprint.context.top
    for _ in range(steps):
        crops, targets = list[Tensor](), list[Tensor]()
        for _ in range(BATCH):
            image, labels = given[random.integers(len(given))]
            y, x = (int(random.integers(extent - CROP_PX + 1)) for extent in labels.shape)
            beyond = network.after(CROP_PX)
            around = np.pad(image, ((before, beyond), (before, beyond), (0, 0)), "reflect")
            crop = around[y : y + before + CROP_PX + beyond, x : x + before + CROP_PX + beyond]
            crops.append(torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1).float())
            wanted = labels[y : y + CROP_PX, x : x + CROP_PX].repeat(scale, 0).repeat(scale, 1)
            targets.append(torch.from_numpy(wanted))
        logits = network.inside(network.module((torch.stack(crops) - MIDDLE) / MIDDLE), (CROP_PX, CROP_PX))
        loss = functional.cross_entropy(logits, torch.stack(targets), torch.tensor(RARE))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.module.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    network.module.eval()
    return float(np.mean(losses[-max(1, steps // 10) :]))


@dataclass(frozen=True, slots=True)
class Expected:
    """The network's own pass over the whole image, and what rounding does to it."""

    labels: NDArray[np.uint8]
    gap: NDArray[np.float32]
    """By how much the best logit is above the next."""
    exact: NDArray[np.uint8]
    """Labels of the same pass in float64."""
    rounding: float
    """Largest difference of a logit from that pass's."""
    other_layout: int
    """Labels that differ where the same pass keeps its channels last in memory."""

    @classmethod
    def of(cls, network: Network, pixels_HWC: Pixels) -> Expected:
        padded, extents = network.padded(pixels_HWC), (pixels_HWC.shape[0], pixels_HWC.shape[1])
        with torch.inference_mode():
            logits = network.logits(padded, extents)
            best = logits.topk(2, dim=0).values
            last = copy.deepcopy(network.module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            other = network.logits(padded, extents, cast("nn.Module", last)).argmax(0)
            precise = network.logits(padded, extents, copy.deepcopy(network.module).double())
            labels = logits.argmax(0)
            return cls(
                labels.to(torch.uint8).numpy(),
                (best[0] - best[1]).numpy(),
                precise.argmax(0).to(torch.uint8).numpy(),
                float((logits - precise).abs().max()),
                int((other != labels).sum()),
            )


def compared(expected: Expected, found: NDArray[np.uint8]) -> dict[str, Any]:
    """Labels that differ, and how near to a tie they lie."""
    differing = found != expected.labels
    return {
        "pixels": int(found.size),
        "differing": int(differing.sum()),
        "widest_gap": float(expected.gap[differing].max(initial=0.0)),
        "gaps": sorted(float(each) for each in expected.gap[differing])[-20:],
        "differing_from_float64": int((found != expected.exact).sum()),
        "source_from_float64": int((expected.labels != expected.exact).sum()),
        "source_in_other_layout": expected.other_layout,
        "rounding": expected.rounding,
        "median_gap": float(np.median(expected.gap)),
        "shares": [round(float((expected.labels == label).mean()), 4) for label in range(len(CLASSES))],
    }


def write_onnx(module: nn.Module, path: Path, *, folds: bool = False) -> Path:
    """The graph with open height and width, as docs/own-network.md exports one, or with batch norm folded."""
    path.unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"tile": {0: "n", 2: "y", 3: "x"}}
        rest = Network.of(module).remainder
        example = torch.zeros(2, 3, 256 + rest[0], 320 + rest[1])
        kept = torch.onnx.TrainingMode.EVAL if folds else torch.onnx.TrainingMode.PRESERVE
        torch.onnx.export(
            module, (example,), path, dynamo=False, training=kept, input_names=["tile"], dynamic_axes=axes
        )
    return path


def segmented(pixels_HWC: Pixels, model: nn.Module | Path, card: dict[str, object] | None) -> NDArray[np.uint8]:
    """The labels that overtile gives, in tiles."""
    result = overtile.segment_image(
        pixels_HWC,
        model=model,
        card=card,
        core=CORE_PX,
        precision="float32",
        foreground="none",
        objects="none",
        export="none",
        as_is=True,
        executor="local",
        progress=False,
    )
    assert result.complete, result.failed
    return cast("NDArray[np.uint8]", result.labels.compute())


CARD: dict[str, object] = {
    "bands": ["red", "green", "blue"],
    "classes": [*CLASSES],
    "mean": [MIDDLE] * 3,
    "std": [MIDDLE] * 3,
    "dtype": "uint8",
}


def rows(name: str, folder: Path, steps: int) -> Iterator[dict[str, Any]]:
    """One row for each format that a network comes in."""
    slide, pixels = tissue()
    top, left = ((extent - SIDE_PX) // 2 for extent in pixels.shape[:2])
    pixels = np.ascontiguousarray(pixels[top : top + SIDE_PX, left : left + SIDE_PX])
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    module, formats = _made(name, folder)
    network = Network.of(module)
    loss = train(network, examples(), steps)
    expected = Expected.of(network, pixels)
    for kind, write in formats.items():
        model = write(network.module)
        card = None if kind in (MONAI, BIOIMAGEIO) else CARD
        row = {"network": name, "format": kind, "tissue": slide, "steps": steps, "loss": round(loss, 4)}
        yield {**row, **compared(expected, segmented(pixels, model, card))}


def _made(name: str, folder: Path) -> tuple[nn.Module, Mapping[str, Writer]]:
    """A network of that name, and what writes it in each format that it comes in."""
    if name == "monai":
        written = {MONAI: lambda module: write_monai(module, CLASSES, MIDDLE, folder / name)}
        return monai_network(len(CLASSES)), written
    if name == "segmentation_models_pytorch":
        return smp_network(len(CLASSES)), {"save_pretrained": lambda module: write_smp(module, folder / name)}
    network = build(name, {"bands": 3, "classes": len(CLASSES), **FEW.get(name, {"first_channels": 8})})
    graph = folder / f"{name}.onnx"
    formats: dict[str, Writer] = {
        "as it is": lambda module: module,
        "ONNX, batch norm folded": lambda module: write_onnx(module, folder / f"{name}-folded.onnx", folds=True),
        "ONNX": lambda module: write_onnx(module, graph),
    }
    if name == "unet_configurable" and is_installed("bioimageio"):
        formats[BIOIMAGEIO] = lambda module: write_bioimageio(module, graph, CLASSES, MIDDLE, folder)
    return network, formats


def known() -> list[str]:
    """Names of the networks that can be compared here."""
    return [*network_summaries(), *filter(is_installed, ("monai", "segmentation_models_pytorch"))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the labels of imported networks with those of their sources.")
    parser.add_argument("networks", nargs="*", choices=(*known(), []), metavar="NETWORK", help=" ".join(known()))
    parser.add_argument("--folder", type=Path, default=ROOT / ".benchmarks" / "work" / "imported")
    parser.add_argument("--steps", type=int, default=60, help="of learning")
    asked = parser.parse_args()
    for name in asked.networks or known():
        print(json.dumps({"rows": [*rows(name, asked.folder, asked.steps)]}), flush=True)


if __name__ == "__main__":
    main()
