"""Groups, arrays and lists are as Zarr itself opens them, and what is damaged is refused as it refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from tiling.storage import zarr_nodes
from tiling.storage.zarr_nodes import ONE_CHUNK_BYTES, arrays_in, open_group, read_list, write_list


@pytest.fixture
def made(tmp_path: Path) -> Path:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=3, attributes={"ome": {"version": "0.5"}})
    for name, side in (("0", 600), ("1", 300)):
        array = group.create_array(name, shape=(side, side), chunks=(64, 64), shards=(256, 256), dtype="uint8")
        array[:] = np.arange(side * side).astype(np.uint8).reshape(side, side)
    return tmp_path / "a.zarr"


def test_groups_and_arrays_are_as_zarr_opens_them(made: Path) -> None:
    group, expected = open_group(made, read_only=True), zarr.open_group(made, mode="r")
    assert dict(group.attrs) == dict(expected.attrs)
    for name, array in zip(("0", "1"), arrays_in(group, ("0", "1")), strict=True):
        assert array.metadata == expected[name].metadata
        assert np.array_equal(np.asarray(array[:]), np.asarray(expected[name][:]))  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        arrays_in(group, ["0"])[0][0, 0] = 1


def test_what_is_written_through_them_is_there_for_zarr(made: Path) -> None:
    (array,) = arrays_in(open_group(made, read_only=False), ["1"])
    array[:] = np.uint8(7)
    assert np.asarray(zarr.open_array(made / "1", mode="r")[:]).min() == 7


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"zarr_format": 3}', '{"zarr_format": 3, "node_type": "group"}', "cut"]
)
def test_damaged_metadata_is_refused_as_zarr_refuses_it(made: Path, damage: str) -> None:
    file = made / "1" / "zarr.json"
    file.write_text(file.read_text()[:200] if damage == "cut" else damage)
    with pytest.raises(Exception) as theirs:  # noqa: PT011 (of whatever kind)
        assert isinstance(zarr.open_group(made, mode="r", zarr_format=3)["1"], zarr.Array)
    with pytest.raises(type(theirs.value)):
        assert isinstance(arrays_in(open_group(made, read_only=True), ["1"])[0], zarr.Array)


def test_a_missing_array_is_a_missing_key(made: Path) -> None:
    with pytest.raises(KeyError):
        arrays_in(open_group(made, read_only=True), ["2"])


def test_a_missing_group_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_group(tmp_path / "none.zarr", read_only=True)


@pytest.mark.parametrize(
    "values",
    [np.arange(5, dtype=np.int64), np.array([0, 3, 255], np.uint8), np.zeros(0, np.uint8), np.zeros(4, np.int64)],
)
def test_a_list_is_read_as_zarr_reads_it(tmp_path: Path, values: NDArray[Any]) -> None:
    zarr.save_array(tmp_path / "list", cast("Any", values), zarr_format=3)
    found = read_list(tmp_path / "list")
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


def test_a_list_of_several_chunks_or_other_codecs_is_left_to_zarr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.arange(1000, dtype=np.int64)
    zarr.create_array(tmp_path / "chunks", data=values, chunks=(100,))
    zarr.create_array(tmp_path / "raw", data=values, chunks=(1000,), compressors=None)
    zarr.create_array(tmp_path / "floats", data=values.astype(np.float32), chunks=(1000,))
    for name in ("chunks", "raw", "floats"):
        assert np.array_equal(read_list(tmp_path / name), values)
    zarr.save_array(tmp_path / "plain", cast("Any", values), zarr_format=3)
    monkeypatch.setattr(zarr_nodes.zarr, "open_array", None)
    assert np.array_equal(read_list(tmp_path / "plain"), values)


def test_a_list_whose_bytes_are_damaged_is_refused(tmp_path: Path) -> None:
    zarr.save_array(tmp_path / "list", cast("Any", np.arange(5)), zarr_format=3)
    (chunk,) = (tmp_path / "list" / "c").iterdir()
    chunk.write_bytes(b"nothing that zstd would write")
    with pytest.raises((RuntimeError, ValueError)):
        read_list(tmp_path / "list")


def test_metadata_that_says_other_attributes_is_read_anew(made: Path) -> None:
    group = open_group(made, read_only=False)
    group.attrs["ome"] = {"version": "0.6"}
    assert json.loads((made / "zarr.json").read_text())["attributes"] == {"ome": {"version": "0.6"}}
    assert dict(open_group(made, read_only=True).attrs) == {"ome": {"version": "0.6"}}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("size", [0, 1, 77, ONE_CHUNK_BYTES // 8 - 1, ONE_CHUNK_BYTES // 8, ONE_CHUNK_BYTES])
@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_a_list_is_written_as_zarr_writes_it(dtype: str, size: int, tmp_path: Path) -> None:
    for number, values in enumerate((np.zeros(size, dtype), np.arange(size).astype(dtype))):
        ours, theirs = tmp_path / f"ours{number}", tmp_path / f"theirs{number}"
        write_list(ours, values, below=tmp_path)
        zarr.create_array(theirs, data=values, zarr_format=3)
        assert files_in(ours) == files_in(theirs)
        np.testing.assert_array_equal(read_list(ours), values)
