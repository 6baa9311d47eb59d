"""Do scores foretell what training on other rows really does? The linear datamodeling score (LDS).

A model is trained on many random subsets of the rows, each time from the same start. A method
foretells a query's loss by the sum of the scores of the subset's rows: a higher score lowers the
loss. LDS is the rank correlation, over the subsets, of what was foretold and what came; a mean over
queries. Trainings of equal subsets that differ in the order of rows say how much of the losses is
noise that no method can foretell. METHOD.md, evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from rise_ops.bootstrap import Interval, interval_of
from rise_ops.lds_resampling import (
    drawn_counts,
    resampled_correlations,
    shuffled_correlations,
    whole_scores,
)

Scores = Float[np.ndarray, "rows queries"]
Subsets = Bool[np.ndarray, "subsets rows"]
Losses = Float[np.ndarray, "subsets queries"]
Repeated = Float[np.ndarray, "repeated queries"]

N_RESAMPLES = 1_000
N_SHUFFLES = 1_000


@dataclass(frozen=True, eq=False)
class Lds:
    """The LDS of a method's scores.

    Attributes:
        value: Mean over the queries, -1 to 1.
        interval: 95 % bootstrap interval of it, queries and subsets drawn together.
        deviation_over_subsets: Its standard deviation when the subsets alone are drawn anew.
        shuffled: Mean of the LDS of the same scores given to other rows.
        shuffled_deviation: Its standard deviation between shuffles.
        p: Share of the shuffles, this one counted as one more, whose LDS is as high or higher.
        n_constant: Queries with equal predictions or equal losses in all subsets; they count as 0.
        per_query: One correlation a query.
        resampled: Its value in each resample; the resamples are the same for all methods.
    """

    value: float
    interval: Interval
    deviation_over_subsets: float
    shuffled: float
    shuffled_deviation: float
    p: float
    n_constant: int
    per_query: Float[np.ndarray, " queries"]
    resampled: Float[np.ndarray, " resamples"]

    def less(self, other: "Lds") -> Interval:
        """Return the 95 % interval of this LDS less another of equal subsets, losses and seed."""
        return interval_of(self.resampled - other.resampled)


@dataclass(frozen=True)
class Noise:
    """How much of the differences between subsets is the subsets, and how much the order of rows.

    Attributes:
        n_repeated: Subsets that were trained a second time in another order.
        deviation_between_seeds: Of a query's loss, root mean square over queries; without what the
            other order does to all subsets alike.
        deviation_between_subsets: The same between subsets.
        ceiling: Pearson's correlation with the losses that a method would have which foretells
            everything but the noise; mean over queries.
        ceiling_interval: Its 95 % bootstrap interval, queries and subsets drawn together.
        reliability: Spearman's correlation of the two trainings over the repeated subsets; mean.
    """

    n_repeated: int
    deviation_between_seeds: float
    deviation_between_subsets: float
    ceiling: float
    ceiling_interval: Interval
    reliability: float


def lds(
    scores: Mapping[str, Scores],
    subsets: Subsets,
    losses: Losses,
    *,
    seed: int,
    n_resamples: int = N_RESAMPLES,
    n_shuffles: int = N_SHUFFLES,
) -> dict[str, Lds]:
    """Return the LDS of methods, on the same resamples and the same shuffles.

    A method's numbers do not depend on which others are asked for.

    Args:
        scores: Of each method; higher = stronger proponent; finite.
        subsets: Whether a row was in a training; of one size.
        losses: Of each query after each training.
        seed: Of resamples and shuffles.
        n_resamples: Bootstrap samples of subsets and queries.
        n_shuffles: Shuffles of the rows' scores.

    Raises:
        ValueError: Shapes do not fit, a number is not finite, or there are fewer than 3 subsets.
    """
    for own in scores.values():
        _check(own, subsets, losses)
    if not scores:
        return {}
    rng = np.random.default_rng(seed)
    whole = whole_scores(np.stack([*scores.values()]))
    foretold = subsets.astype(np.float64) @ whole
    (n_subsets, n_rows), n_queries = subsets.shape, losses.shape[1]
    drawn = drawn_counts(n_subsets, n_resamples, rng=rng)
    asked = drawn_counts(n_queries, n_resamples, rng=rng) / n_queries
    both = np.zeros((len(scores), n_resamples))
    alone = np.zeros_like(both)
    for query, found in enumerate(resampled_correlations(foretold, losses, drawn)):
        both += found * asked[:, query]
        alone += found / n_queries
    orders = rng.permuted(np.tile(np.arange(n_rows), (n_shuffles, 1)), axis=1)
    shuffled = shuffled_correlations(whole, subsets, losses, orders)
    return {
        name: _one(foretold[number], losses, both[number], alone[number], shuffled[number])
        for number, name in enumerate(scores)
    }


def noise_of(losses: Losses, first: Repeated, again: Repeated, *, seed: int) -> Noise:
    """Return how far trainings of equal subsets agree.

    Args:
        losses: Of all subsets.
        first: Of the repeated subsets, as in ``losses``.
        again: Of the same subsets, trained in another order.
        seed: Of the resamples of the ceiling.

    Raises:
        ValueError: Shapes differ, or fewer than two subsets were repeated.
    """
    if first.shape != again.shape or len(first) < 2:
        raise ValueError(
            "first and again must be one loss for each repeated subset and query, of two subsets "
            f"or more (what the order shifts in all subsets is no noise), got {first.shape} and "
            f"{again.shape}."
        )
    noise = (first - again).var(0, ddof=1) / 2
    total = losses.var(0, ddof=1)
    rng = np.random.default_rng(seed)
    resampled = _reached(
        _resampled_variance(first - again, rng) / 2, _resampled_variance(losses, rng)
    )
    n_queries = losses.shape[1]
    asked = drawn_counts(n_queries, N_RESAMPLES, rng=rng) / n_queries
    return Noise(
        n_repeated=len(first),
        deviation_between_seeds=float(np.sqrt(noise.mean())),
        deviation_between_subsets=float(np.sqrt(total.mean())),
        ceiling=float(_reached(noise, total).mean()),
        ceiling_interval=interval_of((resampled * asked).sum(1)),
        reliability=float(rank_correlations(first, again).mean()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number after Holm (1979), in their order.

    Rejecting those up to a level errs in one or more of the true hypotheses with at most that
    probability, whatever their dependence.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors)
    return [float(value) for value in np.minimum(corrected, 1.0)]


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


def _one(
    foretold: Losses,
    losses: Losses,
    both: Float[np.ndarray, " resamples"],
    alone: Float[np.ndarray, " resamples"],
    shuffled: Float[np.ndarray, " shuffles"],
) -> Lds:
    per_query = rank_correlations(foretold, -losses)
    value = float(per_query.mean())
    # equal rankings may differ in the last digit by the way that they were correlated
    n_as_high = int((shuffled >= value - 1e-12).sum())
    return Lds(
        value=value,
        interval=interval_of(both),
        deviation_over_subsets=float(np.std(alone)),
        shuffled=float(np.mean(shuffled)),
        shuffled_deviation=float(np.std(shuffled)),
        p=(1 + n_as_high) / (1 + len(shuffled)),
        n_constant=int(((np.ptp(foretold, axis=0) == 0) | (np.ptp(losses, axis=0) == 0)).sum()),
        per_query=per_query,
        resampled=both,
    )


def _reached(
    noise: Float[np.ndarray, "*rest queries"], total: Float[np.ndarray, "*rest queries"]
) -> Float[np.ndarray, "*rest queries"]:
    share = np.divide(noise, total, out=np.ones_like(total), where=total > 0)
    return np.sqrt(np.clip(1 - share, 0, 1))


def _resampled_variance(
    values: Repeated, rng: np.random.Generator
) -> Float[np.ndarray, "resamples queries"]:
    """Return variances of resamples; as large in the mean as that of the values themselves."""
    n = len(values)
    shares = drawn_counts(n, N_RESAMPLES, rng=rng) / n
    centered = values - values.mean(0)
    spread = np.maximum(shares @ centered**2 - (shares @ centered) ** 2, 0.0)
    # a factor for one degree of freedom, and one for what is drawn twice
    return spread * (n / (n - 1)) ** 2


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
