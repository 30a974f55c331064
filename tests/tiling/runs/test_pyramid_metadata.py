"""Metadata of a pyramid: all of it is written, and what makes a pyramid of it comes last."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiling.errors import TilingError
from tiling.geometry import Halo
from tiling.plan import TilePlan
from tiling.runs.mask import Mask
from tiling.runs.pyramid_metadata import GROUP, PyramidMetadata, is_made


@pytest.fixture
def metadata() -> PyramidMetadata:
    return Mask.metadata(TilePlan((4096, 4096), 512, (16, 16), Halo(96, 96, 96, 96)), [], None, (0.0, 0.0))


def test_lost_metadata_of_any_level_is_written_again(tmp_path: Path, metadata: PyramidMetadata) -> None:
    metadata.write(tmp_path, names := metadata.missing(tmp_path))
    assert len(names) > 3
    written = {name: (tmp_path / name).read_bytes() for name in names}
    for lost in (names, names[:1], [GROUP]):
        for name in lost:
            (tmp_path / name).unlink()
        assert metadata.missing(tmp_path) == lost
        metadata.complete(tmp_path, lambda _: None)
        assert {name: (tmp_path / name).read_bytes() for name in names} == written


def test_pyramid_of_which_a_level_could_not_be_written_is_not_made(tmp_path: Path, metadata: PyramidMetadata) -> None:
    names = metadata.missing(tmp_path)
    (tmp_path / names[0]).parent.write_text("a file where a level's folder belongs")
    with pytest.raises(TilingError):
        metadata.write(tmp_path, names)
    assert not is_made(tmp_path)
    (tmp_path / names[0]).parent.unlink()
    metadata.write(tmp_path, metadata.missing(tmp_path))
    assert is_made(tmp_path)
    assert metadata.missing(tmp_path) == []
