from pathlib import Path

import numpy as np
import pytest
from store_samples import add_query_set, make_rows, positions_of, signatures_of, tree_bytes

from storage.queries import QuerySet
from storage.refs import QuerySetRef


def test_what_was_written_is_read(tmp_path: Path) -> None:
    ref = add_query_set(str(tmp_path))
    query_set = QuerySet.open(ref)
    assert query_set.queries().equals(make_rows(100, 103, source="data/queries.jsonl"))
    assert query_set.signatures().dtype == np.float32
    np.testing.assert_array_equal(query_set.signatures(), signatures_of(0, 3))
    np.testing.assert_array_equal(query_set.n_positions(), positions_of(1, 4))
    assert query_set.manifest["space"] == {"model": "m"}
    assert (query_set.manifest["n_queries"], query_set.manifest["n_numbers"]) == (3, 8)
    assert query_set.verify() == []


def test_latest_is_the_version_asked_for_last(tmp_path: Path) -> None:
    root = str(tmp_path)
    first, second = add_query_set(root, "v1"), add_query_set(root, "v2")
    assert QuerySet.exists(first)
    assert QuerySet.latest(root, "facts") == second
    QuerySet.mark_latest(first)
    assert QuerySet.latest(root, "facts") == first


def test_a_version_never_changes(tmp_path: Path) -> None:
    ref = add_query_set(str(tmp_path))
    before = tree_bytes(tmp_path)
    QuerySet.write(
        ref,
        queries=make_rows(0, 1),
        signatures=np.ones((1, 8), np.float32),
        n_positions=np.ones(1, np.int32),
        manifest={},
    )
    assert tree_bytes(tmp_path) == before


@pytest.mark.parametrize(
    ("signatures", "n_positions", "message"),
    [
        (np.ones((2, 8), np.float16), np.ones(2, np.int32), "expected float32"),
        (np.ones((3, 8), np.float32), np.ones(2, np.int32), r"\[2, n_numbers\]"),
        (np.ones((2, 8), np.float32), np.ones(3, np.int32), "n_positions"),
        (np.full((2, 8), np.nan, np.float32), np.ones(2, np.int32), "not finite"),
    ],
)
def test_wrong_arrays_are_refused(
    tmp_path: Path, signatures: np.ndarray, n_positions: np.ndarray, message: str
) -> None:
    ref = QuerySetRef(str(tmp_path), "facts", "v1")
    with pytest.raises(ValueError, match=message):
        QuerySet.write(
            ref,
            queries=make_rows(0, 2),
            signatures=signatures,
            n_positions=n_positions,
            manifest={},
        )
    assert not QuerySet.exists(ref)


def test_an_empty_query_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one query"):
        QuerySet.write(
            QuerySetRef(str(tmp_path), "facts", "v1"),
            queries=make_rows(0, 0),
            signatures=np.ones((0, 8), np.float32),
            n_positions=np.ones(0, np.int32),
            manifest={},
        )
