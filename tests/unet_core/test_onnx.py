"""ONNX graphs become bundles with the labels of the network that they were exported from, or are refused by name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_bundles import noise, stitched
from threads import one_thread
from tiled import unlike_fresh
from torch import Tensor, nn
from torch.nn import functional

from unet_core.bounds import footprint
from unet_core.bundles.bundle import load_bundle
from unet_core.bundles.exported import module_of
from unet_core.bundles.facts import CardFacts
from unet_core.bundles.importing import import_model
from unet_core.bundles.onnx import read_onnx
from unet_core.bundles.origin import Origin
from unet_core.errors import BundleError
from unet_core.inference.predictor import Predictor
from unet_core.models import build

TINY: dict[str, Any] = {"first_channels": 2, "depth": 2}
VGG: dict[str, Any] = {"first_channels": 1, "head_channels": 4}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("unet", TINY),
    "unet_original": ("unet_original", TINY),
    "unet_configurable": ("unet_configurable", {**TINY, "up": "pixel_shuffle", "batch_norm": True}),
    "bilinear": ("unet_configurable", {**TINY, "up": "bilinear"}),
    "nearest": ("unet_configurable", {**TINY, "up": "nearest", "padding": "valid"}),
    "unet_dice": ("unet_dice", TINY),
    "unet_strided": ("unet_strided", TINY),
    "unet_x1": ("unet_x1", TINY),
    "unet_x3": ("unet_x3", TINY),
    "unet_bn_deconv": ("unet_bn_deconv", TINY),
    "unet_bn": ("unet_bn", TINY),
    "unetpp": ("unetpp", {"first_channels": 2, "level": 2}),
    "unet3p": ("unet3p", {"first_channels": 1, "skip_channels": 2}),
    "patch_classifier": ("patch_classifier", {"channels": 4, "hidden": 6, "kernels": [4, 3], "last_kernel": 2}),
    "resnet34_unet": ("resnet34_unet", {"first_channels": 4}),
    "fcn32s": ("fcn32s", VGG),
    "fcn16s": ("fcn16s", VGG),
    "fcn8s": ("fcn8s", VGG),
}
FACTS = CardFacts(
    bands=("red", "green", "blue"), classes=("background", "cell", "wall"), mean=(120.0,) * 3, std=(60.0,) * 3
)


def exported(
    module: nn.Module, path: Path, *, is_open: bool = True, px: tuple[int, int] = (64, 96), keeps_norms: bool = False
) -> Path:
    """The graph that the exporter of TorchScript writes, with open height and width."""
    axes = {"tile": {0: "n", 2: "y", 3: "x"}} if is_open else None
    example = torch.zeros(2, 3, *px)
    with warnings.catch_warnings(), one_thread():
        warnings.simplefilter("ignore")
        kept = torch.onnx.TrainingMode.PRESERVE if keeps_norms else torch.onnx.TrainingMode.EVAL
        torch.onnx.export(
            module.eval(), (example,), path, dynamo=False, training=kept, input_names=["tile"], dynamic_axes=axes
        )
    return path


def loaded(path: Path) -> nn.Module:
    network = read_onnx(path)
    module = module_of(network.program).to_empty(device="cpu")
    module.load_state_dict(network.tensors)
    return module


class Steps(nn.Module):
    """A forward pass written as one function."""

    def __init__(self, steps: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.steps = steps
        self.conv, self.prelu, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4), nn.InstanceNorm2d(4)
        self.deconv = nn.ConvTranspose2d(4, 4, 4, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(self, x)


def gated(net: Any, x: Tensor) -> Tensor:
    y = net.conv(x)
    return 1 - torch.sigmoid(2 * y) / (1 + y.abs()) + functional.hardtanh(y, -0.5, 0.5) ** 2


def cropped(net: Any, x: Tensor) -> Tensor:
    y = functional.max_pool2d(net.conv(x), 3, 2, 1)
    up = net.deconv(y)
    return up + functional.pad(x[:, :1], (1, -1, 0, 0))[:, :, : up.shape[2], : up.shape[3]]


STEPS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "arithmetic": gated,
    "cropped": cropped,
    "prelu": lambda net, x: net.prelu(net.conv(x)),
    "elu": lambda net, x: functional.elu(net.conv(x)) + functional.leaky_relu(net.conv(x), 0.2),
    "selu": lambda net, x: functional.selu(net.conv(x)) * functional.softplus(net.conv(x)),
    "gelu": lambda net, x: functional.gelu(net.conv(x)) - functional.hardswish(net.conv(x)),
    "reflected": lambda net, x: net.conv(functional.pad(x, (2, 1, 1, 2), "reflect")),
    "replicated": lambda net, x: net.conv(functional.pad(x, (2, 1, 1, 2), "replicate")),
    "average": lambda net, x: functional.interpolate(functional.avg_pool2d(net.conv(x), 2), scale_factor=2),
    "to size": lambda net, x: functional.interpolate(
        functional.max_pool2d(net.conv(x), 2), size=(x.shape[2], x.shape[3]), mode="bilinear"
    ),
    "softmax inside": lambda net, x: net.deconv(torch.softmax(net.conv(x), 1)),
    "split": lambda net, x: torch.cat(net.conv(x).split(2, 1)[::-1], 1),
    "mean over bands": lambda net, x: net.conv(x) - net.conv(x).mean(1, keepdim=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_labels_of_each_networks_graph_are_those_of_its_whole_pass(name: str, tmp_path: Path) -> None:
    architecture, options = NETWORKS[name]
    network = unlike_fresh(build(architecture, {"bands": 3, "classes": 3, **options}))
    path = exported(network, tmp_path / "net.onnx")
    import_model(Origin(str(path))).save(tmp_path / "bundle", FACTS)
    bundle = load_bundle(tmp_path / "bundle")
    mine, theirs = footprint(bundle.module, 3), footprint(network, 3)
    assert (mine.halo, mine.stride, mine.context) == (theirs.halo, theirs.stride, theirs.context)
    image = torch.randn(1, 3, 64 + mine.context.top + mine.context.bottom, 96 + mine.context.left + mine.context.right)
    with torch.inference_mode(), one_thread():
        assert torch.equal(bundle.module(image).argmax(1), network(image).argmax(1))


@pytest.mark.parametrize("name", ["unet", "unet_bn"])
def test_a_graph_that_keeps_its_batch_norm_computes_the_networks_own_bits(name: str, tmp_path: Path) -> None:
    network = unlike_fresh(build(name, {"bands": 3, "classes": 3, **TINY}))
    module, image = loaded(exported(network, tmp_path / "net.onnx", keeps_norms=True)), torch.randn(1, 3, 64, 96)
    with torch.inference_mode(), one_thread():
        assert torch.equal(module(image), network(image))


def test_tiles_of_a_graph_equal_its_networks_whole_pass(tmp_path: Path) -> None:
    network = unlike_fresh(build("unet_configurable", {"bands": 3, "classes": 3, **TINY, "batch_norm": True}))
    import_model(Origin(str(exported(network, tmp_path / "net.onnx")))).save(tmp_path / "bundle", FACTS)
    bundle, pixels = load_bundle(tmp_path / "bundle"), noise(96, 128)
    labels = stitched(Predictor(bundle), pixels, 32, footprint(bundle.module, 3))
    tile = (torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None].float() - 120) / 60
    with torch.inference_mode():
        assert np.array_equal(labels, network(tile).argmax(1)[0].numpy())


@pytest.mark.parametrize("name", STEPS)
def test_operations_compute_what_their_network_does_at_any_extent(name: str, tmp_path: Path) -> None:
    network = unlike_fresh(Steps(STEPS[name]))
    module = loaded(exported(network, tmp_path / "net.onnx"))
    with torch.inference_mode():
        for extent in ((64, 96), (40, 52)):
            image = torch.randn(1, 3, *extent)
            torch.testing.assert_close(module(image), network(image), rtol=1e-5, atol=1e-6)
    assert footprint(module, 3).halo == footprint(network, 3).halo


def test_a_decision_that_ends_the_graph_is_left_to_the_card(tmp_path: Path) -> None:
    for name, end in (
        ("argmax", lambda net, x: net.conv(x).argmax(1)),
        ("softmax", lambda net, x: net.conv(x).softmax(1)),
    ):
        path = exported(unlike_fresh(Steps(end)), tmp_path / f"{name}.onnx")
        imported = import_model(Origin(str(path)))
        assert (imported.left_out, imported.outputs, imported.known.decision) == (name, 4, "argmax")


def test_an_extent_of_the_example_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = exported(unlike_fresh(Steps(STEPS["to size"])), tmp_path / "fixed.onnx", is_open=False)
    with pytest.raises(BundleError, match=r"\[64, 96\] of its example is baked into it: .*dynamic_shapes"):
        read_onnx(path)
    network = unlike_fresh(Steps(STEPS["average"]))
    module, image = loaded(exported(network, tmp_path / "open.onnx", is_open=False)), torch.randn(1, 3, 48, 80)
    with torch.inference_mode():
        assert torch.equal(module(image), network(image))


def graph_of(*nodes: Any, inputs: Any = None, opset: int = 17, **tensors: Any) -> onnx.ModelProto:
    tile = inputs or [helper.make_tensor_value_info("tile", TensorProto.FLOAT, ["n", 3, "y", "x"])]
    output = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()]
    graph = helper.make_graph(list(nodes), "net", tile, output, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def node(op: str, *inputs: str, output: str = "logits", **options: Any) -> Any:
    return helper.make_node(op, list(inputs), [output], name=f"the_{op}", **options)


WEIGHT = np.ones((2, 3, 3, 3), np.float32)
REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "unknown": (graph_of(node("NonZero", "tile")), "calls NonZero at 'the_NonZero', and it is not among"),
    "of others": (graph_of(node("FusedConv", "tile", domain="com.microsoft")), "calls com.microsoft::FusedConv"),
    "quantised": (graph_of(node("QuantizeLinear", "tile", "s"), s=np.float32(1)), "calls QuantizeLinear"),
    "places": (
        graph_of(node("Resize", "tile", "", "s", mode="linear", coordinate_transformation_mode="asymmetric"),
                 s=np.array([1, 1, 2, 2], np.float32)),
        "linear, asymmetric",
    ),
    "order": (graph_of(node("DepthToSpace", "tile", blocksize=2)), "order DCR"),
    "same": (graph_of(node("Conv", "tile", "w", auto_pad="SAME_UPPER", strides=[2, 2]), w=WEIGHT), "SAME_UPPER"),
    "unequal": (graph_of(node("AveragePool", "tile", kernel_shape=[2, 2], pads=[0, 0, 1, 1])), "unequal edges"),
    "half": (graph_of(node("Conv", "tile", "w"), w=WEIGHT.astype(np.float16)), "FLOAT16"),
    "not finite": (graph_of(node("Conv", "tile", "w"), w=WEIGHT * np.nan), "NaN or infinity"),
    "lost": (graph_of(node("Conv", "tile", "nothing")), "no operation of its graph gives 'nothing'"),
    "cyclic": (graph_of(node("Add", "tile", "logits")), "no operation of its graph gives 'logits'"),
    "whole": (
        graph_of(node("AveragePool", "tile", kernel_shape=[64, 96]),
                 inputs=[helper.make_tensor_value_info("tile", TensorProto.FLOAT, [1, 3, 64, 96])]),
        "whole of the example",
    ),
    "two": (
        graph_of(node("Add", "a", "b"), inputs=[helper.make_tensor_value_info(name, 1, [1, 3, 8, 8]) for name in "ab"]),
        "2 inputs and 1 outputs",
    ),
    "volume": (
        graph_of(node("Relu", "v"), inputs=[helper.make_tensor_value_info("v", 1, [1, 3, 8, 8, 8])]),
        "not float32 tiles",
    ),
    "old": (graph_of(node("Relu", "tile"), opset=7), "opset 7"),
    "old softmax": (graph_of(node("Softmax", "tile", axis=1), opset=11), "before opset 13"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_means_something_else_than_torchs_is_refused_by_name(name: str, tmp_path: Path) -> None:
    model, message = REFUSED[name]
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(BundleError, match=message) as refused:
        read_onnx(tmp_path / "net.onnx")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\x08\x07 anything", b"\xff" * 64])
def test_a_file_that_is_no_graph_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"no whole ONNX file|no graph of ONNX"):
        read_onnx(tmp_path / "net.onnx")


def test_bands_may_come_last(tmp_path: Path) -> None:
    tile = [helper.make_tensor_value_info("tile", TensorProto.FLOAT, ["n", "y", "x", 3])]
    nodes = [
        node("Transpose", "tile", output="planes", perm=[0, 3, 1, 2]),
        node("Conv", "planes", "w", output="made", auto_pad="SAME_UPPER"),
        node("Transpose", "made", perm=[0, 2, 3, 1]),
    ]
    weight = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    onnx.save(graph_of(*nodes, inputs=tile, w=weight), tmp_path / "net.onnx")
    module, image = loaded(tmp_path / "net.onnx"), torch.randn(1, 3, 20, 24)
    expected = functional.conv2d(functional.pad(image, (1, 2, 1, 2)), torch.from_numpy(weight))
    with torch.inference_mode():
        assert torch.equal(module(image), expected)


def test_weights_beside_the_graph_are_read_from_its_folder_alone(tmp_path: Path) -> None:
    model = graph_of(node("Conv", "tile", "w"), w=WEIGHT)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    (tensor,) = read_onnx(tmp_path / "net.onnx").tensors.values()
    assert torch.equal(tensor, torch.from_numpy(WEIGHT))
    model = onnx.load(tmp_path / "net.onnx", load_external_data=False)
    for location in ("../net.data", "/etc/passwd", "sub/../net.data", "absent"):
        model.graph.initializer[0].external_data[0].value = location
        (tmp_path / "sub").mkdir(exist_ok=True)
        (tmp_path / "sub" / "net.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(BundleError, match="only a plain file beside the graph is read"):
            read_onnx(tmp_path / "sub" / "net.onnx")
    (tmp_path / "net.data").write_bytes(b"short")
    with pytest.raises(BundleError, match=r"is not whole in .net\.data"):
        read_onnx(tmp_path / "net.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "unet_configurable", "nearest"])
def test_graphs_of_torchs_newer_exporter_are_read(name: str, tmp_path: Path) -> None:
    """It keeps its weights in a file of their own, and computes extents by other operations."""
    architecture, options = NETWORKS[name]
    network = unlike_fresh(build(architecture, {"bands": 3, "classes": 3, **options}))
    extents = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.zeros(2, 3, 64, 96),), tmp_path / "net.onnx", dynamo=True, verbose=False,
            dynamic_shapes=(extents,),
        )  # fmt: skip
    module, image = loaded(tmp_path / "net.onnx"), torch.randn(1, 3, 80, 64)
    with torch.inference_mode():
        assert torch.equal(module(image).argmax(1), network(image).argmax(1))


def test_without_the_library_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.onnx").write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BundleError, match=r"pip install 'overtile\[onnx\]'"):
        read_onnx(tmp_path / "net.onnx")
