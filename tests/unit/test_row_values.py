"""Values over queries against literal loops, from a stored matrix in blocks."""

import numpy as np
import pyarrow as pa
import pytest
from store_samples import make_rows

import tasks.row_values
from rise_ops.values import without_length
from storage.errors import NotFoundError
from storage.queries import QuerySet
from storage.refs import QuerySetRef, ScoresRef
from storage.scores import TOP_ROWS_SCHEMA, VALUES_SCHEMA, Scores, ScoresWriter
from tasks.release_config import (
    MaxOfQueries,
    MeanOfQueries,
    QueryGroups,
    RankFusion,
    ReleaseConfig,
)
from tasks.row_values import row_values

N_ROWS, N_QUERIES = 23, 5
LABELS = ["good", "bad", "good", None, "bad"]


@pytest.fixture
def stored(tmp_path):
    rng = np.random.default_rng(0)
    matrix = (rng.integers(-4, 5, (N_ROWS, N_QUERIES)) / 4).astype(np.float32)
    n_positions = rng.integers(1, 50, N_ROWS).astype(np.int32)
    n_positions[[2, 9]] = 0
    matrix[[2, 9]] = 0
    ids = [f"row-{(i * 7) % N_ROWS:02d}" for i in range(N_ROWS)]
    values = pa.table({"row_id": ids, "value": matrix.mean(axis=1), "n_positions": n_positions})
    manifest = {
        key: "x" for key in ("index", "index_id", "query_set", "query_set_version", "batches")
    }
    with ScoresWriter(ScoresRef(str(tmp_path), "s1")) as writer:
        staged = writer.start_matrix(n_rows=N_ROWS, n_queries=N_QUERIES, block_rows=6)
        for block in range(4):
            staged.write_block(block, matrix[block * 6 : block * 6 + 6])
        ref = writer.commit(
            values=values.cast(VALUES_SCHEMA),
            top_rows=TOP_ROWS_SCHEMA.empty_table(),
            manifest={**manifest, "n_rows": N_ROWS},
        )
    queries = make_rows(0, N_QUERIES).set_column(3, "label", pa.array(LABELS, pa.string()))
    query_set = QuerySet.write(
        QuerySetRef(str(tmp_path), "asked", "v1"),
        queries=queries,
        signatures=np.ones((N_QUERIES, 4), np.float32),
        n_positions=np.ones(N_QUERIES, np.int32),
        manifest={},
    )
    return Scores.open(ref), QuerySet.open(query_set), matrix, n_positions, ids


def values_of(stored, aggregate, **settings):
    return row_values(stored[0], stored[1], ReleaseConfig(aggregate=aggregate, **settings))


def test_mean_and_max(stored):
    matrix = stored[2]
    np.testing.assert_array_equal(values_of(stored, MeanOfQueries()), matrix.mean(axis=1))
    np.testing.assert_array_equal(values_of(stored, MaxOfQueries()), matrix.max(axis=1))


@pytest.mark.parametrize("columns_at_once", [1, 100])
def test_rank_fusion_equals_a_literal_loop(stored, columns_at_once, monkeypatch):
    monkeypatch.setattr(tasks.row_values, "COLUMN_BYTES", columns_at_once * 4 * N_ROWS)
    _, _, matrix, n_positions, ids = stored
    expected = dict.fromkeys(ids, 0.0)
    for query in range(N_QUERIES):
        rows = [row for row in range(N_ROWS) if n_positions[row] > 0]
        rows.sort(key=lambda row: (-matrix[row, query], ids[row]))
        for rank, row in enumerate(rows, start=1):
            expected[ids[row]] += 1 / (7 + rank)
    ours = values_of(stored, RankFusion(constant=7))
    np.testing.assert_allclose(ours, [expected[i] for i in ids], rtol=1e-6)


@pytest.mark.parametrize(("within", "of"), [("mean", np.mean), ("max", np.max)])
def test_wanted_minus_unwanted_groups(stored, within, of):
    matrix = stored[2]
    groups = QueryGroups(weights={"good": 1.0, "bad": -0.5}, within=within)
    expected = of(matrix[:, [0, 2]], axis=1) - 0.5 * of(matrix[:, [1, 4]], axis=1)
    np.testing.assert_allclose(values_of(stored, groups), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"labels \['none'\].*\['bad', 'good'\]"):
        values_of(stored, QueryGroups(weights={"none": 1.0}))


def test_single_queries_need_the_matrix(stored, tmp_path):
    table = stored[0].values()
    manifest = {**stored[0].manifest, "matrix": None}
    ref = Scores.write(
        str(tmp_path),
        "s2",
        values=table,
        top_rows=TOP_ROWS_SCHEMA.empty_table(),
        manifest={key: value for key, value in manifest.items() if key not in ("check", "files")},
    )
    plain = Scores.open(ref)
    assert len(row_values(plain, stored[1], ReleaseConfig())) == N_ROWS
    with pytest.raises(NotFoundError, match=r"'max' needs .*without the full matrix.*'mean'"):
        row_values(plain, stored[1], ReleaseConfig(aggregate=MaxOfQueries()))


def test_corrected_values_have_no_trend_in_log_length(stored):
    matrix, n_positions = stored[2], stored[3]
    has = n_positions > 0
    long = matrix.copy()
    long[has] += np.log(n_positions[has])[:, None]
    plain = long.mean(axis=1)
    ours = without_length(plain, n_positions)
    slope = np.polyfit(np.log(n_positions[has]), ours[has].astype(float), 1)[0]
    assert abs(slope) < 1e-6
    assert ours[has].mean() == pytest.approx(plain[has].mean(), abs=1e-6)
    np.testing.assert_array_equal(ours[~has], plain[~has])
    plain = plain.astype(np.float32)
    same = np.full(N_ROWS, 3, np.int32)
    np.testing.assert_array_equal(without_length(plain, same), plain)
    through = values_of(stored, MeanOfQueries(), length_correction="regression")
    np.testing.assert_array_equal(through, without_length(matrix.mean(axis=1), n_positions))
