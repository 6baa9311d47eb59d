"""How far does one training step on a row lower a query's loss? TracIn, at one checkpoint.

To first order, by the inner product of the two loss gradients. Here with a choice of how tensors
are weighed: as they are, the whole at unit length (cosine), or each at unit length. Source: Pruthi
et al. 2020 (the checkpoint form, on a subset of the parameters).
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from rise_ops.baselines.rapidin import MIN_LENGTH, unit_tensors

Product = Literal["dot", "cosine", "tensors"]


def laid_out(gradients: Sequence[Float[Tensor, "..."]], product: Product) -> Float[Tensor, " n"]:
    """Return the gradients of one loss as one vector, float32; scores are inner products of two.

    Args:
        gradients: One a parameter tensor.
        product: ``dot``: as they are. ``cosine``: the whole at length 1. ``tensors``: each tensor
            at length 1, which gives a sum of cosines. A zero gradient stays zero.
    """
    if product == "tensors":
        return unit_tensors(gradients)
    whole = torch.cat([own.float().flatten() for own in gradients])
    return whole if product == "dot" else whole / whole.norm().clamp_min(MIN_LENGTH)
