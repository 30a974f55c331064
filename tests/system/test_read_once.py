"""How often a driver opens its image and reads its ledger: each once per stage, whatever the stage makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import write_tissue
from prefect.settings import PREFECT_API_URL, temporary_settings
from tiny import save_tiny

from flows import segment as flow
from flows.config.run import SegmentConfig
from flows.pool.open import started_pool
from flows.pool.pool import Pool
from flows.run import steps
from flows.run.preflight import check
from tiling.runs.ledger import Ledger
from tiling.sources import opening
from tiling.storage.jsonl import Segments


class Counts:
    """What the driver's process opens, folds and reads, by stage."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.stage = "check"
        self.found: Counter[tuple[str, str]] = Counter()
        self._count(patch, opening, "_open", "image opened")
        self._count(patch, Ledger, "fold", "ledger folded")
        self._count(patch, Segments, "lines", "ledger read")
        stages = {"compute": "infer", "folded": "stitch", "drawing": "draw", "show": "end"}
        for name, stage in stages.items():
            self._begin(patch, flow, name, stage)
        for module in (flow, steps):
            begin = module.begin_stage
            patch.setattr(module, "begin_stage", lambda name, begin=begin: (self._enter(name), begin(name))[1])

    def of(self, what: str) -> dict[str, int]:
        return {stage: count for (each, stage), count in self.found.items() if each == what}

    def _enter(self, stage: str) -> None:
        self.stage = stage

    def _begin(self, patch: pytest.MonkeyPatch, module: Any, name: str, stage: str) -> None:
        inner = getattr(module, name)

        def begun(*given: Any, **named: Any) -> Any:
            self._enter(stage)
            return inner(*given, **named)

        patch.setattr(module, name, begun)

    def _count(self, patch: pytest.MonkeyPatch, owner: Any, name: str, what: str) -> None:
        inner = getattr(owner, name)

        def counted(*given: Any, **named: Any) -> Any:
            self.found[what, self.stage] += 1
            return inner(*given, **named)

        patch.setattr(owner, name, counted)


@pytest.fixture
def pool(faults: Path) -> Iterator[None]:
    started_pool.set(Pool(1))
    yield
    started_pool.set(None)


# A region: exports then ask the file itself where the view lies, which is no reason to open it again; nor are measures
# of objects, which are taken of the image's own pixels.
@pytest.mark.parametrize(
    "more", [{}, {"region": "0,0,256,384", "objects": "components", "export": "statistics,qupath,table"}]
)
def test_a_driver_reads_each_thing_once_a_stage(
    tmp_path: Path, pool: None, prefect_url: str, more: dict[str, str]
) -> None:
    asked = {
        "image": write_tissue(tmp_path / "tissue.tif", 300, 400),
        "out": tmp_path / "run",
        "model": str(save_tiny(tmp_path / "tiny")),
        "core": 128,
        "export": "statistics,thumbnail",
    }
    config = SegmentConfig.model_validate({**asked, **more})
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: prefect_url}):
        counts = Counts(patch)
        check(config)
        assert flow.segment(config).complete
    assert counts.of("image opened") == {"check": 1, "plan": 1, "draw": 1}
    assert counts.of("ledger folded") == {"plan": 1, "stitch": 1}
    assert counts.of("ledger read") == counts.of("ledger folded"), "nor is it read for anything else"
