"""Whether a staged release may be published: checks on what its Parquet files really hold.

The files are read back from disk, so the gate judges the bytes that users will load and not the
tables that were meant to be written. Texts are measured file by file and not kept, which bounds
memory by the ids and numbers of the rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.releases import RELEASE_SCHEMA
from storage.rows import read_table
from tasks.quality_gate import GateReport, listed, run_gate
from tasks.suite_files import GateSuite, shipped_suite

if TYPE_CHECKING:
    import pandas as pd

GATE = "release"

Order = Literal["falling", "rising", "free"]
"""How scores follow each other in a release: best first, worst first, or by other rules as well."""

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
        order: How its scores follow each other.
    """

    name: str
    files: Sequence[StagedFile]
    n_tokens: int
    order: Order = "falling"

    @property
    def n_rows(self) -> int:
        """Rows that the manifest is going to claim."""
        return sum(file.n_rows for file in self.files)


def check_release(
    staged: StagedRelease,
    *,
    batches: Iterable[tuple[str, pa.ChunkedArray]],
    docs: Path,
    suite: GateSuite | None = None,
) -> GateReport:
    """Check a staged release and write its Data Docs.

    Args:
        staged: What is about to be published.
        batches: Every batch that was scored: its id and its row ids in order.
        docs: Folder for the Data Docs.
        suite: What must hold, from `load_suite`; None: the shipped suite.

    Returns:
        The warnings, and where the Data Docs are.

    Raises:
        ReleaseRefused: Something does not hold; the message lists what.
        CorruptionError: A file cannot be read back.
        SuiteError: The suite cannot be used.
    """
    measured, faults = _read_back(staged.files)
    if faults:
        raise ReleaseRefused(_refusal(staged.name, faults))
    report = run_gate(
        suite or shipped_suite(GATE),
        {"rows": _frame(measured, batches, staged.order)},
        docs=docs,
        run_name=staged.name,
        values={
            "release.n_rows": staged.n_rows,
            "release.n_tokens": staged.n_tokens,
            "lowest_score": -_LARGEST_SCORE,
            "largest_score": _LARGEST_SCORE,
        },
        line_name=lambda label: f"row {label + 1}",
    )
    if not report.success:
        raise ReleaseRefused(_refusal(staged.name, report.reasons))
    return report


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
    measured: Sequence[pa.Table], batches: Iterable[tuple[str, pa.ChunkedArray]], order: Order
) -> "pd.DataFrame":
    """Return one frame with a line a row; index labels are places from 0."""
    table = pa.concat_tables(measured)
    origins = _origins(table.column("row_id"), batches)
    frame: pd.DataFrame = table.append_column("origin", origins).to_pandas()
    frame["place"] = np.arange(1, len(frame) + 1, dtype=np.int32)
    frame["score_above"] = frame["score"].shift(1)
    step = frame["score"] - frame["score_above"]
    wrong = {"falling": step > 0, "rising": step < 0, "free": step != step}[order]
    frame["in_order"] = ~wrong | step.isna()
    return frame


def _measured(table: pa.Table, planned_rows: int) -> pa.Table:
    joined = pc.binary_join_element_wise(table.column("prompt"), table.column("completion"), "")
    columns = {
        name: table.column(name)
        for name in (
            "row_id",
            "score",
            "rank",
            "lineage_id",
            "source",
            "source_line",
            "label",
            "n_tokens",
        )
    }
    return pa.table(
        {
            **columns,
            "text_chars": pc.utf8_length(table.column("text")),
            "prompt_chars": pc.utf8_length(table.column("prompt")),
            "completion_chars": pc.utf8_length(table.column("completion")),
            "parts_make_text": pc.equal(joined, table.column("text")),
            "file_rows": np.full(len(table), len(table)),
            "planned_rows": np.full(len(table), planned_rows),
        }
    )


def _origins(
    row_ids: pa.ChunkedArray, batches: Iterable[tuple[str, pa.ChunkedArray]]
) -> pa.ChunkedArray:
    """Return each row's newest ``<batch_id>:<position>`` in the corpus, null when not there."""
    origins = pa.chunked_array([pa.nulls(len(row_ids), pa.string())])
    for batch_id, batch_rows in batches:
        positions = pc.index_in(row_ids, value_set=batch_rows).cast(pa.string())
        here = pc.binary_join_element_wise(batch_id, positions, ":")
        origins = pc.coalesce(here, origins)
    return origins


def _refusal(name: str, reasons: Sequence[str]) -> str:
    found = "1 fault was" if len(reasons) == 1 else f"{len(reasons):,} faults were"
    return (
        f"release {name!r} was not published; reading its files back, {found} "
        f"found:\n{listed(reasons)}\nRun `rise verify` on the store, then score and release again."
    )


def _spell(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
