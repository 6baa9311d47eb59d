"""Tables as records: Parquet by batches, CSV by lines.

Every value of a CSV file is a string, because guessing types turns the id ``007`` into 7. The
line of a Parquet record is its number in the file; that of a CSV record is the line it starts on.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.inputs import InputFile, is_unreadable
from tasks.config import RowLimits
from tasks.records import RAW_CHARS, Advance, Record
from tasks.text_files import Line, not_utf8, read_lines, too_long

BATCH_RECORDS = 1024
"""Parquet rows that are decoded at a time."""


def read_parquet(
    path: InputFile, *, source: str, limits: RowLimits, advance: Advance
) -> Iterator[Record]:
    """Yield the records of a Parquet file; ``limits`` play no part, lines have no bytes here.

    Raises:
        ValueError: The file is damaged or no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path if isinstance(path, Path) else path.open("rb")) as file:
            bytes_a_row = path.stat().st_size / max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=BATCH_RECORDS):
                yield from _table_records(batch, source, number)
                number += batch.num_rows
                advance(round(batch.num_rows * bytes_a_row))
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and is_unreadable(error):
            raise
        raise ValueError(
            f"{source}: expected a whole Parquet file; reading failed after record {number} "
            f"({error}). Write or fetch the file again."
        ) from error


def _table_records(batch: Any, name: str, before: int) -> Iterator[Record]:
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        rows = [None] * batch.num_rows
    for offset, row in enumerate(rows):
        if row is not None:
            yield Record(name, before + offset + 1, row)
            continue
        try:
            value = batch.slice(offset, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            reason = not_utf8(error.object, start=error.start, offset=0)
            raw = error.object[:RAW_CHARS].decode(errors="replace")
            yield Record(name, before + offset + 1, None, reason, raw)
        else:
            yield Record(name, before + offset + 1, value)


def read_csv(
    path: InputFile, *, source: str, limits: RowLimits, advance: Advance
) -> Iterator[Record]:
    """Yield the rows of a CSV file with a header; every value is a string.

    Raises:
        ValueError: The header names a column twice.
    """
    # the csv module has one limit a process; it is only ever raised
    csv.field_size_limit(max(csv.field_size_limit(), limits.max_line_bytes))
    lines = read_lines(path, max_line_bytes=limits.max_line_bytes, advance=advance)
    feed = _CsvLines(lines, source, limits.max_line_bytes)
    header: list[str] | None = None
    for row in _csv_rows(feed):
        if isinstance(row, Record):
            yield row
        elif header is None:
            header = _header(row, source)
        else:
            yield _csv_record(row, header, source, feed.start)


def _csv_rows(feed: "_CsvLines") -> Iterator[list[str] | Record]:
    """Yield the rows that are not blank, and a record for each line that is no row."""
    reader = csv.reader(feed, strict=True)
    while True:
        feed.start = 0
        malformed: Record | None = None
        row: list[str] | None = []
        try:
            row = next(reader, None)
        except csv.Error as error:
            malformed = Record(
                feed.source, feed.start, None, f"malformed CSV: {error}", feed.last[:RAW_CHARS]
            )
        yield from feed.take_broken()
        if malformed is not None:
            yield malformed
        if row is None:
            return
        if row:
            yield row


def _header(row: list[str], name: str) -> list[str]:
    if len(set(row)) != len(row):
        raise ValueError(f"{name}:1: expected column names, each once; got {row}. Rename them.")
    return row


def _csv_record(row: list[str], header: list[str], name: str, line: int) -> Record:
    if len(row) == len(header):
        return Record(name, line, dict(zip(header, row, strict=True)))
    reason = f"malformed CSV: expected {len(header)} values ({', '.join(header)}), got {len(row)}"
    return Record(name, line, None, reason, ",".join(row)[:RAW_CHARS])


class _CsvLines:
    """Feeds text to the csv reader, line by line, and puts aside the lines that are not text."""

    def __init__(self, lines: Iterator[Line], source: str, max_bytes: int) -> None:
        self.source = source
        self.start = 0  # the line that the present row starts on; 0 before its first line
        self.last = ""
        self._lines, self._max_bytes = lines, max_bytes
        self._broken: list[Record] = []

    def take_broken(self) -> list[Record]:
        """Return the lines that were put aside since the last call."""
        broken, self._broken = self._broken, []
        return broken

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        for line in self._lines:
            if line.n_bytes > self._max_bytes:
                self._broken.append(too_long(line, self.source, self._max_bytes))
                continue
            try:
                self.last = line.data.decode()
            except UnicodeDecodeError as error:
                reason = not_utf8(line.data, start=error.start, offset=line.offset)
                raw = line.data[:RAW_CHARS].decode(errors="replace")
                self._broken.append(Record(self.source, line.number, None, reason, raw))
                continue
            self.start = self.start or line.number
            return self.last + "\n"
        raise StopIteration
