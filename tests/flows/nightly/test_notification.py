"""Notification of a night: its one line, and that it comes to a real webhook and to a real command."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli import Cli, clean_environment
from summaries import BAD, DONE, night_of

from flows.commands.archive import last_config
from flows.config.archive import ArchiveConfig
from flows.config.deployed import NOTIFY, allowed
from flows.errors import ConfigError, IncompleteError, StoppedError
from flows.nightly import notification
from flows.nightly.clock import clock
from flows.nightly.left import WorkLeft
from flows.nightly.notification import Notification, of_night, send, wanted
from flows.nightly.notified import notified
from tiling.archives.archive import Archive, ArchiveCard
from tiling.archives.slide_record import SlideRecord, SlideState
from tiling.errors import DiskError, RunError, SourceError
from unet_core.errors import BundleError


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """A real server, and the JSON that came to it."""
    came: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if "fail" in self.path else 204)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", came
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_line_says_what_is_new_what_is_left_and_where_to_look() -> None:
    gone = SlideRecord("g.svs", SlideState.GONE, "slides/g.svs")
    known = (replace(BAD, slide="k.svs"), replace(BAD, slide="ack.svs", acknowledged=True))
    night = night_of(
        DONE, BAD, gone, known_failures=known, flags={"b.svs": ("no object",)}, left=WorkLeft(2, 1, 40, 60.0, 1)
    )
    assert of_night(night).text == (
        "overtile my out, night of 2026-11-26 22:00 CET: new failures; 1 slide done, 1 new failure (bad.svs), "
        "1 known failure, 1 acknowledged, 1 to look at (b.svs: no object), 1 slide gone (g.svs), "
        "2 slides left (1 begun): about 40 tiles, 1:00 of computing, 1 night at this rate, slowest b.svs with 0:12, "
        "ended by its work; file:///data/my%20out/nights/2026-11-26_220000.html"
    )


def test_what_a_rerun_tries_in_vain_is_no_new_failure() -> None:
    text = of_night(night_of(DONE, BAD, is_rerun=True)).text
    assert "failed again; 1 slide done, 1 failed again (bad.svs), " in text
    assert "new" not in text


def test_it_is_one_line_whatever_slides_are_called() -> None:
    text = of_night(night_of(replace(BAD, slide="a\nb\x1b[31m.svs"))).text
    assert "\n" not in text
    assert "\x1b" not in text


def test_a_webhook_gets_json_with_the_line_as_its_text(webhook: tuple[str, list[Any]]) -> None:
    url, came = webhook
    send(of_night(night_of(DONE, BAD)), url)
    (body,) = came
    assert body["text"].startswith("overtile my out")
    assert (body["verdict"], body["new_failures"]) == ("new failures", ["bad.svs"])


def test_a_command_reads_the_line_from_its_input_and_no_shell_reads_the_command(tmp_path: Path) -> None:
    file = tmp_path / "a b.txt"
    send(Notification("done; all well"), f"tee '{file}' '$HOME'".replace("'$HOME'", f"'{tmp_path}/$HOME'"))
    assert file.read_text() == "done; all well\n"
    assert (tmp_path / "$HOME").read_text() == "done; all well\n"


ADDRESSES = [
    f"http://{each}/secret" for each in ("127.0.0.1:9", "127.0.0.1:9/a b", "127.0.0.1:9/\x1b", "127.0.0.1:x", "[::1")
]


@pytest.mark.parametrize("to", ["false", "no-such-command-anywhere", "", "'unclosed", *ADDRESSES])
def test_what_cannot_be_sent_costs_one_line_and_tells_no_secret(to: str, caplog: pytest.LogCaptureFixture) -> None:
    send(Notification("x"), to)
    (record,) = caplog.records
    assert "could not be sent" in record.getMessage()
    assert "secret" not in record.getMessage()


def test_a_webhook_that_refuses_is_named_with_its_answer(
    webhook: tuple[str, list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    send(Notification("x"), f"{webhook[0]}/fail")
    assert "it answered 500" in caplog.text


@pytest.fixture
def odd_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A real server that answers whoever asks with the bytes of the test, then with nothing for as long as it takes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    came, _ = server.accept()
                except OSError:
                    return
                came.recv(2**16)
                came.sendall(request.param)
                if not request.param.endswith(b"more to come\r\n"):
                    came.close()
                kept.append(came)

        kept: list[socket.socket] = []
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/secret"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in kept:
            each.close()


@pytest.mark.parametrize(
    ("odd_server", "said"),
    [
        (b"HELLO THERE\r\n\r\n", "its answer is not HTTP's"),
        (b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\n\r\n", "its answer is not HTTP's"),
        (b"HTTP/1.1 500 \x1b[2J\r\n\r\n", "it answered 500 \\x1b[2J"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n", "it leads to another address"),
        (b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/\r\n\r\n", "it leads to another address"),
        (b"HTTP/1.1 200 OK\r\nX-There-Is: more to come\r\n", "no whole answer within 1 s"),
    ],
    indirect=["odd_server"],
)
def test_a_webhook_that_answers_oddly_costs_one_line(
    odd_server: str, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notification, "WEBHOOK_SECONDS", 1.0)
    send(Notification("x"), odd_server)
    (record,) = caplog.records
    assert said in record.getMessage()
    assert "secret" not in record.getMessage()


def test_a_webhook_that_drips_its_answer_is_not_waited_for(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes within the time that a socket is given."""
    monkeypatch.setattr(notification, "WEBHOOK_SECONDS", 0.5)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            came, _ = server.accept()
            with came:
                came.recv(2**16)
                while not ended.wait(0.1):
                    came.sendall(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        send(Notification("x"), f"http://127.0.0.1:{server.getsockname()[1]}/")
        ended.set()
        thread.join()
    assert "no whole answer" in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DiskError("the disk is full"), "did not begin: the disk is full\n"),
        (BundleError("no such model"), "did not begin: no such model\n"),
        (SourceError("slides/: no such folder"), "did not begin: slides/: no such folder\n"),
        (RunError("it is segmented in another way"), "did not begin: it is segmented in another way\n"),
        (ValueError("a bug"), "did not begin: a bug\n"),
        (KeyboardInterrupt(), "did not begin: stopped at once by Ctrl-C\n"),
        (SystemExit(15), "did not begin: stopped at once by a signal\n"),
        (StoppedError("stopped by SIGTERM", 15, night_of(DONE, ended_by="SIGTERM")), "1 slide done, slowest b.svs"),
        (IncompleteError("1 failed", night_of(DONE, BAD)), "1 new failure (bad.svs)"),
    ],
)
def test_a_night_that_dies_or_is_refused_is_notified_too(error: BaseException, said: str, tmp_path: Path) -> None:
    file = tmp_path / "notification"
    config = ArchiveConfig(source="in", out=tmp_path, notify=f"tee {file}")

    def die() -> Any:
        raise error

    with pytest.raises(type(error)):
        notified(config, die)
    assert said in file.read_text()


@pytest.mark.parametrize("hours", [0, 24])
def test_only_a_night_that_began_is_resumed_by_the_next(hours: int, tmp_path: Path) -> None:
    file, now = tmp_path / "notification", clock.get()()
    config = ArchiveConfig(source="in", out=tmp_path / "out", notify=f"tee {file}")
    card = ArchiveCard(created="", model="m", model_digest="", maths_version=1, asked={})

    def die() -> Any:
        ledger = Archive.create_or_resume(config.out, card).ledger
        ledger.announce("night", {"night": "n", "began": now.timestamp() - hours * 3600, "config": {}})
        raise DiskError("the disk is full")

    token = clock.set(lambda: now)
    try:
        with pytest.raises(DiskError):
            notified(config, die)
    finally:
        clock.reset(token)
    said = {0: "died: the disk is full; the next night resumes", 24: "did not begin: the disk is full"}
    assert file.read_text().endswith(f"{said[hours]}\n")


def test_where_lines_go_is_kept_by_no_ledger_and_given_by_no_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ArchiveConfig(source=str(tmp_path), out=tmp_path / "out", notify="https://hooks.example/secret")
    assert "secret" not in f"{config.model_dump_json()}{config!r}"
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "0")
    with pytest.raises(ConfigError, match="notify is not for a form to give"):
        allowed(config)
    monkeypatch.setenv(NOTIFY, "mail me")
    assert wanted(None) == "mail me"
    assert wanted("tee x") == "tee x"


def test_options_of_the_last_night_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    more = {"core": 256, "as_is": True, "crs": "EPSG:3857", "compiled": False}
    config = ArchiveConfig.model_validate({"source": "in/*.tif", "out": "out", "ray_address": "127.0.0.1:9", **more})
    assert (config.source, config.out) == (f"{tmp_path}/in/*.tif", tmp_path / "out")
    archive = Archive.create_or_resume(
        config.out, ArchiveCard(created="", model="m", model_digest="", maths_version=1, asked={})
    )
    archive.ledger.announce("night", {"config": config.model_dump(mode="json")})
    monkeypatch.chdir("/")
    again = last_config(str(tmp_path / "out"), {})
    assert again.source == config.source
    assert again.ray_address is None, "a cluster that is gone is not waited for"
    (tmp_path / "in/a.tif").unlink()
    with pytest.raises(
        RunError, match=r"the glob matches nothing.*overtile archive NEW-SOURCE --out .*/out --model"
    ) as no:
        last_config(str(tmp_path / "out"), {})
    assert str(no.value).endswith("--model nuclei --as-is --crs EPSG:3857 --core 256 --no-compile")


def test_a_source_without_slides_is_refused_before_anything_is_asked_or_started(tmp_path: Path) -> None:
    nobody = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    command = Cli(clean_environment(tmp_path / "home", **nobody))
    notify = ["--notify", f"tee {tmp_path / 'line'}"]
    ended = command.run("archive", tmp_path / "in" / "*.svs", "--out", tmp_path / "out", *notify)
    assert ended.code == 2
    assert "in/*.svs: the glob matches nothing" in ended.err
    assert "did not begin: " in (tmp_path / "line").read_text()
    assert not (tmp_path / "out").exists()
