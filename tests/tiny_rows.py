"""Small corpora of real words for the stages that read text."""

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from storage.corpus import BatchWriter
from storage.refs import BatchRef, CorpusRef
from storage.rows import ROW_SCHEMA

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "Paris",
    "is",
]


def tiny_texts(n_rows: int) -> list[str]:
    """Texts of 1 to 90 words; each differs from every other."""
    return [
        f"row {number}: "
        + " ".join(WORDS[(number + i * i) % len(WORDS)] for i in range(number * 7 % 90))
        for number in range(n_rows)
    ]


def write_texts(
    ref: CorpusRef, batch_id: str, texts: Sequence[str], *, prompt_chars: int = 4, first: int = 0
) -> BatchRef:
    """Commit a batch of rows named ``r0``, ``r1``, ... counted from ``first``."""
    rows = [
        {
            "row_id": f"r{first + number}",
            "text": text,
            "prompt_chars": min(prompt_chars, len(text)),
            "label": None,
            "source": "texts.jsonl",
            "source_line": first + number + 1,
            "content_hash": hashlib.sha256(text.encode()).hexdigest(),
            "n_tokens": max(1, len(text) // 3),
        }
        for number, text in enumerate(texts)
    ]
    with BatchWriter(ref, batch_id) as writer:
        writer.add(pa.Table.from_pylist(rows, schema=ROW_SCHEMA))
        return writer.commit({})
