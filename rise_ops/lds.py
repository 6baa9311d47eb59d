"""Do scores foretell what training on other rows really does? The linear datamodeling score (LDS).

A model is trained on many random subsets of the rows, each time from the same start. A method
foretells a query's loss by the sum of the scores of the subset's rows: a higher score lowers the
loss. LDS is the rank correlation, over the subsets, of what was foretold and what came; a mean over
queries. Trainings of equal subsets that differ in the order of rows say how much of the losses is
noise that no method can foretell. METHOD.md, evaluation.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from rise_ops.bootstrap import Interval, bootstrap_mean

Scores = Float[np.ndarray, "rows queries"]
Subsets = Bool[np.ndarray, "subsets rows"]
Losses = Float[np.ndarray, "subsets queries"]
Repeated = Float[np.ndarray, "repeated queries"]


@dataclass(frozen=True, eq=False)
class Lds:
    """The LDS of scores.

    Attributes:
        value: Mean over the queries, -1 to 1.
        interval: 95 % bootstrap interval of the mean, over queries; None with one query.
        deviation_over_subsets: Standard deviation of the mean when subsets are drawn anew from
            those that were trained.
        shuffled: Mean of the LDS of the same scores given to other rows.
        shuffled_deviation: Its standard deviation between shuffles.
        n_constant: Queries with equal predictions or equal losses in all subsets; they count as 0.
        per_query: One correlation a query.
    """

    value: float
    interval: Interval | None
    deviation_over_subsets: float
    shuffled: float
    shuffled_deviation: float
    n_constant: int
    per_query: Float[np.ndarray, " queries"]


@dataclass(frozen=True)
class NoiseFloor:
    """How much of the differences between subsets is the subsets.

    Attributes:
        n_repeated: Subsets that were trained a second time in another order.
        deviation_between_seeds: Of a query's loss, root mean square over queries.
        deviation_between_subsets: The same between subsets.
        best_correlation: Correlation with the losses that a method would have which foretells
            everything but the noise; mean over queries.
        seed_to_seed: Rank correlation of the two trainings over the repeated subsets; mean.
    """

    n_repeated: int
    deviation_between_seeds: float
    deviation_between_subsets: float
    best_correlation: float
    seed_to_seed: float


def lds(
    scores: Scores,
    subsets: Subsets,
    losses: Losses,
    *,
    rng: np.random.Generator,
    n_resamples: int = 1_000,
    n_shuffles: int = 20,
) -> Lds:
    """Return the LDS of scores, with its spread and with what shuffled scores give.

    Args:
        scores: Higher = stronger proponent; finite.
        subsets: Whether a row was in a training.
        losses: Of each query after each training.
        rng: Of resamples and shuffles.
        n_resamples: Bootstrap samples of the queries; a fifth as many of the subsets.
        n_shuffles: Shuffles of the rows' scores.

    Raises:
        ValueError: Shapes do not fit, a number is not finite, or there are fewer than 3 subsets.
    """
    _check(scores, subsets, losses)
    foretold = _foretold(subsets, scores)
    per_query = rank_correlations(foretold, -losses)
    shuffled = [
        rank_correlations(_foretold(subsets, rng.permutation(scores)), -losses).mean()
        for _ in range(n_shuffles)
    ]
    n_subsets = len(losses)
    resampled = []
    for _ in range(max(1, n_resamples // 5)):
        drawn = rng.integers(0, n_subsets, n_subsets)
        resampled.append(rank_correlations(foretold[drawn], -losses[drawn]).mean())
    return Lds(
        value=float(per_query.mean()),
        interval=bootstrap_mean(per_query, rng=rng, n_resamples=n_resamples),
        deviation_over_subsets=float(np.std(resampled)),
        shuffled=float(np.mean(shuffled)),
        shuffled_deviation=float(np.std(shuffled)),
        n_constant=int(((np.ptp(foretold, axis=0) == 0) | (np.ptp(losses, axis=0) == 0)).sum()),
        per_query=per_query,
    )


def noise_floor(losses: Losses, first: Repeated, again: Repeated) -> NoiseFloor:
    """Return how far trainings of equal subsets agree.

    Args:
        losses: Of all subsets.
        first: Of the repeated subsets, as in ``losses``.
        again: Of the same subsets, trained in another order.

    Raises:
        ValueError: Shapes differ, or nothing was repeated.
    """
    if first.shape != again.shape or len(first) < 1:
        raise ValueError(
            "first and again must be one loss for each repeated subset and query, got "
            f"{first.shape} and {again.shape}."
        )
    noise = ((first - again) ** 2 / 2).mean(0)
    total = losses.var(0, ddof=1)
    explained = np.divide(noise, total, out=np.ones_like(total), where=total > 0)
    return NoiseFloor(
        n_repeated=len(first),
        deviation_between_seeds=float(np.sqrt(noise.mean())),
        deviation_between_subsets=float(np.sqrt(total.mean())),
        best_correlation=float(np.sqrt(np.clip(1 - explained, 0, 1)).mean()),
        seed_to_seed=float(rank_correlations(first, again).mean()),
    )


def random_subsets(n_rows: int, n_subsets: int, *, share: float, seed: int) -> Subsets:
    """Return random subsets of one size; a subset does not depend on how many there are."""
    size = max(1, min(n_rows - 1, round(share * n_rows)))
    subsets = np.zeros((n_subsets, n_rows), dtype=np.bool_)
    for number in range(n_subsets):
        chosen = np.random.default_rng([seed, number]).permutation(n_rows)[:size]
        subsets[number, chosen] = True
    return subsets


def rank_correlations(
    left: Float[np.ndarray, "samples columns"], right: Float[np.ndarray, "samples columns"]
) -> Float[np.ndarray, " columns"]:
    """Return Spearman's correlation of each pair of columns; 0 where one side is constant."""
    ranked = [rankdata(side, axis=0) for side in (left, right)]
    centered = [side - side.mean(0) for side in ranked]
    lengths = [np.sqrt((side**2).sum(0)) for side in centered]
    products = (centered[0] * centered[1]).sum(0)
    return products / np.maximum(lengths[0] * lengths[1], 1e-12)


def _foretold(subsets: Subsets, scores: Scores) -> Losses:
    return subsets.astype(np.float64) @ scores.astype(np.float64)


def _check(scores: Scores, subsets: Subsets, losses: Losses) -> None:
    expected = (subsets.shape[1], losses.shape[1])
    if scores.shape != expected or len(subsets) != len(losses):
        raise ValueError(
            f"subsets {subsets.shape} and losses {losses.shape} need scores {expected} and as many "
            f"subsets as losses, got scores {scores.shape}."
        )
    if len(losses) < 3:
        raise ValueError(f"a rank correlation needs 3 subsets or more, got {len(losses)}.")
    if not (np.isfinite(scores).all() and np.isfinite(losses).all()):
        raise ValueError("scores and losses must be finite.")
