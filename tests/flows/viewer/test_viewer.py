"""The viewer's answers: pixels and labels as they are, one failed run beside sound ones, and nothing for strangers."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from accounts import BECOME_NOBODY, as_nobody
from drawn import NUCLEUS, draw_run
from httpx import Response
from numpy.typing import NDArray
from PIL import Image
from shown import ADDRESS, let_in
from starlette.testclient import TestClient

from flows.viewer.guard import TOKEN_HEADER
from flows.viewer.library import Library
from flows.viewer.serving import PortError, serve
from tiling.errors import RunError
from tiling.runs.ledger import TileRecord, TileState
from tiling.runs.run import Run

REASON = "SourceError: <b>segment 5</b> doesn't decode"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    (folder / "ward" / "3").mkdir(parents=True)
    draw_run(folder / "sound")
    draw_run(folder / "ward/3/broken & co", failed={(1, 1): REASON}, skipped=((0, 0),))
    (folder / "damaged").mkdir()
    (folder / "damaged/run.json").write_text("{}")
    (folder / "no run").mkdir()
    return folder


@pytest.fixture(scope="module")
def client(archive: Path) -> Iterator[TestClient]:
    with let_in(Library(archive)) as client:
        yield client


HUGE = "9" * 5000
"""Python refuses to read numbers of more than 4,300 digits."""
BROKEN = {"run": "ward/3/broken & co"}


def opened(answer: Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(BytesIO(answer.content))


def rgba(answer: Response) -> NDArray[np.uint8]:
    return np.asarray(opened(answer).convert("RGBA"))


def token(client: TestClient) -> str:
    found = re.search(r'name="overtile-token" content="([\w-]{43})"', client.get("/run").text)
    assert found
    return found[1]


def test_the_archive_lists_every_run_and_a_damaged_one_spoils_no_other(client: TestClient, archive: Path) -> None:
    found = client.get("/api/runs").json()
    assert found["place"] == str(archive)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["damaged", "sound", "ward/3/broken & co"]
    assert "is no run card" in rows["damaged"]["error"]
    assert rows["sound"]["counts"] == {"pending": 0, "done": 12, "failed": 0, "skipped": 0, "damaged": 0}
    assert rows["sound"]["seconds"] == 11.0, "from its first tile to its last, which is more than its driver recorded"
    assert rows["ward/3/broken & co"]["counts"]["failed"] == 1
    assert client.get("/api/runs", params={"start": 2}).json()["rows"] == [rows["ward/3/broken & co"]]
    assert opened(client.get("/api/thumbnail", params={"run": "sound"})).size == (320, 240)


def test_a_run_tells_its_facts_and_its_failed_tiles(client: TestClient) -> None:
    facts = client.get("/api/run", params=BROKEN).json()
    assert (facts["image"]["height"], facts["image"]["width"]) == (384, 512)
    assert facts["zoom"] == {"coarsest": 0, "finest": 0, "square": 512}
    assert facts["slide"] is None
    (about,) = facts["classes"][1:]
    assert about == {"label": 1, "name": "nucleus", "color": NUCLEUS, "safe": "#56b4e9", "outline": about["outline"]}
    state = client.get("/api/state", params=BROKEN).json()
    assert state["failed"] == [
        {"row": 1, "col": 1, "state": "failed", "reason": REASON, "attempts": 1, "time": state["failed"][0]["time"]}
    ]
    states = np.frombuffer(client.get("/api/tiles", params=BROKEN).content, np.uint8)
    assert states.tolist() == [3, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1, 1]


def test_the_slide_is_the_image(client: TestClient, archive: Path) -> None:
    shown = np.asarray(opened(client.get("/api/slide/0/0/0", params=BROKEN))).astype(int)
    with Run.open(archive / "ward/3/broken & co").open_source() as source:
        expected = source.read(0, source.levels[0].box).astype(int)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 3, "JPEG"


def test_the_mask_is_painted_class_by_class(client: TestClient, archive: Path) -> None:
    labels = np.asarray(Run.open(archive / "ward/3/broken & co").open_mask(read_only=True).levels[0][:])
    both = rgba(client.get("/api/mask/0/0/0", params={**BROKEN, "labels": "1,255"}))
    np.testing.assert_array_equal(both[..., 3] > 0, (labels == 1) | (both[..., 0] == 0xD5))
    assert (both[labels == 1] == [0x56, 0xB4, 0xE9, 255]).all()
    hatched = both[labels == 255]
    assert 0.2 < (hatched[:, 3] > 0).mean() < 0.5, "what is not predicted is hatched"
    assert not rgba(client.get("/api/mask/0/0/0", params={**BROKEN, "labels": ""}))[..., 3].any()
    outline = rgba(client.get("/api/mask/0/0/0", params={**BROKEN, "labels": "1", "style": "outline"}))[..., 3] > 0
    assert not outline[labels != 1].any()
    assert outline[128 + 32, 32:64].all() == (labels[160, 32] == 1)
    assert 0.05 < outline.sum() / (labels == 1).sum() < 0.2


def test_outlines_are_in_colours_that_stand_out_from_the_picture_and_safe_ones_stay_safe(client: TestClient) -> None:
    picture = np.asarray(opened(client.get("/api/slide/0/0/0", params=BROKEN))).reshape(-1, 3)
    about = client.get("/api/run", params=BROKEN).json()["classes"][1]
    colors: dict[str, list[int]] = {}
    for palette in ("own", "safe"):
        asked = {**BROKEN, "labels": "1", "style": "outline", "palette": palette}
        drawn = rgba(client.get("/api/mask/0/0/0", params=asked))
        (colors[palette],) = np.unique(drawn[drawn[..., 3] > 0][:, :3], axis=0).tolist()
    assert colors["own"] == [int(about["outline"][at : at + 2], 16) for at in (1, 3, 5)]
    assert colors["safe"] == [0x56, 0xB4, 0xE9]
    far = {
        name: np.percentile(np.linalg.norm(picture.astype(float) - color, axis=1), 5) for name, color in colors.items()
    }
    assert far["own"] > 1.5 * far["safe"], far


@pytest.mark.parametrize(("x", "y", "label"), [(0, 0, 0), (300, 0, 1), (130, 130, 255), (511, 383, 0), (512, 0, None)])
def test_the_label_under_the_pointer_is_the_masks(client: TestClient, x: int, y: int, label: int | None) -> None:
    assert client.get("/api/label", params={**BROKEN, "x": x, "y": y}).json() == {"label": label}


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("/api/run?run=../sound", 404),
        ("/api/run?run=damaged", 404),
        ("/api/run?run=no run", 404),
        ("/api/slide/0/9/0?run=sound", 404),
        ("/api/slide/x/0/0?run=sound", 404),
        ("/api/mask/-1/0/0?run=sound", 404),
        (f"/api/slide/{HUGE}/0/0?run=sound", 404),
        (f"/api/slide/0/-{HUGE}/0?run=sound", 404),
        (f"/api/mask/0/0/{HUGE}?run=sound", 404),
        (f"/api/label?run=sound&x={HUGE}", 404),
        (f"/api/label?run=sound&x=1e9&y={HUGE}", 404),
        (f"/api/runs?start={HUGE}", 404),
        (f"/api/run?run={HUGE}", 404),
        (f"/api/run?run=ward/{'../' * 2000}etc", 404),
        ("/api/run?run=%00", 404),
        ("/api/run?run=%ff%fe", 404),
        ("/static/../site.py", 404),
        ("/static/%2e%2e/site.py", 404),
        ("/nothing", 404),
    ],
)
def test_what_is_not_there_is_refused(client: TestClient, address: str, code: int) -> None:
    answer = client.get(address)
    assert answer.status_code == code
    assert "Traceback" not in answer.text


def test_the_report_is_made_anew_and_may_run_nothing(client: TestClient) -> None:
    answer = client.get("/report", params=BROKEN)
    assert answer.status_code == 200
    assert "&lt;b&gt;segment 5&lt;/b&gt;" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox;")


def test_only_this_machines_names_are_answered(client: TestClient) -> None:
    """A page that rebinds its own name to 127.0.0.1 reads nothing."""
    assert client.get("/", headers={"host": "evil.example:8000"}).status_code == 400
    assert client.get("/api/runs", headers={"host": "127.0.0.1.evil.example"}).status_code == 400
    assert client.get("/", headers={"host": "localhost:8000"}).status_code == 200


def test_pages_may_load_only_their_own(client: TestClient) -> None:
    for address in ("/", "/run", "/static/view.js", "/api/runs"):
        headers = client.get(address).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


def test_a_foreign_page_reruns_nothing(client: TestClient) -> None:
    """The refused ones are 403; our own page gets as far as the content, which is none."""

    def code(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return client.post("/api/rerun", params=BROKEN, content=b"{}", headers=named).status_code

    ours = {TOKEN_HEADER.replace("-", "_"): token(client)}
    assert code() == 403
    assert code(x_overtile_token="guessed") == 403
    assert code(**ours, origin="http://evil.example") == 403
    assert code(**ours, origin="null") == 403
    assert code(origin=ADDRESS.rstrip("/")) == 403
    assert code(**ours, origin=ADDRESS.rstrip("/")) == 422
    assert client.get("/api/rerun", params=BROKEN).status_code == 405


def test_a_label_of_no_mask_paints_nothing(client: TestClient) -> None:
    painted = rgba(client.get("/api/mask/0/0/0", params={**BROKEN, "labels": f"{HUGE},-1,1e3"}))
    assert not painted[..., 3].any()


def test_a_rerun_that_is_too_long_to_read_is_refused_before_it_is_read(client: TestClient) -> None:
    headers = {TOKEN_HEADER: token(client)}
    answer = client.post("/api/rerun", params=BROKEN, content=b" " * (2**20 + 1), headers=headers)
    assert answer.status_code == 413
    assert "name fewer tiles" in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        '{"tiles": [["--help", 1]]}',
        '{"run": "/etc"}',
        '{"tiles": [[1]]}',
        "[]",
        "",
        '{"tiles": []}',
        f'{{"tiles": [[{HUGE}, 0]]}}',
        '{"tiles": [[-1, 0]]}',
        '{"tiles": [[9999999999, 0]]}',
        "[" * 100_000,
    ],
)
def test_a_rerun_of_nonsense_starts_nothing(client: TestClient, body: str) -> None:
    headers = {TOKEN_HEADER: token(client)}
    assert client.post("/api/rerun", params=BROKEN, content=body, headers=headers).status_code == 422
    assert client.get("/api/state", params=BROKEN).json()["job"] is None


def test_the_page_follows_the_ledger(client: TestClient, archive: Path) -> None:
    run = Run.open(archive / "sound")
    before = client.get("/api/state", params={"run": "sound"}).json()
    run.ledger.append(TileRecord(7, TileState.DAMAGED, reason="bit rot"))
    run.ledger.flush()
    after = client.get("/api/state", params={"run": "sound"}).json()
    assert after["revision"] > before["revision"]
    assert [(tile["state"], tile["reason"]) for tile in after["failed"]] == [("damaged", "bit rot")]


def test_a_slide_that_is_gone_leaves_the_mask_to_look_at(tmp_path: Path) -> None:
    run = draw_run(tmp_path / "run")
    Path(run.card.image.path).unlink()
    with let_in(Library(tmp_path / "run")) as client:
        facts = client.get("/api/run").json()
        assert "tissue.png" in facts["slide"]
        assert facts["classes"][1]["outline"] == facts["classes"][1]["color"], "there is no picture to stand out from"
        assert client.get("/api/slide/0/0/0").status_code == 404
        assert rgba(client.get("/api/mask/0/0/0?labels=1"))[..., 3].any()
        assert client.get("/", follow_redirects=False).headers["location"] == "/run"


@pytest.mark.timeout(60)
def test_links_that_lead_back_have_an_end_and_each_run_is_shown_once(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    draw_run(tmp_path / "ward" / "one")
    for number in range(12):
        (tmp_path / f"again {number}").symlink_to(tmp_path)
        (tmp_path / "ward" / f"up {number}").symlink_to("..")
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "best").symlink_to(tmp_path / "ward" / "one")
    assert Library(tmp_path).names() == ["chosen/best", "ward/one"], "a link to a run is a run"


def test_folders_that_are_closed_to_this_user_keep_no_run_from_being_shown(open_folder: Path) -> None:
    draw_run(open_folder / "one")
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    for name in ("lost+found", "ward/private"):
        (open_folder / name).mkdir(parents=True)
        (open_folder / name).chmod(0)
    code = f"import os, sys\nfrom pathlib import Path\nfrom flows.viewer.library import Library\n{BECOME_NOBODY}\n"
    assert as_nobody(f"{code}print(Library(Path(sys.argv[1])).names())", str(open_folder)) == "['one']\n"


def test_a_folder_without_runs_and_a_taken_port_are_told(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"holds no run .* and no runs"):
        Library(tmp_path / "empty")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=rf"port {port} of 127.0.0.1 can't be listened on .* give another --port"):
            serve(Library(archive), port, print, browse=False)
