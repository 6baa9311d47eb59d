"""Which scored rows a release takes: one solver for sizes, quotas, budgets, likeness and checks.

Rows are tried in order of value and taken while every constraint holds; a row that is dropped makes
room for the next one (`rise_ops.walk`). Texts and signatures are read in blocks, only as far down
the order as needed. The report says what every constraint cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from threadpoolctl import threadpool_limits

from rise_ops.quotas import Infeasible
from tasks.release_config import ReleaseConfig
from tasks.row_checks import RowCheck
from tasks.selection_costs import constraint_costs, reason_names
from tasks.selection_errors import require_reachable, require_selected, unmet
from tasks.selection_judges import RowFacts
from tasks.selection_problem import make_problem, row_id_ranks
from tasks.selection_reader import RowReader
from tasks.selection_solve import solve
from tasks.selection_tables import Tables, selection_report, value_null

__all__ = ["RowReader", "Selection", "row_id_ranks", "select_rows"]


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
    facts = RowFacts(problem, reader, checks)
    # how a product is cut among threads would decide its last bits
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            solved = solve(problem, facts)
        except Infeasible as error:
            raise unmet(problem, facts, error) from error
        n_looked_at = facts.n_read
        require_selected(problem, facts, solved.outcome)
        costs = constraint_costs(problem, facts, solved)
    null = value_null(candidates, config.prefer)
    tables = Tables(problem, solved.outcome, candidates, reason_names(facts))
    return Selection(
        selected=tables.selected(null),
        dropped=tables.dropped(),
        report=selection_report(problem, solved, costs, null, n_texts_read=n_looked_at),
    )
