"""How is a long vector made short so that inner products survive?

A CountSketch sends each coordinate to one random bucket with a random sign and adds up what meets
there. It is linear, and over the draw of the tables the inner product of two sketches is unbiased:
``E<Sx, Sy> = <x, y>``, with variance at most ``2 |x|^2 |y|^2 / dim``. Source: Charikar, Chen,
Farach-Colton 2002; arXiv:2604.16197; METHOD.md, step 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rise_ops.projection import OuterProjection, Weighting, factors_of

MAX_TABLE_NUMBERS = 2**26
"""Residuals are sketched through a table of [vocabulary, dim] up to this many numbers (256 MiB),
and by sorting above; the two differ by rounding only."""

_TABLES = ("residual", "hidden", "projected")


@dataclass(frozen=True, eq=False)
class CountSketch:
    """One bucket and one sign a coordinate.

    Attributes:
        buckets: Bucket of each coordinate, int64, 0 to ``dim - 1``.
        signs: +1 or -1 of each coordinate, float32.
        dim: Numbers in a sketch.
    """

    buckets: Int[Tensor, " n"]
    signs: Float[Tensor, " n"]
    dim: int

    @property
    def n(self) -> int:
        """Length of the vectors that are sketched."""
        return self.buckets.shape[0]

    def to(self, device: torch.device | str) -> "CountSketch":
        """Return the same tables on another device."""
        return CountSketch(self.buckets.to(device), self.signs.to(device), self.dim)

    def matrix(self) -> Float[Tensor, "n dim"]:
        """Return the sketch as a matrix with one +1 or -1 a row."""
        matrix = self.signs.new_zeros(self.n, self.dim)
        return matrix.scatter_(1, self.buckets[:, None], self.signs[:, None])

    def apply(self, vectors: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch dim"]:
        """Sketch dense vectors."""
        # a matrix product: for short vectors as fast as scattering, and reproducible on a GPU
        return vectors @ self.matrix()

    def apply_sparse(
        self,
        tokens: Int[Tensor, "positions support"],
        values: Float[Tensor, "positions support"],
    ) -> Float[Tensor, "positions dim"]:
        """Sketch vectors that are given by their non-zero coordinates.

        Args:
            tokens: Coordinates, 0 to ``n - 1``.
            values: Value of each.
        """
        buckets, order = self.buckets[tokens].sort(dim=-1, stable=True)
        signed = (values * self.signs[tokens]).gather(-1, order)
        # one number a bucket, written once: scattering with atomics adds in any order on a GPU
        is_last = torch.ones_like(buckets, dtype=torch.bool)
        is_last[:, :-1] = buckets[:, 1:] != buckets[:, :-1]
        aside = torch.where(is_last, buckets, self.dim)
        sketched = values.new_zeros(values.shape[0], self.dim + 1)
        return sketched.scatter_(1, aside, _run_sums(buckets, signed))[:, : self.dim]

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return ``<name>_buckets`` int32 [n], ``_signs`` int8 [n] and ``_dim`` int32 [1]."""
        return {
            f"{name}_buckets": self.buckets.cpu().numpy().astype(np.int32),
            f"{name}_signs": self.signs.cpu().numpy().astype(np.int8),
            f"{name}_dim": np.array([self.dim], dtype=np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> "CountSketch":
        """Return the sketch that `to_arrays` gave, on the CPU.

        Raises:
            ValueError: An array is missing, or its values cannot be a table.
        """
        names = [f"{name}_buckets", f"{name}_signs", f"{name}_dim"]
        missing = [key for key in names if key not in arrays]
        if missing:
            raise ValueError(f"sketch tables lack {missing}; found {sorted(arrays)}.")
        buckets, signs, dims = (np.asarray(arrays[key]) for key in names)
        if buckets.ndim != 1 or buckets.shape != signs.shape or dims.shape != (1,):
            raise ValueError(
                f"{name} tables must be buckets [n], signs [n] and dim [1], "
                f"got {buckets.shape}, {signs.shape} and {dims.shape}."
            )
        dim = int(dims[0])
        if np.any((buckets < 0) | (buckets >= dim)) or np.any(np.abs(signs) != 1):
            raise ValueError(
                f"{name} tables must hold buckets in [0, {dim}) and signs of +1 or -1."
            )
        return cls(
            torch.from_numpy(buckets.astype(np.int64)),
            torch.from_numpy(signs.astype(np.float32)),
            dim,
        )


def draw_count_sketch(n: int, *, dim: int, seed: int, stream: int) -> CountSketch:
    """Draw independent uniform buckets and signs, on the CPU.

    Built from raw Philox words, which numpy keeps stable, so a seed gives the same tables on every
    machine and library version; indexes store them by value all the same.

    Args:
        n: Length of the vectors that will be sketched, 1 or more.
        dim: Numbers in a sketch, 1 to 2^31 - 1.
        seed: Seed, 0 to 2^64 - 1.
        stream: Tells apart several tables of one seed, 0 to 2^64 - 1.

    Raises:
        ValueError: ``n`` or ``dim`` is outside its range.
    """
    if n < 1 or not 1 <= dim < 2**31:
        raise ValueError(f"n must be >= 1 and dim in [1, 2^31), got n={n} and dim={dim}.")
    words = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).random_raw(n)
    # bucket: the upper 32 bits scaled to [0, dim), off uniform by at most 2^-32; sign: the last bit
    buckets = ((words >> np.uint64(32)) * np.uint64(dim)) >> np.uint64(32)
    signs = 1.0 - 2.0 * (words & np.uint64(1)).astype(np.float32)
    return CountSketch(
        torch.from_numpy(buckets.astype(np.int64)), torch.from_numpy(signs.astype(np.float32)), dim
    )


def identity_sketch(n: int) -> CountSketch:
    """Return the sketch that changes nothing, for the unsketched limit of a signature."""
    return CountSketch(torch.arange(n), torch.ones(n), n)


@dataclass(frozen=True, eq=False)
class SketchTables:
    """The three sketches of a signature space; two signatures compare only within one set.

    Attributes:
        residual: Of the residual, vocabulary -> Kr.
        hidden: Of the hidden state, hidden size -> Kh.
        projected: Of the projected error, embedding size -> Kg.
    """

    residual: CountSketch
    hidden: CountSketch
    projected: CountSketch

    @property
    def input_sizes(self) -> tuple[int, int, int]:
        """Vocabulary, hidden and embedding size that the tables are for."""
        return self.residual.n, self.hidden.n, self.projected.n

    def projection(
        self,
        embedding: Float[Tensor, "vocab embedding"],
        *,
        channels: Sequence[str],
        weighting: Weighting,
    ) -> OuterProjection:
        """Return the paper's projection: outer products of count sketches.

        Args:
            embedding: E of the projected error, float32.
            channels: Channels in use.
            weighting: How positions are weighed.
        """
        used = factors_of(channels)
        device = embedding.device
        residual, hidden = self.residual.to(device), self.hidden.to(device)
        return OuterProjection(
            residual=_table_or_map(residual) if "residual" in used else None,
            hidden=hidden.matrix() if "hidden" in used else None,
            # a count sketch is linear: sketching E once replaces sketching E^T r at every position
            projected=self.projected.to(device).apply(embedding) if "projected" in used else None,
            channels=channels,
            weighting=weighting,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return nine arrays that hold the tables by value.

        ``<table>_buckets`` int32 [n], ``<table>_signs`` int8 [n], ``<table>_dim`` int32 [1].
        """
        arrays: dict[str, np.ndarray] = {}
        for name in _TABLES:
            sketch: CountSketch = getattr(self, name)
            arrays |= sketch.to_arrays(name)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "SketchTables":
        """Return the tables that `to_arrays` gave, on the CPU.

        Raises:
            ValueError: An array is missing, or its values cannot be a table.
        """
        return cls(*(CountSketch.from_arrays(arrays, name) for name in _TABLES))


@dataclass(frozen=True)
class TableSizes:
    """One size for each of the three tables; all 1 or more.

    Attributes:
        residual: Vocabulary size, or numbers in a sketched residual (Kr).
        hidden: Hidden size, or numbers in a sketched hidden state (Kh).
        projected: Embedding size, or numbers in a sketched projected error (Kg).
    """

    residual: int
    hidden: int
    projected: int


def draw_tables(inputs: TableSizes, dims: TableSizes, *, seed: int) -> SketchTables:
    """Draw the three independent tables of a signature space from one seed, on the CPU.

    Args:
        inputs: Length of the vectors that are sketched.
        dims: Numbers in each sketch.
        seed: Seed, 0 to 2^64 - 1.

    Raises:
        ValueError: A size is below 1.
    """
    return SketchTables(
        draw_count_sketch(inputs.residual, dim=dims.residual, seed=seed, stream=0),
        draw_count_sketch(inputs.hidden, dim=dims.hidden, seed=seed, stream=1),
        draw_count_sketch(inputs.projected, dim=dims.projected, seed=seed, stream=2),
    )


def _table_or_map(sketch: CountSketch) -> Tensor | CountSketch:
    return sketch.matrix() if sketch.n * sketch.dim <= MAX_TABLE_NUMBERS else sketch


def _run_sums(
    buckets: Int[Tensor, "positions support"], values: Float[Tensor, "positions support"]
) -> Float[Tensor, "positions support"]:
    """Return sums from the start of each run of equal buckets, by doubling steps."""
    sums = values.clone()
    step = 1
    while step < values.shape[1]:
        is_same = buckets[:, step:] == buckets[:, :-step]
        before = torch.where(is_same, sums[:, :-step], 0.0)
        sums[:, step:] += before
        step *= 2
    return sums
