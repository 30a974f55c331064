"""One step of learning: forward, loss, backward, optimizer, running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unet_core.bundles.card import WEIGHTS_NAME, ModelCard, locate
from unet_core.bundles.weights import expect_fit, read_safetensors
from unet_core.errors import TrainingError
from unet_core.models import build
from unet_core.training.augmentation import Crop
from unet_core.training.losses import HeadsLoss, build_loss, one_hot_targets
from unet_core.training.output_grid import OutputGrid, normalized
from unet_core.training.processes import Processes
from unet_core.training.recipe import TrainingConfig

_AUTOCAST = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Below this loss scale float16 gradients are lost to overflow whatever they are scaled by.
_LEAST_SCALE = 1.0


class Learner:
    """The network with all that changes at a step: its optimizer, its running average, float16's loss scale.

    `average` follows the network's weights and is what validation scores and bundles hold. Raises TrainingError
    for a recipe that doesn't fit the network.
    """

    def __init__(self, config: TrainingConfig, card: ModelCard, processes: Processes) -> None:
        self.config, self.card, self.processes = config, card, processes
        self.device = processes.device(config.device)
        torch.manual_seed(config.seed)
        network = build(card.architecture, card.parameters)
        if config.start is not None:
            _begin_with(network, config.start)
        self.average = build(card.architecture, card.parameters).eval()
        self.average.load_state_dict(network.state_dict())
        self.grid = OutputGrid.of(self.average, len(card.bands))
        self.grid.expect_tile(config.tile_px)
        self.average.to(self.device)
        if processes.count > 1 and self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.loss = _heads_loss(config, card, self.network)
        self.optimizer = build_optimizer(self.network, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        heads = _Heads(self.network)
        self._heads = DistributedDataParallel(heads) if processes.count > 1 else heads

    def learn(self, step: int, passes: Sequence[Crop]) -> float:
        """One step of the optimizer on this process's crops; the loss over all processes' crops.

        Raises TrainingError where the loss or a gradient is not finite, the weights untouched.
        """
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate_at(step)
        self.optimizer.zero_grad()
        total = 0.0
        for index, crops in enumerate(passes):
            # Dropout too is a function of the step alone, so nothing random has to be remembered.
            torch.manual_seed(_seed(self.config.seed, step, self.processes.rank, index))
            last = index == len(passes) - 1
            shared = isinstance(self._heads, DistributedDataParallel) and not last
            with cast("DistributedDataParallel", self._heads).no_sync() if shared else nullcontext():
                loss = self._loss_of(crops) / len(passes)
                self.scaler.scale(loss).backward()
            total += loss.item()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_norm).item()
        total = self.processes.mean(total)
        # An overflow of float16 gradients is no accident: the step is left out and the loss scaled less.
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() > _LEAST_SCALE
        if not (math.isfinite(total) and (math.isfinite(norm) or overflow)):
            raise TrainingError(
                f"step {step}: the loss is {total} and its gradient {norm}, so the weights would be lost; the last "
                "good checkpoint is kept: lower learning_rate and resume"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._follow(step)
        return total

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, besides the recipe and the crops."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load a `state` to resume from."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def _loss_of(self, crops: Crop) -> Tensor:
        images_NCHW = normalized(crops.image_NHW.to(self.device), self.card.normalization)
        precision = self.config.precision
        with torch.autocast(self.device.type, _AUTOCAST[precision], enabled=precision != "float32"):
            outputs = cast("Sequence[Tensor]", self._heads(images_NCHW))
        labels_NHW = self.grid.labels_of(crops.labels_HW.to(self.device), outputs[0])
        weights_NHW = None
        if crops.weights_HW is not None and self.loss.loss.weighs_pixels:
            weights_NHW = self.grid.labels_of(crops.weights_HW.to(self.device), outputs[0])
        targets_NCHW = one_hot_targets(labels_NHW, self.card.outputs, self.card.decision.rule)
        try:
            return self.loss(outputs, targets_NCHW, labels_NHW, weights_NHW)
        except ValueError as error:
            raise TrainingError(f"loss {self.config.loss!r} can't judge these crops: {error}") from error

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the average towards the network, faster at first: it must not remember the random start."""
        weight = 1 - min(self.config.average_decay, (1 + step) / (10 + step))
        for mean, current in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(current, weight)
            else:
                mean.copy_(current)


class _Heads(nn.Module):
    """A network seen as all of its heads, so that several processes share the gradients of each."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        supervised = getattr(self.network, "supervised", None)
        return (self.network(x_NCHW),) if supervised is None else supervised(x_NCHW)


def _begin_with(network: nn.Module, start: Path) -> None:
    """Give the network the weights of a bundle of its own architecture; raises BundleError for another's."""
    weights = locate(start) / WEIGHTS_NAME
    tensors, expected = read_safetensors(weights), network.state_dict()
    expect_fit(expected, tensors, weights, "start from a bundle with the card's architecture and parameters")
    network.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()})


def head_count(network: nn.Module) -> int:
    """Number of heads that `supervised` returns logits of; 1 for a network without it."""
    return len(cast("nn.ModuleList", network.head)) if hasattr(network, "supervised") else 1


def _heads_loss(config: TrainingConfig, card: ModelCard, network: nn.Module) -> HeadsLoss:
    loss = build_loss(config.loss, config.loss_parameters, card.decision.rule)
    if config.border is not None and not loss.weighs_pixels:
        raise TrainingError(
            f"border weighs pixels and loss {config.loss!r} compares regions as a whole: use a loss with a pixelwise "
            "part, such as bce, cross_entropy, focal or dice_bce, or drop border"
        )
    guided = getattr(network, "presence", None) is not None
    try:
        return HeadsLoss(loss, head_count(network), config.head_weights, guided=guided, guidance=config.guidance)
    except ValueError as error:
        raise TrainingError(f"{error}; the network is {card.architecture!r} with {dict(card.parameters)!r}") from error


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def build_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The recipe's optimizer over all parameters; its learning rate is set anew before each step.

    `sgd` is the U-Net paper's, with a momentum of 0.99 (Ronneberger 2015, arXiv:1505.04597, section 3).
    """
    parameters, rate, decay = list(network.parameters()), config.learning_rate, config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
