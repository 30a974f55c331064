"""Every loss against its paper's formula, written out pixel by pixel."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from unet_core.errors import TrainingError
from unet_core.training import losses
from unet_core.training.border import border_weights
from unet_core.training.losses import LOSSES, HeadsLoss, Loss, build_loss

SMALL = {"ms_ssim": {"scales": 2, "window_px": 3}, "unet3p": {"scales": 2, "window_px": 3}}


def a_batch(channels: int = 2, side: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, one-hot targets of an argmax rule, and pixel weights."""
    generator = torch.Generator().manual_seed(channels)
    logits_NCHW = 2 * torch.randn(2, channels, side, side, generator=generator, dtype=torch.float64)
    labels_NHW = torch.randint(channels, (2, side, side), generator=generator)
    targets_NCHW = losses.one_hot_targets(labels_NHW, channels, "argmax").double()
    return logits_NCHW, targets_NCHW, torch.rand(2, side, side, generator=generator, dtype=torch.float64) * 5


def pixels(logits_NCHW: Tensor, targets_NCHW: Tensor) -> list[tuple[int, int, int, list[float], int]]:
    """(image, y, x, the outputs' logits, the true label) of every pixel."""
    n, _, height, width = logits_NCHW.shape
    return [
        (i, y, x, logits_NCHW[i, :, y, x].tolist(), int(targets_NCHW[i, :, y, x].argmax()))
        for i, y, x in product(range(n), range(height), range(width))
    ]


def softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / total for logit in logits]


def test_cross_entropy_counts_classes_and_pixels_by_their_weights() -> None:
    logits, targets, weights = a_batch(channels=3)
    by_class, total = (0.5, 2.0, 3.0), 0.0
    for i, y, x, outputs, label in pixels(logits, targets):
        total -= float(weights[i, y, x]) * by_class[label] * math.log(softmax(outputs)[label])
    found = losses.CrossEntropyLoss(by_class)(logits, targets, weights)
    assert found.item() == pytest.approx(total / weights.numel())
    plain = torch.nn.functional.cross_entropy(logits, targets.argmax(1))
    assert losses.CrossEntropyLoss()(logits, targets).item() == pytest.approx(plain.item())


def test_binary_cross_entropy_counts_positives_and_pixels_by_their_weights() -> None:
    logits, targets, weights = a_batch()
    total, positive = 0.0, (3.0, 0.5)
    for i, y, x, outputs, label in pixels(logits, targets):
        for channel, logit in enumerate(outputs):
            chance = 1 / (1 + math.exp(-logit))
            right = positive[channel] * math.log(chance) if channel == label else math.log(1 - chance)
            total -= float(weights[i, y, x]) * right / 2
    found = losses.BCELoss(positive)(logits, targets, weights)
    assert found.item() == pytest.approx(total / weights.numel())


@pytest.mark.parametrize("rule", ["argmax", "threshold"])
def test_focal_loss_follows_its_formula(rule: losses.Rule) -> None:
    logits, targets, weights = a_batch(channels=3)
    total = 0.0
    for i, y, x, outputs, label in pixels(logits, targets):
        if rule == "argmax":
            right, alphas = [softmax(outputs)[label]], [0.3 if label else 0.7]
        else:
            chances = [1 / (1 + math.exp(-logit)) for logit in outputs]
            right = [p if channel == label else 1 - p for channel, p in enumerate(chances)]
            alphas = [0.3 if channel == label else 0.7 for channel in range(3)]
        each = [-alpha * (1 - p) ** 1.5 * math.log(p) for p, alpha in zip(right, alphas, strict=True)]
        total += float(weights[i, y, x]) * sum(each) / len(each)
    found = losses.FocalLoss(1.5, 0.3, rule=rule)(logits, targets, weights)
    assert found.item() == pytest.approx(total / weights.numel())


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, targets, weights = a_batch()
    focal = losses.FocalLoss(0, None)(logits, targets, weights)
    assert torch.allclose(focal, losses.BCELoss()(logits, targets, weights))


def test_iou_loss_follows_its_formula() -> None:
    logits, targets, _ = a_batch()
    chance, each = logits.sigmoid(), list[float]()
    for i, c in product(range(2), range(2)):
        overlap = float((chance[i, c] * targets[i, c]).sum())
        union = float(chance[i, c].sum() + targets[i, c].sum()) - overlap
        each.append((overlap + 1) / (union + 1))
    assert losses.IoULoss()(logits, targets).item() == pytest.approx(1 - float(np.mean(each)))


def test_dice_and_cross_entropy_add_up_by_their_weight() -> None:
    logits, targets, weights = a_batch(channels=3)
    both = losses.DiceCrossEntropyLoss(0.25, (1, 2, 3))(logits, targets, weights)
    entropy = losses.CrossEntropyLoss((1, 2, 3))(logits, targets, weights)
    dice = losses.DiceLoss(rule="argmax")(logits, targets)
    assert both.item() == pytest.approx(0.25 * dice.item() + 0.75 * entropy.item())


def naive_ms_ssim(one: NDArray[np.float64], other: NDArray[np.float64], scales: int, window: int) -> float:
    """Of two planes, a window at a time."""
    taps = np.exp(-0.5 * ((np.arange(window) - window // 2) / 1.5) ** 2)
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    exponents = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
    exponents = exponents[:scales] * exponents.sum() / exponents[:scales].sum()
    likeness = 1.0
    for scale in range(scales):
        if scale:
            halves = [np.add.reduceat(np.add.reduceat(p, range(0, len(p), 2), 0), range(0, len(p), 2), 1) / 4
                      for p in (one, other)]  # fmt: skip
            one, other = halves
        luminance, structure = list[float](), list[float]()
        for y, x in product(range(len(one) - window + 1), repeat=2):
            a, b = one[y : y + window, x : x + window], other[y : y + window, x : x + window]
            mean_a, mean_b = (kernel * a).sum(), (kernel * b).sum()
            var_a, var_b = (kernel * (a - mean_a) ** 2).sum(), (kernel * (b - mean_b) ** 2).sum()
            covariance = (kernel * (a - mean_a) * (b - mean_b)).sum()
            luminance.append((2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4))
            structure.append((2 * covariance + 9e-4) / (var_a + var_b + 9e-4))
        for part in (luminance, structure):
            likeness *= max(1e-4, float(np.mean(part))) ** exponents[scale]
    return likeness


def test_ms_ssim_loss_follows_its_formula() -> None:
    _, targets, _ = a_batch(side=8)
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits = 3 * (2 * targets - 1) + noise
    each = [
        naive_ms_ssim(logits.sigmoid()[i, c].numpy(), targets[i, c].numpy(), 2, 3)
        for i, c in product(range(2), range(2))
    ]
    found = losses.MSSSIMLoss(2, 3)(logits, targets).item()
    assert 0.02 < found < 0.98
    assert found == pytest.approx(1 - float(np.mean(each)))
    same = losses.MSSSIMLoss(2, 3)(80 * (2 * targets - 1), targets).item()
    assert same == pytest.approx(0, abs=1e-6)


def test_ms_ssim_refuses_crops_below_its_coarsest_window() -> None:
    logits, targets, _ = a_batch(side=8)
    with pytest.raises(ValueError, match=r"5 scales under a window of 11 px need outputs of 176 px.*tile_px"):
        losses.MSSSIMLoss()(logits, targets)


def test_unet3p_loss_is_the_sum_of_its_three() -> None:
    logits, targets, weights = a_batch(side=8)
    parts = [losses.FocalLoss()(logits, targets, weights), losses.MSSSIMLoss(2, 3)(logits, targets)]
    parts.append(losses.IoULoss()(logits, targets))
    hybrid = losses.UNet3PlusLoss(scales=2, window_px=3)(logits, targets, weights)
    assert hybrid.item() == pytest.approx(sum(part.item() for part in parts))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss_falls_along_its_finite_gradient(name: str) -> None:
    logits, targets, weights = a_batch(channels=3)
    loss = build_loss(name, SMALL.get(name, {}), "argmax")
    of_pixels = weights if loss.weighs_pixels else None
    assert _descends(loss, logits, targets, of_pixels)
    certain = (200 * (2 * targets - 1)).requires_grad_()
    wrong = (-200 * (2 * targets - 1)).requires_grad_()
    for extreme in (certain, wrong):
        loss(extreme, targets, of_pixels).backward()
        assert extreme.grad is not None
        assert bool(torch.isfinite(extreme.grad).all())
    assert loss(certain, targets, of_pixels) < loss(logits, targets, of_pixels) < loss(wrong, targets, of_pixels)


def _descends(loss: Loss, logits: Tensor, targets: Tensor, weights: Tensor | None) -> bool:
    logits = logits.clone().requires_grad_()
    before = loss(logits, targets, weights)
    (gradient,) = torch.autograd.grad(before, logits)
    assert bool((gradient != 0).any())
    step = 1e-3 * gradient / gradient.abs().max()
    return bool(loss(logits - step, targets, weights) < before)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_of_a_batch_is_the_mean_of_its_equal_parts(name: str) -> None:
    logits, targets, weights = a_batch(channels=3)
    loss = build_loss(name, SMALL.get(name, {}), "argmax")
    of_pixels = weights if loss.weighs_pixels else None
    parts = [loss(logits[i : i + 1], targets[i : i + 1], None if of_pixels is None else weights[i : i + 1])
             for i in range(2)]  # fmt: skip
    assert loss(logits, targets, of_pixels).item() == pytest.approx(sum(part.item() for part in parts) / 2)


def test_heads_are_weighed_and_guidance_is_added() -> None:
    logits, targets, weights = a_batch()
    labels_NHW = targets.argmax(1)
    labels_NHW[1] = 0
    presence = torch.tensor([[1.0, 3.0], [0.5, -2.0]], dtype=torch.float64).reshape(2, 2, 1, 1)
    loss, outputs = losses.BCELoss(), [logits, -logits, logits / 2]
    each = [loss(output.float(), targets, weights).item() for output in outputs]
    equal = HeadsLoss(loss, 3)(outputs, targets, labels_NHW, weights)
    assert equal.item() == pytest.approx(sum(each) / 3)
    guided = HeadsLoss(loss, 3, (1, 2, 5), guided=True, guidance=0.5)
    expected = (each[0] + 2 * each[1] + 5 * each[2]) / 8
    right = [-math.log(softmax([1, 3])[1]), -math.log(softmax([0.5, -2])[0])]
    found = guided([*outputs, presence], targets, labels_NHW, weights)
    assert found.item() == pytest.approx(expected + 0.5 * sum(right) / 2)
    with pytest.raises(ValueError, match="2 numbers for 3 heads"):
        HeadsLoss(loss, 3, (1, 2))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "tversky",
            {},
            "known ones are bce, cross_entropy, dice, dice_bce, dice_cross_entropy, focal, iou, ms_ssim, unet3p",
        ),
        ("dice", {"epsilon": 0}, "epsilon must be positive"),
        ("focal", {"alpha": 1.5}, "alpha must lie between 0 and 1"),
        ("ms_ssim", {"window_px": 4}, "window_px must be odd"),
        ("bce", {"smooth": 1}, "smooth"),
        ("cross_entropy", {}, "decision rule argmax, the card has threshold: use bce"),
    ],
)
def test_loss_that_can_not_be_built_is_told(name: str, parameters: dict[str, float], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        build_loss(name, parameters)


def naive_border_weights(instances_HW: NDArray[np.int_], w0: float, sigma: float) -> NDArray[np.float64]:
    """Equation 2, one pixel at a time."""
    height, width = instances_HW.shape
    borders: dict[int, list[tuple[int, int]]] = {}
    for y, x in product(range(height), range(width)):
        number = int(instances_HW[y, x])
        beside = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        inside = [(v, u) for v, u in beside if 0 <= v < height and 0 <= u < width]
        if number and any(instances_HW[v, u] != number for v, u in inside):
            borders.setdefault(number, []).append((y, x))
    weights = np.ones(instances_HW.shape)
    for y, x in product(range(height), range(width)):
        distances = sorted(min(math.hypot(y - v, x - u) for v, u in border) for border in borders.values())
        if len(distances) > 1:
            weights[y, x] += w0 * math.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights


def some_objects() -> NDArray[np.int_]:
    instances_HW = np.zeros((30, 36), int)
    instances_HW[2:12, 3:12] = 4
    instances_HW[2:10, 14:25] = 9  # two pixels to the right of the first
    instances_HW[12:20, 3:14] = 2  # touches the first from below
    instances_HW[25:, 30:] = 7  # alone, at the image's edge
    return instances_HW


@pytest.mark.parametrize(("w0", "sigma"), [(10.0, 5.0), (3.0, 1.5)])
def test_border_map_is_its_formula(w0: float, sigma: float) -> None:
    found = border_weights(some_objects(), w0, sigma)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_border_weights(some_objects(), w0, sigma), atol=2e-6)
    assert found[5, 12:14].min() > found[20, 20]


def test_border_map_balances_the_classes() -> None:
    instances_HW = some_objects()
    added = border_weights(instances_HW) - 1
    classes = border_weights(instances_HW, balance=True) - added
    assert classes[instances_HW > 0].sum() == pytest.approx(classes[instances_HW == 0].sum(), rel=1e-4)
    assert classes.mean() == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("instances_HW", [np.zeros((8, 8), int), np.ones((8, 8), int)])
def test_border_map_of_nothing_and_of_everything_is_flat(instances_HW: NDArray[np.int_]) -> None:
    for balance in (False, True):
        assert (border_weights(instances_HW, balance=balance) == 1).all()
