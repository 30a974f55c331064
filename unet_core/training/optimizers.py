"""The optimizers that a recipe can name."""

from __future__ import annotations

import torch
from torch import nn

from unet_core.training.recipe import TrainingConfig


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
