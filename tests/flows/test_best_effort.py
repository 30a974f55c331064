"""Prefect's record of a flow is best effort in every flow that there is, whichever a process imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHECK = "import prefect.flow_engine as engine; print(engine.propose_state_sync.__module__)"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["archive", "verify"])
def test_a_process_that_imports_one_flow_records_its_states_best_effort(name: str) -> None:
    output = subprocess.run(
        [sys.executable, "-c", f"import flows.{name}; {CHECK}"], capture_output=True, text=True, check=True
    ).stdout
    assert output.split() == ["flows.reporting.prefect_events"]
