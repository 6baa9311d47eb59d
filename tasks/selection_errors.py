"""What is said when a selection cannot be made as asked: which constraint, and both numbers."""

import numpy as np
import pyarrow as pa

from rise_ops.quotas import ROWS, Infeasible
from rise_ops.selection import preference
from rise_ops.walk import BUDGET, QUOTA, TAKEN, Outcome
from tasks.release_config import Share, Threshold, TokenBudget, TopK
from tasks.selection_problem import Problem

TOOK = {QUOTA: "quotas"}
"""What a reason is called in a message; judges have names of their own."""


def require_reachable(problem: Problem, candidates: pa.Table) -> None:
    """Check what needs no walk: enough rows that can be selected, a threshold that one reaches.

    Raises:
        ValueError: With both numbers.
    """
    select = problem.config.select
    wanted = problem.wanted_rows
    if problem.n_eligible == 0:
        raise ValueError(
            f"{_asked(problem)} but none of {problem.n_rows} rows has positions and was not "
            "withdrawn, so none can be selected; check which positions the index reads."
        )
    if wanted is not None and wanted > problem.n_eligible:
        raise ValueError(
            f"top_k is {wanted} but {problem.n_eligible} of {problem.n_rows} rows can be "
            f"selected; choose top_k between 1 and {problem.n_eligible}."
        )
    if isinstance(select, Threshold) and len(problem.positions) == 0:
        values = candidates.column("value").to_numpy()
        values = values[candidates.column("n_positions").to_numpy() > 0]
        best = float(
            preference(
                preference(values, problem.config.prefer).max(keepdims=True), problem.config.prefer
            )[0]
        )
        end, change = (
            ("highest", "lower") if problem.config.prefer == "highest" else ("lowest", "raise")
        )
        raise ValueError(
            f"min_score is {select.min_score} but the {end} of {problem.n_eligible} values is "
            f"{best:.6g}, so nothing is selected; {change} min_score."
        )


def require_selected(problem: Problem, outcome: Outcome) -> None:
    """Check that as many rows were selected as were asked for, and at least one.

    Raises:
        ValueError: With both numbers, and what every constraint took away.
    """
    n_selected = int(np.count_nonzero(outcome.reasons == TAKEN))
    wanted = problem.wanted_rows
    if n_selected == 0 and isinstance(problem.config.select, TokenBudget):
        raise ValueError(
            f"{_asked(problem)} but the shortest of {len(problem.tokens)} rows has "
            f"{int(problem.tokens.min())} tokens, so nothing is selected; raise max_tokens."
        )
    if n_selected < (wanted or 1):
        raise ValueError(
            f"{_asked(problem)} but {n_selected} rows are left of {len(problem.positions)} that "
            f"can be selected: {_took(outcome)}. Ask for at most {n_selected}, or loosen what "
            "took most."
        )


def unmet(problem: Problem, error: Infeasible) -> ValueError:
    """Return what to say of a least amount that cannot hold."""
    if error.field >= 0:
        quota = problem.quotas[error.field][error.quota]
        return ValueError(
            f"{quota} asks for at least {quota.min_rows} rows, but {error.lacking} of them are "
            f"not to be had. Lower its min_rows."
        )
    what = "rows" if error.quota == ROWS else "tokens"
    return ValueError(
        f"{_asked(problem)}, but the least rows of the quotas need {error.lacking} {what} more. "
        "Raise it, or lower a min_rows."
    )


def _asked(problem: Problem) -> str:
    select = problem.config.select
    if isinstance(select, TopK):
        return f"top_k is {select.top_k}"
    if isinstance(select, Share):
        return f"share is {select.share}, {problem.wanted_rows} of {problem.n_eligible} rows,"
    if isinstance(select, Threshold):
        return f"min_score is {select.min_score}"
    return f"max_tokens is {select.max_tokens}"


def _took(outcome: Outcome) -> str:
    counts = np.bincount(outcome.reasons)
    names = {QUOTA: "quotas", BUDGET: "the budget"}
    parts = [f"{names[r]} took away {counts[r]}" for r in range(2, len(counts)) if counts[r]]
    return ", ".join(parts) or "nothing was dropped"
