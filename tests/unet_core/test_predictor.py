"""The predictor: the same labels whatever makes it fast, whatever it is asked for and whatever it lacks."""

from __future__ import annotations

import shutil
import threading
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_bundles import (
    Coarser,
    Finer,
    Lopsided,
    Unpadded,
    bundle_of,
    noise,
    small_unet,
    stitched,
    whole_labels,
    whole_logits,
)
from tiled import unlike_fresh
from torch import Tensor, nn

from unet_core.bounds import Halo, footprint, minimal
from unet_core.bundles.bundle import Bundle, Decision, load_bundle
from unet_core.errors import FootprintError, PredictionError
from unet_core.inference.fusing import fold, fuse, pool_two_by_two
from unet_core.inference.predictor import OutputRegion, Precision, Predictor
from unet_core.inference.tta import Tta, tta_footprint

pytestmark = pytest.mark.usefixtures("on_one_thread")


# Fewer passes over memory, the same numbers


class Shared(nn.Module):
    """Calls one convolution and its norm twice, as recurrent networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.up, self.up_norm = nn.ConvTranspose2d(3, 3, 2, stride=2), nn.BatchNorm2d(3)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.up_norm(self.up(self.norm(self.conv(self.norm(self.conv(x_NCHW))))))


def test_layers_that_are_called_twice_keep_their_batch_norm() -> None:
    network = unlike_fresh(Shared())
    folded = fold(network)
    x_NCHW = torch.randn(1, 3, 12, 12)
    torch.testing.assert_close(folded(x_NCHW), network(x_NCHW))
    norms = [name for name, part in folded.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms == ["norm"], "the transposed convolution's norm is folded, the shared one is not"


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.norm(self.conv(x_NCHW)) if x_NCHW.shape[2] > 4 else x_NCHW


def test_network_that_cannot_be_traced_is_kept_as_it_is() -> None:
    network = unlike_fresh(Branching())
    x_NCHW = torch.randn(1, 3, 12, 12)
    assert torch.equal(fold(network)(x_NCHW), network(x_NCHW))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_operators_give_the_same_bits(dtype: torch.dtype) -> None:
    bundle = load_bundle("nuclei-small")
    predictor = Predictor(bundle)
    read_px, region = predictor.inside(128)
    network = fold(bundle.module).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x_NCHW = torch.randn(1, 3, *read_px).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        need, edges = region.need, region.edges
        plain = minimal(network, 3, read_px=read_px, need=need, edges=edges)
        rewrite = partial(fuse, device_type="cpu", dtype=dtype)
        joined = minimal(network, 3, read_px=read_px, need=need, edges=edges, rewrite=rewrite)
        assert torch.equal(joined(x_NCHW), plain(x_NCHW))
    operators = [getattr(node.target, "__name__", "") for node in joined.graph.nodes]
    # oneDNN computes in bfloat16 where the processor has AVX-512, and in float32 on any.
    is_joined = dtype is torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert ("relu" not in operators) is is_joined
    assert "max_pool2d" not in operators


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 9), (2, 2)])
def test_pooling_by_maxima_equals_max_pooling(height: int, width: int) -> None:
    x_NCHW = torch.randn(2, 5, height, width)
    x_NCHW[0, 0, 0, 1] = torch.nan
    expected = nn.functional.max_pool2d(x_NCHW, 2)
    torch.testing.assert_close(pool_two_by_two(x_NCHW), expected, rtol=0, atol=0, equal_nan=True)


# Augmentation


@pytest.mark.parametrize("tta", ["none", "flips", "d4"])
@pytest.mark.parametrize("lopsided", [True, False])
def test_augmented_tiles_equal_augmented_passes_over_the_whole_image(tta: Tta, lopsided: bool) -> None:
    bundle = bundle_of(Lopsided(3)) if lopsided else small_unet(depth=2)
    found = tta_footprint(footprint(bundle.module, 3), tta)
    pixels = noise(112, 144)
    labels = stitched(Predictor(bundle, tta=tta), pixels, 32, found)
    expected = whole_labels(bundle, pixels, tta)
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("tta", ["none", "d4"])
@pytest.mark.parametrize("network", [Finer, Coarser, Unpadded, Lopsided])
def test_augmented_core_of_any_scale_equals_the_whole_image(network: type[nn.Module], tta: Tta) -> None:
    bundle = bundle_of(network(3))
    predictor = Predictor(bundle, tta=tta)
    read_px, region = predictor.inside(16)
    found, origin = footprint(bundle.module, 3), (8, 12)
    pixels = noise(60, 60)
    tile = pixels[origin[0] : origin[0] + read_px[0], origin[1] : origin[1] + read_px[1]]
    assert tile.shape[:2] == read_px
    place = tuple(
        int(edge + scale * start) for edge, scale, start in zip(region.need, found.scale * 2, origin * 2, strict=True)
    )
    expected = whole_labels(bundle, pixels, tta)[place[0] : place[2], place[1] : place[3]]
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(predictor.predict(tile, region), expected)


def test_augmentation_changes_labels_and_needs_the_symmetric_halo() -> None:
    bundle = bundle_of(Lopsided(3))
    found = footprint(bundle.module, 3)
    assert found.halo == Halo(top=5, bottom=3, left=6, right=2) == tta_footprint(found, "none").halo
    assert tta_footprint(found, "flips").halo == Halo(5, 5, 6, 6)
    assert tta_footprint(found, "d4").halo == Halo(6, 6, 6, 6)
    pixels = noise(96, 96)
    assert (whole_labels(bundle, pixels, "flips") != whole_labels(bundle, pixels)).any()
    with pytest.raises(FootprintError, match="does not hold"):
        stitched(Predictor(bundle, tta="flips"), pixels, 32, found)


# Labels and probabilities


def test_probabilities_come_with_the_same_labels() -> None:
    bundle = small_unet()
    pixels, predictor = noise(64, 48), Predictor(bundle)
    prediction = predictor.run(pixels, predictor.whole(64, 48), probabilities=True)
    np.testing.assert_array_equal(prediction.labels, whole_labels(bundle, pixels))
    assert prediction.probabilities is not None
    expected = torch.softmax(whole_logits(bundle, pixels), 1)[0].numpy() * 255
    assert prediction.probabilities.dtype == np.uint8
    assert prediction.probabilities.shape == (3, 64, 48)
    assert np.abs(prediction.probabilities - expected).max() <= 0.501
    assert prediction.seconds > 0


def test_thresholds_per_class_choose_the_label_that_exceeds_its_own_by_most() -> None:
    bundle = small_unet(classes=3, decision=Decision("threshold", (0.3, 0.9)))
    pixels, predictor = noise(48, 48), Predictor(bundle)
    prediction = predictor.run(pixels, predictor.whole(48, 48), probabilities=True)
    share = torch.sigmoid(whole_logits(bundle, pixels))[0].numpy()
    factor = share / np.array([0.3, 0.9], np.float32)[:, None, None]
    expected = np.where(factor.max(0) > 1, factor.argmax(0) + 1, 0)
    assert len(np.unique(expected)) == 3
    np.testing.assert_array_equal(prediction.labels, expected)
    assert prediction.probabilities is not None
    assert np.abs(prediction.probabilities - share * 255).max() <= 0.501


def test_one_threshold_compares_probabilities_with_it() -> None:
    bundle = small_unet(classes=2, decision=Decision("threshold", (0.8,)))
    pixels, predictor = noise(48, 48), Predictor(bundle)
    expected = torch.sigmoid(whole_logits(bundle, pixels))[0, 0].numpy() > 0.8
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(predictor.predict(pixels, predictor.whole(48, 48)), expected)


def test_tile_stays_as_it_was() -> None:
    predictor, pixels = Predictor(small_unet()), noise(32, 32)
    pixels.flags.writeable = False
    before = pixels.copy()
    predictor.predict(pixels, predictor.whole(32, 32))
    np.testing.assert_array_equal(pixels, before)


def test_threads_that_predict_at_once_get_their_own_labels() -> None:
    bundle = small_unet()
    predictor = Predictor(bundle)
    images = [noise(48, 64, seed) for seed in range(4)]
    answers: dict[int, NDArray[np.uint8]] = {}

    def label(place: int) -> None:
        for _ in range(3):
            answers[place] = predictor.predict(images[place], predictor.whole(48, 64))

    threads = [threading.Thread(target=label, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, image in enumerate(images):
        np.testing.assert_array_equal(answers[place], whole_labels(bundle, image))


# Refusals


def test_other_bands_and_dtypes_are_refused() -> None:
    predictor = Predictor(small_unet())
    region = predictor.whole(32, 32)
    for tile in (noise(32, 32)[..., :2], noise(32, 32).astype(np.uint16), noise(32, 32)[..., 0]):
        with pytest.raises(PredictionError, match="takes 3 band"):
            predictor.predict(tile, region)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_refused(value: float) -> None:
    bundle = small_unet()
    with torch.no_grad():
        assert isinstance(bundle.module, nn.Module)
        bundle.module.get_parameter("head.bias")[1] = value
    predictor = Predictor(bundle)
    with pytest.raises(PredictionError, match="not finite"):
        predictor.predict(noise(32, 32), predictor.whole(32, 32))


class Pooled(nn.Module):
    """Sees the whole image: no tile of it is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.conv(x_NCHW) * x_NCHW.mean((2, 3), keepdim=True)


def test_network_without_bounds_runs_only_when_that_is_asked_for() -> None:
    bundle = bundle_of(Pooled())
    pixels = noise(32, 40)
    region = OutputRegion.whole(32, 40)
    with pytest.raises(FootprintError, match="no finite footprint"):
        Predictor(bundle).predict(pixels, region)
    labels = Predictor(bundle, approximate=True).predict(pixels, region)
    np.testing.assert_array_equal(labels, whole_labels(bundle, pixels))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling on a processor needs g++")
def test_compiled_network_labels_as_the_plain_one(caplog: pytest.LogCaptureFixture) -> None:
    bundle = small_unet(depth=1)
    predictor = Predictor(bundle, compiled=True)
    read_px, region = predictor.inside(32)
    tile = noise(*read_px)
    labels = predictor.predict(tile, region)
    assert "uncompiled" not in caplog.text
    differing = np.count_nonzero(labels != Predictor(bundle).predict(tile, region))
    assert differing <= 1, "the compiler may add in another order, which moves no more than a tie"
    assert 0 < np.count_nonzero(labels) < labels.size


def test_machine_without_a_compiler_runs_the_network_uncompiled(caplog: pytest.LogCaptureFixture) -> None:
    from torch._inductor import config

    bundle = small_unet(depth=1)
    predictor = Predictor(bundle, compiled=True)
    read_px, region = predictor.inside(16)
    tile = noise(*read_px)
    with config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        labels = predictor.predict(tile, region)
    assert "uncompiled" in caplog.text
    np.testing.assert_array_equal(labels, Predictor(bundle).predict(tile, region))


# Real tissue


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    from skimage.data import immunohistochemistry

    return immunohistochemistry()


def agreement(nuclei: Bundle, photograph: NDArray[np.uint8], precision: Precision) -> float:
    predictor = Predictor(nuclei, precision=precision)
    labels = predictor.predict(photograph, predictor.whole(512, 512))
    return float((labels == whole_labels(nuclei, photograph)).mean())


def test_precisions_agree_on_stained_tissue(photograph: NDArray[np.uint8]) -> None:
    nuclei = load_bundle("nuclei-small")
    assert whole_labels(nuclei, photograph).mean() > 0.005
    assert agreement(nuclei, photograph, "float32") == 1
    assert agreement(nuclei, photograph, "bfloat16") > 0.99
