"""Weights of others: read without running anything, refused by name where they don't fit."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from canary import Canary
from safetensors.torch import save_file
from third_party import Net
from torch import Tensor

from unet_core.bundles.importing import import_model
from unet_core.bundles.origin import Origin
from unet_core.bundles.weights import copied, expect_finite, read_weights, without_prefix
from unet_core.errors import BundleError

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    return Net().state_dict()


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_state_dict_is_found_in_what_training_scripts_save(
    state: State, tmp_path: Path, wrap: Callable[[State], Any], suffix: str
) -> None:
    torch.save(wrap(state), tmp_path / f"w{suffix}")
    found = read_weights(tmp_path / f"w{suffix}")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod."])
def test_prefix_of_a_wrapper_is_taken_off(state: State, prefix: str) -> None:
    wrapped = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    assert without_prefix(wrapped, state).keys() == state.keys()
    assert without_prefix(state, state).keys() == state.keys()


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("is_bare", [True, False])
def test_pickle_that_runs_code_is_refused_with_its_wish_and_never_runs(
    state: State, tmp_path: Path, suffix: str, is_bare: bool
) -> None:
    canary, file = tmp_path / "canary", tmp_path / f"w{suffix}"
    hostile = {"head.bias": Canary(canary)} if is_bare else {**state, "head.bias": Canary(canary)}
    if is_bare:
        file.write_bytes(pickle.dumps(hostile, protocol=2))
    else:
        torch.save(hostile, file)
    with pytest.raises(BundleError, match=r"posix.system.*nothing of them is read"):
        read_weights(file)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists(), "a plain unpickler does run it, or this test shows nothing"


def test_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "w.pt")
    with pytest.raises(BundleError, match=r"third_party.Net.*save model.state_dict"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_truncated_file_is_refused(state: State, tmp_path: Path, suffix: str, kept: float) -> None:
    file = tmp_path / f"w{suffix}"
    torch.save(state, file) if suffix == ".pt" else save_file(state, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(BundleError, match=r"can't be read|not whole safetensors") as caught:
        read_weights(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [([torch.zeros(1)], "holds a list"), ({"a": {"b": torch.zeros(1)}}, "a is no tensor"), ({}, "holds a dict")],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(BundleError, match=message):
        read_weights(tmp_path / "w.pt")


def test_unknown_kind_of_file_and_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"ends in .ckpt"):
        read_weights(tmp_path / "w.ckpt")
    for name in ("w.pt", "w.safetensors"):
        with pytest.raises(BundleError, match="No such file"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.bias"), r"1 tensors are missing .head.bias."),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 are unknown .extra."),
        (lambda s: s.update({"head.bias": torch.zeros(7)}), r"head.bias is \(7,\), the network needs \(3,\)"),
        (lambda s: s.update({"head.bias": torch.zeros(3, dtype=torch.int64)}), "torch.int64"),
        (lambda s: s["head.bias"].fill_(float("nan")), "head.bias holds NaN"),
        (lambda s: s["head.weight"].fill_(float("inf")), "head.weight holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_the_network_are_named(
    state: State, tmp_path: Path, change: Callable[[State], object], message: str
) -> None:
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(BundleError, match=message):
        import_model(Origin("third_party:make_net", tmp_path / "w.pt", trust_code=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_found_in_any_dtype(dtype: torch.dtype, wrong: float) -> None:
    tensor = torch.full((2, 3), torch.finfo(dtype).max, dtype=dtype)
    expect_finite("head.weight", tensor, Path("weights.pt"))
    expect_finite("head.weight", tensor[:0], Path("weights.pt"))
    tensor[1, 2] = wrong
    with pytest.raises(BundleError, match=r"head\.weight holds NaN or infinity"):
        expect_finite("head.weight", tensor, Path("weights.pt"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64])
def test_copied_tensors_share_no_memory(dtype: torch.dtype) -> None:
    for tensor in (torch.arange(6).reshape(2, 3).to(dtype), torch.tensor(5).to(dtype)):
        found = copied(tensor)
        assert found.dtype == dtype
        assert torch.equal(found, tensor)
        assert found.data_ptr() != tensor.data_ptr()
