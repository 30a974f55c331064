"""Retention in the served Prefect's database: what Prefect itself makes of the settings that it is given."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cli import free_port

from flows.lifecycle.prefect_server import EmbeddedServer

ASK = """
from prefect.settings import get_current_settings
vacuum = get_current_settings().server.services.db_vacuum
print(*sorted(vacuum.enabled_vacuum_types), vacuum.retention_period.days)
"""


@pytest.mark.parametrize(("asked", "days"), [(None, 90), (str(7 * 86400), 7)])
def test_flow_runs_with_their_logs_and_artifacts_are_kept_as_long_as_is_said(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, days: int
) -> None:
    name = "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD"
    monkeypatch.delenv(name, raising=False)
    if asked is not None:
        monkeypatch.setenv(name, asked)
    server = EmbeddedServer(free_port()).listen()
    try:
        environment = server._environment()  # pyright: ignore[reportPrivateUsage]
        said = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True)
    finally:
        server.__exit__()
    assert said.stdout.split() == ["events", "flow_runs", "orphans", str(days)]
