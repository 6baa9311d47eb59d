"""One selection: the walk over a problem, with some constraints left out if asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rise_ops.diversity import (
    FacilityLocation,
    MarginalRelevance,
    Ranker,
    all_cosines,
    relevance,
)
from rise_ops.near_signatures import Shortener
from rise_ops.quotas import TOKENS, Bounds, Infeasible, Room
from rise_ops.selection import preference
from rise_ops.walk import JUDGES, TAKEN, UNDECIDED, Outcome, Walk
from tasks.selection_judges import BLOCK_TOKENS, SIGNATURE_ROWS, RowFacts, RowJudges
from tasks.selection_problem import Problem

DIVERSITY_NUMBERS = 4_096
"""Longer signatures are projected to so many numbers before candidates are compared."""

SPARE = 4
"""Tokens kept to spare over those that lacked; so many times more with every try."""

COSINE_BYTES = 2 * 2**30
"""Most memory for candidates' signatures and their cosines."""


@dataclass(frozen=True)
class LeftOut:
    """Constraints that a selection is made without.

    Attributes:
        fields: Quotas of these fields, by number.
        reasons: What judges of these reasons find.
        diversity: The diversity rule.
        budget_for_rows: The token budget; so many rows instead.
    """

    fields: tuple[int, ...] = ()
    reasons: tuple[int, ...] = ()
    diversity: bool = False
    budget_for_rows: int | None = None


NOTHING = LeftOut()


@dataclass(frozen=True, eq=False)
class Solved:
    """A selection and, with diversity, how good it is; JSON values."""

    outcome: Outcome
    diversity: dict[str, Any] | None = None

    @property
    def places(self) -> NDArray[np.int64]:
        """Selected rows in order of value."""
        return np.flatnonzero(self.outcome.reasons == TAKEN)


def solve(problem: Problem, facts: RowFacts, left_out: LeftOut = NOTHING) -> Solved:
    """Select rows.

    Args:
        problem: What there is to choose from.
        facts: What was read of it so far; learns more. Checks are asked only about rows of the
            selection that leaves nothing out.
        left_out: Constraints to leave out.

    Raises:
        Infeasible: A least amount cannot hold.
    """
    found = _walk(problem, facts, left_out, _bounds(problem, left_out))
    wanted = _bounds(problem, left_out).max_rows
    if wanted is None or len(problem.fields) < 2 or len(found.places) >= wanted:
        return found
    # rows of two fields can stand in each other's way: keep enough of them back from the start
    try:
        exact = replace(_bounds(problem, left_out), exact=True)
        return _walk(problem, facts, left_out, exact)
    except Infeasible:
        return found


def _bounds(problem: Problem, left_out: LeftOut) -> Bounds:
    kept = [number for number in range(len(problem.fields)) if number not in left_out.fields]
    bounds = problem.bounds(fields=kept)
    if left_out.budget_for_rows is None:
        return bounds
    return replace(bounds, max_tokens=None, max_rows=left_out.budget_for_rows)


def _walk(problem: Problem, facts: RowFacts, left_out: LeftOut, bounds: Bounds) -> Solved:
    """Walk; if rows that least amounts counted on were dropped too late, again with more care.

    Then rows that judges dropped are not counted on, and some tokens are kept to spare.
    """
    while True:
        judges = RowJudges(facts, left_out.reasons, asks_checks=left_out == NOTHING)
        walk = Walk(Room(bounds), judges, block_tokens=BLOCK_TOKENS)
        try:
            return _walk_once(problem, facts, left_out, walk)
        except Infeasible as error:
            careful = _more_careful(bounds, walk.outcome, error)
            if careful is None:
                raise
            bounds = careful


def _more_careful(bounds: Bounds, outcome: Outcome, error: Infeasible) -> Bounds | None:
    """Return the bounds of another try, None where it would be no other."""
    uncounted = outcome.reasons >= JUDGES
    if bounds.uncounted is not None:
        uncounted |= bounds.uncounted
    spare = bounds.spare_tokens
    if error.quota == TOKENS and bounds.max_tokens is not None:
        spare = min(SPARE * (spare + error.lacking), bounds.max_tokens)
    known = 0 if bounds.uncounted is None else np.count_nonzero(bounds.uncounted)
    if spare == bounds.spare_tokens and np.count_nonzero(uncounted) == known:
        return None
    return replace(bounds, uncounted=uncounted, spare_tokens=spare)


def _walk_once(problem: Problem, facts: RowFacts, left_out: LeftOut, walk: Walk) -> Solved:
    settings = problem.config.diversity
    if settings is None or left_out.diversity:
        return Solved(walk.run())
    n_candidates = min(settings.candidates, len(problem.positions))
    ranker = _ranker(problem, facts, n_candidates, walk.room.bounds)
    outcome = walk.run_ranked(ranker, n_candidates)
    return Solved(outcome, _quality(ranker, problem, facts, outcome, walk.room.bounds))


# --------------------------------------------------------------------------------- diversity


def _candidate_cosines(facts: RowFacts, n_candidates: int) -> NDArray[np.float32]:
    """Return the cosines of all pairs of the best rows.

    Raises:
        ValueError: They do not fit the memory set aside; says what would.
    """
    first = facts.signatures(np.arange(1))
    shortener = Shortener(first.shape[1], DIVERSITY_NUMBERS)
    n_numbers = min(first.shape[1], DIVERSITY_NUMBERS)
    needed = n_candidates * (2 * n_numbers + 4 * n_candidates)
    if needed > COSINE_BYTES:
        raise ValueError(
            f"diversity over {n_candidates} candidates of {n_numbers} numbers needs "
            f"{needed / 2**30:.1f} GiB, at most {COSINE_BYTES / 2**30:.0f} GiB are set aside; "
            "lower diversity.candidates."
        )
    vectors = np.empty((n_candidates, n_numbers), np.float16)
    for start in range(0, n_candidates, SIGNATURE_ROWS):
        part = np.arange(start, min(start + SIGNATURE_ROWS, n_candidates))
        vectors[part] = shortener.shorten(facts.signatures(part))
    return all_cosines(vectors)


def _ranker(problem: Problem, facts: RowFacts, n_candidates: int, bounds: Bounds) -> Ranker:
    settings = problem.config.diversity
    if settings is None:
        raise ValueError("expected a diversity rule, got none")
    values = preference(problem.values[:n_candidates], problem.config.prefer)
    scaled = relevance(values)
    if facts.cosines is None:
        facts.cosines = _candidate_cosines(facts, n_candidates)
    if settings.kind == "maximal_marginal_relevance":
        return MarginalRelevance(scaled, facts.cosines, weight=settings.weight)
    scale = float(scaled[: _plain_size(bounds, n_candidates)].sum())
    return FacilityLocation(scaled, facts.cosines, weight=settings.weight, scale=scale or 1.0)


def _plain_size(bounds: Bounds, n_candidates: int) -> int:
    """Return how many rows would be taken by value alone, at least one."""
    size = n_candidates if bounds.max_rows is None else min(bounds.max_rows, n_candidates)
    if bounds.max_tokens is not None:
        tokens = np.cumsum(bounds.tokens[:n_candidates])
        size = min(size, int(np.searchsorted(tokens, bounds.max_tokens, "right")))
    return max(size, 1)


def _quality(
    ranker: Ranker, problem: Problem, facts: RowFacts, outcome: Outcome, bounds: Bounds
) -> dict[str, Any]:
    """Return how diverse the taken candidates are, and how near to the best possible."""
    if isinstance(ranker, MarginalRelevance):
        taken = outcome.reasons[: len(ranker.nearest)] == TAKEN
        return {
            "rule": "maximal_marginal_relevance",
            "candidates": len(taken),
            "mean_nearest_cosine": _mean_nearest(facts, np.flatnonzero(taken)),
        }
    if not isinstance(ranker, FacilityLocation):
        raise TypeError(f"no measure of quality for {type(ranker).__name__}")
    n = len(ranker.covered)
    allowed = np.ones(n, bool)
    allowed[[place for place in facts.verdicts if place < n]] = False
    bound = ranker.upper_bound(
        allowed, bounds.tokens[:n], max_rows=bounds.max_rows, max_tokens=bounds.max_tokens
    )
    return {
        "rule": "facility_location",
        "candidates": n,
        "objective": ranker.objective,
        "upper_bound": bound,
        "share_of_best_by_bound": min(1.0, ranker.objective / bound) if bound > 0 else 1.0,
        "share_of_best_beforehand": _known_share(problem, bounds),
        "gains_computed": ranker.n_evaluations,
        "coverage": float(ranker.covered.mean(dtype=np.float64)),
        "mean_nearest_cosine": _mean_nearest(facts, np.flatnonzero(outcome.reasons[:n] == TAKEN)),
    }


def _mean_nearest(facts: RowFacts, taken: NDArray[np.int64]) -> float | None:
    """Return the mean over taken candidates of the cosine with the nearest other one."""
    if facts.cosines is None or len(taken) < 2:
        return None
    nearest = np.empty(len(taken), np.float32)
    for number, place in enumerate(taken.tolist()):
        others = facts.cosines[place, taken]
        others[number] = -np.inf
        nearest[number] = others.max()
    return float(nearest.mean(dtype=np.float64))


def _known_share(problem: Problem, bounds: Bounds) -> float | None:
    """Return what greedy reaches of the best whatever the rows: known for a number of rows only."""
    collapse = problem.config.collapse
    free = not bounds.fields and collapse.text is None and collapse.signature is None
    return float(1 - np.exp(-1)) if free and bounds.max_tokens is None else None


def mark_displaced(outcome: Outcome, plain: Sequence[int], reason: int) -> None:
    """Give a reason to undecided rows that would have been taken by value alone."""
    places = np.asarray(plain, np.int64)
    outcome.reasons[places[outcome.reasons[places] == UNDECIDED]] = reason
