"""A classifier's weights for a network that segments, by torchvision's parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Loaded:
    """Result of `load_classifier`, by parameter name.

    loaded: taken as they are. converted: fully connected layers, taken as convolutions.
    unloadable: the classifier's weights that the network has no place for, and why. fresh: the network's
    parameters and buffers that keep their initial values.
    """

    loaded: tuple[str, ...]
    converted: tuple[str, ...]
    unloadable: Mapping[str, str]
    fresh: tuple[str, ...]


def load_classifier(network: nn.Module, weights: Mapping[str, Tensor]) -> Loaded:
    """Fill `network` in place with the weights of a classifier such as torchvision's `vgg16` or `resnet34`.

    A fully connected layer over C × k × k features becomes a k × k convolution over C channels (Long et al.
    2015, section 3.1). What doesn't fit stays as it is and is named in the result.
    """
    own = network.state_dict()
    loaded: list[str] = []
    converted: list[str] = []
    unloadable: dict[str, str] = {}
    for name, tensor in weights.items():
        if name not in own:
            unloadable[name] = "the network has no such parameter"
        elif own[name].shape == tensor.shape:
            loaded.append(name)
        elif tensor.dim() == 2 and own[name].dim() == 4 and own[name].flatten(1).shape == tensor.shape:
            converted.append(name)
        else:
            unloadable[name] = f"it is {tuple(tensor.shape)}, the network needs {tuple(own[name].shape)}"
    with torch.no_grad():
        for name in (*loaded, *converted):
            own[name].copy_(weights[name].reshape(own[name].shape))
    fresh = tuple(name for name in own if name not in {*loaded, *converted})
    return Loaded(tuple(loaded), tuple(converted), unloadable, fresh)
