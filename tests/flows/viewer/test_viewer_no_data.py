"""The viewer tells pixels without data from those that were not predicted."""

from __future__ import annotations

from pathlib import Path

import pytest
from no_data_images import as_nodata, collar, scene
from segmented import segmented
from shown import let_in
from tiny import save_tiny

from flows.viewer.library import Library


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a map whose corners hold no data."""
    folder = tmp_path_factory.mktemp("runs")
    tiny, held = save_tiny(folder / "tiny"), collar()
    segmented(as_nodata(folder, scene(), held, 0), folder / "runs" / "gaps", tiny, 64)
    return folder / "runs"


def test_a_run_of_an_image_that_lacks_data_has_a_value_for_it(place: Path) -> None:
    with let_in(Library(place / "gaps")) as client:
        facts = client.get("/api/run", params={"run": "gaps"}).json()
        assert facts["no_data"] is not None
        assert facts["no_data"] not in {item["label"] for item in facts["classes"]}
