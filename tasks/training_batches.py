"""Which rows every step of a training takes: so many rows, or so many predicted tokens."""

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tasks.training_config import TrainingConfig


def planned_batches(
    n_rows: int,
    subset: Sequence[int],
    config: TrainingConfig,
    *,
    seed: int,
    n_predicted: Sequence[int] | npt.NDArray[np.int64] = (),
) -> list[list[int]]:
    """Return the rows of every step of all epochs.

    There is one order of all rows for a seed and an epoch, and a subset keeps it: two trainings
    differ in what they leave out, not in how the rest is ordered. No step crosses an epoch. With
    ``batch_tokens``, subsets of as many predicted tokens take as many steps, but for one, as long
    as no row is longer than a step.

    Args:
        n_rows: Of the pool.
        subset: The rows that are trained on.
        config: Epochs, and rows or tokens a batch.
        seed: Of the order.
        n_predicted: Predicted tokens of each row of the subset; ``batch_tokens`` needs them.
    """
    rng, kept = random.Random(seed), set(subset)
    orders = [
        [row for row in rng.sample(range(n_rows), n_rows) if row in kept]
        for _ in range(config.epochs)
    ]
    if config.batch_tokens is not None:
        sizes = dict(zip(subset, map(int, n_predicted), strict=True))
        return _batches_of_tokens(orders, sizes, config.batch_tokens)
    size = config.batch_rows
    return [own[n : n + size] for own in orders for n in range(0, len(own), size)]


def _batches_of_tokens(
    orders: Sequence[Sequence[int]], sizes: Mapping[int, int], most: int
) -> list[list[int]]:
    """Cut each order where the tokens of all orders together are cut into equal steps.

    A row belongs to the step that has its middle; one that is longer than a step takes several
    places and leaves those empty ones out.
    """
    total = sum(sizes.values())
    ends = [round(epoch * total / most) for epoch in range(len(orders) + 1)]
    batches: list[list[int]] = []
    for order, (begin, end) in zip(orders, pairwise(ends), strict=True):
        n_steps, before = max(1, end - begin), 0
        steps: list[list[int]] = [[] for _ in range(n_steps)]
        for row in order:
            middle = before + sizes[row] / 2
            steps[min(n_steps - 1, int(middle * n_steps / total))].append(row)
            before += sizes[row]
        batches += [own for own in steps if own]
    return batches
