"""What the release flow shows of drift: a table, a measure a line, with limits and outcome."""

from typing import Any

from flows.artifacts import leave_table, readable
from tasks.drift_config import MEASURES
from tasks.release_drift import DriftReport

KEY = "release-drift"


def leave_drift(report: DriftReport | None) -> None:
    """Create the table artifact of a comparison; nothing where there was nothing to compare."""
    if report is None or report.diff is None:
        return
    leave_table(KEY, drift_lines(report), description=drift_title(report))


def drift_title(report: DriftReport) -> str:
    """Return one line: which two releases, and how many rows they share."""
    rows = {} if report.diff is None else report.diff.rows
    counts = ", ".join(f"{n_rows:,} {name}" for name, n_rows in rows.items())
    end = "held: latest stays" if report.held else "latest moves"
    return f"{report.ref.release_id} against {report.against} ({counts}): {end}"


def drift_lines(report: DriftReport) -> list[dict[str, Any]]:
    """Return the table: what was measured, its value, both limits, the outcome."""
    return [
        {
            "measure": one.measure,
            "value": readable(one.value),
            "warn above": readable(one.warn),
            "fail above": readable(one.fail),
            "outcome": one.outcome,
            "what": MEASURES[one.measure],
        }
        for one in report.verdicts
    ]
