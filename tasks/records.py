"""One record of a source: what a reader hands on, good or bad, with the place it came from.

Readers never stop at a bad line: they say what is wrong with it and go on, so that one broken
line costs one row and not the batch. Every reason starts with its kind and a colon
(``missing field: ...``), which is what reports count by.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

RAW_CHARS = 2000
"""Characters of a rejected record that are kept for the person who has to mend it."""

Advance = Callable[[int], None]
"""Told the bytes of a file that were read since the last call, as they lie on the disk."""


@dataclass(frozen=True)
class Record:
    """A line or table row, read or not.

    Attributes:
        source: The file or dataset, as the user named it.
        line: 1-based line of a text file, or record number of a table.
        value: The fields; None when the record could not be read.
        error: Why it could not be read, kind first; None for a good record.
        raw: Beginning of what stood there; only for records that could not be read.
    """

    source: str
    line: int
    value: dict[str, Any] | None
    error: str | None = None
    raw: str | None = None

    @property
    def location(self) -> str:
        """``path:line``, as editors understand it."""
        return f"{self.source}:{self.line}"


def excerpt(record: Record) -> str:
    """Return the beginning of what the record held, for the quarantine table."""
    if record.value is None:
        return (record.raw or "")[:RAW_CHARS]
    try:
        text = orjson.dumps(record.value, default=str).decode()
    except TypeError:  # lone surrogates, or keys that JSON does not have
        text = ascii(record.value)
    return text[:RAW_CHARS]


def reason_kind(reason: str) -> str:
    """Return the kind of a reason: what stands before its first colon."""
    return reason.partition(":")[0]
