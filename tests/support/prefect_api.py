"""Prefect's API, as its pages use it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

import pytest


class Api:
    """Prefect's API, as its pages use it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        return self._ask(urllib.request.Request(f"{self._url}/{path}", json.dumps(body).encode(), headers))

    def get(self, path: str) -> Any:
        return self._ask(urllib.request.Request(f"{self._url}/{path}"))

    def patch(self, path: str, body: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self._url}/{path}", json.dumps(body).encode(), headers, method="PATCH")
        self._ask(asked)

    def _ask(self, request: urllib.request.Request) -> Any:
        """A busy server says for a while that it is: its database takes one writer at a time."""
        for number in range(10):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read() or "null")
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or number == 9:
                    raise
            time.sleep(1)
        raise AssertionError

    def deployment(self, flow: str, name: str) -> str:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = self.post("deployments/filter", {"deployments": {"name": {"any_": [name]}}})
            flows = {each["id"]: self.get(f"flows/{each['flow_id']}")["name"] for each in found}
            for identity, flow_name in flows.items():
                if flow_name == flow:
                    return identity
            time.sleep(0.3)
        pytest.fail(f"{flow} was never deployed")

    def start(self, deployment: str, config: dict[str, Any] | None = None) -> str:
        body = {"parameters": {"config": config}} if config else {}
        return self.post(f"deployments/{deployment}/create_flow_run", body)["id"]

    def wait(self, flow_run: str, *states: str, seconds: float = 250) -> dict[str, Any]:
        deadline, state = time.monotonic() + seconds, {"type": "?"}
        while time.monotonic() < deadline:
            state = self.get(f"flow_runs/{flow_run}")["state"]
            if state["type"] in states:
                return state
            time.sleep(0.2)
        pytest.fail(f"the flow run never was {states}: {state}")
