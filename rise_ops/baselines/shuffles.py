"""In which order are the coordinates of a gradient put before they are summed bin by bin?

Two bijections of ``0 .. n - 1``, both computed on the spot for any part of their domain, so that no
table of `n` numbers has to be kept or stored. `HashShuffle` behaves like a uniform permutation.
`PublishedShuffle` is the one of RapidIn (Lin et al. 2024, arXiv:2405.11724): the vector is seen as
a matrix whose rows and columns are permuted in turn. Permutations of rows and of columns commute,
so forty of them are one of each, and what lies in one row of the matrix stays together.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

FEISTEL_ROUNDS = 6
PUBLISHED_ROUNDS = 20
"""Times that the rows are permuted, and the columns."""

_MASK32 = (1 << 32) - 1


@dataclass(frozen=True)
class HashShuffle:
    """A keyed Feistel network, walked until it lands below ``n``.

    Attributes:
        n: How many places there are, 1 to 2^62.
        seed: Seed, 0 or more.
    """

    n: int
    seed: int

    def sources(self, places: Int[Tensor, " places"]) -> Int[Tensor, " places"]:
        """Return which coordinate comes to each place, int64."""
        half_bits = max(1, ((self.n - 1).bit_length() + 1) // 2)
        keys = _keys(self.seed, stream=0, n_keys=FEISTEL_ROUNDS)
        found = _feistel(places.long(), half_bits, keys)
        outside = torch.nonzero(found >= self.n).flatten()
        while outside.numel():
            found[outside] = _feistel(found[outside], half_bits, keys)
            outside = outside[found[outside] >= self.n]
        return found


@dataclass(frozen=True)
class PublishedShuffle:
    """Rows and columns of a matrix, permuted twenty times each.

    Attributes:
        n: How many places there are, 1 or more.
        seed: Seed, 0 or more.
    """

    n: int
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix: half of n's prime factors each, which half is drawn."""
        factors = np.array(prime_factors(self.n), dtype=np.int64)
        drawn = np.random.default_rng([self.seed, self.n]).permutation(factors)
        n_rows = int(np.prod(drawn[: len(drawn) // 2], dtype=np.int64))
        return n_rows, self.n // n_rows

    def sources(self, places: Int[Tensor, " places"]) -> Int[Tensor, " places"]:
        """Return which coordinate comes to each place, int64."""
        n_rows, n_columns = self.shape
        rng = np.random.default_rng([self.seed, self.n, 1])
        rows, columns = np.arange(n_rows), np.arange(n_columns)
        for _ in range(PUBLISHED_ROUNDS):
            rows = rows[rng.permutation(n_rows)]
            columns = columns[rng.permutation(n_columns)]
        row_of = torch.from_numpy(rows).to(places.device)
        column_of = torch.from_numpy(columns).to(places.device)
        return row_of[places // n_columns] * n_columns + column_of[places % n_columns]


def hash_signs(coordinates: Int[Tensor, " n"], *, seed: int) -> Int[Tensor, " n"]:
    """Return a random sign, +1 or -1, of each coordinate, int64.

    Args:
        coordinates: 0 or more.
        seed: Seed, 0 or more.
    """
    low, high = _keys(seed, stream=1, n_keys=2)
    mixed = _mix(coordinates & _MASK32, low) ^ _mix(coordinates >> 32, high)
    return 1 - 2 * (_mix(mixed, low) & 1)


def prime_factors(number: int) -> list[int]:
    """Return the prime factors of a number of 1 or more, ascending, repeated as often as they go.

    Raises:
        ValueError: The number is below 1.
    """
    if number < 1:
        raise ValueError(f"only numbers of 1 or more have prime factors, got {number}.")
    factors: list[int] = []
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return [*factors, number] if number > 1 else factors


def _keys(seed: int, *, stream: int, n_keys: int) -> list[int]:
    # raw Philox words, which numpy keeps stable: a seed is the same shuffle everywhere
    words = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).random_raw(n_keys)
    return [int(word) & _MASK32 for word in words]


def _feistel(values: Tensor, half_bits: int, keys: list[int]) -> Tensor:
    mask = (1 << half_bits) - 1
    left, right = values >> half_bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right, key) & mask)
    return (left << half_bits) | right


def _mix(values: Tensor, key: int) -> Tensor:
    """Spread 32 bits over 32 bits; products may wrap, their lower 32 bits are right anyway."""
    mixed = (values ^ key) & _MASK32
    for factor, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _MASK32
    return mixed ^ (mixed >> 16)
