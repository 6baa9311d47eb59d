"""How do we get the residuals of a float32 head at the price of a low-precision one?

Of the logits of a position only the few largest shape its residual. A low-precision product
(bfloat16 where the machine multiplies it fast) is good enough to say which these are, up to a
margin that we can bound; the candidates are then scored again in float32 from the rows of the
head's weight, and go through the same rule as in `residual`. Nothing of a logit that reaches a
residual is ever low precision.

The margin. Let w be a row of the weight, x the hidden state (bias and logit scale folded in), and
w' = w - dw, x' = x - dx what is left after rounding to the coarse dtype. With n = length of x,

    |w.x - coarse| <= |w| |dx| + |dw| |x'| + 3 n 2^-24 |w| |x| + 2^-8 |coarse|

by Cauchy-Schwarz on the two roundings, the usual bound on a float32 sum (once for the coarse
product, which accumulates in float32, once for the float32 head, once for everything small), and
the rounding of the product itself where it is stored as bfloat16. |dx| and |dw| are measured, not
assumed: a weight that was bfloat16 to begin with has |dw| = 0. Tokens are grouped by |w|, so that a
group's largest norm is close to each of its tokens', and candidates are picked by the *upper end*
of coarse + margin: what was left out lies below the best upper end that was not picked.

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
from rise_ops.readout import ReadoutHead
from rise_ops.residual import (
    ResidualRule,
    SparseResidual,
    ordered,
    sparse_residual,
    support_residual,
)
from rise_ops.row_products import row_products

GROUP_TOKENS = 16
"""Tokens that share one maximum. Fewer: more maxima to sort; more: more tokens to look at."""

CPU_SLICE_BYTES = 24 * 2**20
"""Coarse logits made at a time on a CPU: larger slices leave its cache before they are read (a
tenth slower), smaller ones make the product less efficient."""

FLOAT32_UNIT = 2.0**-24
BFLOAT16_STEP = 2.0**-8
NORM_SLACK = 1.0 + 2.0**-10
"""Norms are float32 sums too: this much is added so that they are upper bounds."""


@dataclass(frozen=True, eq=False)
class CoarseHead:
    """A head's weight in a coarse dtype, laid out in groups of tokens with similar norms.

    Made by `coarse_head`. Group ``g`` holds rows ``g, g + groups, g + 2 groups, ...``: maxima over
    groups then read the coarse logits in long runs.

    Attributes:
        head: The exact head.
        weight: Rows in the coarse dtype; behind the hidden size two columns for the bias, if any.
        tokens: Token of each row; rows that only fill up the last group hold token 0.
        bounds: A group's largest |w|, |dw| and ``3 n 2^-24 |w|``, float32.
        row_norms: |w| of each token, float32.
    """

    head: ReadoutHead
    weight: Float[Tensor, "rows inner"]
    tokens: Int[Tensor, " rows"]
    bounds: Float[Tensor, "3 groups"]
    row_norms: Float[Tensor, " vocab"]

    @property
    def n_groups(self) -> int:
        """Number of groups of `GROUP_TOKENS` rows."""
        return self.bounds.shape[1]

    @property
    def position_bytes(self) -> int:
        """Bytes of the coarse logits of one position."""
        return self.weight.shape[0] * _product_dtype(self.weight).itemsize


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


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """Return bfloat16 where a device multiplies it faster than float32, else float32."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16
    # private, but torch.cpu.get_capabilities() is missing from the oldest torch that we run on
    has_fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_fast else torch.float32


@torch.no_grad()
def coarse_head(head: ReadoutHead, *, dtype: torch.dtype) -> CoarseHead:
    """Lay out a head's weight for the coarse product. Done once a model.

    Args:
        head: The exact head, on the device to compute on. Kept.
        dtype: bfloat16 or float32; see `fast_dtype`.

    Raises:
        ValueError: Another dtype.
    """
    if dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"the coarse dtype must be bfloat16 or float32, got {dtype}.")
    exact = _with_bias(head, dtype)
    norms = exact.norm(dim=1) * NORM_SLACK
    n_groups = -(-head.vocab_size // GROUP_TOKENS)
    # rank r of the norms goes to row (r mod size) * groups + r // size: neighbours share a group
    by_norm = torch.argsort(norms, stable=True)
    by_norm = torch.nn.functional.pad(by_norm, (0, n_groups * GROUP_TOKENS - len(by_norm)))
    tokens = by_norm.view(n_groups, GROUP_TOKENS).T.reshape(-1).contiguous()
    weight = exact.to(dtype)
    errors = (exact - weight).norm(dim=1) * NORM_SLACK
    largest = norms[tokens].view(GROUP_TOKENS, -1).amax(0)
    bounds = torch.stack(
        [
            largest,
            errors[tokens].view(GROUP_TOKENS, -1).amax(0),
            largest * (3 * exact.shape[1] * FLOAT32_UNIT),
        ]
    )
    return CoarseHead(head, weight[tokens], tokens, bounds, norms)


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
        coarse: From `coarse_head`.
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


def candidates_for(rule: ResidualRule) -> int:
    """Return a number of candidates that certifies nearly every position of a language model.

    A low temperature leaves few tokens with probability; otherwise the support needs slack for the
    tokens within the margin of its last one. Measured: METHOD.md.
    """
    if rule.temperature <= 0.25 and rule.mass < 1.0:
        return min(rule.top_k, 48)
    return rule.top_k + max(64, rule.top_k * 5 // 8)


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


def upper_bounds(
    coarse: CoarseHead, hidden: Float[Tensor, "positions hidden"]
) -> Float[Tensor, "positions vocab"]:
    """Return what no ``weight @ hidden + bias`` (times the logit scale) exceeds, for all tokens.

    The plain form of what `coarse_residual` does group by group; for tests and for a look at a
    model's margin.
    """
    products, margins = _products(coarse, hidden)
    upper = _upper(products, margins[:, None]).flatten(1)
    real = _real_rows(coarse)
    ordered_upper = torch.empty(len(hidden), coarse.head.vocab_size, device=hidden.device)
    ordered_upper[:, coarse.tokens[real]] = upper[:, real]
    return ordered_upper


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


def _with_bias(head: ReadoutHead, dtype: torch.dtype) -> Float[Tensor, "vocab inner"]:
    """Return the weight, float32, with the bias in two columns: rounded, and what that left out."""
    if head.bias is None:
        return head.weight
    rounded = head.bias.to(dtype).float()
    return torch.cat([head.weight, rounded[:, None], (head.bias - rounded)[:, None]], dim=1)


def _real_rows(coarse: CoarseHead) -> Bool[Tensor, " rows"]:
    """Return which rows are tokens, not there to fill up the last group."""
    row = torch.arange(len(coarse.tokens), device=coarse.tokens.device)
    return row % coarse.n_groups * GROUP_TOKENS + row // coarse.n_groups < coarse.head.vocab_size


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
    candidates, outside = _candidates(coarse, hidden, n_candidates)
    # the target has a column of its own, whether it is among the candidates or not
    tokens = torch.cat([candidates, targets[:, None]], dim=1)
    scores, rounding = _scores(coarse, hidden, tokens)
    logits = coarse.head.scaled_and_capped(scores)
    if coarse.head.soft_cap is not None:  # monotone and of slope at most 1
        capped = coarse.head.soft_cap * torch.tanh(outside / coarse.head.soft_cap)
        outside = torch.where(torch.isneginf(outside), outside, capped)
        rounding = rounding + 8.0 * FLOAT32_UNIT * coarse.head.soft_cap
    tokens, logits, dropped = _select(tokens, logits, min(rule.top_k, n_candidates))
    residual = support_residual(tokens, logits, targets, rule)
    evidence = Evidence(
        logits, tokens == targets[:, None], torch.maximum(outside, dropped), rounding
    )
    return CoarseResidual(residual, logits, is_certain(evidence, rule))


def _candidates(
    coarse: CoarseHead, hidden: Float[Tensor, "positions hidden"], n_candidates: int
) -> tuple[Int[Tensor, "positions candidates"], Float[Tensor, "positions 1"]]:
    """Return the tokens with the highest upper ends, and the highest upper end of the others.

    Two levels: the groups with the highest ends, then the tokens within them. Upper ends are
    before the soft cap.
    """
    products, margins = _products(coarse, hidden)
    n_groups = min(n_candidates, coarse.n_groups)
    # unsorted: the lowest end that was picked is bound enough for those that were not, and a sort
    # of the picked ones would cost as much as picking them
    best = _upper(products.amax(1), margins).topk(n_groups, sorted=False)
    index = best.indices[:, None].expand(-1, GROUP_TOKENS, -1)
    ends = _upper(products.gather(2, index), margins.gather(1, best.indices)[:, None]).flatten(1)
    picked = ends.topk(n_candidates, sorted=False)
    groups = best.indices.gather(1, picked.indices % n_groups)
    tokens = coarse.tokens[picked.indices // n_groups * coarse.n_groups + groups]
    if n_candidates == coarse.head.vocab_size:
        return tokens, torch.full_like(margins[:, :1], -math.inf)
    outside = picked.values.amin(1, keepdim=True)
    if n_groups < coarse.n_groups:
        outside = torch.maximum(outside, best.values.amin(1, keepdim=True))
    return tokens, outside


def _products(
    coarse: CoarseHead, hidden: Float[Tensor, "positions hidden"]
) -> tuple[Float[Tensor, "positions members groups"], Float[Tensor, "positions groups"]]:
    """Return coarse logits by group, and each group's margin without the product's own rounding."""
    n_extra = coarse.weight.shape[1] - hidden.shape[1]
    exact = torch.nn.functional.pad(hidden, (0, n_extra), value=1.0) * coarse.head.logit_scale
    rounded = exact.to(coarse.weight.dtype)
    products = _multiplied(rounded, coarse.weight).view(len(hidden), GROUP_TOKENS, coarse.n_groups)
    n_padding = coarse.weight.shape[0] - coarse.head.vocab_size
    # not -inf: its rounding would be infinite too, and -inf + inf is not a number
    lowest = torch.finfo(products.dtype).min
    products[:, GROUP_TOKENS - n_padding :, -1] = lowest
    lengths = [(exact - rounded).norm(dim=1), rounded.float().norm(dim=1), exact.norm(dim=1)]
    return products, torch.stack(lengths, dim=1).mul_(NORM_SLACK) @ coarse.bounds


def _multiplied(
    hidden: Float[Tensor, "positions inner"], weight: Float[Tensor, "rows inner"]
) -> Float[Tensor, "positions rows"]:
    if _product_dtype(weight) == weight.dtype:
        return hidden @ weight.T
    # CUDA may add partial sums in bfloat16 when the result is bfloat16: the margin has no such term
    return torch.mm(hidden, weight.T, out_dtype=torch.float32)


def _product_dtype(weight: Tensor) -> torch.dtype:
    return torch.float32 if weight.is_cuda else weight.dtype


def _upper(products: Tensor, margins: Tensor) -> Tensor:
    """Return products + margins, with the rounding of bfloat16 products."""
    upper = products.float() + margins
    if products.dtype == torch.bfloat16:
        upper = upper.add_(products.abs(), alpha=BFLOAT16_STEP)
    return upper


def _scores(
    coarse: CoarseHead,
    hidden: Float[Tensor, "positions hidden"],
    tokens: Int[Tensor, "positions candidates"],
) -> tuple[Float[Tensor, "positions candidates"], Float[Tensor, "positions 1"]]:
    """Return ``weight[tokens] @ hidden + bias`` in float32, and how far rounding moves a logit.

    The rounding is an estimate, not a worst case: about four standard deviations of a float32 sum
    of n products one after the other, whose partial sums wander (0.4 |w| |x| 2^-24) and drift
    (sqrt(n) |logit| 2^-24 / 3), at the largest norm and logit of the position. The largest errors
    seen (SmolLM2, 33,000 logits): 0.3 of it here, 0.4 in the float32 head.
    """
    head = coarse.head
    scores = row_products(head.weight, hidden, tokens)
    if head.bias is not None:
        scores = scores + head.bias[tokens]
    norms = coarse.row_norms[tokens].amax(-1) * hidden.norm(dim=1)
    drift = math.sqrt(head.hidden_size) * scores.abs().amax(-1)
    rounding = (2.0 * norms + drift) * (FLOAT32_UNIT * abs(head.logit_scale))
    return scores, rounding[:, None]


def _select(
    tokens: Int[Tensor, "positions candidates"],
    logits: Float[Tensor, "positions candidates"],
    size: int,
) -> tuple[
    Int[Tensor, "positions support"],
    Float[Tensor, "positions support"],
    Float[Tensor, "positions 1"],
]:
    """Return the support (the last column and the best of the others), and the best left out.

    "The target replaces the smallest of the top k when it is missing" is the same set as "the
    target and the best k - 1 others".
    """
    is_target = tokens[:, :-1] == tokens[:, -1:]
    others = logits[:, :-1].masked_fill(is_target, -math.inf)
    best = others.topk(size - 1, sorted=False).indices
    dropped = others.scatter(1, best, -math.inf).amax(1, keepdim=True)
    kept = torch.cat([best, torch.full_like(tokens[:, :1], tokens.shape[1] - 1)], dim=1)
    chosen, chosen_logits = ordered(tokens.gather(1, kept), logits.gather(1, kept))
    return chosen, chosen_logits, dropped
