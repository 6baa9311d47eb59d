"""RISE beside BM25 and chance: the same rows, the same positives, the stored scores."""

from pathlib import Path

import pytest
from scored_store import make_scored_store

from storage.queries import QuerySet
from storage.refs import QuerySetRef
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.evaluation import compare_methods, strongest_rows
from tasks.scoring import score

THREADS = RuntimeConfig(scheduler="threads", workers=1)
ALL_SCORES = ScoreConfig(top_k=5, full_matrix=True)


def test_rise_is_measured_on_the_stored_scores(tmp_path: Path) -> None:
    store = make_scored_store(str(tmp_path / "store"))
    report = score(store.index, store.queries, ALL_SCORES, THREADS)
    results = compare_methods(report.ref, ks=[5])
    assert [result.method for result in results] == ["RISE", "BM25", "random"]
    # in this store even rows are labelled, and so are queries 0 and 2 of 4
    assert {result.n_positives for result in results} == {35}
    exact = store.scores()
    hits = [
        sum(int(row_id.removeprefix("row-")) % 2 == 0 for row_id in store.best(exact[:, query], 5))
        if query % 2 == 0
        else 0
        for query in range(4)
    ]
    assert results[0].metrics["precision@5"] == pytest.approx(sum(hits) / (5 * 4))


def test_the_strongest_rows_of_a_query_come_with_its_two_parts(tmp_path: Path) -> None:
    store = make_scored_store(str(tmp_path / "store"))
    report = score(store.index, store.queries, ALL_SCORES, THREADS)
    example, hits = strongest_rows(report.ref, top_k=3, query=1)
    assert (example.prompt, example.completion) == ("question 1001 ", f"answer {1001 * 1001}")
    assert [hit.row_id for hit in hits] == store.best(store.scores()[:, 1], 3)
    assert hits[0].text == f"question {hits[0].source_line - 1} answer " + str(
        (hits[0].source_line - 1) ** 2
    )


def test_without_shared_labels_nothing_is_measured(tmp_path: Path) -> None:
    store = make_scored_store(str(tmp_path / "store"))
    stored = QuerySet.open(store.queries)
    table = stored.queries()
    odd = table["label"].to_pylist().index(None)
    ref = QuerySet.write(
        QuerySetRef(store.root, "unlabelled", "v1"),
        queries=table.slice(odd, 1),
        signatures=stored.signatures()[odd : odd + 1],
        n_positions=stored.n_positions()[odd : odd + 1],
        manifest={"space": stored.manifest["space"]},
    )
    report = score(store.index, ref, ALL_SCORES, THREADS)
    with pytest.raises(ValueError, match="Set label_field"):
        compare_methods(report.ref, ks=[5])
