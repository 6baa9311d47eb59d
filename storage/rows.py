"""The columns of the store's Parquet tables, and how such a table is written and read.

Parquet files carry page checksums and no times: equal tables give equal bytes.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import CorruptionError

ROW_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("prompt_chars", pa.int32(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_line", pa.int64(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
    ]
)
"""A canonical row. ``prompt_chars``: leading characters of ``text`` that are the prompt;
``source_line``: line of the file or number of the record, from 1."""

REJECTED_SCHEMA = pa.schema(
    [
        pa.field("location", pa.string(), nullable=False),
        pa.field("row_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.string()),
    ]
)
"""A record that did not become a row. ``location``: ``path:line``; ``raw``: its beginning."""

ROW_GROUP_ROWS = 1024
"""Rows a Parquet row group: the least that is read to show one row."""


def conform(table: pa.Table, schema: pa.Schema, *, what: str) -> pa.Table:
    """Return ``table`` in exactly the types of ``schema``; widths of one kind are converted.

    Raises:
        ValueError: Columns differ, a type is of another kind, a value does not fit, or a
            required value is null.
    """
    if table.schema.names != schema.names:
        raise ValueError(
            f"{what}: expected the columns {schema.names}, got {table.schema.names}. "
            "Build the table with the schema from storage.rows."
        )
    wrong = [
        f"{field.name}: expected {field.type}, got {table.schema.field(field.name).type}"
        for field in schema
        if not _same_kind(field.type, table.schema.field(field.name).type)
    ]
    wrong += [
        f"{field.name}: {table.column(field.name).null_count} values are null, none may be"
        for field in schema
        if not field.nullable and table.column(field.name).null_count
    ]
    if wrong:
        raise ValueError(f"{what}: {'; '.join(wrong)}. Build the table with the right schema.")
    try:
        columns = [table.column(field.name).cast(field.type) for field in schema]
    except pa.ArrowInvalid as error:
        raise ValueError(f"{what}: a value does not fit its column: {error}") from error
    return pa.Table.from_arrays(columns, schema=schema)


def write_table(
    path: Path,
    table: pa.Table,
    *,
    row_group_rows: int = ROW_GROUP_ROWS,
    without_statistics: Sequence[str] = (),
) -> None:
    """Write a Parquet file: zstd, page checksums, small row groups. Not atomic: stage it.

    Args:
        path: Where; its folder is made.
        table: What.
        row_group_rows: Rows a row group.
        without_statistics: Columns whose least and greatest values help nobody, such as texts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in table.schema.names if name not in without_statistics]
    pq.write_table(
        table,
        path,
        compression="zstd",
        row_group_size=row_group_rows,
        write_statistics=names if without_statistics else True,
        write_page_checksum=True,
        store_schema=True,
    )


def read_table(path: Path, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a whole Parquet file, or some columns of it.

    Raises:
        CorruptionError: It is missing or damaged.
    """
    with opened(path) as file:
        return file.read(columns=None if columns is None else list(columns))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield a ``pyarrow.parquet.ParquetFile`` that checks what it reads."""
    remedy = "Restore the file from a copy, or delete the artifact and make it again."
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError as error:
        raise CorruptionError(f"{path} is missing. {remedy}") from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptionError(f"{path} is damaged ({error}). {remedy}") from error


def find_values(path: Path, column: str, wanted: Sequence[str]) -> dict[str, int]:
    """Return the last position of each wanted value in one column, reading only that column.

    Row groups whose statistics rule the values out are not read at all.
    """
    values, in_order = pa.array(wanted, pa.string()), sorted(wanted)
    found: dict[str, int] = {}
    start = 0
    with opened(path) as file:
        place = file.schema_arrow.get_field_index(column)
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            if _ruled_out(about.column(place).statistics, in_order):
                start += about.num_rows
                continue
            chunk = file.read_row_group(group, columns=[column]).column(0)
            for position in _true_positions(pc.is_in(chunk, values)):
                found[chunk[position].as_py()] = start + position
            start += len(chunk)
    return found


def _ruled_out(statistics: Any, in_order: Sequence[str]) -> bool:
    """Tell whether no wanted value (ascending) lies between least and greatest of a row group."""
    if statistics is None or not statistics.has_min_max:
        return False
    first = bisect_left(in_order, statistics.min)
    return first == len(in_order) or in_order[first] > statistics.max


def find_equal(path: Path, wanted: Mapping[str, object]) -> list[int]:
    """Return the positions of rows whose columns all equal the wanted values."""
    found: list[int] = []
    start = 0
    with opened(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=list(wanted))
            masks = [pc.equal(table.column(name), value) for name, value in wanted.items()]
            found += [start + place for place in _true_positions(reduce(pc.and_, masks))]
            start += table.num_rows
    return found


def read_positions(
    path: Path, positions: Sequence[int], *, columns: Sequence[str] | None = None
) -> pa.Table:
    """Return the rows at ``positions`` (ascending), reading only the row groups they are in."""
    names = None if columns is None else list(columns)
    parts, start = [], 0
    with opened(path) as file:
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            local = positions[bisect_left(positions, start) : bisect_left(positions, stop)]
            if local:
                table = file.read_row_group(group, columns=names)
                parts.append(table.take([place - start for place in local]))
            start = stop
        empty = file.schema_arrow.empty_table()
        return pa.concat_tables(parts) if parts else empty.select(names or empty.schema.names)


def _true_positions(mask: pa.ChunkedArray) -> list[int]:
    positions: list[int] = pc.indices_nonzero(mask).to_pylist()
    return positions


def _same_kind(expected: pa.DataType, found: pa.DataType) -> bool:
    if expected.equals(found):
        return True
    kinds = (
        lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
        pa.types.is_integer,
        pa.types.is_floating,
    )
    return any(kind(expected) and kind(found) for kind in kinds)
