"""Which scored rows a release takes: one solver for sizes, quotas, budgets, likeness and checks.

Rows are tried in order of value and taken while every constraint holds; a row that is dropped makes
room for the next one (`rise_ops.walk`). Texts and signatures are read in blocks, only as far down
the order as needed. The report says what every constraint cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rise_ops.null_scores import NullScores
from rise_ops.quotas import Infeasible, Room
from rise_ops.selection import preference
from rise_ops.walk import BUDGET, QUOTA, TAKEN, Judges, Outcome, Walk
from storage.corpus import Row
from tasks.release_config import ReleaseConfig
from tasks.row_checks import RowCheck
from tasks.selection_errors import require_reachable, require_selected, unmet
from tasks.selection_problem import Problem, make_problem, row_id_ranks

__all__ = ["RowReader", "Selection", "row_id_ranks", "select_rows"]

BLOCK_TOKENS = 2**25
"""Tokens of rows whose texts are in memory at once: some 150 MB of text."""


class RowReader(Protocol):
    """Reads what the table of candidates does not hold.

    Attributes:
        code: How signatures are stored: ``float16``, ``int8`` or ``sign``.
    """

    code: str

    def rows(self, positions: NDArray[np.int64]) -> list[Row]:
        """Return rows by their lines in the table of candidates, in the order asked for."""

    def signatures(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return their signatures, float32 [n, n_numbers], in the order asked for."""


@dataclass(frozen=True)
class Selection:
    """What was selected, what was dropped, and what that cost.

    Attributes:
        selected: Best value first. Columns row_id, score (float32), rank (int32, from 1), position
            (int64, line among the candidates), percentile, z, false_discovery (float32; of the
            value among all values, METHOD.md, "What a score means").
        dropped: Rows that would have been selected but for a constraint, in order of value. Columns
            row_id, score (float32), place (int64, in the order of values, from 1), position
            (int64), reason, detail (string).
        report: Counts, cut and the cost of every constraint; JSON values.
    """

    selected: pa.Table
    dropped: pa.Table
    report: dict[str, Any]


def select_rows(
    candidates: pa.Table,
    config: ReleaseConfig,
    reader: RowReader,
    checks: Sequence[RowCheck] = (),
) -> Selection:
    """Select rows by value under the constraints of a release.

    Args:
        candidates: One line a row of the index: row_id, value (float32), n_positions (int32),
            n_tokens (int32), source, label (string or dictionary; null: no label), and optionally
            takedown (bool). Rows without positions and withdrawn rows are never selected.
        config: What is asked for.
        reader: Reads texts and signatures of candidates.
        checks: Asked about every row that is about to be taken.

    Raises:
        ValueError: What is asked for cannot be had; says which constraint cannot hold, with
            numbers.
    """
    problem = make_problem(candidates, config)
    require_reachable(problem, candidates)
    outcome = _solve(problem)
    require_selected(problem, outcome)
    return Selection(
        selected=_selected(problem, outcome, candidates),
        dropped=_dropped(problem, outcome, candidates),
        report={},
    )


def _solve(problem: Problem) -> Outcome:
    try:
        room = Room(problem.bounds())
        return Walk(room, Judges(), block_tokens=BLOCK_TOKENS).run()
    except Infeasible as error:
        raise unmet(problem, error) from error


# ------------------------------------------------------------------------------------ tables


def _selected(problem: Problem, outcome: Outcome, candidates: pa.Table) -> pa.Table:
    places = np.flatnonzero(outcome.reasons == TAKEN)
    positions = problem.positions[places]
    return pa.table(
        {
            "row_id": candidates.column("row_id").take(positions).combine_chunks(),
            "score": problem.values[places],
            "rank": np.arange(1, len(places) + 1, dtype=np.int32),
            "position": positions,
            **_calibrated(problem, places, candidates),
        }
    )


def _calibrated(
    problem: Problem, places: NDArray[np.int64], candidates: pa.Table
) -> dict[str, NDArray[np.float32]]:
    """Return percentile, z and false discoveries of values; all rows with positions are the null.

    False discoveries are those of the preferred end.
    """
    prefer = problem.config.prefer
    values = candidates.column("value").to_numpy()
    values = values[candidates.column("n_positions").to_numpy() > 0]
    chosen = problem.values[places]
    preferred = NullScores.of(preference(values, prefer))
    ranks = len(values) - np.searchsorted(preferred.sample, preference(chosen, prefer), "left")
    shares = preferred.false_discovery(preference(chosen, prefer), ranks, n_rows=len(values))
    null = NullScores.of(values)
    return {
        "percentile": null.percentile(chosen).astype(np.float32),
        "z": null.z(chosen).astype(np.float32),
        "false_discovery": shares.astype(np.float32),
    }


def _dropped(problem: Problem, outcome: Outcome, candidates: pa.Table) -> pa.Table:
    places = np.flatnonzero(outcome.reasons > TAKEN)
    positions = problem.positions[places]
    return pa.table(
        {
            "row_id": candidates.column("row_id").take(positions).combine_chunks(),
            "score": problem.values[places],
            "place": places + 1,
            "position": positions,
            **_why(problem, outcome, places, candidates),
        }
    )


def _why(
    problem: Problem, outcome: Outcome, places: NDArray[np.int64], candidates: pa.Table
) -> dict[str, pa.Array]:
    """Return reason and detail of dropped rows."""
    names = {QUOTA: "quota", BUDGET: "budget"}
    reasons = outcome.reasons[places]
    details = pa.array([""] * len(places), pa.string())
    return {
        "reason": pa.array([names[int(reason)] for reason in reasons], pa.string()),
        "detail": pc.fill_null(details, ""),
    }
