"""Exported programs: read without running anything, the same network as the module that was exported."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from canary import Canary
from third_party import Net
from tiled import Tiled, unlike_fresh
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.nn import functional

from unet_core.bounds import footprint
from unet_core.bundles.exported import Program, module_of, read_archive
from unet_core.bundles.exported.exporting import export
from unet_core.errors import BundleError, FootprintError
from unet_core.inference.fusing import fold

OPEN = {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}


class Steps(nn.Module):
    """A forward pass written as one function."""

    def __init__(self, steps: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.steps = steps
        self.conv, self.prelu = nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4)
        self.deconv = nn.ConvTranspose2d(4, 4, 4, 2, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.steps(self, x)


def save(module: nn.Module, path: Path, *, is_open: bool = True, px: tuple[int, int] = (32, 48)) -> Path:
    example = torch.zeros(2, 3, *px)
    program = torch.export.export(module, (example,), dynamic_shapes=(OPEN,) if is_open else None)
    torch.export.save(program, path)
    return path


def load(path: Path) -> nn.Module:
    program, tensors = read_archive(path)
    module = module_of(program).to_empty(device="cpu")
    module.load_state_dict(tensors)
    return module


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    network = unlike_fresh(Net())
    return network, save(network, tmp_path_factory.mktemp("programs") / "net.pt2")


def images(*extents: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 3, *extent, generator=generator) for extent in extents]


def test_program_computes_what_its_network_does_at_any_extent(saved: tuple[nn.Module, Path]) -> None:
    network, path = saved
    loaded = load(path)
    with torch.no_grad():
        for image in images((32, 48), (64, 20), (37, 51)):
            assert torch.equal(loaded(image), network(image))


def test_program_has_its_networks_footprint_and_layers(saved: tuple[nn.Module, Path]) -> None:
    network, path = saved
    mine, theirs = footprint(load(path), 3), footprint(network, 3)
    assert (mine.halo, mine.stride) == (theirs.halo, theirs.stride)
    assert [share for _, share in mine.reasons.top.layers] == [share for _, share in theirs.reasons.top.layers]
    assert str(mine.reasons.top) == str(theirs.reasons.top)


def test_tiles_of_a_program_equal_its_whole_pass(saved: tuple[nn.Module, Path]) -> None:
    assert Tiled(load(saved[1]).double(), 3).worst_at_all_edges() < 1e-12


def test_batch_norm_folds_into_the_convolutions_of_a_program(saved: tuple[nn.Module, Path]) -> None:
    network, path = saved
    folded = fold(load(path).double())
    assert isinstance(folded, fx.GraphModule)
    assert not [node for node in folded.graph.nodes if "batch_norm" in str(node.target) and node.op != "get_attr"]
    image = images((32, 48))[0].double()
    with torch.no_grad():
        assert (folded(image) - network.double()(image)).abs().max() < 1e-12
    network.float()


KNOWN: dict[str, Callable[[Any, Tensor], Any]] = {
    "activations": lambda net, x: torch.sigmoid(functional.gelu(net.prelu(net.conv(x)))) * functional.silu(net.conv(x)),
    "pixel shuffle": lambda net, x: functional.pixel_shuffle(net.conv(functional.avg_pool2d(x, 2)), 2),
    "deconvolution": lambda net, x: net.deconv(functional.max_pool2d(net.conv(x), 2, return_indices=False)),
    "nearest": lambda net, x: functional.interpolate(net.conv(functional.max_pool2d(x, 2)), scale_factor=2),
    "mirrored": lambda net, x: functional.avg_pool2d(functional.pad(net.conv(x), (1, 1, 1, 1), mode="reflect"), 3, 1),
    "split": lambda net, x: torch.cat([part * gain for gain, part in enumerate(net.conv(x).chunk(2, 1), 1)], 1),
    "largest": lambda net, x: net.conv(x) - net.conv(x).max(dim=1, keepdim=True)[0],
    "cut to size": lambda net, x: net.conv(functional.pad(x, (3, 3, 2, 2)))[
        :, :, 2 : 2 + x.shape[2], 3 : 3 + x.shape[3]
    ],
    "in place": lambda net, x: net.conv(x).add_(1).mul_(2).clamp_(-1, 1),
    "in place, result ignored": lambda net, x: ignoring(net.conv(x)),
}


def ignoring(x: Tensor) -> Tensor:
    functional.relu(x, inplace=True)
    return x * 2


DECOMPOSED = ("activations", "deconvolution", "split", "largest", "cut to size", "in place")


@pytest.mark.parametrize(("name", "decomposed"), [*((n, False) for n in KNOWN), *((n, True) for n in DECOMPOSED)])
def test_core_of_a_program_equals_its_whole_pass(name: str, decomposed: bool, tmp_path: Path) -> None:
    network = unlike_fresh(Steps(KNOWN[name]))
    program = torch.export.export(network, (torch.zeros(2, 3, 32, 48),), dynamic_shapes=(OPEN,))
    torch.export.save(program.run_decompositions() if decomposed else program, tmp_path / "net.pt2")
    loaded, image = load(tmp_path / "net.pt2"), images((32, 40))[0]
    with torch.no_grad():
        assert (loaded(image) - network(image)).abs().max() < 1e-6
    assert Tiled(loaded.double(), 3).worst_at_all_edges() < 1e-12


BAKED: dict[str, Callable[[Any, Tensor], Any]] = {
    "interpolated to the skip": lambda net, x: (
        x[:, :1] + functional.interpolate(net.conv(functional.max_pool2d(x, 2)), size=x.shape[-2:])[:, :1]
    ),
    "pooled over all": lambda net, x: net.conv(x) * functional.avg_pool2d(net.conv(x), x.shape[-2:]),
}


@pytest.mark.parametrize("name", BAKED)
def test_extent_that_is_baked_into_a_program_is_refused_with_the_remedy(name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"baked into .* dynamic_shapes"):
        load(save(Steps(BAKED[name]).eval(), tmp_path / "net.pt2", is_open=False))


def test_program_of_fixed_extent_without_baked_extents_takes_any(tmp_path: Path) -> None:
    network = unlike_fresh(Steps(KNOWN["deconvolution"]))
    program, _ = read_archive(save(network, tmp_path / "net.pt2", is_open=False))
    assert program.fixed_px == (32, 48)
    assert Tiled(load(tmp_path / "net.pt2").double(), 3).worst_at_all_edges() < 1e-12


def test_program_in_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"training mode .* model.eval"):
        load(save(Net().train(), tmp_path / "net.pt2"))


def test_several_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="2 outputs"):
        load(save(Steps(lambda net, x: (net.conv(x), x)).eval(), tmp_path / "net.pt2"))


def test_network_that_branches_on_pixels_is_not_exported() -> None:
    with pytest.raises(BundleError, match=r"can't be exported by torch"):
        export(Steps(lambda net, x: net.conv(x) if bool(x.sum() > 0) else x), 3)


def test_last_sigmoid_is_left_to_the_decision() -> None:
    network = unlike_fresh(Steps(lambda net, x: torch.sigmoid(net.conv(x))))
    program, tensors = export(network, 3)
    bare, name = program.without_last_activation()
    module = module_of(bare).to_empty(device="cpu")
    module.load_state_dict(tensors)
    image = images((16, 16))[0]
    with torch.no_grad():
        assert name == "sigmoid"
        assert torch.equal(torch.sigmoid(module(image)), network(image))


# Hostile files


def rewritten(path: Path, into: Path, change: Callable[[str, bytes], bytes | None], **added: bytes) -> Path:
    """A copy of an archive with changed, dropped and added records."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(into, "w") as target:
        root = source.namelist()[0].split("/")[0]
        for name in source.namelist():
            data = change(name.partition("/")[2], source.read(name))
            if data is not None:
                target.writestr(name, data)
        for name, data in added.items():
            target.writestr(f"{root}/{name}", data)
    return into


def editing(record: str, edit: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        if name != record:
            return data
        value = json.loads(data)
        edit(value)
        return json.dumps(value).encode()

    return change


MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"


def test_pickled_example_inputs_are_never_read(saved: tuple[nn.Module, Path], tmp_path: Path) -> None:
    torch.save(Canary(tmp_path / "canary"), tmp_path / "evil.pt")
    evil = (tmp_path / "evil.pt").read_bytes()
    hostile = rewritten(
        saved[1], tmp_path / "a.pt2", lambda name, data: evil if name.startswith("data/sample_inputs") else data
    )
    with torch.no_grad():
        image = images((16, 16))[0]
        assert torch.equal(load(hostile)(image), saved[0](image))
    assert not (tmp_path / "canary").exists()
    with suppress(TypeError):  # it can't write its own warning about the pickle, once that has run
        torch.export.load(hostile)
    assert (tmp_path / "canary").exists(), "torch's own loader does run it, or this test shows nothing"


def test_pickled_weights_and_constants_are_refused(saved: tuple[nn.Module, Path], tmp_path: Path) -> None:
    torch.save(Canary(tmp_path / "canary"), tmp_path / "evil.pt")
    evil = (tmp_path / "evil.pt").read_bytes()

    def pickle_first(table: Any) -> None:
        next(iter(table["config"].values())).update(use_pickle=True, path_name="evil")

    change = editing(WEIGHTS, pickle_first)
    hostile = rewritten(saved[1], tmp_path / "a.pt2", change, **{"data/weights/evil": evil})
    with pytest.raises(BundleError, match="as a pickle"):
        load(hostile)
    hostile = rewritten(
        saved[1], tmp_path / "b.pt2", lambda n, d: None if n == WEIGHTS else d, **{"data/weights/model.pt": evil}
    )
    with pytest.raises(BundleError, match="an older torch"):
        load(hostile)
    assert not (tmp_path / "canary").exists()


def calling(op: str) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        model["graph_module"]["graph"]["nodes"][-1]["target"] = op

    return edit


def naming(**changes: Any) -> Callable[[Any], None]:
    def edit(table: Any) -> None:
        next(iter(table["config"].values()))["tensor_meta"].update(changes)

    return edit


@pytest.mark.parametrize(
    ("record", "edit", "message"),
    [
        (MODEL, calling("torch.ops.aten.from_file.default"), "not among the operations"),
        (MODEL, calling("torch.ops.aten.bernoulli.default"), "not among the operations"),
        (MODEL, calling("torch.hub.load"), "not among the operations"),
        (MODEL, calling("_operator.attrgetter"), "not among the operations"),
        (MODEL, calling("torch.ops.higher_order.cond"), "not among the operations"),
        (MODEL, calling("#os:system"), "not among the operations"),
        (MODEL, lambda model: model["schema_version"].update(major=9), "version 9"),
        (MODEL, lambda model: model.pop("graph_module"), "not what torch.export.save writes"),
        (WEIGHTS, naming(sizes=[{"as_int": 10**12}]), "record holds 1"),
        (WEIGHTS, naming(sizes=[{"as_int": -1}]), "said to be"),
        (WEIGHTS, naming(storage_offset={"as_int": 10**9}), "not what torch.export.save writes"),
        (WEIGHTS, naming(dtype=9), "of a dtype"),
        (WEIGHTS, lambda table: table["config"].clear(), "not what torch.export.save writes"),
    ],
)
def test_hostile_program_is_refused(
    saved: tuple[nn.Module, Path], tmp_path: Path, record: str, edit: Callable[[Any], None], message: str
) -> None:
    hostile = rewritten(saved[1], tmp_path / "net.pt2", editing(record, edit))
    with pytest.raises(BundleError, match=message) as caught:
        load(hostile)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_truncated_program_is_refused(saved: tuple[nn.Module, Path], tmp_path: Path, kept: float) -> None:
    whole = saved[1].read_bytes()
    (tmp_path / "net.pt2").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(BundleError, match=r"no whole .pt2 file|holds 0 programs"):
        load(tmp_path / "net.pt2")


def test_program_with_nan_is_refused(tmp_path: Path) -> None:
    network = Net().eval()
    with torch.no_grad():
        network.get_parameter("head.bias").fill_(float("nan"))
    with pytest.raises(BundleError, match=r"head.bias holds NaN"):
        load(save(network, tmp_path / "net.pt2"))


def program_of(*steps: dict[str, Any]) -> Program:
    given = [{"layer": "", **step} for step in steps]
    fields = {"input": "x", "output": steps[-1]["name"], "bands": 3, "fixed_px": None, "tensors": {}, "steps": given}
    return Program.model_validate(fields)


X = {"value": "x"}


def test_option_that_would_become_code_is_refused(tmp_path: Path) -> None:
    """torch writes a call's options into Python source and runs it."""
    evil = f"alpha=__import__('os').system('touch {tmp_path / 'canary'}') or 1, alpha"
    hostile = program_of({"name": "a", "op": "torch.ops.aten.add.Tensor", "args": [X, X], "options": {evil: 1}})
    with pytest.raises(BundleError, match="which it does not have"):
        module_of(hostile)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "steps",
    [
        [{"name": f"s{i}", "op": "_operator.mul", "args": [{"value": f"s{i - 1}"}] * 2} for i in range(1, 90)],
        [{"name": "s1", "op": "_operator.mul", "args": ["text", 10**12]}],
        [{"name": "s1", "op": "_operator.floordiv", "args": [{"value": "s0"}, 0]}],
        [{"name": "s1", "op": "item", "args": [[1, 2], 7]}],
        [{"name": "s1", "op": "torch.ops.aten.relu.default", "args": []}],
    ],
)
def test_program_that_computes_nonsense_is_refused(steps: list[dict[str, Any]]) -> None:
    size = {"name": "s0", "op": "torch.ops.aten.sym_size.int", "args": [X, 2]}
    last = {"name": "last", "op": "torch.ops.aten.mul.Tensor", "args": [X, {"value": steps[-1]["name"]}]}
    with pytest.raises(FootprintError, match="can't be traced"):
        footprint(module_of(program_of(size, *steps, last)), 3)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "x", "op": "torch.ops.aten.relu.default", "args": [X]}, "two steps are called x"),
        ({"name": "a", "op": "torch.ops.aten.relu.default", "args": [{"value": "gone"}]}, "step a takes"),
        ({"name": "a", "op": "torch.ops.aten.relu.default", "args": [{"tensor": "gone"}]}, "step a takes"),
    ],
)
def test_program_that_contradicts_itself_is_refused(step: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        module_of(program_of(step))
