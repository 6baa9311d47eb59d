"""What is said when a selection cannot be made as asked: which constraint, and both numbers."""

import numpy as np
import pyarrow as pa

from rise_ops.quotas import ROWS, Infeasible
from rise_ops.selection import preference
from rise_ops.walk import TAKEN, Outcome
from tasks.release_config import Share, Threshold, TokenBudget, TopK
from tasks.selection_costs import reason_names
from tasks.selection_judges import RowFacts
from tasks.selection_problem import NamedQuota, Problem, eligible_rows


def require_reachable(problem: Problem, candidates: pa.Table) -> None:
    """Check what needs no walk: enough rows that can be selected, a threshold that one reaches.

    Raises:
        ValueError: With both numbers.
    """
    select, wanted = problem.config.select, problem.wanted_rows
    if problem.n_eligible == 0:
        raise ValueError(
            f"{_asked(problem)} but no row has positions and is not withdrawn, of "
            f"{problem.n_rows} rows, so none can be selected; check which positions the index "
            "reads."
        )
    if wanted is not None and wanted > problem.n_eligible:
        raise ValueError(
            f"top_k is {wanted} but {problem.n_eligible} of {problem.n_rows} rows can be "
            f"selected; choose top_k between 1 and {problem.n_eligible}."
        )
    if isinstance(select, Threshold) and len(problem.positions) == 0:
        end, change, best = _end_of_values(problem, candidates)
        raise ValueError(
            f"min_score is {select.min_score} but the {end} of {problem.n_eligible} values is "
            f"{best:.6g}, so nothing is selected; {change} min_score."
        )


def _end_of_values(problem: Problem, candidates: pa.Table) -> tuple[str, str, float]:
    prefer = problem.config.prefer
    values = candidates.column("value").to_numpy()[eligible_rows(candidates)]
    best = float(preference(values, prefer).max())
    return ("highest", "lower", best) if prefer == "highest" else ("lowest", "raise", -best)


def require_selected(problem: Problem, facts: RowFacts, outcome: Outcome) -> None:
    """Check that as many rows were selected as were asked for, and at least one.

    Raises:
        ValueError: With both numbers, and what every constraint took away.
    """
    n_selected = int(np.count_nonzero(outcome.reasons == TAKEN))
    if n_selected >= (problem.wanted_rows or 1):
        return
    if isinstance(problem.config.select, TokenBudget):
        shortest = int(problem.tokens.min())
        if shortest > problem.config.select.max_tokens:
            raise ValueError(
                f"{_asked(problem)} but the shortest of {len(problem.tokens)} rows has "
                f"{shortest} tokens, so nothing is selected; raise max_tokens."
            )
    limits = [f"{n} of them {name}" for name, n in _took(facts, outcome)]
    diversity = problem.config.diversity
    if diversity is not None and diversity.candidates < len(problem.positions):
        limits.append(f"diversity looks at the best {diversity.candidates} only")
    raise ValueError(
        f"{_asked(problem)} but {n_selected} rows are left of the {len(problem.positions)} that "
        f"can be selected ({', '.join(limits) or 'nothing was dropped'}). Ask for at most "
        f"{max(n_selected, 1)}, or loosen what took most."
    )


def unmet(problem: Problem, facts: RowFacts, error: Infeasible) -> ValueError:
    """Return what to say of a least amount that cannot hold."""
    if error.field < 0:
        what = "rows" if error.quota == ROWS else "tokens"
        return ValueError(
            f"{_asked(problem)}, but with what was taken for better values the least rows of the "
            f"quotas ({_least(problem)}) need {error.lacking} {what} more than that. Raise it, or "
            "lower a min_rows."
        )
    quota = problem.quotas[error.field][error.quota]
    available = int(np.count_nonzero(problem.fields[error.field].codes == error.quota))
    if available < quota.min_rows:
        return ValueError(
            f"{quota} asks for at least {quota.min_rows} rows, but {available} rows of it can be "
            f"selected, {quota.min_rows - available} too few. Lower its min_rows."
        )
    return ValueError(
        f"{quota} asks for at least {quota.min_rows} rows; {available} rows of it can be selected, "
        f"but {_in_the_way(problem, facts)} leave it {error.lacking} too few. Lower its min_rows, "
        "or loosen what is in the way."
    )


def _in_the_way(problem: Problem, facts: RowFacts) -> str:
    """Return what else may keep rows of a quota out."""
    collapse = problem.config.collapse
    names = ["the most rows of other quotas"] if len(problem.fields) > 1 else []
    names += ["near duplicates"] if collapse.text or collapse.signature else []
    names += [f"the {check.name} check" for check in facts.checks]
    return " and ".join(names) or "other quotas"


def _least(problem: Problem) -> str:
    asked: list[NamedQuota] = [q for field in problem.quotas for q in field if q.min_rows]
    shown = [f"{q.field} {q.value!r} {q.min_rows}" for q in asked[:3]]
    return ", ".join(shown + (["..."] if len(asked) > len(shown) else []))


def _asked(problem: Problem) -> str:
    select = problem.config.select
    if isinstance(select, TopK):
        return f"top_k is {select.top_k}"
    if isinstance(select, Share):
        return f"share is {select.share}, {problem.wanted_rows} of {problem.n_eligible} rows,"
    if isinstance(select, Threshold):
        return f"min_score is {select.min_score}"
    return f"max_tokens is {select.max_tokens}"


def _took(facts: RowFacts, outcome: Outcome) -> list[tuple[str, int]]:
    """Return how many rows every constraint dropped, most first."""
    counts = np.bincount(outcome.reasons)
    names = reason_names(facts)
    found = [(f"dropped as {names[r]}", int(counts[r])) for r in range(2, len(counts)) if counts[r]]
    return sorted(found, key=lambda pair: -pair[1])
