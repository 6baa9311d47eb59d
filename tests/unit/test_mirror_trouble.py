"""Mirrors and objects when something is wrong: hostile objects, lost answers, deleted caches."""

import errno
import gc
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner

from flows.cli import app
from storage import objects, roots
from storage.catalog import list_artifacts, open_store
from storage.errors import NotFoundError, StorageError
from storage.files import point_to, publish, staging_folder, write_bytes
from storage.inputs import input_file
from storage.layout import check_name
from storage.lease import hold
from storage.manifests import describe_file, write_manifest
from storage.mirror import Mirror
from storage.mirror_keys import is_report, is_safe, link_target, without_folders
from storage.mirror_places import places
from storage.objects import Objects, StoredObject, explained
from storage.roots import mirror_at, store_folder
from storage.urls import folder_url
from tasks.store_status import store_status

MANIFEST = "query_set.json"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a store of one query set."""
    monkeypatch.setenv("RISE_MIRROR", str(tmp_path / "mirrors"))
    name = f"memory://{uuid.uuid4().hex}/store"
    open_store(name, create=True)
    _publish(store_folder(name) / "queries" / "q" / "v1", b"some bytes")
    yield name
    fsspec.filesystem("memory").rm(name, recursive=True)


def _publish(final: Path, data: bytes) -> None:
    with staging_folder(final) as staging:
        (staging / "data.bin").write_bytes(data)
        listed = [describe_file(staging / "data.bin", folder=staging)]
        write_manifest(staging / MANIFEST, "rise-query-set", {"files": listed})
        publish(staging, final)


def _other(url: str, place: Path) -> Mirror:
    mirror = Mirror(url, place)
    mirror.look(at_once=True)
    return mirror


def test_objects_never_become_files_outside_the_mirror(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("../../up/manifest.json", "queries/q/v1/../../../../x", "a//manifest.json", "b/./c")
    listing = Objects.listing

    def hostile(self: Objects, folder: str = "") -> dict[str, StoredObject]:
        return {**listing(self, folder), **{name: StoredObject(4, "t", 1) for name in names}}

    monkeypatch.setattr(Objects, "listing", hostile)
    monkeypatch.setattr(Objects, "get", lambda self, key, path: bool(path.write_bytes(b"evil")))
    other = _other(url, tmp_path / "deep" / "other")
    other.fetch(other.folder)
    inside = {path.relative_to(other.folder).as_posix() for path in other.folder.rglob("*")}
    assert {"queries/q/v1/query_set.json", "queries/q/v1/data.bin"} < inside
    assert not any(name in inside for name in ("a/manifest.json", "b/c"))
    assert not [*tmp_path.rglob("up"), *tmp_path.rglob("x")]
    assert not any(is_safe(name) for name in (*names, "", "/a", "a/", "a\0b", f"a/{'n' * 300}"))
    assert is_safe("..a/b..c/d")


def test_objects_in_the_way_of_a_folder_are_left_out(url: str, tmp_path: Path) -> None:
    assert without_folders(["a", "a/b", "c/d", "c/d/e", "f"]) == {"a/b", "c/d/e", "f"}


@pytest.mark.parametrize("data", [b"", b"..", b"\xff\xfe\0", b"a/..", b"-", b"n" * 300])
def test_a_damaged_link_is_that_of_one_name_only(url: str, tmp_path: Path, data: bytes) -> None:
    link = "queries/q/latest"
    fsspec.filesystem("memory").pipe_file(f"{url}/{link}", data)
    other = _other(url, tmp_path / "other")
    assert not (other.folder / link).is_symlink()
    assert (other.folder / "queries" / "q" / "v1" / MANIFEST).is_file()
    assert link_target(data) is None
    here = store_folder(url)
    mirror_at(here).look(at_once=True)  # type: ignore[union-attr]
    point_to(here / link, "v1")
    other.look(at_once=True)
    assert (other.folder / link).readlink() == Path("v1")


def test_what_is_called_quality_is_no_report() -> None:
    assert not is_report("releases/quality/r1/data/train.parquet")
    assert not is_report("indexes/quality/blocks/0.npy")
    assert is_report("indexes/main/quality/index.html")
    assert is_report("releases/quality/r1/quality/index.html")
    assert not is_report("releases/main/r1/quality/results.json")


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conditional put whose answer is lost, so that the library's second try is refused."""
    put = objects._check_and_put

    def twice(*given: Any) -> str | None:
        put(*given)
        return put(*given)

    monkeypatch.setattr(objects, "_check_and_put", twice)


@pytest.mark.usefixtures("deaf")
def test_a_lost_answer_is_no_refusal(url: str) -> None:
    folder = store_folder(url)
    _publish(folder / "queries" / "q" / "v2", b"more")
    assert (folder / "queries" / "q" / "v2" / "data.bin").read_bytes() == b"more"
    point_to(folder / "queries" / "q" / "latest", "v2")
    write_bytes(folder / "indexes" / "main" / "rows.json", b"1")
    write_bytes(folder / "indexes" / "main" / "rows.json", b"2")
    with hold(folder / "corpora" / ".lease.json", what="it"):
        pass


def test_what_was_put_is_not_taken_for_what_replaced_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(filesystem: Any, path: str, data: bytes, tag: str | None) -> str:
        filesystem.pipe_file(path, b"theirs")
        return "tag of mine"

    monkeypatch.setattr(objects, "_check_and_put", put)
    mine = Objects(url).put_if("rows.json", b"mine", tag=None)
    assert mine is not None
    assert (mine.tag, mine.n_bytes) == ("tag of mine", 4)


def test_leftovers_of_another_upload_do_not_become_part_of_a_folder(
    url: str, tmp_path: Path
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"{url}/queries/q/v2/train-00001-of-00002.bin", b"rows of long ago")
    _publish(store_folder(url) / "queries" / "q" / "v2", b"more")
    assert sorted(key for key in Objects(url).listing() if "v2" in key) == [
        "queries/q/v2/data.bin",
        "queries/q/v2/query_set.json",
    ]


@pytest.mark.parametrize("lost", ["", "notes.sqlite", "url", "store", "store/queries"])
def test_a_mirror_deleted_by_hand_comes_back_in_a_living_process(url: str, lost: str) -> None:
    mirror = mirror_at(store_folder(url))
    assert mirror is not None
    place = mirror.folder.parent / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    mirror._fresh_until = 0.0  # a second later
    if lost.startswith("store"):
        mirror.look(at_once=True)
    assert [one.name for one in list_artifacts(url)] == ["q"]
    _publish(store_folder(url) / "queries" / "q" / "v2", b"more")
    assert Objects(url).read("queries/q/v2/data.bin") == b"more"
    assert (roots.fetched(store_folder(url) / "queries" / "q" / "v1") / "data.bin").is_file()


def test_without_notes_nothing_old_stays(url: str, tmp_path: Path) -> None:
    _other(url, tmp_path / "other")
    (tmp_path / "other" / "notes.sqlite").unlink()
    fsspec.filesystem("memory").rm(f"{url}/queries", recursive=True)
    assert not (_other(url, tmp_path / "other").folder / "queries").exists()


def test_copies_that_were_cut_off_are_fetched_again(url: str, tmp_path: Path) -> None:
    other = _other(url, tmp_path / "other")
    folder = other.folder / "queries" / "q" / "v1"
    other.fetch(folder)
    for path in folder.iterdir():
        path.write_bytes(b"")
    again = _other(url, tmp_path / "other")
    again.fetch(folder)
    assert all(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("s3://", "expected a bucket"),
        ("memory:///", "expected a bucket"),
        ("s3://b//store", "an empty part"),
        ("s3://b/a/../store", r"'\.\.' means another place"),
        ("s3://b/store?versionId=1", r"it has '\?'"),
        ("https://host/store", "can only be read"),
        ("s3://me:hidden@b/store", "without a password"),
    ],
)
def test_urls_that_are_no_folder_are_refused(given: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        store_folder(given)
    assert "hidden" not in str(caught.value)


def test_one_store_has_one_spelling() -> None:
    assert folder_url("S3://Bucket/a b/ü/") == "s3://Bucket/a b/ü"
    assert folder_url("s3://bucket//") == "s3://bucket"


@pytest.mark.parametrize(
    "given", ["https://host/a.jsonl?X-Amz-Signature=hidden", "ftp://a:hidden@b/c"]
)
def test_secrets_of_urls_are_neither_kept_nor_shown(given: str) -> None:
    with pytest.raises(StorageError, match=r"\*\*\*") as caught:
        input_file(given).stat()
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.EREMOTEIO, errno.EBUSY])
def test_a_store_that_cannot_answer_now_may_be_asked_again(number: int) -> None:
    with pytest.raises(ConnectionError, match="could not answer"), explained("s3://b"):
        raise OSError(number, "Please reduce your request rate.")


def test_mirrors_are_listed_and_cleared_when_nobody_uses_them(url: str) -> None:
    home = roots.mirrors_folder()
    [place] = places(home)
    assert place.url == url
    assert place.n_bytes > 0
    asked = CliRunner().invoke(app, ["mirror", "clear", f"{url}/"])
    assert asked.exit_code == 1
    assert "is used by a process" in asked.output
    assert "beside" in CliRunner().invoke(app, ["mirror", "clear", "memory://beside"]).output
    roots._mirrors.clear()  # as when the process has ended
    gc.collect()
    assert url in CliRunner().invoke(app, ["mirror", "ls", "--json"]).output
    assert CliRunner().invoke(app, ["mirror", "clear", url]).exit_code == 0
    assert [*home.iterdir()] == []
    assert [one.name for one in list_artifacts(url)] == ["q"]


@pytest.mark.parametrize("name", ["a.partial", "b.lock", "c.lease.json"])
def test_names_that_would_be_cleared_away_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cleared away"):
        check_name(name, what="index")


def test_status_counts_what_the_store_has_and_names_it(url: str, tmp_path: Path) -> None:
    found = store_status(url)
    assert found["store"] == url
    assert found["bytes"] == sum(one.n_bytes for one in Objects(url).listing().values())


def test_memory_of_another_process_is_explained() -> None:
    with pytest.raises(NotFoundError, match="is that of one process"):
        open_store(f"memory://{uuid.uuid4().hex}/store")
