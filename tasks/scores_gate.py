"""Whether scores may be published: checks on the values, on each query's top, and against the last.

Measured on the tables that are about to be written, before they are. Scores of the same index name
and query set name that were made last are what drift is told from; the first ones have none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.errors import CorruptionError
from storage.refs import QuerySetRef, ScoresRef
from storage.scores import Scores, last_scores
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.quality_gate import GateRefused, GateReport, listed, run_gate
from tasks.suite_files import load_suite
from tasks.suite_terms import GATES

if TYPE_CHECKING:
    import pandas as pd

GATE = "scores"

MIN_COMMON = 3
"""Rows in common below which a correlation says nothing."""


class ScoresRefused(GateRefused):
    """The scores failed the gate; nothing was published."""


def judge_scores(
    tables: Mapping[str, pa.Table],
    *,
    index: str,
    queries: QuerySetRef,
    scores_id: str,
    docs: Path,
    quality: QualityConfig = SHIPPED,
) -> GateReport:
    """Judge scores that are about to be published and write the Data Docs.

    Args:
        tables: ``values`` and ``top_rows``, as `storage.scores` keeps them.
        index: Name of the index.
        queries: The query set.
        scores_id: Their id.
        docs: Folder for the Data Docs.
        quality: Where the suite is.

    Raises:
        SuiteError: The suite cannot be used.
    """
    suite = load_suite(GATE, quality)
    last = last_scores(queries.root, index=index, query_set=queries.name, but=scores_id)
    try:
        drift = value_drift(tables["values"], last)
    except CorruptionError:  # damage to other scores, which `rise verify` tells of
        drift = value_drift(tables["values"], None)
    line = {
        **value_statistics(tables["values"]),
        "n_queries": pc.count_distinct(tables["top_rows"].column("query_id")).as_py(),
        **drift,
    }
    frames = {
        "scores": _one_line(line),
        "queries": query_statistics(tables["top_rows"]),
    }
    return run_gate(suite, frames, docs=docs, run_name=scores_id)


def refusal(scores: ScoresRef, report: GateReport, docs: Path) -> ScoresRefused:
    """Return the error for scores that failed.

    Args:
        scores: Which.
        report: What the gate said.
        docs: Where the quality report was kept.
    """
    page = docs / "index.html"
    return ScoresRefused(
        f"scores {scores.scores_id} were not published, they failed the quality gate:\n"
        f"{listed(report.reasons)}\n"
        f"Quality report: {page}\n"
        "Look at the queries and run `rise verify`; where this is as it should be, set severity: "
        "warn in the scores suite (`rise quality init`), and score again.",
        str(page),
    )


def value_statistics(values: pa.Table) -> dict[str, Any]:
    """Return what the values of a scoring are like.

    Args:
        values: VALUES_SCHEMA; rows without positions are empty, the others live.

    Returns:
        Counts, and of the finite values of live rows: extremes, mean, ``value_spread`` (standard
        deviation), ``tie_share``, ``positive_share``; None where there is too little.
    """
    numbers, live = _numbers(values)
    finite = np.isfinite(numbers)
    used = numbers[live & finite]
    found: dict[str, Any] = {
        "n_rows": len(numbers),
        "n_live": int(np.count_nonzero(live)),
        "n_nonfinite": int(np.count_nonzero(~finite)),
        "n_empty_nonzero": int(np.count_nonzero(~live & (numbers != 0))),
        **dict.fromkeys(("value_min", "value_mean", "value_max", "value_spread")),
        "tie_share": None,
        "positive_share": None,
    }
    if len(used):
        found |= {
            "value_min": float(used.min()),
            "value_mean": float(used.mean()),
            "value_max": float(used.max()),
            "tie_share": tie_share(used),
            "positive_share": float(np.mean(used > 0)),
        }
    if len(used) > 1:
        # a spread of rounding alone is none
        found["value_spread"] = float(used.std()) if used.min() < used.max() else 0.0
    return found


def value_drift(values: pa.Table, last: Scores | None) -> dict[str, Any]:
    """Return how values moved against earlier ones, on the live rows that both have.

    Returns:
        ``last_scores_id``, ``n_common``, ``last_correlation``, ``mean_change`` (in spreads of the
        earlier values) and ``spread_ratio``; None where there is nothing to compare.
    """
    keys = ("last_scores_id", "n_common", "last_correlation", "mean_change", "spread_ratio")
    found: dict[str, Any] = dict.fromkeys(keys)
    if last is None:
        return found
    earlier = last.values()
    places = pc.index_in(values.column("row_id"), value_set=earlier.column("row_id"))
    both = places.is_valid().to_numpy(zero_copy_only=False)
    at = places.drop_null().to_numpy()
    (now, live), (before, live_before) = _numbers(values), _numbers(earlier)
    pairs = np.stack([now[both], before[at]])[:, live[both] & live_before[at]]
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    found |= {"last_scores_id": last.ref.scores_id, "n_common": pairs.shape[1]}
    spreads = pairs.std(axis=1) if pairs.size else np.zeros(2)
    if pairs.shape[1] >= MIN_COMMON and spreads[1] > 0:
        means = pairs.mean(axis=1)
        found["mean_change"] = float((means[0] - means[1]) / spreads[1])
        found["spread_ratio"] = float(spreads[0] / spreads[1])
        if spreads[0] > 0:
            found["last_correlation"] = float(np.corrcoef(pairs)[0, 1])
    return found


def query_statistics(top_rows: pa.Table) -> "pd.DataFrame":
    """Return one line a query from its strongest rows: the columns of the table ``queries``.

    Args:
        top_rows: TOP_ROWS_SCHEMA, the rows of a query together.
    """
    frame = top_rows.select(["query_id", "score"]).to_pandas()
    frame["nonfinite"] = ~np.isfinite(frame["score"])
    frame["tied"] = frame.duplicated(["query_id", "score"], keep=False)
    groups = frame.groupby("query_id", sort=False)
    scores = groups["score"]
    lines: pd.DataFrame = groups["nonfinite"].agg(n_top="size", n_nonfinite="sum").reset_index()
    lines["top_score"] = scores.max().to_numpy()
    lines["last_score"] = scores.min().to_numpy()
    lines["top_spread"] = lines["top_score"] - lines["last_score"]
    lines["top_tie_share"] = groups["tied"].mean().to_numpy()
    return lines


def tie_share(numbers: NDArray[np.float64]) -> float:
    """Return the share of numbers that equal another one."""
    _, counts = np.unique(numbers, return_counts=True)
    return float(counts[counts > 1].sum() / len(numbers))


def _numbers(values: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the values, float64 [rows], and which rows are live."""
    numbers = values.column("value").to_numpy().astype(np.float64)
    return numbers, values.column("n_positions").to_numpy() > 0


def _one_line(line: Mapping[str, Any]) -> "pd.DataFrame":
    import pandas as pd

    columns = GATES[GATE].tables["scores"]
    frame = pd.DataFrame([{name: line[name] for name in columns}])
    kinds = {
        name: "Int64" if name.startswith("n_") else "float64"
        for name in columns
        if name != "last_scores_id"
    }
    return frame.astype(kinds)
