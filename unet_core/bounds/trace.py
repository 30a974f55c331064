"""The network as a list of torch calls, recorded once on tensors without data.

`torch.fx.symbolic_trace` stops at Python code that looks at shapes, which is how most U-Nets crop and pad, and
`torch.export` takes seconds. So the network runs on meta tensors of concrete extents under a
`TorchFunctionMode`, and every torch call becomes a `call_function` node of an `fx.Graph`, whatever Python did
between two calls. Exported programs are recorded in the same way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from unet_core.bounds.shapes import result_of
from unet_core.errors import FootprintError

_FAILURES = (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError, ArithmeticError)
_ONE_AT_A_TIME = threading.Lock()
"""A module's hooks hear the calls of all threads: two recordings of one network would take each other's layers."""

_READ_ONLY = {"device", "dtype", "layout", "shape", "ndim", "requires_grad", "is_cuda", "grad_fn", "names"}


def record(module: nn.Module, bands: int, extent_yx: tuple[int, int], batch: int = 1) -> fx.Graph:
    """Record one forward pass in evaluation mode of (batch, bands, y, x) pixels.

    Every node carries `meta["layer"]`, the path of the module that made the call, and `meta["shape"]`; the
    nodes of parameters, buffers and what is computed from them alone carry `meta["constant"]`. Raises
    `FootprintError` where the network can't run on tensors without data or does not return one tensor.
    """
    with _ONE_AT_A_TIME:
        return _record(module, bands, extent_yx, batch)


def _record(module: nn.Module, bands: int, extent_yx: tuple[int, int], batch: int) -> fx.Graph:
    training = [part for part in module.modules() if part.training]
    recorder = _Recorder(module)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    tile = torch.empty(batch, bands, *extent_yx, device="meta", dtype=dtype)
    recorder.input(tile)
    for part in training:
        part.training = False  # an exported program refuses eval(), which would do the same
    handles = list(recorder.follow_layers(module))
    try:
        with torch.no_grad(), recorder:
            logits = _Exported(module, recorder).logits(tile) if _is_exported(module) else module(tile)
    except _FAILURES as error:
        text = " ".join(str(error).split())[:300]
        raise FootprintError(
            f"{recorder.layer or 'the network'} can't be traced on {extent_yx[0]}×{extent_yx[1]} px without data "
            f"({text}): its footprint stays unknown; let it take any extent on its stride, and branch on no pixel"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for part in training:
            part.training = True
    return recorder.finish(logits)


class _Exported(fx.Interpreter):
    """Runs an exported program on any extent, telling the recorder whose module each call is."""

    def __init__(self, program: fx.GraphModule, recorder: _Recorder) -> None:
        super().__init__(program)
        self._recorder = recorder

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_module" and n.target == "_guards_fn":
            return None  # it insists on the extents of the example
        stack = list(n.meta.get("nn_module_stack", {}).values())
        self._recorder.layers.append(str(stack[-1][0]) if stack else "")
        result = super().run_node(n)
        self._recorder.layers.pop()
        return result

    def logits(self, tile: Tensor) -> Any:
        result = self.run(tile)
        return result[0] if isinstance(result, tuple) and len(result) == 1 else result


def _is_exported(module: nn.Module) -> TypeGuard[fx.GraphModule]:
    return isinstance(module, fx.GraphModule) and any("nn_module_stack" in n.meta for n in module.graph.nodes)


class _Recorder(TorchFunctionMode):
    """Turns torch calls into nodes; tensors are told apart by identity and kept alive for the purpose."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.layers = [""]
        self._names = {id(t): name for name, t in module.named_buffers(remove_duplicate=False)}
        self._names |= {id(t): name for name, t in module.named_parameters(remove_duplicate=False)}
        self._paths = {id(part): path for path, part in module.named_modules()}
        self._device = next((t.device for t in (*module.parameters(), *module.buffers())), torch.device("cpu"))
        self._nodes: dict[int, fx.Node] = {}
        self._stand_ins: dict[int, Tensor] = {}
        self._alive: list[Tensor] = []
        self._sharing: dict[int, set[int]] = {}
        self._stale: set[int] = set()

    @property
    def layer(self) -> str:
        return self.layers[-1]

    def follow_layers(self, module: nn.Module) -> Iterable[RemovableHandle]:
        def enter(part: nn.Module, _args: object) -> None:
            self.layers.append(self._paths.get(id(part), ""))

        def leave(_part: nn.Module, _args: object, _result: object) -> None:
            self.layers.pop()

        for part in module.modules():
            if part is not module:
                yield part.register_forward_pre_hook(enter)
                yield part.register_forward_hook(leave)

    def input(self, tile: Tensor) -> None:
        self._bind(tile, self.graph.placeholder("tiles_NCHW"))

    def finish(self, logits: object) -> fx.Graph:
        node = self._node(logits) if isinstance(logits, Tensor) else None
        if node is None or node.meta["constant"]:
            raise FootprintError(
                f"the network must return one tensor of logits computed from its tiles, got "
                f"{type(logits).__name__}: bounds can't be inferred; return the logits alone"
            )
        self.graph.output(node)
        return self.graph

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        if getattr(func, "__name__", "") == "__get__" and attribute in _READ_ONLY:
            # Factories must see the parameters' device: a tensor without data can't be kept as a constant.
            return self._device if attribute == "device" else func(*args, **kwargs)
        stood_in, named = map_aggregate(args, self._stand_in), _map(kwargs, self._stand_in)
        result = result_of(func, stood_in, named)
        if result is None:
            result = func(*stood_in, **named)
        if (result is None and self._carries(args)) or kwargs.get("out") is not None:
            raise FootprintError(
                f"{self.layer or 'the network'} writes into part of a tensor ({getattr(func, '__name__', func)}): what "
                "it changes can't be followed; use the form that returns a new tensor"
            )
        outputs: Any = [result] if isinstance(result, Tensor) else result
        if not isinstance(outputs, (list, tuple)) or not any(isinstance(item, Tensor) for item in outputs):
            return result
        self._follow_memory(result)
        call = self._call(func, attribute, args, kwargs)
        if isinstance(result, Tensor):
            self._bind(result, call)
        else:
            shape = next(tuple(item.shape) for item in outputs if isinstance(item, Tensor))
            call.meta.update(layer=self._layer_of(call), constant=_is_constant(call), shape=shape, many=True)
            for index, item in enumerate(outputs):
                if isinstance(item, Tensor):
                    self._bind(item, self.graph.call_function(_item, (call, index)))
        return result

    def _call(self, func: Callable[..., Any], attribute: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
        node_args, node_kwargs = map_aggregate(args, self._node), _map(kwargs, self._node)
        if getattr(func, "__name__", "") == "__get__":
            return self.graph.call_function(getattr, (node_args[0], attribute))  # type: ignore[index]
        name = getattr(func, "__name__", "")
        if getattr(torch.Tensor, name, None) is func:
            return self.graph.call_method(name, node_args, node_kwargs)  # type: ignore[arg-type]
        return self.graph.call_function(func, node_args, node_kwargs)  # type: ignore[arg-type]

    def _bind(self, tensor: Tensor, node: fx.Node) -> None:
        node.meta.update(
            layer=self._layer_of(node), shape=tuple(tensor.shape), constant=_is_constant(node), dtype=tensor.dtype
        )
        self._nodes[id(tensor)] = node
        self._alive.append(tensor)

    def _layer_of(self, node: fx.Node) -> str:
        return self.layer or node.name

    def _carries(self, args: tuple[Any, ...]) -> bool:
        return any(isinstance(arg, Tensor) and id(arg) in self._nodes for arg in args)

    def _node(self, value: object) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in self._stale:
            raise FootprintError(
                f"{self.layer or 'the network'} uses a tensor that was written in place through another view of its "
                "memory: its value can't be followed; use the form that returns a new tensor"
            )
        if id(value) not in self._nodes:
            name = self._names.get(id(value))
            if name is None:
                raise FootprintError(
                    f"{self.layer or 'the network'} uses a tensor that is neither a parameter nor a buffer: it "
                    "can't be carried into another graph; register it as a buffer"
                )
            self._bind(value, self.graph.create_node("get_attr", name))
        return self._nodes[id(value)]

    def _stand_in(self, value: object) -> Any:
        if not isinstance(value, Tensor) or value.is_meta:
            return value
        if id(value) not in self._stand_ins:
            self._stand_ins[id(value)] = value.detach().to("meta")
            self._alive.append(value)
        return self._stand_ins[id(value)]

    def _follow_memory(self, result: object) -> None:
        """After a write in place, all other views of the same memory are known by values they no longer have."""
        if not isinstance(result, Tensor):
            return
        base = result if result._base is None else result._base
        sharing = self._sharing.setdefault(id(base), {id(base)})
        if id(result) in self._nodes:
            self._stale |= sharing - {id(result)}
        sharing.add(id(result))
        self._alive.append(base)


def _item(items: Any, index: int) -> Any:
    return items[index]


def _map(kwargs: dict[str, Any], change: Callable[[object], Any]) -> dict[str, Any]:
    return {name: map_aggregate(value, change) for name, value in kwargs.items()}


def _is_constant(node: fx.Node) -> bool:
    return node.op != "placeholder" and all(arg.meta["constant"] for arg in node.all_input_nodes)
