"""Can least amounts of two kinds of quotas be met together, and with which rows at the least cost?

Rows of the same source quota and the same label quota are one *cell*. Choosing how many rows of
each cell to take, under least and most amounts of both fields and of the whole, is a flow through a
bipartite graph: the matrix is totally unimodular, so a vertex of the linear program is whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64


@dataclass(frozen=True, eq=False)
class Need:
    """What a completion must have, and of what it may be made.

    Attributes:
        codes: Quota in each field of each choice (a cell, or one row), int64 [choices, fields].
        upper: Rows that a choice has, int64 [choices].
        cost: Cost of a row of it, float64 [choices].
        least: Rows still lacking a quota, int64 [quotas], one array a field.
        most: Rows still open to a quota, likewise.
        rows: Rows at most.
        exact: Exactly ``rows`` rows.
    """

    codes: Int64[np.ndarray, "choices fields"]
    upper: Int64[np.ndarray, " choices"]
    cost: Float64[np.ndarray, " choices"]
    least: Sequence[Int64[np.ndarray, " _"]]
    most: Sequence[Int64[np.ndarray, " _"]]
    rows: int
    exact: bool = False


def complete(need: Need) -> Int64[np.ndarray, " choices"] | None:
    """Return how many rows of each choice make the cheapest completion; None if there is none."""
    if len(need.upper) == 0:
        lacking = any(least.any() for least in need.least) or (need.exact and need.rows > 0)
        return None if lacking else np.zeros(0, np.int64)
    return _solve(need, elastic=False)


def most_rows(need: Need) -> int:
    """Return the most rows that most amounts let through, least amounts aside; at most ``rows``."""
    without = [np.zeros_like(least) for least in need.least]
    found = _solve(
        Need(need.codes, need.upper, -np.ones(len(need.upper)), without, need.most, need.rows),
        elastic=False,
    )
    return 0 if found is None else int(found.sum())


def shortfall(need: Need) -> tuple[int, int, int] | None:
    """Return the field and quota that lack most rows in the completion that lacks fewest.

    Returns:
        Field, quota, rows lacking; None where every quota is met.
    """
    found = _solve(need, elastic=True)
    lacking = [] if found is None else _split(found[len(need.upper) :], need)
    worst = [(int(part.max(initial=0)), -field) for field, part in enumerate(lacking)]
    if not worst or max(worst)[0] == 0:
        return None
    rows, field = max(worst)
    return -field, int(np.argmax(lacking[-field])), rows


def _split(slack: Int64[np.ndarray, " all_quotas"], need: Need) -> list[Int64[np.ndarray, " _"]]:
    return np.split(slack, np.cumsum([len(least) for least in need.least])[:-1])


def _solve(need: Need, *, elastic: bool) -> Int64[np.ndarray, " variables"] | None:
    """Solve the program; with ``elastic`` one more variable a quota says what it lacks."""
    from scipy import sparse
    from scipy.optimize import linprog

    n_choices = len(need.upper)
    incidence = sparse.vstack(
        [_membership(need.codes[:, field], len(least)) for field, least in enumerate(need.least)]
    )
    least, most = np.concatenate(list(need.least)), np.concatenate(list(need.most))
    most = np.minimum(most, need.upper.sum())  # nothing more than all, for a solver in floats
    n_slack = len(least) if elastic else 0
    slack = sparse.identity(len(least)) if elastic else sparse.csr_matrix((len(least), 0))
    none = sparse.csr_matrix((len(least), n_slack))
    total = sparse.csr_matrix(np.append(np.ones(n_choices), np.zeros(n_slack))[None, :])
    exact = need.exact and not elastic
    above = [sparse.hstack([-incidence, -slack]), sparse.hstack([incidence, none])]
    found = linprog(
        np.append(np.zeros(n_choices) if elastic else need.cost, np.ones(n_slack)),
        A_ub=sparse.vstack(above if exact else [*above, total]),
        b_ub=np.concatenate([-least, most, [] if exact else [need.rows]]),
        A_eq=total if exact else None,
        b_eq=[need.rows] if exact else None,
        bounds=np.stack(
            [np.zeros(n_choices + n_slack), np.append(need.upper, np.full(n_slack, np.inf))], axis=1
        ),
        method="highs-ds",
    )
    return None if found.status != 0 else np.rint(found.x).astype(np.int64)


def _membership(codes: Int64[np.ndarray, " choices"], n_quotas: int) -> object:
    from scipy import sparse

    has = np.flatnonzero(codes >= 0)
    shape = (n_quotas, len(codes))
    return sparse.csr_matrix((np.ones(len(has)), (codes[has], has)), shape=shape)
