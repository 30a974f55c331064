"""The network within what torch wraps around one, such as `torch.compile`, with its weights as it uses them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from unet_core.errors import BundleError


def inner_network(module: nn.Module) -> nn.Module:
    """The network itself, which stays as it is.

    Raises:
        BundleError: TorchScript, which can't be followed, or parameters that have no values yet.
    """
    name = type(module).__name__
    while True:
        if isinstance(module, torch.jit.ScriptModule):
            raise BundleError(
                f"the network {name} is TorchScript, whose footprint can't be followed: give the network that it was "
                f"made of, as a torch.nn.Module or a program of torch.export.save"
            )
        wrapped: Any = getattr(module, "_orig_mod", None)  # of torch.compile, whose type takes seconds to import
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            wrapped = module.module
        if not isinstance(wrapped, nn.Module):
            break
        module = wrapped
    tensors = (*module.parameters(), *module.buffers())
    if any(nn.parameter.is_lazy(each) or each.is_meta for each in tensors):
        raise BundleError(
            f"the network {name} has parameters without values, of lazy layers or on the meta device: load its "
            f"weights, or call it on one tile, first"
        )
    return module


def fold_parametrizations(module: nn.Module) -> None:
    """Put the weights that it computes with in place of what computes them, as of `weight_norm`.

    torch's own removal would change the class, which a copy shares with what it was copied from.
    """
    for part in [each for each in module.modules() if parametrize.is_parametrized(each)]:
        names = [*cast("nn.ModuleDict", part.parametrizations)]
        weights = {name: nn.Parameter(getattr(part, name).detach()) for name in names}
        part.__class__ = parametrize.type_before_parametrizations(part)
        del part.parametrizations
        for name, weight in weights.items():
            part.register_parameter(name, weight)
