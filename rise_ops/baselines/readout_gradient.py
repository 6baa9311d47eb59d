"""What would RISE score without sketches? The exact gradient of the read-out head's matrix.

The gradient of a text's summed cross-entropy with respect to the head is ``sum_t r_t h_t^T``, over
the whole vocabulary at temperature 1. Two texts' inner product is ``sum_ts <r_t, r_s> <h_t, h_s>``:
never formed as a matrix of its own. This is TracIn of the last layer (Pruthi et al. 2020).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rise_ops.readout import ReadoutHead


@dataclass(frozen=True, eq=False)
class TextPositions:
    """Positions of some texts, text by text.

    Attributes:
        hidden: What the head reads, float32.
        targets: The token that each position should have predicted.
        text_index: Text of each position, ascending from 0.
        n_texts: Texts; some may have no position.
    """

    hidden: Float[Tensor, "positions hidden"]
    targets: Int[Tensor, " positions"]
    text_index: Int[Tensor, " positions"]
    n_texts: int


def full_residual(
    head: ReadoutHead, hidden: Float[Tensor, "positions hidden"], targets: Int[Tensor, " positions"]
) -> Float[Tensor, "positions vocab"]:
    """Return d loss / d (weight @ hidden): ``softmax(logits) - onehot``, through scale and cap."""
    logits = head.logits(hidden)
    slope = None if head.is_linear else head.slope(logits)
    residual = torch.softmax(logits, dim=-1)
    residual.scatter_add_(1, targets[:, None], residual.new_full((len(targets), 1), -1.0))
    return residual if slope is None else residual * slope


def gradient_products(
    rows: TextPositions,
    row_residual: Float[Tensor, "row_positions vocab"],
    queries: TextPositions,
    query_residual: Float[Tensor, "query_positions vocab"],
) -> Float[Tensor, "rows queries"]:
    """Return the inner product of every row's gradient with every query's."""
    kernel = (row_residual @ query_residual.T) * (rows.hidden @ queries.hidden.T)
    by_row = kernel.new_zeros(rows.n_texts, kernel.shape[1]).index_add_(0, rows.text_index, kernel)
    products = kernel.new_zeros(queries.n_texts, rows.n_texts)
    return products.index_add_(0, queries.text_index, by_row.T).T


def gradient_lengths(
    texts: TextPositions, residual: Float[Tensor, "positions vocab"]
) -> Float[Tensor, " texts"]:
    """Return the length of every text's gradient."""
    kernel = (residual @ residual.T) * (texts.hidden @ texts.hidden.T)
    kernel = kernel * (texts.text_index[:, None] == texts.text_index[None, :])
    squares = kernel.new_zeros(texts.n_texts).index_add_(0, texts.text_index, kernel.sum(dim=1))
    return squares.clamp_min(0.0).sqrt()
