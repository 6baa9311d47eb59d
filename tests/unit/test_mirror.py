"""The mirror of a store at a URL: what others publish comes in, what is published goes up first."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from storage.catalog import list_artifacts, open_store
from storage.errors import BusyError, CorruptionError, NotFoundError, StorageError
from storage.files import point_to, publish, remove_durably, staging_folder, write_bytes
from storage.guards import corpus_guard
from storage.lease import hold, holder_of
from storage.lease_backend import ObjectBackend, backend_of
from storage.manifests import describe_file, write_manifest
from storage.mirror import Mirror
from storage.objects import Objects
from storage.refs import CorpusRef
from storage.roots import fetched, mirror_at, mirrors_folder, shown, store_folder
from storage.urls import is_url, local_path
from tasks.lease_status import lease_facts


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty store; the mirrors of this process lie in the test's folder."""
    monkeypatch.setenv("RISE_MIRROR", str(tmp_path / "mirrors"))
    name = f"memory://{uuid.uuid4().hex}/store"
    yield name
    memory = fsspec.filesystem("memory")
    if memory.exists(name):
        memory.rm(name, recursive=True)


def _publish(final: Path, **files: bytes) -> None:
    """Publish a query set with files; `_` in a name stands for `.`."""
    with staging_folder(final) as staging:
        for name, data in files.items():
            (staging / name.replace("_", ".")).write_bytes(data)
        listed = [describe_file(path, folder=staging) for path in sorted(staging.iterdir())]
        write_manifest(staging / "query_set.json", "rise-query-set", {"files": listed})
        publish(staging, final)


def _objects(url: str) -> dict[str, bytes]:
    objects = Objects(url)
    return {key: objects.read(key) or b"" for key in objects.listing()}


def test_url_or_path() -> None:
    assert is_url("s3://bucket/a")
    assert is_url("memory://a")
    assert not is_url("/a/b")
    assert not is_url("C:/a")
    assert not is_url("file:///a%20b/c")
    assert local_path("file:///a%20b/c") == Path("/a b/c")
    assert store_folder("a/b") == Path("a/b")
    assert mirror_at(Path("/a/b")) is None


def test_published_folder_is_in_the_store_and_in_every_other_mirror(
    url: str, tmp_path: Path
) -> None:
    folder = store_folder(url)
    _publish(folder / "queries" / "q" / "v1", data_bin=b"some bytes", more_txt=b"text")
    point_to(folder / "queries" / "q" / "latest", "v1")
    assert {"queries/q/latest", "queries/q/v1/query_set.json"} < set(_objects(url))
    assert _objects(url)["queries/q/latest"] == b"v1"
    other = Mirror(url, tmp_path / "other")
    other.look()
    there = other.folder / "queries" / "q" / "v1"
    assert [path.name for path in there.iterdir()] == ["query_set.json"]
    other.fetch(there)
    assert (there / "data.bin").read_bytes() == b"some bytes"
    assert (there.parent / "latest").readlink() == Path("v1")
    assert shown(folder / "queries") == f"{url}/queries"


def test_objects_without_their_manifest_are_not_there(url: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"{url}/queries/q/v1/data.bin", b"of a killed upload")
    open_store(url, create=True)
    assert list_artifacts(url) == []
    assert not (store_folder(url) / "queries").exists()


def test_an_upload_that_was_cut_off_is_taken_up_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = store_folder(url) / "queries" / "q" / "v1"
    put = Objects.put

    def cut_off(self: Objects, path: Path, key: str) -> object:
        if key.endswith("more.txt"):
            raise ConnectionError("the cable was pulled")
        return put(self, path, key)

    monkeypatch.setattr(Objects, "put", cut_off)
    with pytest.raises(ConnectionError):
        _publish(final, data_bin=b"some bytes", more_txt=b"text")
    monkeypatch.undo()
    assert not final.exists()
    assert not any(key.endswith("query_set.json") for key in _objects(url))


def test_published_is_never_overwritten(url: str, tmp_path: Path) -> None:
    final = store_folder(url) / "queries" / "q" / "v1"
    other = Mirror(url, tmp_path / "other")
    other.look()
    _publish(final, data_bin=b"first")
    before = _objects(url)
    with staging_folder(other.folder / "queries" / "q" / "v1") as staging:
        (staging / "query_set.json").write_bytes(b"{}")
        putting = other.put_folder(staging, other.folder / "queries" / "q" / "v1")
        with pytest.raises(FileExistsError, match="never overwritten"), putting:
            pytest.fail("it must not come to the renaming")
    assert _objects(url) == before
    assert (other.folder / "queries" / "q" / "v1" / "query_set.json").is_file()


def test_pointer_is_replaced_only_if_nobody_else_did(url: str, tmp_path: Path) -> None:
    here = store_folder(url) / "indexes" / "main"
    write_bytes(here / "rows.json", b"1")
    other = Mirror(url, tmp_path / "other")
    other.look()
    write_bytes(here / "rows.json", b"2")
    written = tmp_path / "new"
    written.write_bytes(b"3")
    with pytest.raises(BusyError, match="replaced by somebody else"):
        other.put_file(written, other.folder / "indexes" / "main" / "rows.json")
    assert (other.folder / "indexes" / "main" / "rows.json").read_bytes() == b"2"
    other.put_file(written, other.folder / "indexes" / "main" / "rows.json")
    assert _objects(url)["indexes/main/rows.json"] == b"3"


def test_deleted_there_is_deleted_here(url: str, tmp_path: Path) -> None:
    folder = store_folder(url)
    _publish(folder / "queries" / "q" / "v1", data_bin=b"some bytes")
    write_bytes(folder / "indexes" / "main" / "blocks" / "0.json", b"{}")
    remove_durably(folder / "indexes" / "main" / "blocks" / "0.json")
    assert not any("blocks" in key for key in _objects(url))
    fsspec.filesystem("memory").rm(f"{url}/queries", recursive=True)
    mirror = mirror_at(folder)
    assert mirror is not None
    mirror.look(at_once=True)
    assert not (folder / "queries").exists()


def test_damaged_object_is_named(url: str, tmp_path: Path) -> None:
    _publish(store_folder(url) / "queries" / "q" / "v1", data_bin=b"some bytes")
    fsspec.filesystem("memory").pipe_file(f"{url}/queries/q/v1/data.bin", b"other byte")
    other = Mirror(url, tmp_path / "other")
    other.look()
    with pytest.raises(CorruptionError, match=r"memory://.*/data\.bin is not what its manifest"):
        other.fetch(other.folder / "queries" / "q" / "v1")
    assert not (other.folder / "queries" / "q" / "v1" / "data.bin").exists()


def test_a_lost_copy_is_fetched_again(url: str, tmp_path: Path) -> None:
    _publish(store_folder(url) / "queries" / "q" / "v1", data_bin=b"some bytes")
    Mirror(url, tmp_path / "other").look()
    (tmp_path / "other" / "store" / "queries" / "q" / "v1" / "query_set.json").unlink()
    again = Mirror(url, tmp_path / "other")
    again.look(at_once=True)
    again.fetch(again.folder / "queries" / "q" / "v1")
    (again.folder / "queries" / "q" / "v1" / "data.bin").unlink()
    third = Mirror(url, tmp_path / "other")
    third.fetch(third.folder / "queries" / "q" / "v1")
    assert (third.folder / "queries" / "q" / "v1" / "data.bin").read_bytes() == b"some bytes"


def test_lease_is_an_object(url: str, tmp_path: Path) -> None:
    path = store_folder(url) / "corpora" / "main" / ".lease.json"
    assert isinstance(backend_of(path), ObjectBackend)
    with hold(path, what="corpus 'main'"):
        assert holder_of(path) is not None
        assert not path.exists()
        again = hold(path, what="corpus 'main'")
        with pytest.raises(BusyError, match="corpus 'main' is being written by"), again:
            pytest.fail("two hold it")
    assert holder_of(path) is None
    with hold(path, what="corpus 'main'"):
        assert holder_of(path) is not None
    other = Mirror(url, tmp_path / "other")
    other.look()
    assert not (other.folder / "corpora").exists()


def test_another_mirror_of_a_store_is_no_copy_of_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = CorpusRef(url, "main")
    with corpus_guard(ref).hold():
        (here,) = lease_facts(url)
        monkeypatch.setenv("RISE_MIRROR", str(tmp_path / "more"))
        monkeypatch.setattr("storage.roots._mirrors", {})
        (there,) = lease_facts(url)
        assert here["path"] != there["path"]
        assert here["gone"] == there["gone"] == ""
        again = corpus_guard(ref).hold()
        with pytest.raises(BusyError, match="corpus 'main' is being written by"), again:
            pytest.fail("two hold it")
    assert lease_facts(url) == []


def test_a_path_is_enough_to_know_the_mirror(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store_folder(url)
    monkeypatch.setattr("storage.roots._mirrors", {})
    found = mirror_at(folder / "corpora")
    assert found is not None
    assert found.url == url
    assert mirror_at(folder / ".new.partial" / "data.bin") is None
    assert mirror_at(mirrors_folder() / "nothing" / "store") is None


def test_unknown_schemes_and_stores_are_explained(url: str) -> None:
    with pytest.raises(StorageError, match="expected a path, or a URL that fsspec opens"):
        store_folder("nonsense://bucket/store")
    with pytest.raises(NotFoundError, match="is not a RISE store"):
        list_artifacts(url)
    assert fetched(Path("/a/b")) == Path("/a/b")


def test_nobody_but_store_folder_makes_a_path_of_a_root() -> None:
    root = Path(__file__).parents[2]
    pattern = re.compile(r"\bPath\((ref\.root|root|store|config\.store|settings\.store)\)")
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for folder in ("storage", "tasks")
        for path in sorted((root / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == [], "a root may be a URL: use storage.roots.store_folder"
