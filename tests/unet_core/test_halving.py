"""A device that runs out of memory gets the same work in halves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bundles import Coarser, Finer, Lopsided, Unpadded, bundle_of, noise, small_unet, stitched, whole_labels
from torch import Tensor, nn

from unet_core.bounds import Edges, footprint
from unet_core.errors import PredictionError
from unet_core.inference.device import CpuDevice, is_out_of_memory
from unet_core.inference.output_region import halve
from unet_core.inference.predictor import OutputRegion, Predictor
from unet_core.inference.tta import tta_footprint

pytestmark = pytest.mark.usefixtures("on_one_thread")


class SmallDevice(CpuDevice):
    """A processor whose memory ends at reads of so many pixels, with an error of the scripted kind."""

    def __init__(self, limit_px: int, error: type[BaseException] = torch.OutOfMemoryError, text: str = "") -> None:
        super().__init__()
        self.limit_px, self.error, self.text = limit_px, error, text
        self.refused: list[tuple[int, int]] = []
        self.computed: list[tuple[int, int]] = []

    def forward(self, tile_HWC: Tensor, step: nn.Module) -> Sequence[Tensor]:
        shape = (tile_HWC.shape[0], tile_HWC.shape[1])
        if shape[0] * shape[1] > self.limit_px:
            self.refused.append(shape)
            raise self.error(self.text)
        self.computed.append(shape)
        return super().forward(tile_HWC, step)


CPU_TEXT = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize(
    ("error", "text"),
    [(torch.OutOfMemoryError, "CUDA out of memory"), (RuntimeError, CPU_TEXT), (MemoryError, "")],
)
def test_labels_stay_the_same_when_memory_runs_out(error: type[BaseException], text: str) -> None:
    bundle = small_unet(depth=2)
    pixels, device = noise(128, 96), SmallDevice(64 * 80, error, text)
    predictor = Predictor(bundle, device=device)
    prediction = predictor.run(pixels, predictor.whole(128, 96), probabilities=True)
    np.testing.assert_array_equal(prediction.labels, whole_labels(bundle, pixels))
    whole = Predictor(bundle).run(pixels, predictor.whole(128, 96), probabilities=True)
    assert prediction.probabilities is not None
    assert whole.probabilities is not None
    assert np.abs(prediction.probabilities.astype(int) - whole.probabilities).max() <= 1
    assert len(device.computed) > 2
    assert all(height % 4 == width % 4 == 0 for height, width in device.computed)


@pytest.mark.parametrize("network", [Finer, Coarser, Unpadded])
def test_halves_of_networks_of_any_scale_fit_together(network: type[nn.Module]) -> None:
    bundle = bundle_of(network(3))
    pixels, device = noise(64, 48), SmallDevice(24 * 24)
    predictor = Predictor(bundle, device=device)
    labels = predictor.predict(pixels, predictor.whole(64, 48))
    assert len(device.computed) > 4
    np.testing.assert_array_equal(labels, whole_labels(bundle, pixels))


def test_a_read_that_was_too_large_is_not_tried_again() -> None:
    device = SmallDevice(64 * 80)
    predictor = Predictor(small_unet(depth=2), device=device)
    predictor.predict(noise(128, 96), predictor.whole(128, 96))
    refused = len(device.refused)
    predictor.predict(noise(128, 96, seed=1), predictor.whole(128, 96))
    assert len(device.refused) == refused > 0


def test_augmented_tiles_are_halved_too() -> None:
    bundle = bundle_of(Lopsided(3))
    found = tta_footprint(footprint(bundle.module, 3), "d4")
    pixels, device = noise(96, 128), SmallDevice(40 * 40)
    labels = stitched(Predictor(bundle, device=device, tta="d4"), pixels, 32, found)
    assert device.refused
    np.testing.assert_array_equal(labels, whole_labels(bundle, pixels, "d4"))


def test_device_without_memory_for_anything_is_named() -> None:
    predictor = Predictor(small_unet(depth=1), device=SmallDevice(0))
    with pytest.raises(PredictionError, match=r"no memory for a region of \d+ x \d+ px.*smaller core"):
        predictor.predict(noise(16, 16), predictor.whole(16, 16))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    device = SmallDevice(0, RuntimeError, "mat1 and mat2 shapes cannot be multiplied")
    predictor = Predictor(small_unet(depth=1), device=device)
    with pytest.raises(RuntimeError, match="multiplied"):
        predictor.predict(noise(16, 16), predictor.whole(16, 16))
    assert device.refused == [(16, 16)]


def test_torch_says_that_the_processor_has_no_memory_in_words_we_know() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(ValueError("not enough memory"))


STRIDE, READ_PX = 4, 96
FOUND = footprint(small_unet(depth=2).module, 3)
spans = st.tuples(st.integers(0, READ_PX - 1), st.integers(1, READ_PX)).filter(lambda span: span[0] < span[1])


@settings(max_examples=60)
@given(spans, spans)
def test_halves_partition_the_region_on_the_stride_grid(y: tuple[int, int], x: tuple[int, int]) -> None:
    edges = Edges(top=True, bottom=True, left=True, right=True)
    region = OutputRegion((y[0], x[0], y[1], x[1]), edges)
    halves = halve(region, (READ_PX, READ_PX), FOUND)
    if halves is None:
        assert max(region.shape) <= 2 * STRIDE
        return
    covered = np.zeros((READ_PX, READ_PX), int)
    for part in halves.parts:
        assert part.rows.start % STRIDE == part.cols.start % STRIDE == 0
        y0, x0, y1, x1 = part.region.need
        rows, cols = part.rows.start, part.cols.start
        covered[rows + y0 : rows + y1, cols + x0 : cols + x1] += 1
        assert part.region.edges.top == (rows == 0)
        assert part.region.edges.right == (part.cols.stop == READ_PX)
    expected = np.zeros_like(covered)
    expected[y[0] : y[1], x[0] : x[1]] = 1
    np.testing.assert_array_equal(covered, expected)
    assert sum(part.region.shape[halves.axis] for part in halves.parts) == region.shape[halves.axis]
