"""Whether a staged release may be published: checks on what its Parquet files really hold.

The files are read back from disk, so the gate judges the bytes that users will load and not the
tables that were meant to be written. Texts are measured file by file and not kept, which bounds
memory by the ids and numbers of the rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.releases import RELEASE_SCHEMA
from storage.rows import read_table

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

SUITE = "release"
"""Name of the expectation suite in the Data Docs."""

MAX_REASONS = 10
"""Reasons spelled out in the error."""

_LARGEST_SCORE = float(np.finfo(np.float32).max)


class ReleaseRefused(ValueError):  # noqa: N818 -- says what happened, as IngestRefused does
    """The staged release failed its checks; nothing was published."""


@dataclass(frozen=True)
class StagedFile:
    """A staged Parquet file and the rows that the manifest is going to claim for it."""

    path: Path
    n_rows: int


@dataclass(frozen=True)
class StagedRelease:
    """A release about to be published.

    Attributes:
        name: Name of the release, for the Data Docs and messages.
        files: Its data files, in order.
        n_tokens: Tokens that the manifest is going to claim.
    """

    name: str
    files: Sequence[StagedFile]
    n_tokens: int

    @property
    def n_rows(self) -> int:
        """Rows that the manifest is going to claim."""
        return sum(file.n_rows for file in self.files)


def check_release(
    staged: StagedRelease, *, batches: Iterable[tuple[str, pa.ChunkedArray]], docs: Path
) -> None:
    """Check a staged release and write its Data Docs.

    Args:
        staged: What is about to be published.
        batches: Every batch that was scored: its id and its row ids in order.
        docs: Folder for the Data Docs.

    Raises:
        ReleaseRefused: Something does not hold; the message lists what.
        CorruptionError: A file cannot be read back.
    """
    from tasks.quality import run_suite

    measured, reasons = _read_back(staged.files)
    if not reasons:
        result = run_suite(
            _frame(measured, batches),
            suite=SUITE,
            expectations=release_expectations(staged),
            docs=docs,
            run_name=staged.name,
        )
        reasons = [*result.fatal, *_row_reasons(result.failing)]
        if not result.success and not reasons:
            reasons = [check.description for check in result.checks if not check.success]
    if reasons:
        raise ReleaseRefused(_refusal(staged.name, reasons))


def release_expectations(staged: StagedRelease) -> list["Expectation"]:
    """Return what the rows of a release must satisfy, on the frame that the gate makes."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectTableRowCountToEqual(
            value=staged.n_rows,
            description=f"There are {staged.n_rows} rows, as the manifest says.",
        ),
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="file_rows",
            column_B="planned_rows",
            description="Every file has as many rows as the manifest says.",
            meta={"reason": "its file has {file_rows} rows, the manifest says {planned_rows}"},
        ),
        gxe.ExpectColumnSumToBeBetween(
            column="n_tokens",
            min_value=staged.n_tokens,
            max_value=staged.n_tokens,
            description=f"The rows have {staged.n_tokens} tokens together.",
        ),
        *_identity_expectations(),
        *_order_expectations(),
        *_text_expectations(),
    ]


def _identity_expectations() -> list["Expectation"]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeUnique(
            column="row_id",
            description="No row is released twice.",
            meta={"reason": "{row_id!r} occurs more than once"},
        ),
        gxe.ExpectColumnValuesToNotBeNull(
            column="origin",
            description="Every row is in the corpus that was scored.",
            meta={"reason": "{row_id!r} is not in the corpus that was scored"},
        ),
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="lineage_id",
            column_B="origin",
            ignore_row_if="either_value_is_missing",
            description="The lineage id leads to the row's place in the corpus.",
            meta={"reason": "lineage {lineage_id}, but the corpus has the row at {origin}"},
        ),
    ]


def _order_expectations() -> list["Expectation"]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToNotBeNull(
            column="score",
            description="Every score is a number.",
            meta={"reason": "the score is not a number"},
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="score",
            min_value=-_LARGEST_SCORE,
            max_value=_LARGEST_SCORE,
            description="Every score is finite.",
            meta={"reason": "the score {score} is not finite"},
        ),
        gxe.ExpectColumnPairValuesToBeEqual(
            column_A="rank",
            column_B="place",
            description="Ranks are 1, 2, 3 and so on, in the order of the rows.",
            meta={"reason": "rank {rank} at place {place}"},
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="score_above",
            column_B="score",
            or_equal=True,
            ignore_row_if="either_value_is_missing",
            description="No score is higher than the one before.",
            meta={"reason": "score {score} below a row that scored {score_above}"},
        ),
    ]


def _text_expectations() -> list["Expectation"]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="text_chars",
            min_value=1,
            description="No text is empty.",
            meta={"reason": "the text is empty"},
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column="parts_make_text",
            value_set=[True],
            description="Prompt and completion together are the text.",
            meta={"reason": "prompt and completion do not make the text"},
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_tokens",
            min_value=1,
            description="Every row has tokens.",
            meta={"reason": "{n_tokens} tokens"},
        ),
    ]


def _read_back(files: Sequence[StagedFile]) -> tuple[list[pa.Table], list[str]]:
    """Return what the expectations look at, a table a file, and faults of the columns."""
    measured, faults = [], []
    for file in files:
        table = read_table(file.path)
        if table.schema.equals(RELEASE_SCHEMA):
            measured.append(_measured(table, file.n_rows))
        else:
            faults.append(
                f"{file.path.name}: expected the columns {_spell(RELEASE_SCHEMA)}, "
                f"found {_spell(table.schema)}"
            )
    return measured, faults


def _frame(
    measured: Sequence[pa.Table], batches: Iterable[tuple[str, pa.ChunkedArray]]
) -> "pd.DataFrame":
    """Return one frame with a line a row; index labels are places from 0."""
    table = pa.concat_tables(measured)
    origins = _origins(table.column("row_id"), batches)
    frame: pd.DataFrame = table.append_column("origin", origins).to_pandas()
    frame["place"] = np.arange(1, len(frame) + 1, dtype=np.int32)
    frame["score_above"] = frame["score"].shift(1)
    return frame


def _measured(table: pa.Table, planned_rows: int) -> pa.Table:
    joined = pc.binary_join_element_wise(table.column("prompt"), table.column("completion"), "")
    columns = {
        name: table.column(name) for name in ("row_id", "score", "rank", "lineage_id", "n_tokens")
    }
    return pa.table(
        {
            **columns,
            "text_chars": pc.utf8_length(table.column("text")),
            "parts_make_text": pc.equal(joined, table.column("text")),
            "file_rows": np.full(len(table), len(table)),
            "planned_rows": np.full(len(table), planned_rows),
        }
    )


def _origins(
    row_ids: pa.ChunkedArray, batches: Iterable[tuple[str, pa.ChunkedArray]]
) -> pa.ChunkedArray:
    """Return each row's ``<batch_id>:<position>`` by the corpus itself, null when not there."""
    origins = pa.chunked_array([pa.nulls(len(row_ids), pa.string())])
    for batch_id, batch_rows in batches:
        positions = pc.index_in(row_ids, value_set=batch_rows).cast(pa.string())
        here = pc.binary_join_element_wise(batch_id, positions, ":")
        origins = pc.coalesce(origins, here)
    return origins


def _row_reasons(failing: dict[int, list[str]]) -> list[str]:
    return [f"row {label + 1}: {', '.join(reasons)}" for label, reasons in sorted(failing.items())]


def _refusal(name: str, reasons: Sequence[str]) -> str:
    shown = "\n".join(f"  {reason}" for reason in reasons[:MAX_REASONS])
    more = len(reasons) - MAX_REASONS
    rest = f"\n  and {more} more" if more > 0 else ""
    return (
        f"release {name!r} was not published; reading its files back, {len(reasons)} faults were "
        f"found:\n{shown}{rest}\nRun `rise verify` on the store, then score and release again."
    )


def _spell(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
