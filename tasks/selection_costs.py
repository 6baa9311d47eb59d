"""What every constraint cost: the rows it dropped, and the same selection made without it.

The selection is made again once a constraint that dropped a row, with everything else as it was.
Rows that only such a selection reaches are read for likeness, but no check is asked about them:
they pass, so that a check's own table has no rows that the release never considered.
"""

from typing import Any

import numpy as np

from rise_ops.quotas import Infeasible
from rise_ops.walk import BUDGET, QUOTA, TAKEN
from tasks.release_config import TokenBudget
from tasks.selection_judges import CHECKS, SIGNATURE, TEXT, RowFacts
from tasks.selection_problem import Problem
from tasks.selection_solve import LeftOut, Solved, mark_displaced, solve

DIVERSITY = 255
"""Reason of rows that diversity left for ones of lower value."""


def reason_names(facts: RowFacts) -> dict[int, str]:
    """Return the name of every reason."""
    checks = {CHECKS + number: check.name for number, check in enumerate(facts.checks)}
    return {
        QUOTA: "quota",
        BUDGET: "budget",
        TEXT: "duplicate_text",
        SIGNATURE: "duplicate_signature",
        DIVERSITY: "diversity",
        **checks,
    }


def constraint_costs(problem: Problem, facts: RowFacts, solved: Solved) -> list[dict[str, Any]]:
    """Return the cost of every constraint that was asked for; JSON values.

    Rows that diversity alone kept out are marked in the outcome on the way.
    """
    outcome = solved.outcome
    costs = []
    if problem.config.diversity is not None:
        without = _solve_without(problem, facts, LeftOut(diversity=True))
        if without is not None:
            mark_displaced(outcome, without.places.tolist(), DIVERSITY)
        dropped = np.flatnonzero(outcome.reasons == DIVERSITY)
        costs.append(_cost("diversity", problem, solved, dropped, without))
    for name, dropped, left_out in _constraints(problem, facts, solved):
        changes = len(dropped) > 0
        without = _solve_without(problem, facts, left_out) if changes else solved
        costs.append(_cost(name, problem, solved, dropped, without))
    return costs


def _constraints(
    problem: Problem, facts: RowFacts, solved: Solved
) -> list[tuple[str, Any, LeftOut]]:
    """Return name, dropped rows and what to leave out, of all constraints but diversity."""
    outcome = solved.outcome
    names = reason_names(facts)
    found = []
    if isinstance(problem.config.select, TokenBudget):
        dropped = np.flatnonzero(outcome.reasons == BUDGET)
        found.append(("budget", dropped, LeftOut(budget_for_rows=len(solved.places))))
    by_quota = outcome.reasons == QUOTA
    for number, quotas in enumerate(problem.quotas):
        # rows whose place was kept for others count for every field with least amounts
        has_least = bool(problem.fields[number].least.any())
        mine = (outcome.others == number) | ((outcome.others < 0) & has_least)
        dropped = np.flatnonzero(by_quota & mine)
        found.append((f"quotas of {quotas[0].field}", dropped, LeftOut(fields=(number,))))
    collapse = problem.config.collapse
    reasons = [TEXT] if collapse.text is not None else []
    reasons += [SIGNATURE] if collapse.signature is not None else []
    reasons += [CHECKS + number for number in range(len(facts.checks))]
    for reason in reasons:
        dropped = np.flatnonzero(outcome.reasons == reason)
        found.append((names[reason], dropped, LeftOut(reasons=(reason,))))
    return found


def _solve_without(problem: Problem, facts: RowFacts, left_out: LeftOut) -> Solved | None:
    try:
        return solve(problem, facts, left_out)
    except Infeasible:
        return None


def _cost(
    name: str, problem: Problem, solved: Solved, dropped: Any, without: Solved | None
) -> dict[str, Any]:
    mean = mean_value(problem, solved)
    cost = {
        "constraint": name,
        "rows_dropped": len(dropped),
        "tokens_dropped": int(problem.tokens[dropped].sum()),
        "without": None,
        "mean_value_lost": None,
    }
    if without is None or len(without.places) == 0:
        return cost
    without_mean = mean_value(problem, without)
    sign = 1.0 if problem.config.prefer == "highest" else -1.0
    in_common = int(np.count_nonzero(solved.outcome.reasons[without.places] == TAKEN))
    return cost | {
        "without": {
            "rows": len(without.places),
            "tokens": int(problem.tokens[without.places].sum()),
            "mean_value": without_mean,
            "rows_in_common": in_common,
        },
        "mean_value_lost": sign * (without_mean - mean),
    }


def mean_value(problem: Problem, solved: Solved) -> float:
    """Return the mean value of the selected rows."""
    return float(problem.values[solved.places].mean(dtype=np.float64))
