"""Which tokens can have the largest logits, as far as a low-precision product can say?

The margin. Let w be a row of the weight, x the hidden state (bias and logit scale folded in), and
w' = w - dw, x' = x - dx what is left after rounding to the coarse dtype. With n = length of x,

    |w.x - coarse| <= |w| |dx| + |dw| |x'| + 3 n 2^-24 |w| |x| + 2^-8 |coarse|

by Cauchy-Schwarz on the two roundings, the usual bound on a float32 sum (once for the coarse
product, which accumulates in float32, once for the float32 head, once for everything small), and
the rounding of the product itself where it is stored as bfloat16. |dx| and |dw| are measured, not
assumed: a weight that was bfloat16 to begin with has |dw| = 0. Tokens are grouped by |w|, so that a
group's largest norm is close to each of its tokens', and candidates are picked by the *upper end*
of coarse + margin: what was left out lies below the best upper end that was not picked.
Source: METHOD.md, "Float32 residuals from a coarse product".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rise_ops.largest import ascending, largest
from rise_ops.readout import ReadoutHead

GROUP_TOKENS = 8
"""Tokens that share one maximum. Fewer: more maxima to order; more: more tokens to look at."""

FLOAT32_UNIT = 2.0**-24
BFLOAT16_HALF_STEP = 2.0**-8
EXPONENT_MASK = 0x7F80_0000
"""Of a float32's bits: they stand for the power of two below its size."""

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
        rounds_inputs: Whether rounding to the coarse dtype changes weight or hidden states. If not,
            only the product's own rounding is between the coarse logits and the exact ones.
    """

    head: ReadoutHead
    weight: Float[Tensor, "rows inner"]
    tokens: Int[Tensor, " rows"]
    bounds: Float[Tensor, "3 groups"]
    row_norms: Float[Tensor, " vocab"]
    rounds_inputs: bool

    @property
    def n_groups(self) -> int:
        """Number of groups of `GROUP_TOKENS` rows."""
        return self.bounds.shape[1]

    @property
    def position_bytes(self) -> int:
        """Bytes of the coarse logits of one position."""
        return self.weight.shape[0] * _product_dtype(self.weight).itemsize


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """Return bfloat16 where a device multiplies it faster than float32, else float32."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16
    # private, but torch.cpu.get_capabilities() is missing from the oldest torch that we run on
    has_fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_fast else torch.float32


@torch.no_grad()
def coarse_head(
    head: ReadoutHead, *, dtype: torch.dtype, states: torch.dtype = torch.float32
) -> CoarseHead:
    """Lay out a head's weight for the coarse product. Done once a model.

    Args:
        head: The exact head, on the device to compute on. Kept.
        dtype: bfloat16 or float32; see `fast_dtype`.
        states: What the model ran in: hidden states have no more digits than that. Others are
            right too; a number of candidates may then certify fewer of them.

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
    # a scale is folded into the hidden states
    keeps_states = dtype == torch.float32 or (dtype == states and head.logit_scale == 1.0)
    rounds_inputs = not keeps_states or bool(errors.any())
    return CoarseHead(head, weight[tokens], tokens, bounds, norms, rounds_inputs)


def best_candidates(
    coarse: CoarseHead, hidden: Float[Tensor, "positions hidden"], n_candidates: int
) -> tuple[Int[Tensor, "positions candidates"], Float[Tensor, "positions 1"]]:
    """Return the tokens with the highest upper ends, ascending, and what no other one exceeds.

    Two levels: the groups with the highest ends, then the tokens within them. Upper ends are
    before the soft cap.
    """
    products, margins = _products(coarse, hidden)
    n_groups = min(n_candidates, coarse.n_groups)
    groups, outside = largest(_upper(products.amax(1), margins), n_groups)
    index = groups[:, None].expand(-1, GROUP_TOKENS, -1)
    ends = _upper(products.gather(2, index), margins.gather(1, groups)[:, None]).flatten(1)
    places, outside_groups = largest(ends, n_candidates)
    rows = places // n_groups * coarse.n_groups + groups.gather(1, places % n_groups)
    outside = torch.maximum(outside, outside_groups)
    if n_candidates == coarse.head.vocab_size:  # what is left only fills up the last group
        outside = torch.full_like(outside, -math.inf)
    return ascending(coarse.tokens[rows]), outside


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
    if products.dtype != torch.bfloat16:
        return products + margins
    upper = products.float()
    # half a step of bfloat16: 2^-8 of the power of two that the exponent alone stands for
    steps = (upper.view(torch.int32) & EXPONENT_MASK).view(torch.float32)
    return upper.add_(steps, alpha=BFLOAT16_HALF_STEP).add_(margins)
