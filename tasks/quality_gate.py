"""One gate from suite to verdict: frames are checked, pages written, reasons and warnings told.

The gates of index, scores and release only differ in what they measure. A report is small and can
be read back from the pages' folder, for artifacts that were made before.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.suite_files import GateSuite
from tasks.suite_terms import Number

if TYPE_CHECKING:
    import pandas as pd

    from tasks.quality import SuiteResult

MAX_REASONS = 10
"""Reasons spelled out in an error."""


class GateRefused(ValueError):  # noqa: N818 -- says what happened, as IngestRefused does
    """A gate failed.

    Args:
        message: What failed, and what to do.
        data_docs: Index page of the quality report.
    """

    def __init__(self, message: str, data_docs: str = "") -> None:
        super().__init__(message)
        self.data_docs = data_docs


@dataclass(frozen=True)
class GateReport:
    """What a gate said.

    Attributes:
        gate: Which.
        success: Nothing failed; there may be warnings.
        reasons: Why it failed.
        warnings: What was not as it should be, but refuses nothing.
        data_docs: First page of the quality report.
    """

    gate: str
    success: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    data_docs: str


def run_gate(
    suite: GateSuite,
    frames: Mapping[str, "pd.DataFrame"],
    *,
    docs: Path,
    run_name: str,
    values: Mapping[str, Number] | None = None,
    line_name: Callable[[int], str] | None = None,
) -> GateReport:
    """Check every table of a gate and write its Data Docs.

    Args:
        suite: From `load_suite`.
        frames: Each table of the suite under a unique integer index.
        docs: Folder for the pages; must not hold any.
        run_name: Name of this check in the pages.
        values: What the program puts into the suite, by name.
        line_name: Name of a line, by its index label, put before its reasons; None: none.

    Raises:
        SuiteError: An expectation cannot be made.
    """
    from tasks.quality import QualityRun
    from tasks.suite_expectations import make_expectations

    made = {table: make_expectations(suite, table, values or {}) for table in frames}
    run = QualityRun()
    reasons: list[str] = []
    warnings: list[str] = []
    for table, frame in frames.items():
        if not made[table]:
            continue
        name = f"{suite.gate}-{table}" if len(frames) > 1 else suite.gate
        result = run.check(frame, suite=name, expectations=made[table], run_name=run_name)
        reasons += _reasons(result, line_name)
        warnings += [warned.text for warned in result.warned]
    page = run.write(docs, facts=suite_facts(suite))
    return GateReport(suite.gate, not reasons, tuple(reasons), tuple(warnings), str(page))


def suite_facts(suite: GateSuite, report: GateReport | None = None) -> dict[str, object]:
    """Return what is recorded of a gate: its suite, and its warnings where there is a report."""
    facts: dict[str, object] = {
        "gate": suite.gate,
        "suite": "shipped" if suite.is_shipped else suite.sha256,
    }
    return facts if report is None else {**facts, "warnings": list(report.warnings)}


def recorded_warnings(docs: Path) -> tuple[str, ...]:
    """Return the warnings in the quality report of something that was made before."""
    from tasks.quality import VALIDATION_FILE

    try:
        runs = json.loads((docs / VALIDATION_FILE).read_text("utf-8"))["runs"]
        return tuple(dict.fromkeys(text for run in runs for text in run.get("warnings", ())))
    except (FileNotFoundError, ValueError, KeyError):
        return ()  # pages are no part of an artifact: they may be deleted, or be of an older make


def listed(reasons: Sequence[str]) -> str:
    """Return the first reasons, a line each, and how many more there are."""
    lines = [f"  {reason}" for reason in reasons[:MAX_REASONS]]
    more = len(reasons) - MAX_REASONS
    return "\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])])


def _reasons(result: "SuiteResult", line_name: Callable[[int], str] | None) -> list[str]:
    reasons = list(result.fatal)
    for label, found in result.refusing.items():
        before = "" if line_name is None else f"{line_name(label)}: "
        reasons.append(f"{before}{', '.join(found)}")
    return reasons
