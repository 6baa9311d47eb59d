"""Which few directions of hidden states and errors carry the signal of this model and this text?

A forward pass over a few tens of thousands of tokens gives the second moments ``A = E[h h^T]`` and
``B = E[g g^T]``, the two Kronecker factors of the read-out's Gauss-Newton matrix as K-FAC has them
(Martens and Grosse 2015). Their leading eigenvectors are the directions to keep; scaled by
``(eigenvalue + damping)^(-1/2)`` they whiten. How much energy a basis captures on new text says
when it is out of date. All in float64. METHOD.md, steps 9-11.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from rise_ops.projection import PositionFeatures

_FACTORS = ("residual", "hidden", "projected")

LEAST_EIGENVALUE = 1e-10
"""Share of the largest eigenvalue below which a direction is taken for rounding."""


class Moments:
    """Sums of ``x x^T`` over positions, for the factors of a signature; streaming, mergeable.

    Give it the features of a `Sketcher` whose tables change nothing (`principal.plain_tables`).
    Where and in which batches they are added changes nothing but float64 rounding.

    Args:
        sums: float64 sum of each factor by name; empty at the start.
        n_positions: Positions in the sums.
    """

    def __init__(
        self, sums: Mapping[str, Float64[Tensor, "_ _"]] | None = None, n_positions: int = 0
    ) -> None:
        self._sums = dict(sums or {})
        self.n_positions = n_positions

    def add(self, features: PositionFeatures) -> None:
        """Add positions; the host does not wait for their device, but for Apple's, without float64.

        Args:
            features: Dense factors; the same ones, of the same sizes, each time.

        Raises:
            ValueError: Other factors or sizes than before, or a sparse residual.
        """
        sums = {}
        n_positions = 0
        for name in _FACTORS:
            vectors = getattr(features, name)
            if vectors is None:
                continue
            if not isinstance(vectors, Tensor):
                raise ValueError(f"moments need a dense {name}, got {type(vectors).__name__}.")
            # float64 before the product: float32 sums would lose the small eigenvalues
            exact = (vectors.cpu() if vectors.device.type == "mps" else vectors).double()
            sums[name] = exact.mT @ exact
            n_positions = vectors.shape[0]
        self._add(sums, n_positions)

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of positions.

        Raises:
            ValueError: They are of other factors or sizes.
        """
        merged = Moments(
            {name: total.clone() for name, total in self._sums.items()}, self.n_positions
        )
        merged._add(other._sums, other.n_positions)
        return merged

    def second_moment(self, name: str) -> Float64[Tensor, "_ _"]:
        """Return the mean of ``x x^T``, on the CPU.

        Args:
            name: ``residual``, ``hidden`` or ``projected``.

        Raises:
            ValueError: No position was added, or none with this factor.
        """
        if name not in self._sums or self.n_positions == 0:
            raise ValueError(
                f"there are no moments of {name!r}: {self.n_positions} positions were added, with "
                f"{sorted(self._sums) or 'nothing'}. Calibrate on text that predicts tokens."
            )
        return self._sums[name].cpu() / self.n_positions

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return ``n_positions`` int64 [1] and ``<factor>_sum`` float64 [n, n]."""
        # copies: adding goes on in place
        arrays = {f"{name}_sum": total.cpu().numpy().copy() for name, total in self._sums.items()}
        return arrays | {"n_positions": np.array([self.n_positions], dtype=np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Moments":
        """Return the moments that `to_arrays` gave.

        Raises:
            ValueError: The number of positions is missing, or a sum is not a square matrix.
        """
        if "n_positions" not in arrays:
            raise ValueError(f"moments lack 'n_positions'; found {sorted(arrays)}.")
        sums = {}
        for name in _FACTORS:
            if f"{name}_sum" not in arrays:
                continue
            total = np.asarray(arrays[f"{name}_sum"], dtype=np.float64)
            if total.ndim != 2 or total.shape[0] != total.shape[1]:
                raise ValueError(f"{name}_sum must be [n, n], got {total.shape}.")
            sums[name] = torch.from_numpy(total.copy())
        return cls(sums, int(arrays["n_positions"][0]))

    def _add(self, sums: Mapping[str, Tensor], n_positions: int) -> None:
        if not sums:
            return
        if not self._sums:
            self._sums = {name: torch.zeros_like(total) for name, total in sums.items()}
        expected = {name: total.shape[0] for name, total in self._sums.items()}
        found = {name: total.shape[0] for name, total in sums.items()}
        if found != expected:
            raise ValueError(f"these moments are of {expected}, but {found} were to be added.")
        for name, total in sums.items():
            self._sums[name] += total.to(self._sums[name].device)
        self.n_positions += n_positions


@dataclass(frozen=True, eq=False)
class Basis:
    """Directions that are kept of a factor, as the map that projects it.

    Attributes:
        matrix: One direction a column, orthogonal; of length 1, or scaled so as to whiten.
        eigenvalues: All eigenvalues of the second moment, largest first; not below 0.
        energy: Share of the second moment's trace in the kept directions, 0 to 1.
    """

    matrix: Float32[Tensor, "n kept"]
    eigenvalues: Float64[Tensor, " n"]
    energy: float

    def to_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Return ``<name>_matrix`` float32, and ``_eigenvalues``, ``_energy`` [1] float64."""
        return {
            f"{name}_matrix": self.matrix.cpu().numpy(),
            f"{name}_eigenvalues": self.eigenvalues.cpu().numpy(),
            f"{name}_energy": np.array([self.energy]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], name: str) -> "Basis":
        """Return the basis that `to_arrays` gave, on the CPU.

        Raises:
            ValueError: An array is missing, not finite, or of a shape that no basis has.
        """
        names = [f"{name}_matrix", f"{name}_eigenvalues", f"{name}_energy"]
        if missing := [key for key in names if key not in arrays]:
            raise ValueError(f"the basis of {name!r} lacks {missing}; found {sorted(arrays)}.")
        matrix = np.array(arrays[names[0]], dtype=np.float32)
        eigenvalues = np.array(arrays[names[1]], dtype=np.float64)
        energy = np.asarray(arrays[names[2]], dtype=np.float64)
        if matrix.ndim != 2 or eigenvalues.shape != matrix.shape[:1] or energy.shape != (1,):
            raise ValueError(
                f"the basis of {name!r} must have matrix [n, kept], eigenvalues [n] and energy "
                f"[1], got {matrix.shape}, {eigenvalues.shape} and {energy.shape}."
            )
        if not np.isfinite(matrix).all():
            raise ValueError(f"the basis of {name!r} must be finite, but its matrix is not.")
        return cls(torch.from_numpy(matrix), torch.from_numpy(eigenvalues), float(energy[0]))


def principal_basis(
    second_moment: Float64[Tensor, "n n"], *, n_directions: int, whiten: bool, damping: float
) -> Basis:
    """Return the leading eigenvectors of a second moment.

    Signs are fixed by making the entry of largest magnitude positive, because what LAPACK returns
    differs between libraries. The order of directions with *equal* eigenvalues stays open.

    Args:
        second_moment: Symmetric, not negative; see `Moments.second_moment`.
        n_directions: Directions kept, 1 to n; all of them keeps every inner product.
        whiten: Divide each direction by the square root of its eigenvalue plus
            ``damping * mean eigenvalue``, so that with damping 0 all directions weigh alike.
        damping: Share of the mean eigenvalue, 0 or more.

    Raises:
        ValueError: A setting is outside its range, the moment is zero or not finite, or a direction
            without energy would be scaled up without bound.
    """
    n = second_moment.shape[0]
    if not 1 <= n_directions <= n:
        raise ValueError(f"n_directions must be 1 to {n}, the size of the moment; {n_directions}.")
    if damping < 0.0:
        raise ValueError(f"damping must be 0 or more, got {damping}.")
    eigenvalues, vectors = _eigen(second_moment)
    kept = vectors[:, :n_directions]
    places = kept.abs().argmax(dim=0, keepdim=True)
    kept = kept * torch.where(kept.gather(0, places) < 0.0, -1.0, 1.0)
    if whiten:
        damped = eigenvalues[:n_directions] + damping * eigenvalues.mean()
        if float(damped.min()) <= LEAST_EIGENVALUE * float(eigenvalues[0]):
            raise ValueError(
                f"{n_directions} directions cannot be whitened with damping {damping}: the last "
                "one has no energy. Raise the damping, keep fewer directions, or calibrate on more "
                "text."
            )
        kept = kept / damped.sqrt()
    energy = float(eigenvalues[:n_directions].sum() / eigenvalues.sum())
    return Basis(kept.float(), eigenvalues, min(energy, 1.0))


def without_empty_directions(basis: Basis) -> Basis:
    """Return a basis that sees nothing along directions which its sample has no energy in.

    A sample of fewer positions than directions leaves some to rounding. Their columns become 0: a
    coordinate along them would be noise, and the sign of noise weighs as much as any other.
    """
    kept = basis.eigenvalues[: basis.matrix.shape[1]]
    has_energy = (kept > LEAST_EIGENVALUE * basis.eigenvalues[0]).to(basis.matrix.device)
    return Basis(basis.matrix * has_energy, basis.eigenvalues, basis.energy)


def energy_captured(second_moment: Float64[Tensor, "n n"], basis: Basis) -> float:
    """Return the share of a second moment's trace in a basis' directions, 0 to 1.

    Args:
        second_moment: Of other text than the basis was made from, say.
        basis: Whitened or not.

    Raises:
        ValueError: The moment is zero.
    """
    trace = float(second_moment.trace())
    if trace <= 0.0:
        raise ValueError(f"the second moment must have a trace above 0, got {trace}.")
    directions = torch.nn.functional.normalize(basis.matrix.cpu().double(), dim=0)
    captured = float(((second_moment @ directions) * directions).sum())
    return min(max(captured / trace, 0.0), 1.0)


def held_out_energy(
    first: Float64[Tensor, "n n"], second: Float64[Tensor, "n n"], *, n_directions: int
) -> float:
    """Return the share of energy that directions capture of text they were not made from, 0 to 1.

    What they capture of their own sample is too much, the more so the smaller it is. Here each half
    of a sample is seen along the directions of the other.

    Args:
        first: Second moment of one half of a sample.
        second: Of the other half.
        n_directions: Directions kept, 1 to n.

    Raises:
        ValueError: A moment is zero or not finite.
    """
    pairs = ((first, second), (second, first))
    bases = [
        principal_basis(own, n_directions=n_directions, whiten=False, damping=0.0)
        for own, _ in pairs
    ]
    captured = [
        energy_captured(other, basis) for (_, other), basis in zip(pairs, bases, strict=True)
    ]
    return sum(captured) / 2.0


def energy_ratio(second_moment: Float64[Tensor, "n n"], basis: Basis, *, expected: float) -> float:
    """Return the energy captured on new text relative to what is expected: the drift measure.

    1: the new text lives in the same directions. Well below 1: an index with bases made anew is
    due. It can exceed 1 a little.

    Args:
        second_moment: Of the new text.
        basis: Whitened or not.
        expected: What the directions capture of text like that they were made from, above 0; see
            `held_out_energy`.
    """
    return energy_captured(second_moment, basis) / expected


def _eigen(
    second_moment: Float64[Tensor, "n n"],
) -> tuple[Float64[Tensor, " n"], Float64[Tensor, "n n"]]:
    """Return eigenvalues, largest first, and their vectors as columns."""
    if not bool(second_moment.isfinite().all()):
        raise ValueError("the second moment is not finite: calibrate on text the model can read.")
    symmetric = (second_moment + second_moment.mT) / 2.0
    ascending, vectors = torch.linalg.eigh(symmetric)
    eigenvalues = ascending.flip(0).clamp_min(0.0)
    if float(eigenvalues[0]) == 0.0:
        raise ValueError("the second moment is zero: there is nothing to choose directions by.")
    return eigenvalues, vectors.flip(1)
