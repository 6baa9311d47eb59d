"""Each expectation of the row and batch suites can fail, and says why in the row's own numbers."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.config import RowLimits
from tasks.corpus_suite import batch_expectations, row_expectations
from tasks.quality import QualityRun, SuiteResult

GOOD: dict[str, Any] = {
    "row_id": "a",
    "text": "some text",
    "prompt_chars": 4,
    "source": "a.jsonl",
    "source_line": 7,
    "content_hash": "0f",
    "n_chars": 9,
    "n_tokens": 3,
    "problem": None,
    "repeats": None,
}
OBJECTS = ("row_id", "text", "source", "content_hash", "problem", "repeats")

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "not read": ({"problem": "malformed JSON: x"}, "malformed JSON: x"),
    "seen before": ({"repeats": "duplicate id: x"}, "duplicate id: x"),
    "no id": ({"row_id": None}, "missing value: row_id must not be null"),
    "no text": ({"text": None}, "missing value: text must not be null"),
    "no prompt length": ({"prompt_chars": None}, "missing value: prompt_chars must not be null"),
    "no source": ({"source": None}, "missing value: source must not be null"),
    "no hash": ({"content_hash": None}, "missing value: content_hash must not be null"),
    "text of bytes": ({"text": b"some text"}, "wrong type: text must be a string"),
    "id of a number": ({"row_id": 3}, "wrong type: row_id must be a string"),
    "NUL": ({"text": "a\0b"}, "not text: the text has a NUL character"),
    "prompt beyond the text": ({"prompt_chars": 10}, "prompt too long: 10 characters of 9"),
    "too short": (
        {"n_chars": 4},
        "text length: 4 characters, expected 5 to 20 (limits.min_chars, limits.max_chars)",
    ),
    "too long": (
        {"n_chars": 21},
        "text length: 21 characters, expected 5 to 20 (limits.min_chars, limits.max_chars)",
    ),
    "too few tokens": (
        {"n_tokens": 1},
        "token count: 1 tokens, expected 2 to 8 (limits.min_tokens, limits.max_tokens)",
    ),
    "too many tokens": (
        {"n_tokens": 9},
        "token count: 9 tokens, expected 2 to 8 (limits.min_tokens, limits.max_tokens)",
    ),
}


@pytest.fixture(scope="module")
def judged() -> SuiteResult:
    """The verdict on one good row and one row broken in each way."""
    rows = [GOOD, *({**GOOD, **change} for change, _ in BROKEN.values())]
    frame = pd.DataFrame(
        {
            name: np.array([row[name] for row in rows], dtype=object)
            if name in OBJECTS
            else pd.array([row[name] for row in rows], dtype="Int64")
            for name in GOOD
        }
    )
    frame["source_line"] = frame["source_line"].astype("int64")
    limits = RowLimits(min_chars=5, max_chars=20, min_tokens=2, max_tokens=8)
    return QualityRun().check(
        frame, suite="rows", expectations=row_expectations(limits), run_name="once"
    )


@pytest.mark.parametrize("case", BROKEN)
def test_each_fault_has_its_reason(judged: SuiteResult, case: str) -> None:
    assert judged.fatal == []
    label = 1 + list(BROKEN).index(case)
    assert judged.failing[label] == [BROKEN[case][1]]


def test_a_good_row_passes(judged: SuiteResult) -> None:
    assert 0 not in judged.failing
    assert len(judged.failing) == len(BROKEN)


@pytest.mark.parametrize(
    ("n_records", "n_rejected", "success"), [(100, 5, True), (100, 6, False), (0, 0, False)]
)
def test_a_batch_fails_when_empty_or_beyond_its_share(
    n_records: int, n_rejected: int, success: bool
) -> None:
    share = n_rejected / max(1, n_records)
    summary = {"n_records": n_records, "n_rejected": n_rejected, "rejected_share": share}
    result = QualityRun().check(
        pd.DataFrame([summary]),
        suite="batch",
        expectations=batch_expectations(RowLimits(max_rejected_share=0.05)),
        run_name="once",
    )
    assert result.success == success
