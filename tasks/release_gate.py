"""Whether a staged release may be published: checks on what its Parquet files really hold.

The files are read back from disk, so the gate judges the bytes that users will load and not the
tables that were meant to be written. Texts are measured file by file and not kept, which bounds
memory by the ids and numbers of the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import pandas as pd

SUITE = "release"
"""Name of the expectation suite in the Data Docs."""

MAX_REASONS = 10
"""Reasons spelled out in the error; the Data Docs would have all."""

_LARGEST_SCORE = float(np.finfo(np.float32).max)


class ReleaseRefused(ValueError):
    """The staged release failed its checks; nothing was published."""


@dataclass(frozen=True)
class Expected:
    """What the manifest is going to say, for the gate to hold the files against.

    Attributes:
        schema: Columns and types of every file.
        files: Name and rows of every file, in order.
        n_tokens: Sum of the rows' tokens.
    """

    schema: pa.Schema
    files: Sequence[tuple[str, int]]
    n_tokens: int

    @property
    def n_rows(self) -> int:
        """Rows of all files."""
        return sum(n_rows for _, n_rows in self.files)


def check_release(
    staging: Path, expected: Expected, *, corpus_row_ids: pa.ChunkedArray, run_name: str
) -> Path:
    """Check a staged release and write its Data Docs into ``quality/``.

    Args:
        staging: The folder about to be published; its files lie under ``data/``.
        expected: What the manifest is going to say.
        corpus_row_ids: Every row id that the scored index covers.
        run_name: Name of the run in the Data Docs.

    Returns:
        The first page of the Data Docs.

    Raises:
        ReleaseRefused: Something does not hold; the message lists what.
    """
    from tasks.quality import run_suite

    frame, reasons = read_back(staging, expected, corpus_row_ids)
    docs = staging / "quality"
    if not reasons:
        result = run_suite(
            frame,
            suite=SUITE,
            expectations=release_expectations(expected),
            docs=docs,
            run_name=run_name,
        )
        reasons = [*result.fatal, *_row_reasons(result.failing)]
        if not result.success and not reasons:
            reasons = ["an expectation failed without naming rows; see the suite's results"]
    if reasons:
        shown = "\n".join(f"  {reason}" for reason in reasons[:MAX_REASONS])
        more = len(reasons) - MAX_REASONS
        rest = f"\n  and {more} more" if more > 0 else ""
        raise ReleaseRefused(
            f"the release was not published, {len(reasons)} checks of its files failed:\n"
            f"{shown}{rest}\nRun `rise verify` on the store, then score and release again."
        )
    return docs / "index.html"


def read_back(
    staging: Path, expected: Expected, corpus_row_ids: pa.ChunkedArray
) -> tuple["pd.DataFrame", list[str]]:
    """Return one line a released row with what the expectations look at, and schema faults."""
    reasons, parts = [], []
    for name, _ in expected.files:
        table = pq.read_table(staging / name, page_checksum_verification=True)
        if not table.schema.equals(expected.schema):
            reasons.append(
                f"{name}: expected the columns {_spell(expected.schema)}, "
                f"found {_spell(table.schema)}"
            )
            continue
        parts.append(_measured(table, name))
    found = {path.relative_to(staging).as_posix() for path in (staging / "data").iterdir()}
    foreign = sorted(found - {name for name, _ in expected.files})
    if foreign:
        reasons.append(f"data/ holds files that the manifest does not list: {foreign}")
    if reasons:
        return pa.table({}).to_pandas(), reasons
    return _with_neighbours(pa.concat_tables(parts), expected, corpus_row_ids), []


def release_expectations(expected: Expected) -> list[Any]:
    """Return the Great Expectations of the frame that `read_back` makes."""
    import great_expectations.expectations as gxe

    required = ("row_id", "score", "rank", "lineage_id", "source", "source_line", "n_tokens")
    return [
        gxe.ExpectTableRowCountToEqual(value=expected.n_rows),
        *[gxe.ExpectColumnValuesToNotBeNull(column=column) for column in required],
        gxe.ExpectColumnValuesToBeUnique(column="row_id"),
        gxe.ExpectColumnValuesToBeInSet(column="in_corpus", value_set=[True]),
        gxe.ExpectColumnValuesToBeBetween(column="text_chars", min_value=1),
        gxe.ExpectColumnValuesToBeInSet(column="parts_make_text", value_set=[True]),
        gxe.ExpectColumnValuesToBeBetween(
            column="score", min_value=-_LARGEST_SCORE, max_value=_LARGEST_SCORE
        ),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="rank", column_B="place"),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="score_above", column_B="score", or_equal=True
        ),
        gxe.ExpectColumnValuesToBeBetween(column="n_tokens", min_value=1),
        gxe.ExpectColumnSumToBeBetween(
            column="n_tokens", min_value=expected.n_tokens, max_value=expected.n_tokens
        ),
        gxe.ExpectColumnPairValuesToBeEqual(column_A="file", column_B="planned_file"),
    ]


def _measured(table: pa.Table, name: str) -> pa.Table:
    joined = pc.binary_join_element_wise(table.column("prompt"), table.column("completion"), "")
    text = table.column("text")
    kept = table.select(["row_id", "score", "rank", "lineage_id", "source", "source_line"])
    return (
        kept.append_column("n_tokens", table.column("n_tokens"))
        .append_column("text_chars", pc.utf8_length(text))
        .append_column("parts_make_text", pc.equal(joined, text))
        .append_column("file", pa.array([name] * len(table), pa.string()))
    )


def _with_neighbours(
    table: pa.Table, expected: Expected, corpus_row_ids: pa.ChunkedArray
) -> "pd.DataFrame":
    known = pc.is_in(table.column("row_id"), value_set=corpus_row_ids.combine_chunks())
    frame = table.append_column("in_corpus", known).to_pandas()
    frame["place"] = np.arange(1, len(frame) + 1, dtype=np.int32)
    frame["score_above"] = frame["score"].shift(1).fillna(frame["score"])
    planned = np.repeat(
        [name for name, _ in expected.files], [n_rows for _, n_rows in expected.files]
    )
    # a file with rows too many or too few shifts every later row out of its planned file
    frame["planned_file"] = np.resize(planned, len(frame))
    return frame


def _row_reasons(failing: dict[int, list[str]]) -> list[str]:
    return [
        f"row {row + 1} of the release: {', '.join(reasons)}"
        for row, reasons in sorted(failing.items())
    ]


def _spell(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
