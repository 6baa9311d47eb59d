"""Nothing that users or rows name can lead a write out of the store."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scored_store import make_scored_store, write_index
from store_samples import add_batch, add_query_set, add_release, build, make_rows, tree_bytes

from storage import layout
from storage.corpus import BatchWriter, Corpus
from storage.errors import CorruptionError, StorageError
from storage.files import exclusive_lock, point_to
from storage.lease import hold
from storage.manifests import write_manifest
from storage.queries import QuerySet
from storage.refs import (
    BatchRef,
    CorpusRef,
    IndexRef,
    QuerySetRef,
    ReleaseRef,
    ScoresRef,
)
from storage.release_pointer import latest
from storage.releases import open_release
from storage.rows import ROW_SCHEMA
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.release import release
from tasks.release_config import ReleaseConfig, TopK
from tasks.scoring import score
from tasks.takedown import masked_rows, take_down

HOSTILE = [
    "../../escaped",
    "/tmp/escaped",
    "..",
    ".",
    "a/../../b",
    "nul\0byte",
    "C:\\windows",
    "~root",
    "$(touch escaped)",
    "; rm -rf /",
    "line\nbreak",
    "\u202etxt.exe",
    "x" * 5_000,
    "%2e%2e%2f",
    "../" * 40 + "etc/passwd",
    "<img src=x onerror=alert(1)>",
]
HOSTILE_LICENSE = "mit\n---\nconfigs: [{data_files: /etc/passwd}]"
CARD_FIELDS = {
    "language",
    "license",
    "license_name",
    "pretty_name",
    "size_categories",
    "tags",
    "configs",
}
NAMES = st.one_of(
    st.text(max_size=80),
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from(["..", ".", "a", "", "/", "~", "\0", "latest"])).map("/".join),
)

FOLDERS = {
    "corpus": lambda root, name: layout.corpus_folder(CorpusRef(root, name)),
    "batches": lambda root, name: layout.batches_folder(CorpusRef(root, name)),
    "tombstones": lambda root, name: layout.tombstones_folder(CorpusRef(root, name)),
    "refused": lambda root, name: layout.refused_folder(BatchRef(root, "main", name)),
    "index": lambda root, name: layout.index_folder(IndexRef(root, name)),
    "query sets": lambda root, name: layout.query_sets_folder(root, name),
    "query set": lambda root, name: layout.query_set_folder(QuerySetRef(root, "main", name)),
    "scores": lambda root, name: layout.scores_folder(ScoresRef(root, name)),
    "releases": lambda root, name: layout.releases_folder(root, name),
    "release": lambda root, name: layout.release_folder(ReleaseRef(root, "main", name)),
}


@pytest.mark.parametrize("kind", FOLDERS)
@given(name=NAMES)
@example(name="a\n")
@example(name="latest")
def test_a_name_is_refused_or_stays_inside(kind, name):
    try:
        folder = FOLDERS[kind]("/stores/mine", name)
    except ValueError:
        return
    assert os.path.normpath(folder) == str(folder)
    assert folder.is_relative_to("/stores/mine")
    assert len(folder.parts) >= 5


@given(name=NAMES)
@settings(deadline=None)
def test_a_batch_id_is_refused_or_stays_inside(name, tmp_path_factory):
    root = tmp_path_factory.mktemp("outer") / "store"
    try:
        writer = BatchWriter(CorpusRef(str(root), "main"), name)
    except ValueError:
        return
    with writer:
        assert writer.staging.resolve().is_relative_to(root.resolve())
    assert [path.name for path in root.parent.iterdir()] == ["store"]


# --------------------------------------------------------------------------------- rows


def hostile_rows() -> pa.Table:
    lines = make_rows(200, 200 + len(HOSTILE)).to_pylist()
    text = [name.replace("\0", "") for name in HOSTILE]
    for number, line in enumerate(lines):
        line |= {"row_id": text[number], "source": text[-number - 1], "label": text[number]}
    return pa.Table.from_pylist(lines, schema=ROW_SCHEMA)


def test_ids_sources_and_labels_are_no_paths(tmp_path, monkeypatch):
    """The whole way from rows to a release, with rows that are named like an attack."""
    outer = tmp_path / "outer"
    store = make_scored_store(str(outer / "store"))
    workplace = outer / "cwd"
    workplace.mkdir()
    monkeypatch.chdir(workplace)
    ref = CorpusRef(store.root, "main")
    with BatchWriter(ref, "b3") as writer:
        writer.add(hostile_rows())
        writer.commit({})
    n_rows = 70 + len(HOSTILE)
    signatures = (np.random.default_rng(0).integers(-3, 4, (n_rows, 24)) / 8).astype(np.float16)
    n_positions = (np.arange(n_rows) >= 70).astype(np.int32)  # only hostile rows can be selected
    signatures[:70] = 0
    index = write_index(
        IndexRef(store.root, "hostile"),
        signatures,
        n_positions,
        block_rows=16,
        batches=["b1", "b2", "b3"],
    )
    scored = score(index.ref, store.queries, ScoreConfig(top_k=3), RuntimeConfig(workers=1))
    taken = take_down(ref, row_ids=["..", "/tmp/escaped"], reason="../../why")
    config = ReleaseConfig(select=TopK(top_k=len(HOSTILE) - 2), license=HOSTILE_LICENSE)
    released = release(scored.ref, "main", config)
    assert taken.n_rows == 2
    assert masked_rows(ref, ["b3"]).tolist() == [1, 2]
    assert released.n_rows == len(HOSTILE) - 2
    assert sorted(path.name for path in outer.iterdir()) == ["cwd", "store"]
    assert list(workplace.iterdir()) == []
    assert not Path("/tmp/escaped").exists()
    card = (Path(released.path) / "README.md").read_text()
    match = re.match(r"\A---\n(.*?)\n---\n(.*)", card, re.DOTALL)  # as the hub's client finds it
    fields, page = yaml.safe_load(match[1]), match[2]
    assert HOSTILE_LICENSE in (fields["license"], fields.get("license_name"))
    assert set(fields) <= CARD_FIELDS
    assert "<img" not in page.partition("```")[0]
    for path in Path(store.root).rglob("*"):
        assert path.resolve().is_relative_to(Path(store.root).resolve())


# ------------------------------------------------------------------------------- links and lists


@pytest.fixture
def linked(tmp_path):
    """A store that is whole, and a folder outside it that nothing may touch."""
    root = tmp_path / "store"
    add_batch(CorpusRef(str(root), "main"), "b1", 0, 6)
    build(IndexRef(str(root), "main"), 6, ["b1"])
    add_query_set(str(root))
    add_release(str(root))
    outside = tmp_path / "outside"
    outside.mkdir()
    return root, outside


def move_out(path: Path, outside: Path) -> None:
    """Put a link in the place of a folder, to where the folder is now."""
    path.rename(outside / "moved")
    path.symlink_to(outside / "moved", target_is_directory=True)


@pytest.mark.parametrize(
    ("place", "write"),
    [
        ("corpora", lambda root: add_batch(CorpusRef(root, "main"), "b2", 6, 8)),
        ("corpora/main", lambda root: add_batch(CorpusRef(root, "main"), "b2", 6, 8)),
        ("corpora/main/batches", lambda root: add_batch(CorpusRef(root, "main"), "b2", 6, 8)),
        ("indexes", lambda root: build(IndexRef(root, "main"), 8, ["b1"])),
        ("indexes/main", lambda root: build(IndexRef(root, "main"), 8, ["b1"])),
        ("indexes/main/blocks", lambda root: build(IndexRef(root, "main"), 8, ["b1"])),
        ("indexes/main/signatures.zarr", lambda root: build(IndexRef(root, "main"), 8, ["b1"])),
        (
            "indexes/main/signatures.zarr/signatures/c",
            lambda root: build(IndexRef(root, "main"), 8, ["b1"]),
        ),
        ("queries/facts", lambda root: add_query_set(root, "v2")),
        ("releases/picked", lambda root: add_release(root, "r2")),
    ],
)
def test_a_link_in_the_store_is_not_written_through(linked, place, write):
    root, outside = linked
    move_out(root / place, outside)
    before = tree_bytes(outside)
    with pytest.raises(StorageError, match="symbolic link"):
        write(str(root))
    assert tree_bytes(outside) == before


def test_the_root_of_a_store_may_be_a_link(linked):
    root, _ = linked
    link = root.with_name("link")
    link.symlink_to(root, target_is_directory=True)
    add_batch(CorpusRef(str(link), "main"), "b2", 6, 8)
    assert Corpus(CorpusRef(str(root), "main")).n_rows == 8


@pytest.mark.parametrize("lock", [exclusive_lock, hold])
def test_a_lock_that_is_a_link_is_not_opened(tmp_path, lock):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(StorageError, match="symbolic link is in the way"),
        lock(tmp_path / ".lock", what="it"),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_latest_names_a_version_and_nothing_else(linked):
    root, outside = linked
    (root / "releases" / "picked" / "latest").unlink()
    point_to(root / "releases" / "picked" / "latest", str(outside))
    with pytest.raises((StorageError, ValueError)):
        open_release(latest(str(root), "picked"))
    (root / "queries" / "facts" / "latest").unlink()
    point_to(root / "queries" / "facts" / "latest", "../../../outside")
    with pytest.raises((StorageError, ValueError)):
        QuerySet.open(QuerySet.latest(str(root), "facts"))


@pytest.mark.parametrize("name", ["../../stolen", "/etc/passwd", "data/../../../x", "nul\0"])
def test_a_manifest_cannot_list_files_elsewhere(linked, name):
    root, _ = linked
    found = open_release(latest(str(root), "picked"))
    files = [*found.manifest["files"], {"name": name, "bytes": 1, "sha256": "0" * 64}]
    path = found.folder / layout.RELEASE_FILE
    write_manifest(path, layout.RELEASE_FORMAT, {**found.manifest, "files": files})
    with pytest.raises(CorruptionError, match="not in its folder"):
        open_release(replace(found.ref))
