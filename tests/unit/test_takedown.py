"""What is taken down is in no score, attribution or release from then on, and stays out."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from scored_store import make_scored_store
from source_samples import rows_config, write_jsonl
from store_samples import add_batch, add_release
from typer.testing import CliRunner

from flows.cli import app
from storage.corpus import Corpus
from storage.errors import NotFoundError
from storage.lineage import walk_back
from storage.refs import CorpusRef
from storage.scores import Scores
from storage.tombstones import Tombstones
from tasks.attribution import token_contributions
from tasks.catalog import list_store, verify_store
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.corpus import ingest_rows
from tasks.scoring import attribute, score
from tasks.takedown import (
    living_rows,
    masked_rows,
    read_ids,
    releases_holding,
    take_down,
    takedown_proof,
)

RUNTIME = RuntimeConfig(workers=1)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path):
    return make_scored_store(str(tmp_path / "store"))


def corpus_of(store) -> CorpusRef:
    return CorpusRef(store.root, "main")


def scored(store, top_k=10):
    return score(store.index, store.queries, ScoreConfig(top_k=top_k), RUNTIME)


def best_ids(store, n_best):
    return store.best(store.scores()[:, 0], n_best)


# ------------------------------------------------------------------------------------ by id


def test_by_id(store):
    report = take_down(corpus_of(store), row_ids=["row-000030"], reason="asked for", now=NOW)
    assert (report.n_rows, report.n_same_content, report.n_before) == (1, 0, 0)
    assert report.record.time == "2026-01-02T03:04:05Z"
    assert masked_rows(corpus_of(store), ["b1", "b2"]).tolist() == [30]
    assert masked_rows(corpus_of(store), ["b2"]).tolist() == [30 - 23]
    assert masked_rows(corpus_of(store), ["b1"]).tolist() == []


def test_equal_content_goes_with_it(tmp_path, row_tokenizer):
    ref = CorpusRef(str(tmp_path / "store"), "main")
    lines = [
        {"id": f"r{n}", "text": text} for n, text in enumerate(["same words", "x y", "same words"])
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", lines)
    ingest_rows(ref, rows_config(path, id_field="id"), row_tokenizer)
    report = take_down(ref, row_ids=["r2"], reason="asked for")
    assert (report.n_rows, report.n_same_content) == (2, 1)
    assert sorted(Tombstones(ref).rows.column("row_id").to_pylist()) == ["r0", "r2"]
    # a new id or a new file does not bring the content back, and it leaves nothing in quarantine
    again = [*lines, {"id": "r9", "text": "same words"}, {"id": "r10", "text": "fresh words"}]
    copy = write_jsonl(tmp_path / "copy.jsonl", again)
    ingested = ingest_rows(ref, rows_config(copy, id_field="id"), row_tokenizer)
    assert (ingested.n_rows, ingested.n_known, ingested.n_taken_down) == (1, 1, 3)
    assert ingested.n_rejected == 0
    assert "3 taken down" in ingested.summary
    assert Corpus(ref).row_ids().column("row_id").to_pylist() == ["r0", "r1", "r2", "r10"]
    nothing = write_jsonl(tmp_path / "nothing.jsonl", [{"id": "n", "text": "same words"}])
    assert ingest_rows(ref, rows_config(nothing, id_field="id"), row_tokenizer).batch is None


def test_by_source(tmp_path, row_tokenizer):
    ref = CorpusRef(str(tmp_path / "store"), "main")
    for name in ("good", "bad-1", "bad-2"):
        path = write_jsonl(
            tmp_path / f"{name}.jsonl", [{"text": f"{name} words"}, {"text": "both have"}]
        )
        ingest_rows(ref, rows_config(path), row_tokenizer)
    report = take_down(ref, sources=[f"{tmp_path}/bad-*"], reason="licence ended")
    assert report.n_rows == 4
    assert masked_rows(ref, [b.batch_id for b in Corpus.batches(ref)]).tolist() == [2, 3, 4, 5]
    # nothing from there comes in again, broken lines neither; equal content from elsewhere may
    later = tmp_path / "bad-3.jsonl"
    later.write_text('{"text": "new words"}\n{broken\n')
    assert ingest_rows(ref, rows_config(later), row_tokenizer).n_taken_down == 2
    other = write_jsonl(tmp_path / "other.jsonl", [{"text": "bad-1 words"}])
    assert ingest_rows(ref, rows_config(other), row_tokenizer).n_rows == 1


def test_again_changes_nothing(store):
    ref = corpus_of(store)
    first = take_down(ref, row_ids=["row-000001"], reason="asked for")
    again = take_down(ref, row_ids=["row-000001"], reason="asked for twice")
    assert (again.record, again.n_rows, again.n_before) == (None, 0, 1)
    assert Tombstones(ref).records == [first.record]
    wider = take_down(ref, sources=["data/*"], reason="all of it")
    assert wider.n_rows == 69
    assert take_down(ref, sources=["data/*"], reason="all of it").record is None


def test_ids_that_are_not_there(store):
    ref = corpus_of(store)
    with pytest.raises(NotFoundError, match=r"no row 'nope' \(1 of 2 ids are missing\)"):
        take_down(ref, row_ids=["row-000001", "nope"], reason="asked for")
    with pytest.raises(NotFoundError, match="nothing from 'web/\\*'"):
        take_down(ref, sources=["web/*"], reason="asked for")
    assert Tombstones(ref).records == []
    report = take_down(ref, row_ids=["row-000001", "nope"], reason="why", missing_ok=True)
    assert (report.n_rows, report.unknown) == (1, ("nope",))
    assert take_down(ref, row_ids=["nope"], reason="why", missing_ok=True).record is None


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 501, "nul\0"])
def test_reasons_are_one_line(store, reason):
    with pytest.raises(ValueError, match="expected a reason of one line"):
        take_down(corpus_of(store), row_ids=["row-000001"], reason=reason)


def test_what_is_named(store):
    with pytest.raises(ValueError, match="nothing to take down"):
        take_down(corpus_of(store), reason="why")
    with pytest.raises(ValueError, match="by ids or by sources"):
        take_down(corpus_of(store), reason="why", row_ids=["a"], sources=["b"])
    with pytest.raises(NotFoundError, match="no corpus 'none'"):
        take_down(CorpusRef(store.root, "none"), reason="why", row_ids=["a"])
    assert not (Path(store.root) / "corpora" / "none").exists()


# --------------------------------------------------------------------------- what follows from it


@pytest.mark.parametrize("scheduler", ["threads"])
def test_scores(store, scheduler):
    before = scored(store)
    gone = best_ids(store, 3)
    take_down(corpus_of(store), row_ids=gone, reason="asked for")
    after = scored(store)
    assert after.ref != before.ref
    rows = Scores.open(after.ref).top_rows()
    assert not set(gone) & set(rows.column("row_id").to_pylist())
    first = rows.filter(pc.equal(rows.column("query_id"), "row-001000"))
    assert first.column("row_id").to_pylist() == best_ids(store, 13)[3:]
    np.testing.assert_array_equal(
        Scores.open(after.ref).values().column("value").to_numpy(), store.values().astype("f4")
    )
    assert scored(store).already


def test_scores_keep_their_id_when_other_batches_are_touched(store):
    before = scored(store).ref
    add_batch(corpus_of(store), "b3", 70, 80)
    take_down(corpus_of(store), row_ids=["row-000075"], reason="asked for")
    assert scored(store).ref == before
    assert living_rows(corpus_of(store), ["b1", "b2"]).digest is None
    assert living_rows(corpus_of(store), ["b3"]).digest is not None


def test_attribution(store):
    gone = best_ids(store, 2)
    take_down(corpus_of(store), row_ids=gone, reason="asked for")
    (hits, *_) = attribute(store.index, store.query_signatures, top_k=5, runtime=RUNTIME)
    assert [hit.row_id for hit in hits] == best_ids(store, 7)[2:]
    with pytest.raises(ValueError, match=r"66 rows with positions \(70 in all, 2 of them taken"):
        attribute(store.index, store.query_signatures, top_k=67, runtime=RUNTIME)


def test_tokens_of_a_row_that_is_gone(store, monkeypatch):
    monkeypatch.setattr("tasks.attribution._require_positions_apart", lambda index: None)
    take_down(corpus_of(store), row_ids=["row-000001"], reason="asked for", now=NOW)
    with pytest.raises(NotFoundError, match=r"tombstone \(takedown, 2026.*asked for"):
        token_contributions(store.index, "row-000001", "", "answer", runtime=RUNTIME)


def test_proof(store):
    ref = corpus_of(store)
    assert takedown_proof(ref, ["b1", "b2"]) is None
    first = take_down(ref, row_ids=["row-000001", "row-000040"], reason="one", now=NOW)
    second = take_down(ref, sources=["data/*"], reason="two", now=NOW)
    proof = takedown_proof(ref, ["b1"])
    assert proof["n_rows"] == 23
    assert proof["records"] == [
        {
            "id": record.record_id,
            "kind": "takedown",
            "reason": reason,
            "time": "2026-01-02T03:04:05Z",
            "n_rows": n_rows,
        }
        for record, reason, n_rows in ((first.record, "one", 1), (second.record, "two", 22))
    ]
    ids = [f"row-{number:06d}" for number in range(23)]
    assert proof["row_ids_sha256"] == sorted(sha256(i.encode()).hexdigest() for i in ids)
    assert proof["digest"] == living_rows(ref, ["b1"]).digest
    assert "row-" not in json.dumps(proof)


def test_long_proofs_have_no_list(store, monkeypatch):
    monkeypatch.setattr("tasks.takedown.MOST_HASHES", 1)
    take_down(corpus_of(store), row_ids=["row-000001", "row-000002"], reason="why")
    assert "row_ids_sha256" not in takedown_proof(corpus_of(store), ["b1"])


def test_releases_that_still_have_the_rows(store):
    ref = corpus_of(store)
    add_release(store.root, "r1", n_rows=5)
    add_release(store.root, "r2", n_rows=2)
    assert releases_holding(ref) == []
    report = take_down(ref, row_ids=["row-000001", "row-000003"], reason="asked for")
    held = [(one.ref.release_id, one.n_rows, one.is_latest) for one in report.releases]
    assert held == [("r1", 2, False), ("r2", 1, True)]


def test_releases_are_found_where_latest_was_never_pointed(store):
    add_release(store.root, "r1", n_rows=5)
    (Path(store.root) / "releases" / "picked" / "latest").unlink()  # killed just before that step
    report = take_down(corpus_of(store), row_ids=["row-000001"], reason="asked for")
    assert [(one.ref.release_id, one.is_latest) for one in report.releases] == [("r1", False)]


def test_lineage_list_and_verify(store):
    take_down(corpus_of(store), row_ids=["row-000001"], reason="asked for", now=NOW)
    steps = [step for step in walk_back(store.root, "row-000001") if step.kind == "tombstone"]
    assert [step.detail["reason"] for step in steps] == ["asked for"]
    assert not [s for s in walk_back(store.root, "row-000002") if s.kind == "tombstone"]
    (line,) = [one for one in list_store(store.root) if one["kind"] == "tombstone"]
    assert (line["name"], line["detail"]) == ("main", "1 rows, reason asked for")
    (record,) = Tombstones(corpus_of(store)).records
    (record.folder / "rows.parquet").write_bytes(b"cut")
    assert [p for p in verify_store(store.root) if "tombstones" in p]


# --------------------------------------------------------------------------------- the command


def rise(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_command(store, tmp_path):
    add_release(store.root, "r1", n_rows=5)
    ids = tmp_path / "ids.txt"
    ids.write_text("row-000001\n\n row-000002 \n")
    code, said = rise(
        "takedown", "--ids-file", str(ids), "--reason", "asked for", "--store", store.root
    )
    assert code == 0
    assert "rows" in said
    assert "picked" in said
    assert "stay in the corpus" in said
    code, said = rise("takedown", "--list", "--json", "--store", store.root)
    listed = json.loads(said)
    assert [(one["n_rows"], one["reason"]) for one in listed["records"]] == [(2, "asked for")]
    assert [(one["ref"]["release_id"], one["n_rows"]) for one in listed["releases"]] == [("r1", 2)]
    assert "asked for" in rise("takedown", "--list", "--store", store.root)[1]
    code, said = rise("takedown", "--id", "nope", "--reason", "why", "--store", store.root)
    assert (code, "has no row 'nope'" in said) == (1, True)
    code, said = rise("lineage", "row-000001", "--store", store.root)
    assert "tombstone" in said


def test_ids_files(tmp_path):
    path = tmp_path / "ids"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert read_ids(path) == ["one", "two"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="expected UTF-8"):
        read_ids(path)
    path.write_bytes(b"\n\n")
    with pytest.raises(ValueError, match="found none"):
        read_ids(path)
