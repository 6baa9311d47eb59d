"""Which entries of each row are the largest, and what is their order?

A library's top-k carries each number's place beside it. Here both go into one integer, the sort
key: the number's bits in an order that integers share, above the bits of the place. Keys are then
all there is to move, which a CPU does many at a time (NumPy's partition and sort, with AVX-512 or
AVX2 where the machine has them: ten times as fast as torch's). Other devices order the same keys
with torch.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

SIGN_MASK = 0x7FFF_FFFF

TOKEN_BITS = 32
LAST_KEY = 0x7F80_0000 << TOKEN_BITS
"""What `logit_keys` makes of a logit of -inf and token 0."""


def largest(
    values: Float[Tensor, "rows entries"], k: int
) -> tuple[Int[Tensor, "rows k"], Float[Tensor, "rows 1"]]:
    """Return the places of each row's ``k`` largest values, ascending, and a bound on the others.

    A place takes the lowest bits of a float32, so that values closer than these say count as
    equal: with 8,192 entries 2^-10 of the value. None outside exceeds the bound all the same; it
    is -inf when nothing is outside, and not a number where that is among the largest.

    Args:
        values: float32.
        k: 1 to the number of entries.
    """
    n_entries = values.shape[1]
    place_mask = (1 << max(1, (n_entries - 1).bit_length())) - 1
    keys = _ordered_bits(values)
    keys.bitwise_and_(~place_mask)
    keys.bitwise_or_(torch.arange(n_entries, dtype=torch.int32, device=values.device))
    top = _largest_keys(keys, k)
    if k == n_entries:
        bound = torch.full_like(values[:, :1], -torch.inf)
    else:
        bound = _floats(top.amin(1, keepdim=True) | place_mask)
    # in order, so that what is read at these places is read in order too
    return ascending(top & place_mask).long(), bound


def logit_keys(
    tokens: Int[Tensor, "rows entries"], logits: Float[Tensor, "rows entries"]
) -> Int[Tensor, "rows entries"]:
    """Return keys whose ascending order is (logit descending, token ascending), exactly.

    Args:
        tokens: Token ids, below 2^32.
        logits: float32.
    """
    # adding 0 makes -0 the 0 that it equals
    return (~_ordered_bits(logits + 0.0)).long() << TOKEN_BITS | tokens


def tokens_and_logits(
    keys: Int[Tensor, "rows entries"],
) -> tuple[Int[Tensor, "rows entries"], Float[Tensor, "rows entries"]]:
    """Return what `logit_keys` made these of."""
    return keys & ((1 << TOKEN_BITS) - 1), _floats(~(keys >> TOKEN_BITS).int())


def ascending(keys: Int[Tensor, "rows entries"]) -> Int[Tensor, "rows entries"]:
    """Return each row's integers in ascending order."""
    if not _is_cpu(keys):
        return keys.sort(dim=1).values
    return torch.from_numpy(np.sort(keys.numpy(), axis=1))


def _largest_keys(keys: Int[Tensor, "rows entries"], k: int) -> Int[Tensor, "rows k"]:
    """Return the ``k`` largest keys of each row, in no order; ``keys`` is overwritten."""
    n_entries = keys.shape[1]
    if not _is_cpu(keys):
        return keys.topk(k, sorted=False).values
    if k < n_entries:
        keys.numpy().partition(n_entries - k, axis=1)
    return keys[:, n_entries - k :]


def _ordered_bits(values: Float[Tensor, "rows entries"]) -> Int[Tensor, "rows entries"]:
    """Return a float32's bits as an int32 that is ordered alike; new memory."""
    bits = values.view(torch.int32)
    # a negative number's bits count its size: turned over, they count downwards
    return (bits >> 31).bitwise_and_(SIGN_MASK).bitwise_xor_(bits)


def _floats(ordered: Int[Tensor, "rows entries"]) -> Float[Tensor, "rows entries"]:
    return ((ordered >> 31) & SIGN_MASK ^ ordered).view(torch.float32)


def _is_cpu(keys: Tensor) -> bool:
    return keys.device.type == "cpu"
