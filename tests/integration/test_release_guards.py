"""Releases, and what must not be in them: the guards as a release uses them."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from scored_store import ScoredStore, make_scored_store

from storage.errors import MismatchError
from storage.refs import CorpusRef
from storage.release_pointer import latest
from storage.releases import all_releases, open_release
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.release import ReleaseReport, release
from tasks.release_config import LeakageConfig, ReleaseConfig, TopK
from tasks.release_export import export_dataset
from tasks.release_files import write_rows
from tasks.release_history import go_back
from tasks.scoring import score
from tasks.takedown import take_down

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> ScoredStore:
    return make_scored_store(str(tmp_path / "store"))


def released(store: ScoredStore, scores, **settings) -> ReleaseReport:
    return release(scores, "main", ReleaseConfig(select=TopK(top_k=10), **settings))


def ids_of(report: ReleaseReport) -> list[str]:
    return open_release(report.ref).rows().column("row_id").to_pylist()


def test_a_damaged_release_is_named_and_does_not_stop_a_takedown(store):
    scores = score(store.index, store.queries, ScoreConfig(), RuntimeConfig(workers=1)).ref
    first = released(store, scores)
    next(Path(first.path).glob("data/*.parquet")).write_bytes(b"no Parquet")
    taken = take_down(
        CorpusRef(store.root, "main"),
        row_ids=store.best(store.values(), 1),
        reason="asked",
        now=NOW,
    )
    assert [(held.ref, held.n_rows) for held in taken.releases] == [(first.ref, None)]


def test_the_next_release_is_without_the_rows_and_proves_it(store, tmp_path):
    scores = score(store.index, store.queries, ScoreConfig(), RuntimeConfig(workers=1)).ref
    first = released(store, scores)
    assert open_release(first.ref).manifest["lineage"]["taken_down"] is None
    gone = ids_of(first)[:3]
    taken = take_down(CorpusRef(store.root, "main"), row_ids=gone, reason="asked for", now=NOW)
    assert [(held.ref, held.n_rows, held.is_latest) for held in taken.releases] == [
        (first.ref, 3, True)
    ]
    with pytest.raises(ValueError, match=r"3 rows that were taken down .* nothing was exported"):
        export_dataset(first.ref, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    second = released(store, scores)  # by the scores from before
    assert second.ref != first.ref
    assert ids_of(second) == store.best(store.values(), 13)[3:]
    assert set(gone) & set(ids_of(first)) == set(gone)  # what is published stays as it was
    proof = open_release(second.ref).manifest["lineage"]["taken_down"]
    assert (proof["n_rows"], len(proof["row_ids_sha256"])) == (3, 3)
    assert [record["reason"] for record in proof["records"]] == ["asked for"]
    assert released(store, scores).already
    texts = [f"question {int(row_id[4:])} answer" for row_id in gone]
    for path in Path(second.path).rglob("*"):
        if path.suffix in (".md", ".json", ".html", ".jsonl"):
            content = path.read_text()
            assert not [text for text in texts if text in content], path
        elif path.suffix == ".parquet":
            columns = pq.read_table(path).to_pydict()
            assert not [text for text in texts if text in json.dumps(columns, default=str)], path


def test_latest_does_not_go_back_to_rows_that_were_taken_down(store):
    scores = score(store.index, store.queries, ScoreConfig(), RuntimeConfig(workers=1)).ref
    first = released(store, scores, prefer="lowest").ref
    second = released(store, scores).ref
    gone = store.best(store.values(), 1)
    take_down(CorpusRef(store.root, "main"), row_ids=gone, reason="asked for", now=NOW)
    third = released(store, scores).ref
    with pytest.raises(ValueError, match=f"{second.release_id} of 'main' has 1 rows that were"):
        go_back(store.root, "main")
    assert latest(store.root, "main") == third
    assert go_back(store.root, "main", to=first.release_id) == (third, first)


def test_a_takedown_while_a_release_is_made_stops_it(store, monkeypatch):
    scores = score(store.index, store.queries, ScoreConfig(), RuntimeConfig(workers=1)).ref
    gone = store.best(store.values(), 1)

    def taken_down_meanwhile(*args, **settings):
        take_down(CorpusRef(store.root, "main"), row_ids=gone, reason="asked for", now=NOW)
        return write_rows(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("tasks.release.write_rows", taken_down_meanwhile)
        with pytest.raises(MismatchError, match=r"taken down.*while release 'main' was made"):
            released(store, scores)
    assert all_releases(store.root) == []
    assert ids_of(released(store, scores)) == store.best(store.values(), 11)[1:]


def test_leaking_rows_are_removed_or_reported(store, tmp_path):
    scores = score(store.index, store.queries, ScoreConfig(), RuntimeConfig(workers=1)).ref
    best = store.best(store.values(), 11)
    exam = tmp_path / "exam.jsonl"
    leaked = int(best[4][4:])
    exam.write_text(json.dumps({"text": f"Question {leaked}: answer {leaked * leaked}!"}) + "\n")
    sets = {"exam": (str(exam),)}
    reported = released(store, scores, leakage=LeakageConfig(evaluation_sets=sets))
    assert ids_of(reported) == best[:10]
    removed = released(store, scores, leakage=LeakageConfig(action="remove", evaluation_sets=sets))
    assert ids_of(removed) == [row_id for row_id in best if row_id != best[4]]
    for report in (reported, removed):
        hits = pq.read_table(Path(report.path) / "leakage.parquet").to_pylist()
        assert [(hit["row_id"], hit["set"], hit["kind"]) for hit in hits] == [
            (best[4], "exam", "exact")
        ]
    dropped = pq.read_table(Path(removed.path) / "dropped.parquet").to_pylist()
    assert [(line["row_id"], line["reason"]) for line in dropped] == [(best[4], "leakage")]
    # the content of the set decides the release, not its path
    exam.write_text('{"text": "something else"}\n')
    again = released(store, scores, leakage=LeakageConfig(action="remove", evaluation_sets=sets))
    assert again.ref != removed.ref
    assert ids_of(again) == best[:10]
