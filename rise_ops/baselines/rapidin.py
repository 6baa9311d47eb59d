"""What does RapidIn compare? Loss gradients, tensor by tensor of unit length, compressed.

Each parameter tensor's gradient is divided by its own length before all are laid end to end, so
that the uncompressed score is a sum of cosines, one a tensor. A `BinnedSketch` makes the result
short. Source: Lin et al. 2024, arXiv:2405.11724; departures from its code are in METHOD.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rise_ops.baselines.count_sketch import BinnedSketch

MIN_LENGTH = 1e-12
"""Shorter gradients are divided by this: a zero gradient stays zero."""

SLICE_ROWS = 128


@dataclass(frozen=True, eq=False)
class CompressedGradients:
    """Gradients made short by one set of tables.

    Attributes:
        values: float16, one gradient a line.
        tables: Which shuffle, signs and sizes made them; only equal tables compare.
    """

    values: np.ndarray
    tables: dict[str, int | str]


def unit_tensors(gradients: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, " n"]:
    """Return the gradients of one loss, each of length 1 or 0, laid end to end, float32.

    Args:
        gradients: One a parameter tensor.
    """
    lengths = [own.float().norm().clamp_min(MIN_LENGTH) for own in gradients]
    return torch.cat(
        [own.float().flatten() / length for own, length in zip(gradients, lengths, strict=True)]
    )


def compressed(gradients: Sequence[Float[Tensor, "..."]], sketch: BinnedSketch) -> np.ndarray:
    """Return what is kept of one loss's gradients: float16, ``sketch.dim`` numbers.

    Args:
        gradients: One a parameter tensor, in the order that the sketch was drawn for.
        sketch: Of as many numbers as the tensors have together.
    """
    return sketch.apply(unit_tensors(gradients)).to(torch.float16).cpu().numpy()


def rapidin_scores(
    rows: CompressedGradients, queries: CompressedGradients
) -> Float[np.ndarray, "rows queries"]:
    """Return inner products of compressed gradients, float32; higher = stronger proponent.

    Raises:
        ValueError: Rows and queries were compressed by different tables.
    """
    if rows.tables != queries.tables:
        raise ValueError(
            f"rows were compressed by {rows.tables} but queries by {queries.tables}; such numbers "
            "do not compare. Compress both with the same settings."
        )
    asked = queries.values.astype(np.float32).T
    scores = np.empty((len(rows.values), asked.shape[1]), dtype=np.float32)
    for first in range(0, len(scores), SLICE_ROWS):  # so that only a slice of rows is widened
        own = rows.values[first : first + SLICE_ROWS].astype(np.float32)
        scores[first : first + SLICE_ROWS] = own @ asked
    return scores
