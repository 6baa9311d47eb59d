import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_samples import add_release, release_rows, tree_bytes

from storage.refs import ReleaseRef
from storage.release_pointer import latest, mark_latest
from storage.release_writer import ReleaseWriter
from storage.releases import RELEASE_SCHEMA, all_releases, open_release, release_exists

CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---
# Picked rows
"""


def test_what_was_written_is_read(tmp_path: Path) -> None:
    ref = add_release(str(tmp_path))
    release = open_release(ref)
    assert [path.name for path in release.data_files] == [
        "train-00000-of-00003.parquet",
        "train-00001-of-00003.parquet",
        "train-00002-of-00003.parquet",
    ]
    assert release.rows().equals(release_rows(0, 5))
    assert release.rows().schema.equals(RELEASE_SCHEMA)
    assert release.manifest["n_rows"] == 5
    assert release.find("row-000003") == release_rows(3, 4).to_pylist()[0]
    assert release.find("row-000009") is None
    assert release.verify() == []


def test_the_datasets_library_reads_it(tmp_path: Path) -> None:
    ref = ReleaseRef(str(tmp_path / "store"), "picked", "r1")
    with ReleaseWriter(ref) as writer:
        writer.add(release_rows(0, 2))
        writer.add(release_rows(2, 3))
        writer.commit({"scores_id": "s1"}, CARD)
    code = (
        "import sys; from datasets import load_dataset;"
        "rows = load_dataset(sys.argv[1], split='train', cache_dir=sys.argv[2]);"
        "print(rows['row_id'][:], rows.column_names)"
    )
    # In a process of its own: the library reads these variables when it is imported.
    done = subprocess.run(
        [sys.executable, "-c", code, str(open_release(ref).folder), str(tmp_path / "cache")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = release_rows(0, 3)["row_id"].to_pylist()
    assert done.stdout.strip() == f"{expected} {RELEASE_SCHEMA.names}"


def test_latest_is_the_release_asked_for_last(tmp_path: Path) -> None:
    root = str(tmp_path)
    first, second = add_release(root, "r1"), add_release(root, "r2")
    assert latest(root, "picked") == second
    mark_latest(first)
    assert latest(root, "picked") == first
    assert (tmp_path / "releases" / "picked" / "latest" / "README.md").is_file()
    assert all_releases(root) == [first, second]


def test_a_release_never_changes(tmp_path: Path) -> None:
    ref = add_release(str(tmp_path), "r1", n_rows=3)
    before = tree_bytes(tmp_path)
    assert add_release(str(tmp_path), "r1", n_rows=5) == ref
    assert tree_bytes(tmp_path) == before


def test_the_slower_of_two_writers_finds_the_release_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = add_release(str(tmp_path), "r1")
    before = tree_bytes(tmp_path)
    # the other one publishes between this one's look and its own publication
    monkeypatch.setattr("storage.release_writer.release_exists", lambda _: False)
    assert add_release(str(tmp_path), "r1") == ref
    assert tree_bytes(tmp_path) == before


def test_without_commit_nothing_stays(tmp_path: Path) -> None:
    ref = ReleaseRef(str(tmp_path), "picked", "r1")
    with ReleaseWriter(ref) as writer:
        writer.add(release_rows(0, 2))
    assert not release_exists(ref)
    assert sorted(tree_bytes(tmp_path)) == ["rise-store.json"]


def test_releases_without_rows_or_lineage_are_refused(tmp_path: Path) -> None:
    ref = ReleaseRef(str(tmp_path), "picked", "r1")
    with ReleaseWriter(ref) as writer:
        with pytest.raises(ValueError, match="at least one row"):
            writer.commit({"scores_id": "s1"}, CARD)
        writer.add(release_rows(0, 2))
        with pytest.raises(ValueError, match="lacks"):
            writer.commit({}, CARD)
    assert not release_exists(ref)
