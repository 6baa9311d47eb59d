"""The scores gate measures values and tops as plain Python would, and publishes no fault."""

from collections import Counter
from pathlib import Path

import numpy as np
import planted_faults as faults
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_store import make_scored_store
from suite_samples import edit

from storage.refs import QuerySetRef
from storage.scores import TOP_ROWS_SCHEMA, VALUES_SCHEMA, Scores, last_scores
from tasks.config import ScoreConfig
from tasks.quality_gate import recorded_warnings
from tasks.scores_gate import (
    ScoresRefused,
    judge_scores,
    query_statistics,
    tie_share,
    value_drift,
    value_statistics,
)
from tasks.scoring import score
from tasks.suite_files import write_suites

QUERIES = QuerySetRef("store", "main", "v1")


def table(values, counts=None) -> pa.Table:
    n = len(values)
    columns = {
        "row_id": [f"r{number}" for number in range(n)],
        "value": np.asarray(values, np.float32),
        "n_positions": np.ones(n, np.int32) if counts is None else np.asarray(counts, np.int32),
    }
    return pa.table(columns).cast(VALUES_SCHEMA)


def tops(**scores) -> pa.Table:
    lines = [
        {"query_id": query, "rank": rank, "row_id": f"r{rank}", "score": score}
        for query, found in scores.items()
        for rank, score in enumerate(found, start=1)
    ]
    return pa.Table.from_pylist(lines, schema=TOP_ROWS_SCHEMA)


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 2.0]), min_size=1, max_size=30))
def test_ties_are_counted_as_one_by_one(values) -> None:
    counts = Counter(values)
    expected = sum(counts[value] > 1 for value in values) / len(values)
    assert tie_share(np.array(values)) == pytest.approx(expected)


def test_values_of_live_rows_are_measured() -> None:
    found = value_statistics(table([1, 3, 3, 0, np.nan, 9], [1, 2, 1, 0, 1, 0]))
    assert (found["n_rows"], found["n_live"], found["n_nonfinite"]) == (6, 4, 1)
    assert found["n_empty_nonzero"] == 1
    assert (found["value_min"], found["value_max"]) == (1, 3)
    assert found["value_mean"] == pytest.approx(7 / 3)
    assert found["value_spread"] == pytest.approx(np.std([1, 3, 3]))
    assert found["tie_share"] == pytest.approx(2 / 3)
    assert found["positive_share"] == 1


def test_equal_values_have_no_spread_and_one_value_has_none_to_speak_of() -> None:
    assert value_statistics(table([0.1] * 7))["value_spread"] == 0
    assert value_statistics(table([0.1]))["value_spread"] is None
    assert value_statistics(table([0.0, 0.0], [0, 0]))["value_mean"] is None


def test_tops_are_measured_query_by_query() -> None:
    lines = query_statistics(tops(b=[3, 2, 2], a=[5, 5, float("nan")])).to_dict("records")
    assert [line["query_id"] for line in lines] == ["b", "a"]
    assert (lines[0]["top_score"], lines[0]["last_score"], lines[0]["top_spread"]) == (3, 2, 1)
    assert lines[0]["top_tie_share"] == pytest.approx(2 / 3)
    assert [line["n_nonfinite"] for line in lines] == [0, 1]


@pytest.mark.parametrize(
    ("name", "values", "top", "said"),
    [
        ("a NaN", [1, np.nan, 3, 4], [4, 3], "1 of 4 values are not finite"),
        ("equal values", [2, 2, 2, 2], [2, 2], "all 4 live rows have the value 2"),
        ("an infinite top", [1, 2, 3, 4], [np.inf, 3], "query q: 1 of its 2 strongest rows"),
    ],
)
def test_each_fault_has_its_reason(tmp_path, name, values, top, said) -> None:
    tables = {"values": table(values), "top_rows": tops(q=top)}
    queries = QuerySetRef(str(tmp_path), "main", "v1")
    report = judge_scores(
        tables, index="main", queries=queries, scores_id="s1", docs=tmp_path / "docs"
    )
    assert not report.success
    assert any(reason.startswith(said) for reason in report.reasons), report.reasons
    assert (tmp_path / "docs" / "index.html").is_file()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_scored_store(str(tmp_path_factory.mktemp("gate") / "store"))


def scored(store, queries=None, top_k=5, **named):
    return score(
        store.index, queries or store.queries, ScoreConfig(top_k=top_k), faults.THREADS, **named
    )


def test_drift_is_measured_on_the_rows_that_both_have(store) -> None:
    last = Scores.open(scored(store).ref)
    before = last.values()
    numbers = before["value"].to_numpy() * 2 + 1
    turned = before.set_column(1, "value", pa.array(numbers, pa.float32())).slice(10)
    found = value_drift(turned, last)
    live = (before["n_positions"].to_numpy() > 0)[10:]
    same = before["value"].to_numpy()[10:][live].astype(np.float64)
    assert found["n_common"] == live.sum()
    assert found["last_correlation"] == pytest.approx(1)
    assert found["spread_ratio"] == pytest.approx(2)
    assert found["mean_change"] == pytest.approx((same.mean() + 1) / same.std())


def test_nothing_in_common_is_nothing_to_compare(store) -> None:
    found = value_drift(table([1, 2, 3]), Scores.open(scored(store).ref))
    assert (found["n_common"], found["last_correlation"]) == (0, None)
    assert set(value_drift(table([1, 2, 3]), None).values()) == {None}


def test_the_last_scores_are_those_of_the_same_names(store) -> None:
    first, second = scored(store), scored(store, top_k=6)
    for names in ({"index": "other"}, {"query_set": "other"}):
        named = {"index": "main", "query_set": "main", **names}
        assert last_scores(store.root, **named, but="-") is None
    found = last_scores(store.root, index="main", query_set="main", but=second.ref.scores_id)
    assert found is not None
    assert found.ref == first.ref


@pytest.mark.parametrize("file", ["scores.json", "values.parquet"])
def test_damaged_scores_do_not_keep_others_from_being_made(tmp_path, file) -> None:
    store = make_scored_store(str(tmp_path / "store"))
    first = scored(store)
    (Path(first.path) / file).write_bytes(b"{")
    assert not scored(store, top_k=6).already


def test_refused_scores_leave_their_report_alone(tmp_path) -> None:
    caught = faults.scores_without_a_query(tmp_path)
    root = tmp_path / "store"
    assert list((root / "scores").iterdir()) == []
    assert Path(caught.data_docs).is_file()
    assert root / "refused" / "scores" in Path(caught.data_docs).parents
    assert list(root.rglob("*.partial")) == []


def test_the_suite_decides_whether_they_are_published_and_no_byte_of_them(tmp_path) -> None:
    store = make_scored_store(str(tmp_path / "store"))
    queries = faults.another_version(store.queries, np.zeros_like(store.query_signatures))
    write_suites(tmp_path / "quality")
    quality = edit(
        tmp_path / "quality",
        "scores",
        "order the rows.\n      severity: fail",
        "order the rows.\n      severity: warn",
    )
    with pytest.raises(ScoresRefused):
        scored(store, queries)
    report = scored(store, queries, quality=quality)
    assert any("all 68 live rows have the value 0" in text for text in report.warnings)
    assert recorded_warnings(Path(report.data_docs).parent) == report.warnings
    files = {entry["name"] for entry in Scores.open(report.ref).manifest["files"]}
    tables = ("values", "top_rows", "bottom_rows", "null_scores")
    assert files == {f"{name}.parquet" for name in tables}
    again = scored(store, queries)  # made before: answered from the store, not judged again
    assert (again.already, again.warnings) == (True, report.warnings)
