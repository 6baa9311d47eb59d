"""The words that suites are written in: gates, their tables and columns, values, severities.

A suite in YAML may name nothing else; `suite_files` holds edited suites against this, and the
comments of the shipped files explain every word of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Severity = Literal["fail", "warn", "quarantine"]

Number = int | float


@dataclass(frozen=True)
class GateTerms:
    """What the suite of one gate may say.

    Attributes:
        tables: Name of each table to its columns.
        values: Name of each value that the program puts in, to one of its type, for checking.
        quarantine: Tables whose failing lines can be put aside.
    """

    tables: Mapping[str, tuple[str, ...]]
    values: Mapping[str, Number]
    quarantine: frozenset[str] = frozenset()

    def severities(self, table: str) -> tuple[Severity, ...]:
        """Return the severities that an expectation of a table may have."""
        return ("quarantine", "fail", "warn") if table in self.quarantine else ("fail", "warn")


GATES: Mapping[str, GateTerms] = {
    "ingest": GateTerms(
        tables={
            "rows": (
                "row_id",
                "text",
                "prompt_chars",
                "label",
                "source",
                "source_line",
                "content_hash",
                "n_chars",
                "n_tokens",
                "problem",
                "repeats",
                "raw",
            ),
            "batch": ("n_records", "n_kept", "n_known", "n_rejected", "rejected_share"),
        },
        values={
            "limits.min_chars": 1,
            "limits.max_chars": 1000,
            "limits.min_tokens": 2,
            "limits.max_tokens": 1000,
            "limits.max_rejected_share": 0.05,
            "limits.min_kept_share": 0.95,
        },
        quarantine=frozenset({"rows"}),
    ),
    "index": GateTerms(
        tables={
            "blocks": (
                "block",
                "first_row",
                "n_rows",
                "n_empty",
                "empty_share",
                "n_nonfinite",
                "first_nonfinite",
                "n_zero",
                "first_zero",
                "norm_min",
                "norm_low",
                "norm_median",
                "norm_mean",
                "norm_high",
                "norm_max",
            ),
            "whole": (
                "n_rows",
                "n_blocks",
                "n_empty",
                "empty_share",
                "n_nonfinite",
                "n_zero",
                "norm_min",
                "norm_mean",
                "norm_max",
                "norm_spread",
                "positions_mean",
                "n_new",
                "new_empty_share",
                "empty_share_change",
                "norm_mean_change",
                "positions_mean_ratio",
            ),
        },
        values={},
    ),
    "scores": GateTerms(
        tables={
            "scores": (
                "n_rows",
                "n_live",
                "n_queries",
                "n_nonfinite",
                "n_empty_nonzero",
                "value_min",
                "value_mean",
                "value_max",
                "value_spread",
                "tie_share",
                "positive_share",
                "last_scores_id",
                "n_common",
                "last_correlation",
                "mean_change",
                "spread_ratio",
            ),
            "queries": (
                "query_id",
                "n_top",
                "n_nonfinite",
                "top_score",
                "last_score",
                "top_spread",
                "top_tie_share",
            ),
        },
        values={},
    ),
    "release": GateTerms(
        tables={
            "rows": (
                "row_id",
                "score",
                "rank",
                "lineage_id",
                "source",
                "source_line",
                "label",
                "n_tokens",
                "text_chars",
                "prompt_chars",
                "completion_chars",
                "parts_make_text",
                "file_rows",
                "planned_rows",
                "origin",
                "place",
                "score_above",
                "in_order",
            ),
        },
        values={
            "release.n_rows": 1,
            "release.n_tokens": 1,
            "lowest_score": -1.0,
            "largest_score": 1.0,
        },
    ),
}
"""Every gate, in the order in which the data meets them."""
