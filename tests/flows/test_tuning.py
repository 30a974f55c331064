"""Tuning before a run begins: precision, core, augmentation, and permission for an approximate halo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from cli import write_tissue
from oracle import Image, segment_here, whole_image_labels, whole_image_logits
from torch import Tensor, nn

from tiling.errors import RunError
from tiling.geometry import Box
from tiling.source import open_source
from unet_core.bundles.bundle import Bundle, ModelCard, load_bundle, save_bundle
from unet_core.errors import FootprintError
from unet_core.models import MODELS


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_tissue(tmp_path / "tissue.tif", 300, 420)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_automatic_precision_is_measured_and_written_into_the_card(image: Path, tmp_path: Path) -> None:
    run = segment_here(image, tmp_path / "run", 128, precision="auto")
    assert run.card.precision in ("float32", "bfloat16")
    reason = str(run.card.notes["precision"])
    assert reason.startswith(f"{run.card.precision}: ")
    if run.card.precision == "bfloat16":
        agreement = run.card.notes["label agreement with float32"]
        assert isinstance(agreement, float)
        assert agreement >= 0.999


def test_a_run_goes_on_with_what_it_settled(image: Path, tmp_path: Path) -> None:
    first = segment_here(image, tmp_path / "run", 128, precision="auto")
    again = segment_here(image, tmp_path / "run", None, precision="auto")
    assert again.card == first.card


def test_a_core_that_nobody_named_is_chosen_on_the_stride_grid(image: Path, tmp_path: Path) -> None:
    run = segment_here(image, tmp_path / "run", None)
    assert run.card.geometry.core_px % 16 == 0
    labels = run.open_mask().read(Box(0, 0, 300, 420))
    np.testing.assert_array_equal(labels, whole_image_labels(load_bundle("nuclei-small"), tissue_of(image)))


@pytest.mark.parametrize("mode", ["flips", pytest.param("d4", marks=pytest.mark.slow)])
def test_augmented_labels_have_no_seams(mode: str, tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "tissue.tif", 272, 400)
    run = segment_here(image, tmp_path / "run", 128, tta=mode)
    pixels, bundle = tissue_of(image), load_bundle("nuclei-small")
    turns = [
        (flip_y, flip_x, turned) for flip_y in (0, 1) for flip_x in (0, 1) for turned in (0, 1)[: 1 + (mode == "d4")]
    ]
    logits = torch.stack([symmetric_logits(bundle, pixels, *turn) for turn in turns]).mean(0)
    labels = run.open_mask().read(Box(0, 0, 272, 400))
    differing = np.count_nonzero(labels != (logits > 0).numpy())
    assert differing <= 1, "one tie in a million is what a sum in another order may flip"
    assert run.card.tta == mode


def tissue_of(image: Path) -> Image:
    with open_source(image) as source:
        return source.read(0, source.levels[0].box)


def symmetric_logits(bundle: Bundle, pixels: Image, flip_y: int, flip_x: int, turned: int) -> Tensor:
    turned_pixels = pixels.transpose(1, 0, 2) if turned else pixels
    seen = turned_pixels[:: 1 - 2 * flip_y, :: 1 - 2 * flip_x]
    logits = whole_image_logits(bundle, seen)[0]
    axes = [axis for axis, flip in enumerate((flip_y, flip_x)) if flip]
    back = torch.flip(logits, axes) if axes else logits
    return back.T if turned else back


class Global(nn.Module):
    """A network whose every output depends on the whole image."""

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(bands, 4, 3, padding=1)
        self.norm = nn.InstanceNorm2d(4)
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.first(x_NCHW))))


def save_small(folder: Path, kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(MODELS, "small", kind)
    nuclei = load_bundle("nuclei-small").card
    parameters = {"bands": 3, "classes": 1}
    fields = {**nuclei.model_dump(), "name": "small", "architecture": "small", "parameters": parameters}
    torch.manual_seed(0)
    save_bundle(folder, ModelCard.model_validate(fields), kind(3, 1))
    return folder


@pytest.fixture
def global_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return save_small(tmp_path / "bundle", Global, monkeypatch)


def test_a_network_without_finite_bounds_needs_leave(image: Path, global_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(FootprintError, match="norm"):
        segment_here(image, tmp_path / "run", 64, model=str(global_bundle))
    assert not (tmp_path / "run").exists()


def test_an_approximate_run_states_its_measured_seam_error(global_bundle: Path, tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "tissue.tif", 700, 800)
    run = segment_here(image, tmp_path / "run", 64, model=str(global_bundle), halo="approximate:32")
    assert run.card.approximate
    error = run.card.notes["seam error"]
    assert isinstance(error, float)
    assert 0 < error < 1
    with pytest.raises(RunError, match="halo"):
        segment_here(image, tmp_path / "run", 64, model=str(global_bundle), halo="approximate:48")


def test_a_seam_error_that_cannot_be_measured_is_not_called_zero(global_bundle: Path, tmp_path: Path) -> None:
    image = write_tissue(tmp_path / "tissue.tif", 120, 300)
    run = segment_here(image, tmp_path / "run", 64, model=str(global_bundle), halo="approximate:32")
    assert run.card.notes["seam error"] == "not measured: the image has no room for twice the halo"
