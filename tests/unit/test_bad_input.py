"""Every bad input ends in a message that says what was expected, what came, where, what to do.

Each case writes the broken thing, does what a user would do with it, and reads the message.
"""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from source_samples import read, rows_config, texts, write_jsonl

from storage.refs import CorpusRef
from tasks.backbone import RowTokenizer
from tasks.config import ChatFields, InstructionFields, RowsConfig, ScoreConfig, TextFields
from tasks.corpus import IngestRefused, canonical_rows, ingest_rows
from tasks.signature_config import ResidualConfig

GOOD = {"text": "a row as it should be"}

BAD_ROWS: dict[str, tuple[Any, Any, list[str]]] = {
    "malformed JSON": ({}, b'{"text": "no end', ["malformed JSON", "expected one object a line"]),
    "a list": ({}, b'["text"]', ["expected {...} with named fields", "got a list"]),
    "a bare number": ({}, b"17", ["expected {...}", "got a number"]),
    "NaN": ({}, b'{"text": NaN}', ["malformed JSON"]),
    "wrong type": ({}, {"text": ["a"]}, ["'text' must be a string", "it is a list"]),
    "missing field": ({}, {"body": "x"}, ["expected 'text'", "the record has 'body'"]),
    "empty text": ({}, {"text": "  "}, ["'text' holds nothing but white space"]),
    "not UTF-8": ({}, b'{"text": "caf\xe9"}', ["byte 0xe9 at byte 13", "save the file as UTF-8"]),
    "NUL": ({}, b'{"text": "a\\u0000b"}', ["NUL character at character 1"]),
    "half a surrogate pair": ({}, b'{"text": "\\ud800"}', ["malformed JSON", "surrogate"]),
    "duplicate id": (
        {"id_field": "id"},
        {"id": "x", "text": GOOD["text"]},
        ["duplicate id", "same id and content as", ":1"],
    ),
    "id used twice": (
        {"id_field": "id"},
        {"id": "x", "text": "another"},
        ["id conflict", ":1 with other content"],
    ),
    "prompt longer than the text": (
        {"fields": TextFields(prompt="prompt")},
        {"text": "short", "prompt": "longer than that"},
        ["'prompt' has 16 characters", "only 5"],
    ),
    "prompt elsewhere": (
        {"fields": TextFields(prompt="prompt")},
        {"text": "a prompt here", "prompt": "prompt"},
        ["must be the beginning of 'text'", "they differ at character 0"],
    ),
    "instruction without output": (
        {"fields": InstructionFields()},
        {"instruction": "do"},
        ["expected 'output'", "the record has 'instruction'"],
    ),
    "chat without an answer": (
        {"fields": ChatFields()},
        {"messages": [{"role": "user", "content": "hi"}]},
        ["must have the role 'assistant'", "it has 'user'"],
    ),
    "label of a wrong type": (
        {"label_field": "label"},
        {"text": "b", "label": [1]},
        ["label 'label' must be a string or a whole number, it is a list"],
    ),
    "one token": ({}, {"text": "a"}, ["1 tokens, expected 2 to", "limits.min_tokens"]),
}


def _first_line(settings: dict[str, Any]) -> dict[str, Any]:
    """A good row for the mapping of a case."""
    if isinstance(settings.get("fields"), InstructionFields):
        return {"instruction": "a", "output": "b"}
    if isinstance(settings.get("fields"), ChatFields):
        turns = [("user", "hi"), ("assistant", "hello")]
        return {"messages": [{"role": role, "content": content} for role, content in turns]}
    return {**GOOD, "id": "x", "prompt": ""}


@pytest.mark.parametrize(("settings", "bad", "said"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_query_row_is_refused_with_its_place(
    tmp_path: Path, row_tokenizer: RowTokenizer, settings: dict[str, Any], bad: Any, said: list[str]
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [_first_line(settings), bad])
    with pytest.raises(ValueError, match="1 of 2 records of the query set are not") as raised:
        canonical_rows(rows_config(path, **settings), row_tokenizer)
    message = str(raised.value)
    assert f"{path}:2: " in message
    assert [part for part in said if part not in message] == []
    assert message.endswith("Mend or remove these records.")


def test_the_bad_rows_of_a_corpus_are_all_in_quarantine(
    tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    bad = [row for settings, row, _ in BAD_ROWS.values() if not settings]
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, *bad])
    with pytest.raises(IngestRefused) as raised:
        ingest_rows(CorpusRef(str(tmp_path / "store"), "main"), rows_config(path), row_tokenizer)
    message = str(raised.value)
    assert f"{len(bad)} of {len(bad) + 1} records were rejected" in message
    assert "Mend the source or its field mapping (rows.fields), or raise the limit." in message
    rejected = pq.read_table(raised.value.rejected_path).to_pylist()
    assert [row["location"] for row in rejected] == [f"{path}:{i + 2}" for i in range(len(bad))]
    assert all(row["reason"] and row["raw"] for row in rejected)


FIFTY_MEGABYTES = """
    import resource, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from source_samples import read
    from tasks.config import RowLimits

    path, limits = Path({path!r}), RowLimits(max_line_bytes=1_048_576)
    read(Path({small!r}), limits=limits)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    records = read(path, limits=limits)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(after - before, len(records), records[0].error, records[1].value)
"""


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_a_line_of_fifty_megabytes_is_skipped_in_little_memory(
    tmp_path: Path, ending: str, pack: Callable[[str, bytes], bytes]
) -> None:
    content = b'{"text": "' + b"x" * 50_000_000 + b'"}\n{"text": "next"}\n'
    path, small = tmp_path / f"long.{ending}", tmp_path / f"small.{ending}"
    path.write_bytes(pack(ending, content))
    small.write_bytes(pack(ending, b'{"text": "warm"}\n'))
    root = Path(__file__).parents[2]
    script = FIFTY_MEGABYTES.format(tests=str(root / "tests"), path=str(path), small=str(small))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    kilobytes, n_records, *rest = done.stdout.split(" ", 2)
    assert int(kilobytes) < 15_000
    assert n_records == "2"
    assert rest[0].startswith("line too long: 50,000,012 bytes, at most 1,048,576 are allowed")
    assert rest[0].rstrip().endswith("{'text': 'next'}")


@pytest.fixture
def pack() -> Callable[[str, bytes], bytes]:
    """Compress by ending."""
    import gzip

    import zstandard

    packers: dict[str, Callable[[bytes], bytes]] = {
        "jsonl": bytes,
        "jsonl.gz": gzip.compress,
        "jsonl.zst": zstandard.compress,
    }
    return lambda ending, content: packers[ending](content)


def test_an_empty_file_is_named(tmp_path: Path, row_tokenizer: RowTokenizer) -> None:
    path = tmp_path / "rows.jsonl"
    path.touch()
    ref = CorpusRef(str(tmp_path / "store"), "main")
    for call in (
        lambda: ingest_rows(ref, rows_config(path), row_tokenizer),
        lambda: canonical_rows(rows_config(path), row_tokenizer),
    ):
        with pytest.raises(ValueError, match=r"expected rows, but the file is empty") as raised:
            call()
        assert str(path) in str(raised.value)
        assert "Remove it from the source's paths" in str(raised.value)


def test_an_empty_query_set_is_an_error(tmp_path: Path, row_tokenizer: RowTokenizer) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text("\n\n")
    with pytest.raises(ValueError, match="expected at least one record, found none"):
        canonical_rows(rows_config(path), row_tokenizer)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it matches nothing .*Correct the path") as raised:
        read(tmp_path / "absent.jsonl")
    assert str(tmp_path / "absent.jsonl") in str(raised.value)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ValidationError, match=r"limits\.max_token\n.*not permitted"):
        RowsConfig.model_validate(
            {"source": {"kind": "files", "paths": ["a.jsonl"]}, "limits": {"max_token": 5}}
        )


@pytest.mark.parametrize("value", [True, "12", 12.0, None])
@pytest.mark.parametrize("config", [ScoreConfig, ResidualConfig])
def test_a_setting_of_another_type_is_refused_and_not_converted(config: Any, value: Any) -> None:
    with pytest.raises(ValidationError, match=r"top_k\n.*valid integer"):
        config.model_validate({"top_k": value})


def test_a_share_above_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        rows_config(write_jsonl(tmp_path / "a.jsonl", texts(1)), max_rejected_share=5.0)
