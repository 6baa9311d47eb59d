"""How are millions of numbers kept in a few thousand? Signed, shuffled, summed in bins.

Every coordinate gets a random sign, a shuffle puts the coordinates in another order, and
neighbours are added up, ``n / dim`` at a time: a CountSketch whose buckets all hold equally many.
Inner products stay right on average over the draw. With as many numbers as coordinates nothing is
added, and the sketch is an isometry. Source: RapidIn (Lin et al. 2024, arXiv:2405.11724).

Not to be mixed up with `rise_ops.sketch`, whose coordinates choose their buckets independently.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rise_ops.baselines.shuffles import HashShuffle, PublishedShuffle, hash_signs

ShuffleKind = Literal["uniform", "published"]

SLICE_PLACES = 1 << 20
"""Places that are computed or summed at once."""

SLICE_COORDINATES = 1 << 18
"""Coordinates that a CPU adds at once: a slice and its bins lie in a core's cache."""


@dataclass(frozen=True, eq=False)
class _Slice:
    """Some whole bins: which coordinates they add, int32 or int64, and their signs (0: padding)."""

    sources: Int[Tensor, " places"]
    signs: Int[Tensor, " places"]


class BinnedSketch:
    """Makes vectors of ``n`` numbers ``dim`` long.

    The order of coordinates is worked out once and held: four bytes a coordinate on a CPU, five
    elsewhere, about what one gradient takes. A CPU reads the vector once, from its first coordinate
    to its last, and adds up in float64: that is several times as fast as to fetch the coordinates
    of each bin. Other devices fetch, so that their sums have one order, too. The two differ by
    rounding.
    """

    def __init__(self, n: int, *, dim: int, kind: ShuffleKind, seed: int) -> None:
        """Draw a sketch.

        Args:
            n: Length of the vectors, 1 or more; filled up with zeros to a multiple of ``dim``.
            dim: Numbers in a sketch, 1 or more.
            kind: Which shuffle.
            seed: Seed, 0 or more.

        Raises:
            ValueError: A size is below 1.
        """
        if n < 1 or dim < 1:
            raise ValueError(f"n and dim must be 1 or more, got n={n} and dim={dim}.")
        self.n, self.dim, self.kind, self.seed = n, dim, kind, seed
        self.bin_size = -(-n // dim)
        self._slices: list[_Slice] = []
        self._bins: npt.NDArray[np.signedinteger[Any]] | None = None

    @property
    def tables(self) -> dict[str, int | str]:
        """What two sketches must share to be compared."""
        return {"n": self.n, "dim": self.dim, "kind": self.kind, "seed": self.seed}

    def apply(self, vector: Float[Tensor, " n"]) -> Float[Tensor, " dim"]:
        """Sketch a vector of float32 or float64; the sketch is of the same type.

        Raises:
            ValueError: It has another length than the sketch is for.
        """
        if vector.shape[0] != self.n:
            raise ValueError(f"the sketch is for {self.n} numbers, got {vector.shape[0]}.")
        return self._scattered(vector) if vector.device.type == "cpu" else self._fetched(vector)

    def _scattered(self, vector: Float[Tensor, " n"]) -> Float[Tensor, " dim"]:
        """Add each coordinate to its bin; those with sign -1 to a second set of bins."""
        if self._bins is None:
            self._bins = self._drawn_bins()
        values = vector.detach().numpy()
        sums = np.zeros(2 * self.dim)
        for start in range(0, self.n, SLICE_COORDINATES):
            own = slice(start, start + SLICE_COORDINATES)
            sums += np.bincount(self._bins[own], weights=values[own], minlength=2 * self.dim)
        return torch.from_numpy(sums[: self.dim] - sums[self.dim :]).to(vector.dtype)

    def _fetched(self, vector: Float[Tensor, " n"]) -> Float[Tensor, " dim"]:
        """Fetch the coordinates of each bin, and add them up."""
        parts = [
            (vector.index_select(0, part.sources) * part.signs).view(-1, self.bin_size).sum(1)
            for part in self._ready(vector.device)
        ]
        return torch.cat(parts)

    def _ready(self, device: torch.device) -> list[_Slice]:
        if not self._slices or self._slices[0].signs.device != device:
            self._slices = self._drawn(device)
        return self._slices

    def _drawn(self, device: torch.device) -> list[_Slice]:
        index = torch.int32 if self.n < 2**31 else torch.int64
        slices = []
        for _, sources in self._sources(device):
            inside = sources < self.n
            signs = torch.where(inside, hash_signs(sources, seed=self.seed), 0)
            kept = torch.where(inside, sources, 0)
            slices.append(_Slice(kept.to(index), signs.to(torch.int8)))
        return slices

    def _drawn_bins(self) -> npt.NDArray[np.signedinteger[Any]]:
        """Return each coordinate's bin, those of sign -1 ``dim`` further on."""
        fits = 2 * self.dim < 2**31
        bins: npt.NDArray[np.signedinteger[Any]] = np.empty(
            self.n, dtype=np.dtype("i4") if fits else np.dtype("i8")
        )
        for start, sources in self._sources(torch.device("cpu")):
            places = torch.arange(start, start + len(sources))
            second = hash_signs(sources, seed=self.seed) < 0
            own = places // self.bin_size + self.dim * second
            inside = sources < self.n
            bins[sources[inside].numpy()] = own[inside].numpy()
        return bins

    def _sources(self, device: torch.device) -> Iterator[tuple[int, Int[Tensor, " places"]]]:
        """Yield slices of whole bins: the first place, and which coordinate comes to each."""
        shuffle = _shuffle(self.kind, self.bin_size * self.dim, seed=self.seed)
        step = max(1, SLICE_PLACES // self.bin_size) * self.bin_size
        for start in range(0, shuffle.n, step):
            stop = min(start + step, shuffle.n)
            yield start, shuffle.sources(torch.arange(start, stop, device=device))


def _shuffle(kind: ShuffleKind, n: int, *, seed: int) -> HashShuffle | PublishedShuffle:
    return HashShuffle(n, seed) if kind == "uniform" else PublishedShuffle(n, seed)
