"""A Prefect server that is configured and can't be used: refused on one line before anything has started."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import prefect
import pytest
from cli import free_port
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.errors import ConfigError, UnrecordedError
from flows.lifecycle.reachable import expect_prefect
from flows.reporting.prefect_events import install


def answering(status: int) -> type[BaseHTTPRequestHandler]:
    class Stranger(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        do_GET = do_POST  # noqa: N815 (the library's name)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            del code, size

    return Stranger


@pytest.fixture
def stranger(request: pytest.FixtureRequest) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), answering(request.param))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


class Forgetful(BaseHTTPRequestHandler):
    """Answers as Prefect's server does until a flow is to be recorded."""

    status = 503

    def do_GET(self) -> None:
        self._answer(404 if "csrf" in self.path else 200, json.dumps(prefect.__version__))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(*((200, "[]") if self.path.endswith("/filter") else (self.status, "<html>")))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        del code, size


@pytest.fixture(params=[503, 409, 200])
def forgetful(request: pytest.FixtureRequest) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (Forgetful,), {"status": request.param}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def test_a_server_that_records_nothing_is_named_before_anything_begins(forgetful: str) -> None:
    begun: list[bool] = []

    def begin() -> None:
        begun.append(True)

    install()
    with configured(forgetful):
        expect_prefect()
        with pytest.raises(UnrecordedError, match="doesn't record that a flow begins") as raised:
            flow(name="begun")(begin)()
    assert not begun
    assert forgetful in str(raised.value)
    assert "\n" not in str(raised.value)


@contextmanager
def configured(url: str) -> Generator[None]:
    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 1}):
        yield


@pytest.mark.parametrize(
    ("stranger", "message"), [(404, "404"), (401, "AUTH_STRING"), (200, "")], indirect=["stranger"]
)
def test_what_is_no_server_for_us_is_named_with_a_remedy(stranger: str, message: str) -> None:
    with configured(stranger), pytest.raises(ConfigError) as refused:
        expect_prefect()
    assert message in str(refused.value)
    assert stranger in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/api", "http://nowhere.invalid:4200/api", "ftp://x/api"])
def test_where_nobody_is_too(address: str) -> None:
    url = address.format(port=free_port())
    with configured(url), pytest.raises(ConfigError, match="unset it for an embedded one") as refused:
        expect_prefect()
    assert url in str(refused.value)


def test_a_server_that_runs_is_taken(prefect_url: str) -> None:
    with configured(prefect_url):
        expect_prefect()
