"""Ingestion keeps good rows, puts bad ones aside with reasons, and knows what it has."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_samples import rows_config, texts, write_jsonl

import tasks.candidates
from storage.corpus import Corpus
from storage.errors import BusyError
from storage.guards import corpus_guard
from storage.layout import corpus_folder
from storage.refs import CorpusRef
from storage.rows import REJECTED_SCHEMA, ROW_SCHEMA
from tasks.backbone import RowTokenizer
from tasks.candidates import content_hash, made_id
from tasks.config import ModelConfig, PromptCompletionFields, RowLimits, TextFields
from tasks.corpus import IngestRefused, IngestReport, canonical_rows, ingest, ingest_rows


@pytest.fixture
def ref(tmp_path: Path) -> CorpusRef:
    """A corpus that does not exist yet."""
    return CorpusRef(str(tmp_path / "store"), "main")


class _Seen:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.total, self.n_units = -1, 0

    def start(self, *, total: int, unit: str) -> None:
        assert unit == "bytes"
        self.total = total

    def advance(self, n_units: int) -> None:
        self.n_units += n_units


def _all_rows(ref: CorpusRef) -> list[dict[str, Any]]:
    return pa.concat_tables(Corpus(ref).iter_tables()).to_pylist()


def _rejected(report: IngestReport) -> dict[str, str]:
    table = pq.read_table(report.rejected_path)
    assert table.schema == REJECTED_SCHEMA
    return {row["location"].rpartition(":")[2]: row["reason"] for row in table.to_pylist()}


def test_rows_carry_their_place_and_stable_identity(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    rows = [{"prompt": "Say:", "completion": f"story {i}", "kind": i} for i in range(3)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    config = rows_config(path, fields=PromptCompletionFields(separator=" "), label_field="kind")
    report = ingest_rows(ref, config, row_tokenizer)
    found = _all_rows(ref)
    text = "Say: story 1"
    assert found[1] == {
        "row_id": made_id(str(path), content_hash(text, 5)),
        "text": text,
        "prompt_chars": 5,
        "label": "1",
        "source": str(path),
        "source_line": 2,
        "content_hash": content_hash(text, 5),
        "n_tokens": row_tokenizer.count([text])[0],
    }
    assert len(found[1]["row_id"]) == 32
    assert (report.n_rows, report.n_rejected, report.n_known) == (3, 0, 0)
    assert report.n_tokens == sum(row["n_tokens"] for row in found)
    assert Path(report.data_docs).is_file()
    assert (Path(report.data_docs).parent / "validation.json").is_file()


def test_the_manifest_tells_how_the_batch_came_to_be(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*texts(8), "{broken", {"body": 1}])
    config = rows_config(path, max_rejected_share=0.2)
    report = ingest_rows(ref, config, row_tokenizer)
    manifest = Corpus(ref).manifest(report.batch.batch_id)
    assert manifest["identity"]["tokenizer"] == row_tokenizer.fingerprint
    assert manifest["identity"]["rows"] == config.model_dump(mode="json")
    assert manifest["identity"]["source"][0]["path"] == str(path)
    assert manifest["reasons"] == {"malformed JSON": 1, "missing field": 1}
    assert (manifest["n_records"], manifest["n_rows"], manifest["n_rejected"]) == (10, 8, 2)


def test_the_same_batch_is_not_read_twice(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(20))
    first_seen, second_seen = _Seen(), _Seen()
    first = ingest_rows(ref, rows_config(path), row_tokenizer, progress=first_seen)
    again = ingest_rows(ref, rows_config(path), row_tokenizer, progress=second_seen)
    assert first_seen.total == first_seen.n_units == path.stat().st_size
    assert second_seen.total == -1
    assert (first.already, again.already) == (False, True)
    fields = ("batch", "n_rows", "n_tokens", "data_docs", "rejected_path")
    assert [getattr(again, name) for name in fields] == [getattr(first, name) for name in fields]
    assert len(Corpus.batches(ref)) == 1


def test_two_stores_get_the_same_rows_under_the_same_batch_id(
    tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(30))
    refs = [CorpusRef(str(tmp_path / name), "main") for name in ("one", "two")]
    reports = [ingest_rows(ref, rows_config(path), row_tokenizer) for ref in refs]
    assert reports[0].batch.batch_id == reports[1].batch.batch_id
    assert _all_rows(refs[0]) == _all_rows(refs[1])


def test_small_parts_change_nothing(
    tmp_path: Path, row_tokenizer: RowTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*texts(12), "{broken", *texts(3), *texts(6, start=12)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    config = rows_config(path, max_rejected_share=0.5)
    refs = [CorpusRef(str(tmp_path / name), "main") for name in ("one", "two")]
    whole = ingest_rows(refs[0], config, row_tokenizer)
    monkeypatch.setattr(tasks.candidates, "PART_ROWS", 8)
    parts = ingest_rows(refs[1], config, row_tokenizer)
    assert _all_rows(refs[0]) == _all_rows(refs[1])
    assert _rejected(whole) == _rejected(parts)
    assert len(_rejected(whole)) == 4
    folder = Path(parts.rejected_path).parent
    assert len(list(folder.glob("rows-*.parquet"))) == 3
    assert len(list(folder.glob("quality/validations/rows/*"))) == 3


def test_parts_are_bounded_in_characters_too(
    tmp_path: Path, row_tokenizer: RowTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(4))
    monkeypatch.setattr(tasks.candidates, "PART_CHARS", 60)
    report = ingest_rows(CorpusRef(str(tmp_path / "s"), "m"), rows_config(path), row_tokenizer)
    assert len(list(Path(report.rejected_path).parent.glob("rows-*.parquet"))) == 2


def test_rows_that_the_corpus_has_are_counted_and_left_out(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(10))
    ingest_rows(ref, rows_config(path), row_tokenizer)
    write_jsonl(path, [*texts(10), *texts(4, start=10)])
    report = ingest_rows(ref, rows_config(path), row_tokenizer)
    assert (report.n_rows, report.n_known, report.n_rejected) == (4, 10, 0)
    assert [row["source_line"] for row in _all_rows(ref)] == list(range(1, 15))


def test_a_batch_with_nothing_new_is_not_committed(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(10))
    ingest_rows(ref, rows_config(path), row_tokenizer)
    write_jsonl(path, texts(7))
    report = ingest_rows(ref, rows_config(path), row_tokenizer)
    assert report.batch is None
    assert (report.n_rows, report.n_known) == (0, 7)
    assert report.summary.startswith("Nothing new: the corpus has all 7 good rows already")
    assert len(Corpus.batches(ref)) == 1


def test_rejects_of_a_batch_with_nothing_new_are_kept(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(10))
    ingest_rows(ref, rows_config(path), row_tokenizer)
    write_jsonl(path, [*texts(10), "{broken"])
    report = ingest_rows(ref, rows_config(path, max_rejected_share=0.5), row_tokenizer)
    assert report.batch is None
    assert list(_rejected(report)) == ["11"]
    assert len(Corpus.batches(ref)) == 1


def test_the_first_of_a_duplicate_group_is_kept(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    rows = [
        {"id": 1, "text": "first story"},
        {"id": "1", "text": "first story"},
        {"id": 1, "text": "another story"},
        {"id": 2, "text": "first story"},
        {"text": "no id"},
        {"id": 1.5, "text": "odd id"},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    config = rows_config(path, id_field="id", max_rejected_share=0.9)
    report = ingest_rows(ref, config, row_tokenizer)
    assert [row["row_id"] for row in _all_rows(ref)] == ["1", "2"]
    assert _rejected(report) == {
        "2": f"duplicate id: same id and content as {path}:1",
        "3": f"id conflict: id already used at {path}:1 with other content",
        "5": "missing field: expected 'id', the record has 'text'",
        "6": "wrong type: id 'id' must be a string or a whole number, it is a number",
    }
    rejected = pq.read_table(report.rejected_path).to_pylist()
    assert rejected[1]["row_id"] == "1"
    assert rejected[1]["raw"] == "another story"
    assert rejected[2]["raw"] == '{"text":"no id"}'


def test_an_id_of_an_earlier_batch_with_other_content_is_rejected(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    first = write_jsonl(tmp_path / "a.jsonl", [{"id": i, "text": f"story {i}"} for i in range(9)])
    ingest_rows(ref, rows_config(first, id_field="id"), row_tokenizer)
    changed = [{"id": 3, "text": "changed"}, {"id": 4, "text": "story 4"}, {"id": 9, "text": "new"}]
    second = write_jsonl(tmp_path / "b.jsonl", changed)
    config = rows_config(second, id_field="id", max_rejected_share=0.5)
    report = ingest_rows(ref, config, row_tokenizer)
    assert (report.n_rows, report.n_known, report.n_rejected) == (1, 1, 1)
    assert _rejected(report) == {
        "1": f"id conflict: the corpus has this id from {first}:4 with other content"
    }


def test_rows_outside_the_limits_are_rejected_with_their_numbers(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    rows = [*texts(6), {"text": "x" * 500}, {"text": "a"}, {"text": "some words " * 8}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    limits = RowLimits(max_chars=100, max_tokens=40, max_rejected_share=0.5)
    report = ingest_rows(ref, rows_config(path, limits=limits), row_tokenizer)
    n_tokens = row_tokenizer.count(["some words " * 8])[0]
    assert _rejected(report) == {
        "7": "text length: 500 characters, expected 1 to 100 (limits.min_chars, limits.max_chars)",
        "8": "token count: 1 tokens, expected 2 to 40 (limits.min_tokens, limits.max_tokens)",
        "9": f"token count: {n_tokens} tokens, expected 2 to 40 "
        "(limits.min_tokens, limits.max_tokens)",
    }


def test_the_mapping_is_chosen_by_the_first_record_that_fits(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    rows = [{"odd": 1}, *texts(9), {"prompt": "a", "completion": "b"}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    report = ingest_rows(ref, rows_config(path, max_rejected_share=0.5), row_tokenizer)
    assert list(_rejected(report)) == ["1", "11"]
    assert "expected 'text', the record has 'prompt', 'completion'" in _rejected(report)["11"]


def test_a_refused_batch_leaves_the_corpus_as_it_was(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    good = write_jsonl(tmp_path / "good.jsonl", texts(10))
    ingest_rows(ref, rows_config(good), row_tokenizer)
    before = _all_rows(ref)
    bad = write_jsonl(tmp_path / "bad.jsonl", [*texts(9), "{", "[]", {"body": 1}, {"body": 2}])
    with pytest.raises(IngestRefused) as raised:
        ingest_rows(ref, rows_config(bad), row_tokenizer)
    message = str(raised.value)
    assert "4 of 13 records were rejected (30.77%), at most 5.00% are allowed" in message
    assert "missing field (2)" in message
    assert "limits.max_rejected_share" in message
    assert _all_rows(ref) == before
    assert len(Corpus.batches(ref)) == 1
    assert raised.value.rejected_path in message
    assert pq.read_table(raised.value.rejected_path).num_rows == 4
    assert Path(raised.value.data_docs).is_file()


def test_the_same_source_passes_with_a_higher_limit_after_a_refusal(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*texts(9), "{"])
    with pytest.raises(IngestRefused):
        ingest_rows(ref, rows_config(path), row_tokenizer)
    report = ingest_rows(ref, rows_config(path, max_rejected_share=0.1), row_tokenizer)
    assert report.n_rows == 9


def test_a_batch_without_a_good_row_is_refused_whatever_the_limit(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["{", "["])
    with pytest.raises(IngestRefused, match="so no row is left"):
        ingest_rows(ref, rows_config(path, max_rejected_share=1.0), row_tokenizer)
    assert Corpus.batches(ref) == []


def test_a_failing_source_leaves_no_batch(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    good = write_jsonl(tmp_path / "a.jsonl", texts(10))
    broken = tmp_path / "b.jsonl.gz"
    broken.write_bytes(b"not gzip at all")
    with pytest.raises(ValueError, match="damaged or cut off"):
        ingest_rows(ref, rows_config(good, broken), row_tokenizer)
    assert Corpus.batches(ref) == []
    assert [path.name for path in corpus_folder(ref).rglob("*") if path.is_file()] == []


def test_two_ingestions_at_once_do_not_mix(
    ref: CorpusRef, tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(3))
    with (
        corpus_guard(ref).hold(),
        pytest.raises(BusyError, match="corpus 'main' is being written"),
    ):
        ingest_rows(ref, rows_config(path), row_tokenizer)


def test_ingest_takes_the_tokenizer_of_the_model(
    ref: CorpusRef, tmp_path: Path, tiny_llama: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(3))
    report = ingest(ref, rows_config(path), ModelConfig(name=str(tiny_llama)))
    assert report.n_tokens == sum(row_tokenizer.count([row["text"] for row in texts(3)]))


def test_query_rows_are_read_like_training_rows(
    tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    rows = [{"prompt": "", "text": "plain"}, {"prompt": "Q: a\n", "text": "Q: a\nb"}]
    path = write_jsonl(tmp_path / "queries.jsonl", rows)
    table = canonical_rows(rows_config(path, fields=TextFields(prompt="prompt")), row_tokenizer)
    assert table.schema == ROW_SCHEMA
    assert table.column("text").to_pylist() == ["plain", "Q: a\nb"]
    assert table.column("prompt_chars").to_pylist() == [0, 5]


def test_one_bad_query_is_an_error_that_lists_it(
    tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    path = write_jsonl(tmp_path / "queries.jsonl", [*texts(3), *["{"] * 30, *texts(1)])
    with pytest.raises(ValueError, match="31 of 34 records of the query set") as raised:
        canonical_rows(rows_config(path, max_rejected_share=1.0), row_tokenizer)
    lines = str(raised.value).splitlines()
    assert lines[1].startswith(f"  {path}:4: malformed JSON")
    assert lines[-2:] == ["  and 11 more", "Mend or remove these records."]
    assert len(lines) == 1 + 20 + 2


def test_the_same_text_with_another_prompt_is_other_content() -> None:
    assert content_hash("one story", 0) != content_hash("one story", 3)
    assert content_hash("one story", 0) != content_hash("two stories", 0)
    assert made_id("a.jsonl", "0f") != made_id("b.jsonl", "0f")
