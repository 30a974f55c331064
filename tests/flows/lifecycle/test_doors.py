"""Access to the Prefect servers that commands start: the user, by a link that works once, and nobody else."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from accounts import BECOME_NOBODY, as_nobody
from browsers import chromium
from cli import OVERTILE, Cli, clean_environment, free_port
from playwright.sync_api import expect
from tiny import save_tiny, write_noise

from flows.config.archive import ArchiveConfig
from flows.lifecycle.private_folder import Home, sweep
from tiling.archives.archive import Archive, ArchiveCard

SMALL = ("--core", 64, "--foreground", "none", "--workers", 1, "--export", "none")

ASK = """
import asyncio, encodings.idna, json, os, sys, urllib.error, urllib.request
from pathlib import Path
from websockets.asyncio.client import connect
BECOME
base, home, said = sys.argv[1], Path(sys.argv[2]), {}
def ask(method, path, body=None, **headers):
    asked = urllib.request.Request(base + path, body and json.dumps(body).encode(), method=method)
    asked.add_header("Content-Type", "application/json")
    for name, value in headers.items():
        asked.add_header(name, value)
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
nought = "00000000-0000-0000-0000-000000000000"
said["filter"] = ask("POST", "/api/deployments/filter", {})
said["patch"] = ask("PATCH", f"/api/deployments/{nought}", {"entrypoint": "/tmp/evil.py:flow"})
said["run"] = ask("POST", f"/api/deployments/{nought}/create_flow_run", {})
said["wrong"] = ask("POST", "/api/deployments/filter", {}, Authorization="Basic b3ZlcnRpbGU6MA==")
said["settings"] = ask("GET", "/api/admin/settings")
said["docs"] = ask("GET", "/api/openapi.json")
said["login"] = ask("POST", "/overtile-login", "guess")
try:
    said["home"] = [each.name for each in home.iterdir()]
except PermissionError:
    said["home"] = "denied"
async def socket(path):
    try:
        async with connect(base.replace("http", "ws") + path, subprotocols=["prefect"]) as it:
            await it.send(json.dumps({"type": "auth", "token": None}))
            return json.loads(await it.recv())["type"]
    except Exception as error:
        return type(error).__name__
for path in ("/api/events/in", "/api/events/out", "/api/logs/out", "/api/task_runs/subscriptions/scheduled"):
    said[path] = asyncio.run(socket(path))
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Served:
    """`overtile serve`, with the link that it printed."""

    process: subprocess.Popen[bytes]
    link: str
    link_file: Path
    environment: dict[str, str]

    @property
    def base(self) -> str:
        return self.link.partition("/overtile-login")[0]


@pytest.fixture(scope="module")
def hostile_folder() -> Iterator[Path]:
    """A working folder and a home that name Prefect servers which nobody asked for; Ray's sockets need a short name."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="doors-") as name:
        prepare(folder := Path(name))
        yield folder


def prepare(folder: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}/api"
    (folder / ".env").write_text(f"PREFECT_API_URL={dead}\nPREFECT_SERVER_EPHEMERAL_ENABLED=true\n")
    (folder / "prefect.toml").write_text("this is = = no TOML\n")
    home = folder / "home/.prefect"
    home.mkdir(parents=True)
    (home / "profiles.toml").write_text(
        f'active = "mine"\n[profiles.mine]\nPREFECT_SERVER_EPHEMERAL_ENABLED = "true"\n'
        f'[profiles.other]\nPREFECT_API_URL = "{dead}"\n'
    )
    with sqlite3.connect(home / "prefect.db") as newer:
        newer.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        newer.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    newer.close()
    (folder / "tmp").mkdir()


def environment_of(folder: Path, **more: str) -> dict[str, str]:
    environment = clean_environment(folder / "unused", HOME=str(folder / "home"), TMPDIR=str(folder / "tmp"), **more)
    environment.pop("PREFECT_HOME")
    return environment


@pytest.fixture(scope="module")
def served(hostile_folder: Path) -> Iterator[Served]:
    out = hostile_folder / "nightly"
    (hostile_folder / "in").mkdir(exist_ok=True)
    (hostile_folder / "in" / "slide.png").touch()
    config = ArchiveConfig(source=str(hostile_folder / "in"), out=out)
    card = ArchiveCard(created="2026", model="tiny", model_digest="", maths_version=1, asked={})
    Archive.create_or_resume(out, card).ledger.announce("night", {"config": config.model_dump(mode="json")})
    environment, log = environment_of(hostile_folder), hostile_folder / "serve.log"
    command = [str(OVERTILE), "serve", str(out), "--cron", "0 1 29 2 *", "--port", str(free_port())]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, cwd=hostile_folder)
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"pages: +(\S+)\n.* (\S+)\n", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Served(process, found[1], Path(found[2]), environment)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert list((hostile_folder / "tmp").glob("overtile-prefect-*")) == [], "the folder goes with the command"


def test_another_account_gets_nothing_from_a_served_archive(served: Served) -> None:
    said = json.loads(as_nobody(ASK.replace("BECOME", BECOME_NOBODY), served.base, str(served.link_file.parent)))
    refused = ("filter", "patch", "run", "wrong", "settings", "docs")
    assert {name: said[name] for name in refused} == dict.fromkeys(refused, 401)
    assert said["login"] == 403
    assert said["home"] == "denied"
    assert {said[path] for path in said if path.startswith("/api")} <= {"ConnectionClosedError", "InvalidStatus"}


@pytest.mark.slow
def test_the_link_opens_the_pages_logged_in_once(served: Served, tmp_path: Path) -> None:
    with chromium() as browser:
        page = browser.new_context().new_page()
        page.goto(served.link)
        page.wait_for_url(re.compile("dashboard"), timeout=60_000)
        # By the menu: the pages take a request that a new address cuts off for a wrong password, and forget it.
        page.get_by_role("link", name="Deployments").first.click(timeout=60_000)
        expect(page.get_by_text("segment-archive").first).to_be_visible(timeout=60_000)
        page.screenshot(path=os.environ.get("OVERTILE_SCREENSHOT", tmp_path / "pages.png"))
        stranger = browser.new_context().new_page()
        stranger.goto(served.link)
        expect(stranger.get_by_text("This link has been used")).to_be_visible(timeout=30_000)
        assert stranger.evaluate("localStorage.length") == 0
        again = browser.new_context().new_page()
        again.goto(served.link_file.read_text().strip())
        again.wait_for_url(re.compile("dashboard"), timeout=60_000)
    assert served.link_file.stat().st_mode & 0o777 == 0o600


FOR_ANOTHER_SERVER = {
    "PREFECT_API_URL": "",
    "PREFECT_API_KEY": "a key\x01",
    "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Proxy": "not\\nto be sent"}',
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
}


@pytest.mark.slow
def test_a_segment_minds_no_settings_that_nobody_asked_for_and_leaves_nothing(
    hostile_folder: Path, served: Served
) -> None:
    """Two at once on a home whose database is a newer Prefect's; and the server of none of them is open."""
    model = save_tiny(hostile_folder / "tiny")
    database = (hostile_folder / "home/.prefect/prefect.db").read_bytes()
    running: list[subprocess.Popen[bytes]] = []
    for number in range(2):
        image = write_noise(hostile_folder / f"{number}.tif", 128, 128)
        command = [OVERTILE, "segment", image, "--out", hostile_folder / f"run{number}", "--model", model, *SMALL]
        environment = environment_of(hostile_folder, **(FOR_ANOTHER_SERVER if number else {}))
        with (hostile_folder / f"{number}.log").open("wb") as log:
            running.append(
                subprocess.Popen([*map(str, command)], env=environment, cwd=hostile_folder, stdout=log, stderr=log)
            )
    homes: set[str] = set()
    while any(process.poll() is None for process in running):
        for process in running:
            homes |= {each for each in servers_of(process.pid) if each}
        time.sleep(0.05)
    logs = [(hostile_folder / f"{number}.log").read_text() for number in range(2)]
    assert [process.returncode for process in running] == [0, 0], logs
    assert len(homes) == 2, "each has a server with a folder and a password of its own, and no other"
    assert (hostile_folder / "home/.prefect/prefect.db").read_bytes() == database
    left = {str(each) for each in (hostile_folder / "tmp").glob("overtile-prefect-*")}
    assert left == {str(served.link_file.parent)}, "a living one's stays"


def servers_of(pid: int) -> Iterator[str]:
    """The private folders of the Prefect servers that a process has started."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for each in children:
        try:
            if "uvicorn" not in " ".join(each.cmdline()):
                continue
            environment = each.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        assert "flows.lifecycle.prefect_login:create_app" in each.cmdline()
        assert len(environment["PREFECT_SERVER_API_AUTH_STRING"]) > 64
        yield environment["PREFECT_HOME"]


def test_what_killed_commands_left_is_swept_and_what_is_held_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held, killed, fresh = Home(), Home(), Home()
    assert {each.path.stat().st_mode & 0o777 for each in (held, killed, fresh)} == {0o700}
    os.close(killed.descriptor)
    os.close(fresh.descriptor)
    killed.descriptor = fresh.descriptor = -1
    (killed.path / "prefect.db").write_bytes(b"left")
    for each in (held, killed):
        os.utime(each.path, (1, 1))
    link = tmp_path / f"overtile-prefect-{os.getuid()}-link"
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    open_to_others = tmp_path / f"overtile-prefect-{os.getuid()}-open"
    open_to_others.mkdir(mode=0o777)
    open_to_others.chmod(0o777)
    os.utime(open_to_others, (1, 1))
    sweep()
    assert not killed.path.exists()
    assert held.path.exists()
    assert fresh.path.exists()
    assert (tmp_path / "elsewhere").is_dir()
    assert open_to_others.exists()
    held.remove()
    held.remove()
    assert not held.path.exists()


def test_settings_that_prefect_cannot_read_are_told_in_one_line(tmp_path: Path) -> None:
    cli = Cli(clean_environment(tmp_path / "prefect", PREFECT_API_URL="", PREFECT_SERVER_API_PORT="no number"))
    image = write_noise(tmp_path / "noise.tif", 64, 64)
    ended = cli.run("segment", image, "--out", tmp_path / "run", timeout=60)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert "Prefect can't read its settings" in line
