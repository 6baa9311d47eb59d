"""Which calibrated bases make a signature, and how are they made and kept?

Outer products, as the paper's, but of factors seen in a few leading directions instead of random
buckets: ``sum_t (P_g^T g_t)(P_h^T h_t)^T``. The projected error's map runs through the tokens'
images ``E P_g``, one small table; the residual, too long for a basis, is count-sketched first.
Source: K-FAC's Kronecker factors (Martens and Grosse 2015; Grosse et al. 2023 for influence),
restricted to the read-out; METHOD.md, steps 9-12.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rise_ops.calibration import Basis, Moments, principal_basis, without_empty_directions
from rise_ops.projection import OuterProjection, Weighting, factors_of
from rise_ops.sketch import CountSketch, SketchTables, draw_count_sketch, identity_sketch

RESIDUAL_STREAM = 9
"""Stream of the residual's count sketch; the tables of other projections have those below."""

_BASES = ("hidden", "projected", "residual")


@dataclass(frozen=True)
class PrincipalSettings:
    """How many directions are kept, and which factors are whitened.

    Attributes:
        hidden_dim: Directions of the hidden state, 1 or more.
        projected_dim: Directions of the projected error; 0: none.
        residual_dim: Directions of the count-sketched residual; 0: none.
        whiten: ``projected`` means the error's side: the residual too, where it is used.
        damping: See `principal_basis`.
    """

    hidden_dim: int = 64
    projected_dim: int = 64
    residual_dim: int = 0
    whiten: Literal["none", "hidden", "projected", "both"] = "hidden"
    damping: float = 1.0

    def __post_init__(self) -> None:
        """Refuse sizes that make no signature."""
        others = (self.projected_dim, self.residual_dim)
        if self.hidden_dim < 1 or min(others) < 0 or max(others) == 0:
            raise ValueError(
                "hidden_dim must be 1 or more, projected_dim and residual_dim 0 or more and not "
                f"both 0, got {self.hidden_dim}, {self.projected_dim} and {self.residual_dim}."
            )

    def whitens(self, name: str) -> bool:
        """Return whether a factor's basis whitens it."""
        side = "hidden" if name == "hidden" else "projected"
        return self.whiten in (side, "both")


@dataclass(frozen=True, eq=False)
class PrincipalTables:
    """Calibrated bases; two signatures compare only within one set.

    Attributes:
        hidden: Of the hidden state.
        projected: Of the projected error; None: no channel uses it.
        residual: Of the count-sketched residual; None: no channel uses it.
        residual_sketch: That count sketch; None exactly when ``residual`` is.
    """

    hidden: Basis
    projected: Basis | None = None
    residual: Basis | None = None
    residual_sketch: CountSketch | None = None

    def __post_init__(self) -> None:
        """Refuse a residual's basis that was not made behind its sketch."""
        n_numbers = 0 if self.residual is None else self.residual.matrix.shape[0]
        n_sketched = 0 if self.residual_sketch is None else self.residual_sketch.dim
        if n_numbers != n_sketched:
            raise ValueError(
                f"the residual's basis is for {n_numbers} numbers, but its sketch gives "
                f"{n_sketched}."
            )

    @property
    def input_sizes(self) -> tuple[int | None, int, int | None]:
        """Vocabulary, hidden and embedding size that the bases are for; None: any."""
        return (
            None if self.residual_sketch is None else self.residual_sketch.n,
            self.hidden.matrix.shape[0],
            None if self.projected is None else self.projected.matrix.shape[0],
        )

    def projection(
        self,
        embedding: Float[Tensor, "vocab embedding"],
        *,
        channels: Sequence[str],
        weighting: Weighting,
    ) -> OuterProjection:
        """Return the projection onto these bases; see `ProjectionTables.projection`.

        Raises:
            ValueError: There is no basis of a factor that a channel uses.
        """
        used, device = factors_of(channels), embedding.device
        projected = self.projected if "projected" in used else None
        return OuterProjection(
            residual=self._residual_table(device) if "residual" in used else None,
            hidden=self.hidden.matrix.to(device) if "hidden" in used else None,
            projected=None if projected is None else embedding @ projected.matrix.to(device),
            channels=channels,
            weighting=weighting,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that hold the bases by value.

        ``<factor>_matrix``, ``_eigenvalues``, ``_energy`` of each basis, and ``residual_buckets``,
        ``_signs``, ``_dim`` of the sketch before the residual's.
        """
        arrays: dict[str, np.ndarray] = {}
        for name in _BASES:
            basis: Basis | None = getattr(self, name)
            if basis is not None:
                arrays |= basis.to_arrays(name)
        if self.residual_sketch is not None:
            arrays |= self.residual_sketch.to_arrays("residual")
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "PrincipalTables":
        """Return the tables that `to_arrays` gave, on the CPU.

        Raises:
            ValueError: An array is missing, or cannot be part of a basis.
        """
        bases = {
            name: Basis.from_arrays(arrays, name)
            for name in _BASES
            if name == "hidden" or f"{name}_matrix" in arrays
        }
        sketch = CountSketch.from_arrays(arrays, "residual") if "residual" in bases else None
        return cls(bases["hidden"], bases.get("projected"), bases.get("residual"), sketch)

    def _residual_table(self, device: torch.device) -> Tensor | None:
        if self.residual is None or self.residual_sketch is None:
            return None
        # row v is sign(v) P_r[bucket(v)]: sketch and basis in one look-up
        sketch = self.residual_sketch
        return (self.residual.matrix[sketch.buckets] * sketch.signs[:, None]).to(device)


def plain_tables(
    vocab_size: int,
    hidden_size: int,
    embedding_size: int,
    *,
    residual_dim: int,
    seed: int,
) -> SketchTables:
    """Return the tables that calibration looks through: nothing changed but the residual.

    A `Sketcher` of these, with the residual and weighting settings of the index to be, gives the
    features that `Moments.add` takes.

    Args:
        vocab_size: Tokens that the head scores.
        hidden_size: Length of a hidden state.
        embedding_size: Length of a projected error.
        residual_dim: Numbers in the count-sketched residual, of which a basis is then made.
        seed: Of that sketch, 0 to 2^64 - 1.
    """
    return SketchTables(
        draw_count_sketch(vocab_size, dim=residual_dim, seed=seed, stream=RESIDUAL_STREAM),
        identity_sketch(hidden_size),
        identity_sketch(embedding_size),
    )


def principal_tables(
    moments: Moments, settings: PrincipalSettings, *, residual_sketch: CountSketch | None = None
) -> PrincipalTables:
    """Make the bases of an index from calibration.

    Directions that the sample has no energy in see nothing: see `without_empty_directions`.

    Args:
        moments: Of the factors that have directions in ``settings``.
        settings: Directions and whitening.
        residual_sketch: The one that the residual's moments were taken through.

    Raises:
        ValueError: More directions than there are, missing moments, or a missing sketch.
    """
    if settings.residual_dim > 0 and residual_sketch is None:
        raise ValueError(
            f"residual_dim is {settings.residual_dim}, which needs the count sketch that the "
            "residual's moments were taken through; give residual_sketch."
        )
    dims = {
        "hidden": settings.hidden_dim,
        "projected": settings.projected_dim,
        "residual": settings.residual_dim,
    }
    bases = {
        name: without_empty_directions(
            principal_basis(
                moments.second_moment(name),
                n_directions=n_directions,
                whiten=settings.whitens(name),
                damping=settings.damping,
            )
        )
        for name, n_directions in dims.items()
        if n_directions > 0
    }
    return PrincipalTables(
        bases["hidden"],
        bases.get("projected"),
        bases.get("residual"),
        residual_sketch if "residual" in bases else None,
    )
