"""Another account on the machine sees nothing of a viewer: neither its pages nor, anywhere, the key that lets in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cli import OVERTILE
from drawn import draw_run
from httpx import Client
from shown import ADDRESS, Shown, let_in, shown
from starlette.testclient import TestClient

from flows.viewer.door import Door
from flows.viewer.library import Library
from flows.viewer.site import make_site

NOBODY = 65534
EVERY = (
    "/", "/run", "/report", "/api/runs", "/api/run", "/api/state", "/api/tiles", "/api/label?x=0&y=0",
    "/api/slide/0/0/0", "/api/mask/0/0/0", "/api/thumbnail", "/static/view.js", "/static/icon.svg",
    "/static/vendor/openseadragon.min.js",
    "/nothing", "//", "/?token=", "/?token=guessed", "/favicon.ico",
)  # fmt: skip
ASKER = """
import http.client, json, sys
answers = {}
for method, path in json.loads(sys.argv[2]):
    asked = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
    asked.request(method, path, headers={"Cookie": "overtile-%s=guessed" % sys.argv[1]})
    answer = asked.getresponse()
    answers[method + " " + path] = answer.status, dict(answer.getheaders()), answer.read().decode()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown") / "ward 3"
    draw_run(folder)
    return folder


@pytest.fixture(scope="module")
def viewer(run: Path) -> Iterator[Shown]:
    with shown(run) as viewer:
        yield viewer


def as_nobody(*arguments: str) -> str:
    """What a Python that reads no file of ours prints as another account."""
    if os.getuid() != 0:
        pytest.skip("only root can ask as another account")
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin") or os.path.realpath(sys.executable)

    def ask(*asked: str, check: bool) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-I", "-S", "-c", *asked],
            check=check, capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/",
        )  # fmt: skip

    if ask("import json, http.client", check=False).returncode:
        pytest.skip("no Python on this machine can be run by another account")
    return ask(*arguments, check=True).stdout


def test_another_account_is_answered_nothing_but_where_the_link_is(viewer: Shown, run: Path) -> None:
    port = str(urlsplit(viewer.address).port)
    asked = [*(("GET", path) for path in EVERY), ("HEAD", "/"), ("POST", "/api/rerun"), ("DELETE", "/")]
    answers = json.loads(as_nobody(ASKER, port, json.dumps(asked)))
    assert len(answers) == len(asked)
    for which, (code, headers, text) in answers.items():
        assert code == 403, which
        assert "set-cookie" not in {name.lower() for name in headers}
        assert "open the link that overtile view has printed" in text or which.startswith("HEAD"), which
        assert run.name not in text
        assert "token=" not in text


def test_another_account_finds_the_key_in_no_process(viewer: Shown) -> None:
    """Command lines are everybody's to read."""
    token = viewer.link.partition("token=")[2]
    lines = as_nobody(
        "import glob, sys\n"
        "for each in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try: print(open(each, 'rb').read())\n"
        "    except OSError: pass\n"
    )
    assert "--no-browser" in lines
    assert token not in lines


def test_the_link_lets_in_and_leaves_no_key_in_the_address(viewer: Shown, run: Path) -> None:
    with Client() as client:
        answer = client.get(viewer.link)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/"
        assert answer.headers["referrer-policy"] == "no-referrer"
        cookie = answer.headers["set-cookie"]
        port = urlsplit(viewer.address).port
        assert cookie.startswith(f"overtile-{port}=")
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
        token = viewer.link.partition("token=")[2]
        assert token not in cookie
        assert client.get(f"{viewer.address}api/run").json()["path"] == str(run)
        assert client.get(f"{viewer.address}api/run").headers["referrer-policy"] == "no-referrer"


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def outside(run: Path, door: Door) -> Iterator[TestClient]:
    with TestClient(make_site(Library(run), door), ADDRESS, follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("run?run=a%26b&", "/run?run=a%26b"),
        ("report?", "/report"),
        ("/evil.example/?", "/evil.example/"),
        ("%5Cevil.example?", "/evil.example"),
        ("a%0d%0aset-cookie:b?", "/a%0D%0Aset-cookie%3Ab"),
    ],
)
def test_a_link_to_any_page_leads_to_this_server(outside: TestClient, door: Door, path: str, leads_to: str) -> None:
    answer = outside.get(f"{ADDRESS}{path}token={door.token}")
    assert (answer.status_code, answer.headers["location"]) == (303, leads_to)


def test_a_link_on_a_page_of_another_site_lets_in_too(outside: TestClient, door: Door) -> None:
    """A browser sends a strict cookie only where our own page leads."""
    answer = outside.get(door.link(ADDRESS), headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert 'content="0; url=/"' in answer.text
    assert door.token not in answer.text
    assert outside.get("/run").status_code == 200


def test_keys_of_other_starts_open_nothing(outside: TestClient, run: Path, door: Door) -> None:
    with let_in(Library(run)) as other:
        name, value = next(iter(other.cookies.items()))
    assert name == "overtile-8000"
    for cookie in (f"{name}={value}", f"{name}={door.token}", f"{name}=", "overtile-8000", "overtile-80=x; ;=", "é"):
        assert outside.get("/run", headers={"cookie": cookie.encode("latin-1")}).status_code == 403, cookie
    assert outside.get("/?token=%ff%00").status_code == 403
    assert outside.get(f"/?token={door.token}x").status_code == 403
    assert outside.post(door.link(ADDRESS)).status_code == 403
    assert outside.get(door.link(ADDRESS), headers={"host": "evil.example"}).status_code == 400


def test_two_viewers_keep_their_cookies_apart(run: Path) -> None:
    with shown(run) as first, shown(run) as second, Client(follow_redirects=True) as client:
        for each in (first, second, first):
            assert client.get(each.link).status_code == 200
        for each in (first, second):
            assert client.get(f"{each.address}api/run").status_code == 200


def test_a_browser_is_led_to_the_link_by_a_page_of_this_account_alone(run: Path, tmp_path: Path) -> None:
    """What a browser is started with, every account can see."""
    record = tmp_path / "record"
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\ncat /proc/$$/cmdline > {record}.new && mv {record}.new {record}\n")
    browser.chmod(0o755)
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {**os.environ, "BROWSER": str(browser), "TMPDIR": str(folder)}
    process = subprocess.Popen([str(OVERTILE), "view", str(run)], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    link = process.stdout.readline().partition(" at ")[2].partition(" ")[0]
    deadline = time.monotonic() + 60
    while not record.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    arguments = record.read_text()
    (page,) = folder.iterdir()
    assert page.as_uri() in arguments
    assert link.partition("token=")[2] not in arguments
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert f'content="0; url={link}"' in page.read_text()
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    process.stdout.close()
    assert [*folder.iterdir()] == [], "it goes with the viewer"
