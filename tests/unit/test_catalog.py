"""Damage is named with what to do; `verify_store` names all of it, whatever else is wrong."""

import shutil
from pathlib import Path

import pytest
from store_samples import add_batch, add_query_set, add_release, add_scores, build, make_index

from storage.corpus import Corpus
from storage.errors import CorruptionError
from storage.refs import CorpusRef, IndexRef, ScoresRef
from storage.release_pointer import latest
from storage.releases import open_release
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks.catalog import verify_store


@pytest.fixture(name="root")
def sound_store(tmp_path: Path) -> str:
    root = str(tmp_path / "store")
    add_batch(CorpusRef(root, "main"), "b1", 0, 10)
    index = build(IndexRef(root, "main"), 10, ["b1"])
    add_query_set(root)
    add_scores(root, index)
    add_release(root)
    assert verify_store(root) == []
    return root


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def test_what_cannot_be_opened_hides_nothing_else(root: str) -> None:
    make_index(IndexRef(root, "half"))
    corpus = CorpusRef(root, "main")
    add_batch(corpus, "b2", 10, 12)
    (Corpus(corpus).folder("b2") / "batch.json").write_bytes(b"")
    flip_bit(Path(root, "indexes/main/signatures.zarr/signatures/c/1/0"))
    flip_bit(Scores.open(ScoresRef(root, "s1")).folder / "values.parquet")
    found = "\n".join(verify_store(root))
    for text in ("b2/batch.json", "'half' was never finished", "block 1:", "s1/values.parquet"):
        assert text in found


def test_a_lost_batch_is_missed_by_the_index_that_covers_it(root: str) -> None:
    shutil.rmtree(Corpus(CorpusRef(root, "main")).folder("b1"))
    assert [text for text in verify_store(root) if "batch b1" in text and "missing" in text]


def test_a_folder_without_its_manifest_is_damaged_and_says_what_to_do(root: str) -> None:
    index = SignatureIndex.open(IndexRef(root, "main")).folder
    release = open_release(latest(root, "picked")).folder
    (index / "index.json").unlink()
    with pytest.raises(CorruptionError, match=rf"index.json is missing.*delete {index} and make"):
        SignatureIndex.open(IndexRef(root, "main"))
    (release / "manifest.json").unlink()
    with pytest.raises(CorruptionError, match=rf"delete {release} and make it again"):
        open_release(latest(root, "picked"))
