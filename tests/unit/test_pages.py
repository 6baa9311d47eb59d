"""Pages for people are served by address; rows, other folders and hidden files are not."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.pages import FOLDER, URL, page_url, serving_pages


@pytest.fixture
def store(tmp_path: Path) -> Path:
    release = tmp_path / "store" / "releases" / "main" / "r1"
    release.mkdir(parents=True)
    (release / "report.html").write_text("<p>report</p>")
    (release / "train.parquet").write_bytes(b"rows")
    (release / ".env.html").write_text("hidden")
    (release.parent / "latest").symlink_to("r1")
    (tmp_path / "secret.html").write_text("not yours")
    (release / "out.html").symlink_to(tmp_path / "secret.html")
    return tmp_path / "store"


@pytest.fixture
def address(store: Path) -> Iterator[str]:
    with serving_pages(store, "127.0.0.1", 0) as url:
        yield url


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/releases/main/r1/report.html", 200),
        ("/releases/main/latest/report.html", 200),
        ("/releases/main/r1/train.parquet", 404),
        ("/releases/main/r1/.env.html", 404),
        ("/releases/main/r1/out.html", 404),
        ("/../secret.html", 404),
        ("/..%2fsecret.html", 404),
        ("/%2e%2e/secret.html", 404),
        ("/releases/none.html", 404),
    ],
)
def test_what_is_served(address: str, path: str, wanted: int) -> None:
    assert status(address + path) == wanted


def test_a_page_can_call_nothing(address: str) -> None:
    with urllib.request.urlopen(f"{address}/releases/main/r1/report.html", timeout=5) as answer:
        assert "connect-src 'none'" in answer.headers["Content-Security-Policy"]


def test_a_taken_port_gives_another(store: Path, address: str) -> None:
    port = int(address.rpartition(":")[2])
    with serving_pages(store, "127.0.0.1", port) as other:
        assert other != address
        assert status(f"{other}/releases/main/r1/report.html") == 200


def test_addresses(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = store / "releases" / "a b.html"
    assert page_url(page) is None
    monkeypatch.setenv(FOLDER, str(store))
    monkeypatch.setenv(URL, "http://host:1/")
    assert page_url(page) == "http://host:1/releases/a%20b.html"
    assert page_url(store.parent / "other") is None
