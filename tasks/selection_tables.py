"""The tables and the report of a selection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rise_ops.null_scores import NullScores
from rise_ops.selection import Prefer, preference
from rise_ops.walk import BUDGET, QUOTA, TAKEN, Outcome
from tasks.release_config import TokenBudget
from tasks.selection_costs import DIVERSITY, mean_value
from tasks.selection_judges import SIGNATURE, TEXT
from tasks.selection_problem import TAKEDOWN, Problem
from tasks.selection_solve import Solved

KEPT_FOR_LEAST = "its place is kept for rows that a quota asks for at least"


@dataclass(frozen=True, eq=False)
class ValueNull:
    """What all living rows with positions are worth: the null of values.

    Attributes:
        values: As they are.
        preferred: Higher the more preferred; the same where the highest are.
        prefer: Which end is preferred.
    """

    values: NullScores
    preferred: NullScores
    prefer: Prefer

    def columns(self, chosen: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return percentile, z and false discovery of values, best first.

        False discoveries are those of the preferred end.
        """
        wanted = preference(chosen, self.prefer)
        n_rows = len(self.preferred.sample)
        ranks = n_rows - np.searchsorted(self.preferred.sample, wanted.astype(np.float64), "left")
        shares = self.preferred.false_discovery(wanted, ranks, n_rows=n_rows)
        return {
            "percentile": self.values.percentile(chosen).astype(np.float32),
            "z": self.values.z(chosen).astype(np.float32),
            "false_discovery": shares.astype(np.float32),
        }


def value_null(candidates: pa.Table, prefer: Prefer) -> ValueNull:
    """Take the values of all rows that have positions and no tombstone.

    Versions of rows that are no longer used would else count beside those that took their place.
    """
    able = candidates.column("n_positions").to_numpy() > 0
    if TAKEDOWN in candidates.column_names:
        able &= ~candidates.column(TAKEDOWN).to_numpy()
    values = candidates.column("value").to_numpy()[able]
    plain = NullScores.of(values)
    preferred = plain if prefer == "highest" else NullScores.of(preference(values, prefer))
    return ValueNull(plain, preferred, prefer)


@dataclass(frozen=True, eq=False)
class Tables:
    """Makes the tables of a selection."""

    problem: Problem
    outcome: Outcome
    candidates: pa.Table
    names: Mapping[int, str]

    def selected(self, null: ValueNull) -> pa.Table:
        """Return the selected rows, best value first."""
        places = np.flatnonzero(self.outcome.reasons == TAKEN)
        return pa.table(
            {
                "row_id": self._row_ids(places),
                "score": self.problem.values[places],
                "rank": np.arange(1, len(places) + 1, dtype=np.int32),
                "position": self.problem.positions[places],
                **null.columns(self.problem.values[places]),
            }
        )

    def dropped(self) -> pa.Table:
        """Return the dropped rows in order of value."""
        places = np.flatnonzero(self.outcome.reasons > TAKEN)
        codes = pa.array(self.outcome.reasons[places].astype(np.int32))
        names = pa.array([self.names.get(code, "") for code in range(DIVERSITY + 1)], pa.string())
        return pa.table(
            {
                "row_id": self._row_ids(places),
                "score": self.problem.values[places],
                "place": places + 1,
                "position": self.problem.positions[places],
                "reason": names.take(codes),
                "detail": self._details(places),
            }
        )

    def _row_ids(self, places: NDArray[np.int64]) -> pa.Array:
        row_ids = self.candidates.column("row_id").take(self.problem.positions[places])
        return row_ids.combine_chunks() if isinstance(row_ids, pa.ChunkedArray) else row_ids

    def _details(self, places: NDArray[np.int64]) -> pa.Array:
        """Return for each dropped row why, in words."""
        details = np.full(len(places), "", object)
        reasons, others = self.outcome.reasons[places], self.outcome.others[places]
        for number, field in enumerate(self.problem.fields):
            lines = np.flatnonzero((reasons == QUOTA) & (others == number))
            texts = np.array(
                [
                    f"{quota} is full: {quota.max_rows} rows"
                    for quota in self.problem.quotas[number]
                ],
                object,
            )
            details[lines] = texts[field.codes[places[lines]]]
        details[(reasons == QUOTA) & (others < 0)] = KEPT_FOR_LEAST
        lines = np.flatnonzero(reasons == BUDGET)
        details[lines] = [
            f"its {tokens} tokens did not fit" for tokens in self.problem.tokens[places[lines]]
        ]
        details[reasons == DIVERSITY] = "too like rows that were taken"
        self._add_judged(details, places)
        return pa.array(details, pa.string())

    def _add_judged(self, details: NDArray[np.object_], places: NDArray[np.int64]) -> None:
        said = self.outcome.details
        lines = np.flatnonzero(np.isin(self.outcome.reasons[places], [TEXT, SIGNATURE]))
        like = self._row_ids(self.outcome.others[places[lines]].astype(np.int64)).to_pylist()
        for line, other in zip(lines.tolist(), like, strict=True):
            details[line] = f"of {other}, {said[int(places[line])]}"
        judged = set(lines.tolist())
        for line, place in enumerate(places.tolist()):
            if place in said and line not in judged:
                details[line] = said[place]


def selection_report(
    problem: Problem,
    solved: Solved,
    costs: Sequence[Mapping[str, Any]],
    null: ValueNull,
    *,
    n_texts_read: int,
) -> dict[str, Any]:
    """Return counts, cut and costs; JSON values."""
    outcome, places = solved.outcome, solved.places
    select = problem.config.select
    tokens = int(problem.tokens[places].sum())
    budget = select.max_tokens if isinstance(select, TokenBudget) else None
    return {
        "asked": problem.config.model_dump(
            mode="json",
            include={
                "select",
                "prefer",
                "aggregate",
                "length_correction",
                "quotas",
                "collapse",
                "diversity",
            },
        ),
        "rows": {
            "scored": problem.n_rows,
            "without_positions": problem.n_empty,
            "withdrawn": problem.n_withdrawn,
            "eligible": problem.n_eligible,
            "below_threshold": problem.n_below,
            "selected": len(places),
            "dropped": int(np.count_nonzero(outcome.reasons > TAKEN)),
            "texts_read": n_texts_read,
        },
        "tokens": {
            "selected": tokens,
            "budget": budget,
            "unused": None if budget is None else budget - tokens,
        },
        "value": {
            "mean": mean_value(problem, solved),
            "best": float(problem.values[places[0]]),
            "cut": float(problem.values[places[-1]]),
            "last_place": int(places[-1]) + 1,
        },
        "null": {
            "rows": len(null.values.sample),
            "median": null.values.median,
            "deviation": null.values.deviation,
        },
        "constraints": [dict(cost) for cost in costs],
        "quotas": _quota_lines(problem, places),
        "diversity": solved.diversity,
        "how": HOW,
    }


HOW = (
    "rows_dropped and tokens_dropped: of the selection itself. without: the selection made again "
    "with this one constraint left out and everything else as it was; of a token budget, as many "
    "rows by value whatever their length. mean_value_lost: mean value without it minus mean value "
    "with it, in the preferred direction. Rows that only such a selection reaches pass all checks."
)


def _quota_lines(problem: Problem, places: NDArray[np.int64]) -> list[dict[str, Any]]:
    lines = []
    for field, quotas in zip(problem.fields, problem.quotas, strict=True):
        available = np.bincount(field.codes[field.codes >= 0], minlength=len(quotas))
        codes = field.codes[places]
        selected = np.bincount(codes[codes >= 0], minlength=len(quotas))
        lines += [
            {
                "field": quota.field,
                "value": quota.value,
                "min_rows": quota.min_rows,
                "max_rows": quota.max_rows,
                "available": int(available[number]),
                "selected": int(selected[number]),
            }
            for number, quota in enumerate(quotas)
        ]
    return lines
