import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_samples import add_batch, make_index

from storage.catalog import list_artifacts, open_store
from storage.corpus import Corpus, find_batch
from storage.errors import NotFoundError
from storage.layout import index_folder, query_set_folder, release_folder, scores_folder
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ReleaseRef, ScoresRef
from storage.release_pointer import latest
from storage.releases import open_release
from storage.scores import Scores
from storage.signatures import SignatureIndex

BAD_NAMES = ["..", ".", "", "../x", "a/b", "/etc", "A", "a b", "-a", ".a", "a\n", "a" * 65, "ä"]


def test_a_store_is_made_once_and_opened_again(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "store"
    with pytest.raises(NotFoundError, match="not a RISE store"):
        open_store(root)
    assert open_store(root, create=True) == root
    assert open_store(str(root), create=True) == root
    assert open_store(root) == root
    assert [path.name for path in root.iterdir()] == ["rise-store.json"]
    assert list_artifacts(root) == []


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_leaves_the_store(tmp_path: Path, name: str) -> None:
    root = str(tmp_path / "store")
    open_store(root, create=True)
    places = [
        lambda: Corpus(CorpusRef(root, name)),
        lambda: find_batch(CorpusRef(root, "main"), name),
        lambda: add_batch(CorpusRef(root, "main"), name, 0, 1),
        lambda: add_batch(CorpusRef(root, name), "b1", 0, 1),
        lambda: make_index(IndexRef(root, name)),
        lambda: index_folder(IndexRef(root, name)),
        lambda: query_set_folder(QuerySetRef(root, name, "v1")),
        lambda: query_set_folder(QuerySetRef(root, "q", name)),
        lambda: scores_folder(ScoresRef(root, name)),
        lambda: release_folder(ReleaseRef(root, name, "r1")),
        lambda: release_folder(ReleaseRef(root, "r", name)),
    ]
    for place in places:
        with pytest.raises(ValueError, match="is not a valid name"):
            place()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_the_name_of_the_link_is_no_version(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name of the link"):
        release_folder(ReleaseRef(str(tmp_path), "r", "latest"))


def test_whatever_is_absent_is_named(tmp_path: Path) -> None:
    root = str(tmp_path)
    open_store(root, create=True)
    absent = [
        lambda: Corpus(CorpusRef(root, "absent")),
        lambda: SignatureIndex.open(IndexRef(root, "absent")),
        lambda: QuerySet.latest(root, "absent"),
        lambda: QuerySet.open(QuerySetRef(root, "absent", "v1")),
        lambda: Scores.open(ScoresRef(root, "absent")),
        lambda: latest(root, "absent"),
        lambda: open_release(ReleaseRef(root, "absent", "r1")),
    ]
    for look in absent:
        with pytest.raises(NotFoundError, match="absent"):
            look()
    assert Corpus.batches(CorpusRef(root, "absent")) == []
    assert find_batch(CorpusRef(root, "absent"), "b1") is None


def test_an_index_without_committed_rows_is_listed_as_such(tmp_path: Path) -> None:
    index = make_index(IndexRef(str(tmp_path), "main"))
    (artifact,) = list_artifacts(tmp_path)
    assert artifact.id == index.index_id
    assert artifact.created is None
    assert artifact.detail["n_rows"] is None
    assert artifact.detail["block_rows"] == 4


def test_batches_past_9999_stay_in_order(tmp_path: Path) -> None:
    ref = CorpusRef(str(tmp_path), "main")
    add_batch(ref, "b1", 0, 1)
    folder = tmp_path / "corpora" / "main" / "batches"
    (folder / "0001-b1").rename(folder / "9999-b1")
    add_batch(ref, "b2", 1, 2)
    assert (folder / "10000-b2").is_dir()
    assert [batch.batch_id for batch in Corpus.batches(ref)] == ["b1", "b2"]
    assert [artifact.id for artifact in list_artifacts(tmp_path)] == ["b1", "b2"]


def test_listing_loads_no_array_library() -> None:
    code = (
        "import sys, storage.catalog;"
        "print(sorted({'numpy', 'pyarrow', 'zarr', 'torch'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.strip() == "[]"
