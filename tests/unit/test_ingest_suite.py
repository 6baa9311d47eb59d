"""An edited ingest suite warns, puts aside or refuses, and is a part of the batch's identity."""

from pathlib import Path
from typing import Any

import pytest
from source_samples import rows_config, write_jsonl
from suite_samples import add, edit

from storage.corpus import Corpus
from storage.refs import CorpusRef
from tasks.backbone import RowTokenizer
from tasks.corpus import IngestRefused, IngestReport, canonical_rows, ingest_rows
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.suite_files import write_suites

SHOUTING: dict[str, Any] = {
    "type": "expect_column_values_to_not_match_regex",
    "kwargs": {"column": "text", "regex": "!!!"},
    "description": "Nobody shouts.",
    "reason": "shouting: {n_chars} characters, too loud",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_suites(tmp_path / "quality")
    return tmp_path / "quality"


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    records = [{"text": f"a quiet sentence, number {n}"} for n in range(30)]
    records[4]["text"] = "HELP!!!"
    return rows_config(write_jsonl(tmp_path / "rows.jsonl", records))


def ingested(
    tmp_path: Path, rows: Any, tokenizer: RowTokenizer, quality: QualityConfig = SHIPPED
) -> IngestReport:
    return ingest_rows(CorpusRef(str(tmp_path / "store"), "main"), rows, tokenizer, quality=quality)


def test_a_warning_keeps_the_row(
    tmp_path: Path, folder: Path, rows: Any, row_tokenizer: RowTokenizer
) -> None:
    quality = add(folder, "ingest", "rows", **SHOUTING, severity="warn")
    report = ingested(tmp_path, rows, row_tokenizer, quality)
    assert (report.n_rows, report.n_rejected) == (30, 0)
    warning = "Nobody shouts: shouting: 7 characters, too loud (1 of 30 rows)"
    assert report.warnings == (warning,)
    again = ingested(tmp_path, rows, row_tokenizer, quality)
    assert again.already
    assert again.warnings == (warning,)


def test_quarantine_puts_the_row_aside(
    tmp_path: Path, folder: Path, rows: Any, row_tokenizer: RowTokenizer
) -> None:
    quality = add(folder, "ingest", "rows", **SHOUTING, severity="quarantine")
    report = ingested(tmp_path, rows, row_tokenizer, quality)
    assert (report.n_rows, report.n_rejected, report.warnings) == (29, 1, ())
    assert report.batch is not None
    corpus = Corpus(CorpusRef(str(tmp_path / "store"), "main"))
    rejected = corpus.rejected(report.batch.batch_id).to_pylist()
    assert [row["reason"] for row in rejected] == ["shouting: 7 characters, too loud"]


def test_one_row_that_refuses_the_batch_is_named(
    tmp_path: Path, folder: Path, rows: Any, row_tokenizer: RowTokenizer
) -> None:
    quality = add(folder, "ingest", "rows", **SHOUTING, severity="fail")
    with pytest.raises(IngestRefused) as caught:
        ingested(tmp_path, rows, row_tokenizer, quality)
    assert "rows.jsonl:5: shouting: 7 characters, too loud" in str(caught.value)
    assert Path(caught.value.data_docs).is_file()
    assert Corpus.batches(CorpusRef(str(tmp_path / "store"), "main")) == []


def test_a_batch_may_have_rules_of_its_own(
    tmp_path: Path, folder: Path, rows: Any, row_tokenizer: RowTokenizer
) -> None:
    quality = add(
        folder,
        "ingest",
        "batch",
        type="expect_column_values_to_be_between",
        kwargs={"column": "n_kept", "min_value": 100},
        severity="fail",
        reason="only {n_kept} rows, expected 100",
    )
    with pytest.raises(IngestRefused, match="only 30 rows, expected 100"):
        ingested(tmp_path, rows, row_tokenizer, quality)


def test_what_the_suite_says_is_a_part_of_the_identity_and_how_it_is_written_is_not(
    tmp_path: Path, folder: Path, rows: Any, row_tokenizer: RowTokenizer
) -> None:
    plain = ingested(tmp_path, rows, row_tokenizer)
    copy = edit(folder, "ingest", "# Gate", "# My own gate")
    assert ingested(tmp_path, rows, row_tokenizer, copy).already
    longer = ("column: n_chars", "column: n_chars\n        strict_min: true")
    other_words = ("token count:", "tokens:")
    reports = [plain]
    for number, (old, new) in enumerate((longer, other_words)):
        corpus = CorpusRef(str(tmp_path / f"other-{number}"), "main")
        quality = edit(folder, "ingest", old, new)
        reports.append(ingest_rows(corpus, rows, row_tokenizer, quality=quality))
    assert len({report.batch.batch_id for report in reports if report.batch}) == 3


def test_queries_are_read_by_the_shipped_suite(rows: Any, row_tokenizer: RowTokenizer) -> None:
    assert canonical_rows(rows, row_tokenizer).num_rows == 30
