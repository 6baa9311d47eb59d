"""How do we get the residuals of a float32 head at the price of a low-precision one?

Of the logits of a position only the few largest shape its residual. A low-precision product
(bfloat16 where the machine multiplies it fast) is good enough to say which these are, up to a
margin that we can bound (`coarse_product`); the candidates are then scored again in float32 from
the rows of the head's weight, and go through the same rule as in `residual`. Nothing of a logit
that reaches a residual is ever low precision.

A position is *certified* when that is enough to know that the float32 head gives the same
residual: the same kept tokens, and values that differ by no more than rounding does
(`certificate`). The others, also those where the float32 head itself would decide by rounding, can
be sent through it: `repair`.
Source: METHOD.md, "Float32 residuals from a coarse product".
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rise_ops.certificate import Evidence, is_certain
from rise_ops.coarse_product import FLOAT32_UNIT, CoarseHead, best_candidates
from rise_ops.largest import LAST_KEY, ascending, logit_keys, tokens_and_logits
from rise_ops.readout import ReadoutHead
from rise_ops.residual import (
    ResidualRule,
    SparseResidual,
    sparse_residual,
    support_residual,
)
from rise_ops.row_products import row_products

CPU_SLICE_BYTES = 24 * 2**20
"""Coarse logits made at a time on a CPU: larger slices leave its cache before they are read (a
tenth slower), smaller ones make the product less efficient."""


@dataclass(frozen=True, eq=False)
class CoarseResidual:
    """Residuals with what is known about them.

    Attributes:
        residual: Gradient with respect to the logits; `residual.support_through_head` with
            ``logits`` makes it the one with respect to ``weight @ hidden``.
        logits: Float32 logits of ``residual.tokens``.
        certified: Whether the float32 head gives the same residual.
    """

    residual: SparseResidual
    logits: Float[Tensor, "positions support"]
    certified: Bool[Tensor, " positions"]


@torch.no_grad()
def coarse_residual(
    coarse: CoarseHead,
    hidden: Float[Tensor, "positions hidden"],
    targets: Int[Tensor, " positions"],
    rule: ResidualRule,
    *,
    n_candidates: int,
    max_logit_bytes: int,
) -> CoarseResidual:
    """Return the residuals that `sparse_residual` makes of the float32 logits, certified or not.

    With fewer candidates than ``rule.top_k`` the support is as small as they are: at a low
    temperature the rest has no probability to speak of, and where it has, the position is not
    certified. The host never waits for the device.

    Args:
        coarse: From `coarse_product.coarse_head`.
        hidden: Final hidden states, float32, on the head's device.
        targets: The token that each position should have predicted.
        rule: See `sparse_residual`.
        n_candidates: Tokens scored again in float32, the target not counted; the vocabulary's
            size where that is smaller. `candidates_for` gives a good number.
        max_logit_bytes: Coarse logits are made for so many positions at a time that they fit.

    Raises:
        ValueError: ``max_logit_bytes`` does not hold one position, ``rule.top_k`` exceeds the
            vocabulary, or ``n_candidates`` is below 1.
    """
    vocab = coarse.head.vocab_size
    rule.check_vocab(vocab)
    if n_candidates < 1:
        raise ValueError(f"n_candidates must be at least 1, got {n_candidates}.")
    size = _slice_size(coarse, max_logit_bytes)
    parts = [
        _slice_residual(coarse, hidden[part], targets[part], rule, min(n_candidates, vocab))
        for part in _slices(len(hidden), size)
    ]
    return CoarseResidual(
        SparseResidual(
            torch.cat([part.residual.tokens for part in parts]),
            torch.cat([part.residual.values for part in parts]),
        ),
        torch.cat([part.logits for part in parts]),
        torch.cat([part.certified for part in parts]),
    )


def candidates_for(rule: ResidualRule, coarse: CoarseHead) -> int:
    """Return a number of candidates that certifies nearly every position of a language model.

    A low temperature leaves few tokens with probability; otherwise the support needs slack for the
    tokens within the margin of its last one, more of it where inputs are rounded. Measured:
    METHOD.md.
    """
    if rule.temperature <= 0.25 and rule.mass < 1.0:
        return min(rule.top_k, 48)
    if coarse.rounds_inputs:
        return rule.top_k + max(64, rule.top_k * 5 // 8)
    return rule.top_k + max(32, rule.top_k // 4)


@torch.no_grad()
def repair(
    found: CoarseResidual,
    head: ReadoutHead,
    hidden: Float[Tensor, "positions hidden"],
    targets: Int[Tensor, " positions"],
    rule: ResidualRule,
    *,
    max_logit_bytes: int,
) -> CoarseResidual:
    """Return the residuals with those that are not certified made by the float32 head.

    The host waits for the device once, to count them; so call it once for many batches. Where any
    is repaired the support is ``rule.top_k`` wide, and shorter ones are filled up with their first
    token at residual 0.

    Args:
        found: From `coarse_residual`.
        head: The exact head.
        hidden: The same hidden states.
        targets: The same targets.
        rule: The same rule.
        max_logit_bytes: Float32 logits are made for so many positions at a time that they fit; one
            position at least.
    """
    positions = (~found.certified).nonzero()[:, 0]
    if positions.numel() == 0:
        return found
    tokens = _widened(found.residual.tokens, rule.top_k, found.residual.tokens[:, :1])
    values = _widened(found.residual.values, rule.top_k, torch.zeros_like(found.logits[:, :1]))
    kept_logits = _widened(found.logits, rule.top_k, found.logits[:, :1])
    for piece in _slices(len(positions), max(1, max_logit_bytes // (4 * head.vocab_size))):
        part = positions[piece]
        logits = head.logits(hidden[part])
        exact = sparse_residual(
            logits,
            targets[part],
            temperature=rule.temperature,
            top_k=rule.top_k,
            mass=rule.mass,
            min_tokens=rule.min_tokens,
        )
        tokens[part] = exact.tokens
        values[part] = exact.values
        kept_logits[part] = logits.gather(-1, exact.tokens)
    certified = torch.ones_like(found.certified)
    return CoarseResidual(SparseResidual(tokens, values), kept_logits, certified)


def _slice_size(coarse: CoarseHead, max_logit_bytes: int) -> int:
    if max_logit_bytes < coarse.position_bytes:
        raise ValueError(
            f"max_logit_bytes is {max_logit_bytes} but the coarse logits of one position take "
            f"{coarse.position_bytes} bytes."
        )
    if not coarse.weight.is_cuda:
        max_logit_bytes = max(coarse.position_bytes, min(max_logit_bytes, CPU_SLICE_BYTES))
    return max_logit_bytes // coarse.position_bytes


def _slices(n: int, size: int) -> Iterator[slice]:
    """Yield at least one slice, so that no positions give tensors of the right shape."""
    return (slice(start, start + size) for start in range(0, max(n, 1), size))


def _widened(
    values: Float[Tensor, "positions support"] | Int[Tensor, "positions support"],
    width: int,
    filling: Float[Tensor, "positions 1"] | Int[Tensor, "positions 1"],
) -> Float[Tensor, "positions width"] | Int[Tensor, "positions width"]:
    return torch.cat([values, filling.expand(-1, width - values.shape[1])], dim=1)


def _slice_residual(
    coarse: CoarseHead,
    hidden: Float[Tensor, "positions hidden"],
    targets: Int[Tensor, " positions"],
    rule: ResidualRule,
    n_candidates: int,
) -> CoarseResidual:
    candidates, outside = best_candidates(coarse, hidden, n_candidates)
    # the target has a column of its own, whether it is among the candidates or not
    tokens = torch.cat([candidates, targets[:, None]], dim=1)
    logits = coarse.head.scaled_and_capped(_scores(coarse.head, hidden, tokens))
    if coarse.head.soft_cap is not None:  # monotone and of slope at most 1
        capped = coarse.head.soft_cap * torch.tanh(outside / coarse.head.soft_cap)
        outside = torch.where(torch.isneginf(outside), outside, capped)
    support, rest = _select(tokens, logits, min(rule.top_k, n_candidates))
    lengths = hidden.norm(dim=1, keepdim=True)
    rounding = _rounding(coarse, support, lengths)
    is_target = support.tokens == targets[:, None]
    highest = torch.where(
        rest.logits.isneginf(), rest.logits, rest.logits + _rounding(coarse, rest, lengths)
    )
    evidence = Evidence(
        logits=support.logits,
        is_target=is_target,
        lowest=(support.logits - rounding).masked_fill(is_target, math.inf).amin(1, keepdim=True),
        outside=torch.maximum(outside, highest.amax(1, keepdim=True)),
        rounding=rounding.amax(1, keepdim=True),
    )
    residual = support_residual(support.tokens, support.logits, targets, rule)
    return CoarseResidual(residual, support.logits, is_certain(evidence, rule))


@dataclass(frozen=True, eq=False)
class _Scored:
    """Tokens and their float32 logits, by (logit descending, token ascending)."""

    tokens: Int[Tensor, "positions tokens"]
    logits: Float[Tensor, "positions tokens"]


def _scores(
    head: ReadoutHead,
    hidden: Float[Tensor, "positions hidden"],
    tokens: Int[Tensor, "positions candidates"],
) -> Float[Tensor, "positions candidates"]:
    """Return ``weight[tokens] @ hidden + bias`` in float32."""
    scores = row_products(head.weight, hidden, tokens)
    return scores if head.bias is None else scores + head.bias[tokens]


def _rounding(
    coarse: CoarseHead, scored: _Scored, lengths: Float[Tensor, "positions 1"]
) -> Float[Tensor, "positions tokens"]:
    """Return how far float32 rounding moves each logit; ``lengths`` are of the hidden states.

    An estimate, not a worst case: about four standard deviations of a float32 sum of n products
    one after the other, whose partial sums wander (0.4 |w| |x| 2^-24) and drift
    (sqrt(n) |logit| 2^-24 / 3).
    """
    wander = coarse.row_norms[scored.tokens] * (lengths * (2.0 * abs(coarse.head.logit_scale)))
    rounding = wander.add_(scored.logits.abs(), alpha=math.sqrt(coarse.head.hidden_size))
    if coarse.head.soft_cap is not None:
        rounding = rounding.add_(8.0 * coarse.head.soft_cap)
    return rounding.mul_(FLOAT32_UNIT)


def _select(
    tokens: Int[Tensor, "positions candidates"],
    logits: Float[Tensor, "positions candidates"],
    size: int,
) -> tuple[_Scored, _Scored]:
    """Return the support (the last column and the best of the others), and the rest.

    "The target replaces the smallest of the top k when it is missing" is the same set as "the
    target and the best k - 1 others".
    """
    keys = logit_keys(tokens, logits)
    is_target = tokens[:, :-1] == tokens[:, -1:]
    others = ascending(keys[:, :-1].masked_fill(is_target, LAST_KEY))
    support = ascending(torch.cat([others[:, : size - 1], keys[:, -1:]], dim=1))
    return _Scored(*tokens_and_logits(support)), _Scored(*tokens_and_logits(others[:, size - 1 :]))
