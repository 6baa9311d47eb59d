from pathlib import Path

import numpy as np
import pytest
from store_samples import add_batch, add_scores, build, tree_bytes

from storage.errors import CorruptionError, NotFoundError
from storage.refs import CorpusRef, IndexRef, ScoresRef
from storage.scores import TOP_ROWS_SCHEMA, VALUES_SCHEMA, Scores, ScoresWriter

MANIFEST = {
    "index": "main",
    "index_id": "i",
    "query_set": "facts",
    "query_set_version": "v1",
    "batches": ["b1"],
    "n_rows": 7,
}
EMPTY = {"values": VALUES_SCHEMA.empty_table(), "top_rows": TOP_ROWS_SCHEMA.empty_table()}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    root = str(tmp_path)
    add_batch(CorpusRef(root, "main"), "b1", 0, 6)
    ref = add_scores(root, build(IndexRef(root, "main"), 6, ["b1"]))
    assert Scores.exists(root, "s1")
    assert not Scores.exists(root, "s2")
    scores = Scores.open(ref)
    assert scores.values().schema.equals(VALUES_SCHEMA)
    assert scores.values()["n_positions"].to_pylist() == [0, 1, 2, 3, 4, 0]
    assert scores.top_rows()["row_id"].to_pylist() == ["row-000003"]
    assert scores.value_of("row-000004") == pytest.approx(0.04)
    assert scores.value_of("row-000099") is None
    assert scores.verify() == []
    with pytest.raises(NotFoundError, match="without the full matrix"):
        scores.matrix_block(0)


def matrix(n_rows: int = 7) -> np.ndarray:
    return np.arange(n_rows * 3, dtype=np.float32).reshape(n_rows, 3)


def test_a_matrix_is_written_and_read_by_blocks(tmp_path: Path) -> None:
    ref = ScoresRef(str(tmp_path), "s1")
    with ScoresWriter(ref) as writer:
        staged = writer.start_matrix(n_rows=7, n_queries=3, block_rows=3)
        for block in (2, 0, 1):
            staged.write_block(block, matrix()[block * 3 : block * 3 + 3])
        writer.commit(**EMPTY, manifest=MANIFEST)
    scores = Scores.open(ref)
    read = np.concatenate([scores.matrix_block(block) for block in range(3)])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, matrix())
    for block in (-1, 3):
        with pytest.raises(ValueError, match="no block"):
            scores.matrix_block(block)
    assert scores.verify() == []
    (scores.folder / "matrix.zarr" / "scores" / "c" / "1" / "0").unlink()
    with pytest.raises(CorruptionError, match=r"block 1: .*score again"):
        scores.matrix_block(1)


def test_a_whole_matrix_is_one_block(tmp_path: Path) -> None:
    ref = Scores.write(str(tmp_path), "s1", **EMPTY, manifest=MANIFEST, matrix=matrix())
    np.testing.assert_array_equal(Scores.open(ref).matrix_block(0), matrix())


def test_wrong_matrix_blocks_are_refused(tmp_path: Path) -> None:
    with ScoresWriter(ScoresRef(str(tmp_path), "s1")) as writer:
        staged = writer.start_matrix(n_rows=7, n_queries=3, block_rows=3)
        wrong = [(0, matrix(2)), (2, matrix(3)), (-1, matrix(3)), (0, matrix(3).astype("f8"))]
        for block, values in wrong:
            with pytest.raises(ValueError, match="expected float32"):
                staged.write_block(block, values)
        with pytest.raises(ValueError, match="not finite"):
            staged.write_block(0, np.full((3, 3), np.inf, np.float32))
    assert not Scores.exists(str(tmp_path), "s1")


def test_scores_never_change(tmp_path: Path) -> None:
    Scores.write(str(tmp_path), "s1", **EMPTY, manifest=MANIFEST)
    before = tree_bytes(tmp_path)
    Scores.write(str(tmp_path), "s1", **EMPTY, manifest={**MANIFEST, "n_rows": 8})
    assert tree_bytes(tmp_path) == before


def test_the_slower_of_two_writers_finds_the_scores_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = Scores.write(str(tmp_path), "s1", **EMPTY, manifest=MANIFEST)
    before = tree_bytes(tmp_path)
    with ScoresWriter(ref) as writer:
        # the other one publishes between this one's look and its own publication
        monkeypatch.setattr(Scores, "exists", staticmethod(lambda *_: False))
        assert writer.commit(**EMPTY, manifest=MANIFEST) == ref
    assert tree_bytes(tmp_path) == before


def test_a_manifest_without_lineage_is_refused(tmp_path: Path) -> None:
    manifest = {key: MANIFEST[key] for key in MANIFEST if key not in ("index_id", "batches")}
    with pytest.raises(ValueError, match=r"lacks \['index_id', 'batches'\]"):
        Scores.write(str(tmp_path), "s1", **EMPTY, manifest=manifest)
    assert sorted(tree_bytes(tmp_path)) == ["rise-store.json"]
