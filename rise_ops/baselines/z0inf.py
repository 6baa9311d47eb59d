"""Can influence be read from losses alone, without a gradient? Z0-Inf, of a training's steps.

Where the weights moved by ``d`` the loss changed by about ``<gradient, d>``. From several such
moves the part of a gradient that lies along the trajectory follows from loss differences, and so do
inner products of two gradients. Needed: every row's and query's loss at every checkpoint, and how
the moves lie to each other. Source: Kokhlikyan, Chaudhuri, Mahloujifar, arXiv:2510.11832.

With ``d_ej = theta_e - theta_j`` and the neighbours ``N(e)`` of a checkpoint::

    I[z, z'] = 1/T sum_e sum_{j,k in N(e)} (L_e(z) - L_j(z)) C_e[j,k] (L_e(z') - L_k(z'))
    C_e[j,k] = <d_ej, d_ek> / (|d_ej|^2 |d_ek|^2)

``C_e`` is positive semidefinite, so a row has a signature whose inner products are exactly that.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

Neighbours = Literal["adjacent", "last"]
Centring = Literal["own", "rows", "none"]


def step_products(chunks: Iterable[Float[np.ndarray, "checkpoints _"]]) -> np.ndarray:
    """Return inner products of the steps between checkpoints, float64 [T - 1, T - 1].

    Steps are subtracted before they are multiplied: weights are far longer than their changes.

    Args:
        chunks: The trained weights at every checkpoint, some columns at a time; each weight once.

    Raises:
        ValueError: There are no weights, or fewer than two checkpoints.
    """
    products: np.ndarray | None = None
    for chunk in chunks:
        steps = np.diff(chunk.astype(np.float64), axis=0)
        products = steps @ steps.T if products is None else products + steps @ steps.T
    if products is None or products.shape[0] < 1:
        raise ValueError("at least two checkpoints and one weight are needed.")
    return products


def neighbours_of(n_checkpoints: int, kind: Neighbours) -> list[list[int]]:
    """Return the checkpoints that each is compared with.

    Args:
        n_checkpoints: Two or more.
        kind: ``adjacent``: the one before and the one after. ``last``: the last two, as published.
    """
    every = range(n_checkpoints)
    if kind == "last":
        return [[j for j in every[-2:] if j != own] for own in every]
    return [[j for j in (own - 1, own + 1) if 0 <= j < n_checkpoints] for own in every]


def move_products(
    products: Float64[np.ndarray, "steps steps"], own: int, neighbours: list[int]
) -> Float64[np.ndarray, "neighbours neighbours"]:
    """Return ``C_e`` of a checkpoint.

    Args:
        products: Of `step_products`.
        own: The checkpoint, e.
        neighbours: N(e).

    Raises:
        ValueError: Two checkpoints have the same weights.
    """
    moves = np.zeros((len(neighbours), len(products)))
    for line, other in enumerate(neighbours):
        first, last = sorted((own, other))
        moves[line, first:last] = 1.0 if own > other else -1.0
    gram = moves @ products @ moves.T
    lengths = gram.diagonal()
    if not (lengths > 0.0).all():
        equal = neighbours[int(np.argmin(lengths))]
        raise ValueError(
            f"checkpoints {own} and {equal} have the same weights, so nothing can be learnt from "
            "them; train longer between checkpoints, or keep fewer."
        )
    return gram / np.outer(lengths, lengths)


def centred(
    losses: Float64[np.ndarray, "checkpoints items"],
    rows: Float64[np.ndarray, "checkpoints rows"],
    kind: Centring,
) -> Float64[np.ndarray, "checkpoints items"]:
    """Return losses less a mean a checkpoint: their own, the rows', or none.

    Raises:
        ValueError: A single item has no mean but itself.
    """
    if kind == "none":
        return losses
    if kind == "own" and losses.shape[1] < 2:
        raise ValueError(
            "centring: own subtracts the mean loss of rows and of queries, which leaves nothing of "
            f"{losses.shape[1]} item; set centring: rows."
        )
    return losses - (losses if kind == "own" else rows).mean(axis=1, keepdims=True)


def z0inf_signatures(
    losses: Float64[np.ndarray, "checkpoints items"],
    products: Float64[np.ndarray, "steps steps"],
    *,
    neighbours: Neighbours = "adjacent",
) -> Float64[np.ndarray, "items numbers"]:
    """Return signatures whose inner products are the influences.

    Args:
        losses: Of each item at each checkpoint, centred if at all.
        products: Of `step_products`.
        neighbours: Which checkpoints are compared.

    Raises:
        ValueError: Losses and steps are of another number of checkpoints, or two checkpoints are
            equal.
    """
    n_checkpoints = len(losses)
    if products.shape != (n_checkpoints - 1, n_checkpoints - 1):
        raise ValueError(
            f"losses are of {n_checkpoints} checkpoints, so steps must be "
            f"[{n_checkpoints - 1}, {n_checkpoints - 1}], got {list(products.shape)}."
        )
    parts = []
    for own, others in enumerate(neighbours_of(n_checkpoints, neighbours)):
        root = _square_root(move_products(products, own, others))
        parts.append((losses[own] - losses[others]).T @ root)
    return np.concatenate(parts, axis=1) / np.sqrt(n_checkpoints)


def self_influence(losses: Float64[np.ndarray, "checkpoints items"]) -> np.ndarray:
    """Return the variance of each item's loss over the checkpoints, float64."""
    return losses.var(axis=0)


def curve_agreement(
    rows: Float64[np.ndarray, "checkpoints rows"],
    queries: Float64[np.ndarray, "checkpoints queries"],
) -> Float64[np.ndarray, "rows queries"]:
    """Return the rank correlation of two loss curves over checkpoints; a flat curve agrees 0."""
    return _unit_ranks(rows).T @ _unit_ranks(queries)


def _square_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(values.clip(min=0.0))


def _unit_ranks(losses: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    ranks = rankdata(losses, axis=0)
    ranks -= ranks.mean(axis=0)
    lengths = np.linalg.norm(ranks, axis=0)
    return ranks / np.where(lengths > 0.0, lengths, 1.0)
