"""Whether the blocks of an index may become what readers see: checks on what is stored.

The gate comes after the last block and before the commit. What it refuses is not lost: finished
blocks stay, readers keep the state that they had, and a run with mended rows, or a suite that only
warns, goes on from there. The verdict is noted for the bytes and the suite that it is about, so
asking again costs nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.files import digest
from storage.index_quality import IndexQuality
from storage.signatures import SignatureIndex
from tasks.index_statistics import block_statistics, drift, index_statistics
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.quality_gate import GateRefused, GateReport, listed, run_gate
from tasks.suite_files import GateSuite, load_suite
from tasks.suite_terms import GATES

if TYPE_CHECKING:
    import pandas as pd

GATE = "index"


class IndexRefused(GateRefused):
    """The rows of an index failed the gate; they are kept, but readers do not see them."""


def check_index(index: SignatureIndex, n_rows: int, quality: QualityConfig = SHIPPED) -> GateReport:
    """Judge the first ``n_rows`` rows of an index; under its lease, before they are committed.

    Args:
        index: Its blocks are finished.
        n_rows: Rows that are to be committed.
        quality: Where the suite is.

    Raises:
        IndexRefused: Something fails; the message lists what.
        IncompleteError: A block is not finished.
        CorruptionError: A block cannot be read.
        SuiteError: The suite cannot be used.
    """
    suite = load_suite(GATE, quality)
    index.require_blocks(n_rows)
    notes = IndexQuality(index)
    blocks = range(index.count_blocks(n_rows))
    about = {"n_rows": n_rows, "suite": suite.sha256, "blocks": _content(index, blocks)}
    noted = notes.verdict()
    if noted is None or noted["about"] != about or not notes.docs.is_dir():
        noted = _judge(index, suite, blocks, about, noted)
        notes.remember_verdict(noted)
    report = GateReport(
        gate=GATE,
        success=noted["success"],
        reasons=tuple(noted["reasons"]),
        warnings=tuple(noted["warnings"]),
        data_docs=str(notes.docs / "index.html"),
    )
    if not report.success:
        raise IndexRefused(_refusal(index, n_rows, suite, report), report.data_docs)
    return report


def _content(index: SignatureIndex, blocks: Sequence[int]) -> str:
    """Return a digest of the bytes of the blocks, from their records."""
    records = (index.block_record(block) or {} for block in blocks)
    return digest([[key, r[key]] for r in records for key in sorted(r) if key.endswith("_sha256")])


def _judge(
    index: SignatureIndex,
    suite: GateSuite,
    blocks: Sequence[int],
    about: Mapping[str, Any],
    noted: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Run the gate; return the verdict as it is noted."""
    measured = [block_statistics(index, block) for block in blocks]
    now = index_statistics(measured)
    last = _last(noted, about["n_rows"])
    frames = {
        "blocks": _frame("blocks", measured),
        "whole": _frame("whole", [{**now, **drift(now, last)}]),
    }
    with IndexQuality(index).new_report() as docs:
        report = run_gate(suite, frames, docs=docs, run_name=index.ref.index)
    return {
        "about": dict(about),
        "suite": suite.origin if suite.is_shipped else Path(suite.origin).name,
        "success": report.success,
        "reasons": list(report.reasons),
        "warnings": list(report.warnings),
        "statistics": now,
        "last": last,
    }


def _last(noted: Mapping[str, Any] | None, n_rows: int) -> dict[str, Any] | None:
    """Return the numbers of the last run that passed with fewer rows than now."""
    if noted is None:
        return None
    found = noted["statistics"] if noted["success"] else None
    if found is None or found["n_rows"] >= n_rows:
        found = noted["last"]
    return dict(found) if found and found["n_rows"] < n_rows else None


def _frame(table: str, lines: Sequence[Mapping[str, Any]]) -> "pd.DataFrame":
    """Return the columns that the suite may name; what is missing is missing as a number."""
    import pandas as pd

    columns = GATES[GATE].tables[table]
    frame = pd.DataFrame([{name: line[name] for name in columns} for line in lines])
    return frame.astype(
        {
            name: "Int64" if name.startswith(("first_", "n_")) else "float64"
            for name in columns
            if name != "block"
        }
    )


def _refusal(index: SignatureIndex, n_rows: int, suite: GateSuite, report: GateReport) -> str:
    before = index.committed_rows
    readers = f"readers keep the {before:,} rows that they had" if before else "it has no rows yet"
    return (
        f"index {index.ref.index!r}: its {n_rows:,} rows failed the quality gate ({suite.origin} "
        f"suite) and were not committed; {readers}, and every finished block is kept:\n"
        f"{listed(report.reasons)}\n"
        f"Quality report: {report.data_docs}\n"
        "Mend the model or the rows and build under another name, or set severity: warn in the "
        "index suite (`rise quality init`) and build again, which computes nothing anew."
    )
