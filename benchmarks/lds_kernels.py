"""What does an estimator give without any sketch? Exact kernels over a few hundred short texts.

K(i, q) = sum over positions t of i, s of q of <u_t, u_s> <h_t, h_s>, where u is the residual or the
projected error: the limit that signatures approach as they grow.
"""

import torch
from evidence_cache import Readout

from rise_ops.projection import MIN_NORM, unit_length, weighted_rows
from rise_ops.residual import SparseResidual
from rise_ops.signature import SignatureSettings


def exact_scores(
    readout: Readout,
    settings: SignatureSettings,
    embedding: torch.Tensor,
    n_rows: int,
    *,
    whitening: torch.Tensor | None = None,
    normalized: bool = True,
) -> torch.Tensor:
    """Return the unsketched scores [rows, queries] of the first `n_rows` texts and the others.

    Args:
        readout: Texts of one window each.
        settings: Channels RH and GH.
        embedding: E of the projected error.
        n_rows: Texts that are rows.
        whitening: Map of the hidden state, [d, d]; None: none.
        normalized: False: plain inner products, so that long or surprising rows score more.
    """
    residual = readout.residual(slice(None), settings)
    hidden = readout.hidden.float()
    hidden = hidden if whitening is None else hidden @ whitening
    errors = weighted_rows(embedding, residual)
    if settings.weighting == "unit":
        values = unit_length(residual.values, MIN_NORM)
        residual = SparseResidual(residual.tokens, values)
        hidden, errors = unit_length(hidden), unit_length(errors)
    grams = {"residual_hidden": _residual_gram(residual, len(embedding))}
    grams["projected_hidden"] = errors @ errors.T
    sums = {
        channel: _block_sums(gram * (hidden @ hidden.T), readout)
        for channel, gram in grams.items()
        if channel in settings.channels
    }
    if settings.weighting == "gradient" and normalized:
        sums = {channel: _cosines(own) for channel, own in sums.items()}
    whole = sum(settings.channels[channel] ** 2 * own for channel, own in sums.items())
    whole = _cosines(whole) if normalized else whole
    return whole[:n_rows, n_rows:]


def _residual_gram(residual: SparseResidual, vocab: int) -> torch.Tensor:
    """Return <r_t, r_s> of all positions, the right side made dense a slice at a time."""
    columns = []
    for first in range(0, len(residual.tokens), 512):
        tokens, values = (x[first : first + 512] for x in (residual.tokens, residual.values))
        dense = torch.zeros(len(tokens), vocab).scatter_add_(1, tokens.long(), values)
        columns.append(weighted_rows(dense.T.contiguous(), residual))
    return torch.cat(columns, dim=1)


def _block_sums(kernel: torch.Tensor, readout: Readout) -> torch.Tensor:
    member = torch.zeros(readout.n_texts, len(kernel))
    member[readout.text_index, torch.arange(len(kernel))] = 1.0
    return member @ kernel @ member.T


def _cosines(kernel: torch.Tensor) -> torch.Tensor:
    lengths = kernel.diagonal().clamp_min(MIN_NORM).sqrt()
    return kernel / lengths[:, None] / lengths
