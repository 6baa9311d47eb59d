"""How do the vectors of a position become the few numbers of a signature?

Three factors describe a position: residual r (over the vocabulary), hidden state h and projected
error g = E^T r. A projection makes each one short and combines them in pairs, summed over a window:
the channels RH, GH and RG. Here is what all projections share, and `OuterProjection`, which maps
each factor linearly and takes outer products: with count sketches the paper's
(`sketch.SketchTables`), with calibrated bases the principal one (`principal.PrincipalTables`).
`tensor_sketch` sketches the outer product itself. Source: arXiv:2604.16197; METHOD.md, steps 5-6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rise_ops.residual import SparseResidual
from rise_ops.windows import WindowLayout

MIN_NORM = 1e-12
"""Vectors shorter than this are not scaled up to length 1: so little is rounding."""

MIN_SHARE = 1e-4
"""A position's projected vectors shorter than this share of its residual fade out instead of being
scaled up: the tokens cancelled in one bucket, and what is left is rounding."""

CHANNELS: Mapping[str, tuple[str, str]] = {
    "residual_hidden": ("residual", "hidden"),
    "projected_hidden": ("projected", "hidden"),
    "residual_projected": ("residual", "projected"),
}
"""The two factors of each channel, channels in the order of a signature."""

Weighting = Literal["unit", "gradient"]
"""``unit``: each position's vectors have length 1. ``gradient``: they keep their length."""


@dataclass(frozen=True, eq=False)
class PositionFeatures:
    """Projected factors of positions; length 1 (or 0) each with weighting ``unit``.

    Attributes:
        residual: Projected residual, or the sparse residual itself where the projection works on
            pairs of factors; None when no channel uses it.
        hidden: Projected hidden state; None when no channel uses it.
        projected: Projected error, projected once more; None when no channel uses it.
    """

    residual: Float[Tensor, "positions residual_dim"] | SparseResidual | None
    hidden: Float[Tensor, "positions hidden_dim"] | None
    projected: Float[Tensor, "positions projected_dim"] | None

    @staticmethod
    def joined(parts: Sequence["PositionFeatures"]) -> "PositionFeatures":
        """Return the features of one or more runs of positions as those of all of them."""
        residuals = [part.residual for part in parts if part.residual is not None]
        return PositionFeatures(
            residual=_joined_residuals(residuals) if residuals else None,
            hidden=_joined([part.hidden for part in parts]),
            projected=_joined([part.projected for part in parts]),
        )


@runtime_checkable
class Projection(Protocol):
    """Makes position vectors short and sums the channels over windows.

    Nothing in it makes the host wait for the device, as long as ``max_positions`` is given, and the
    same input gives the same bytes on a GPU too.
    """

    @property
    def channel_sizes(self) -> Mapping[str, int]:
        """Numbers of each channel in use, in the order of `CHANNELS`."""
        ...

    def position_features(
        self, hidden: Float[Tensor, "positions hidden"], residual: SparseResidual
    ) -> PositionFeatures:
        """Return the projected factors of positions.

        Args:
            hidden: Final hidden states, float32.
            residual: Their residuals; with weighting ``unit`` of length 1.
        """
        ...

    def channel_sums(
        self,
        features: PositionFeatures,
        window_index: Int[Tensor, " positions"],
        n_windows: int,
        *,
        max_positions: int | None = None,
    ) -> dict[str, Float[Tensor, "windows _"]]:
        """Return the sum of each channel in use over each window, neither scaled nor weighted.

        Args:
            features: From `position_features`.
            window_index: Window of each position, ascending, 0 to ``n_windows - 1``.
            n_windows: Windows, those without a position included.
            max_positions: Positions of the longest window, or more. None: it is looked up, for
                which the host waits for the device.
        """
        ...


@runtime_checkable
class ProjectionTables(Protocol):
    """What is random or calibrated in a projection, kept by value with every index."""

    @property
    def input_sizes(self) -> tuple[int | None, int | None, int | None]:
        """Vocabulary, hidden and embedding size that the tables are for; None: any."""
        ...

    def projection(
        self,
        embedding: Float[Tensor, "vocab embedding"],
        *,
        channels: Sequence[str],
        weighting: Weighting,
    ) -> Projection:
        """Return the projection of these tables, on the embedding's device.

        Args:
            embedding: E of the projected error, float32.
            channels: Channels in use, keys of `CHANNELS` in that order.
            weighting: How positions are weighed.

        Raises:
            ValueError: The tables lack what a channel needs.
        """
        ...

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that hold the tables by value."""
        ...


@runtime_checkable
class SparseMap(Protocol):
    """A linear map of sparse vectors that needs no table; `sketch.CountSketch` is one."""

    @property
    def dim(self) -> int:
        """Numbers that it gives."""
        ...

    def apply_sparse(
        self,
        tokens: Int[Tensor, "positions support"],
        values: Float[Tensor, "positions support"],
    ) -> Float[Tensor, "positions _"]:
        """Map vectors that are given by their non-zero coordinates."""
        ...


class OuterProjection:
    """Linear maps of the factors, and outer products of what they give.

    Args:
        residual: Image of each token, so that a residual's is ``sum_v r(v) residual[v]``; or a map,
            where that table would be too large.
        hidden: The map of a hidden state.
        projected: Image of each token's embedding; the projected error's is ``sum_v r(v) table[v]``
            because the map is linear.
        channels: Channels in use, keys of `CHANNELS` in that order.
        weighting: How positions are weighed.

    Maps of factors that no channel uses may be None.

    Raises:
        ValueError: A channel's map is missing.
    """

    def __init__(
        self,
        *,
        residual: Float[Tensor, "vocab residual_dim"] | SparseMap | None,
        hidden: Float[Tensor, "hidden hidden_dim"] | None,
        projected: Float[Tensor, "vocab projected_dim"] | None,
        channels: Sequence[str],
        weighting: Weighting,
    ) -> None:
        maps = {"residual": residual, "hidden": hidden, "projected": projected}
        used = factors_of(channels)
        if missing := sorted(name for name in used if maps[name] is None):
            raise ValueError(
                f"channels {list(channels)} need maps of {missing}; give those maps, or set the "
                "weights of these channels to 0."
            )
        if weighting == "unit" and projected is not None:
            # rows of length about 1, so that MIN_SHARE means the same whatever the scale of E
            projected = projected / typical_row_length(projected)
        self._residual = residual if "residual" in used else None
        self._hidden = hidden if "hidden" in used else None
        self._projected = projected if "projected" in used else None
        self._channels = tuple(channels)
        self._weighting = weighting

    @property
    def channel_sizes(self) -> Mapping[str, int]:
        """Numbers of each channel in use, in the order of `CHANNELS`."""
        dims = {
            "residual": _dim(self._residual),
            "hidden": _dim(self._hidden),
            "projected": _dim(self._projected),
        }
        pairs = {channel: CHANNELS[channel] for channel in self._channels}
        return {channel: dims[left] * dims[right] for channel, (left, right) in pairs.items()}

    def position_features(
        self, hidden: Float[Tensor, "positions hidden"], residual: SparseResidual
    ) -> PositionFeatures:
        """Return the mapped factors of positions; see `Projection.position_features`."""
        return PositionFeatures(
            residual=None
            if self._residual is None
            else self._scaled(_image(self._residual, residual), MIN_SHARE),
            hidden=None if self._hidden is None else self._scaled(hidden @ self._hidden, MIN_NORM),
            projected=None
            if self._projected is None
            else self._scaled(weighted_rows(self._projected, residual), MIN_SHARE),
        )

    def channel_sums(
        self,
        features: PositionFeatures,
        window_index: Int[Tensor, " positions"],
        n_windows: int,
        *,
        max_positions: int | None = None,
    ) -> dict[str, Float[Tensor, "windows _"]]:
        """Return the flattened sums of outer products; see `Projection.channel_sums`."""
        layout = WindowLayout.of(window_index, n_windows, max_positions=max_positions)
        used = factors_of(self._channels)
        padded = {name: layout.padded(getattr(features, name)) for name in used}
        pairs = {channel: CHANNELS[channel] for channel in self._channels}
        # one matrix product a window, never an outer product a position
        return {
            channel: torch.bmm(padded[left].mT, padded[right]).flatten(1)
            for channel, (left, right) in pairs.items()
        }

    def _scaled(
        self, vectors: Float[Tensor, "positions dim"], floor: float
    ) -> Float[Tensor, "positions dim"]:
        return unit_length(vectors, floor) if self._weighting == "unit" else vectors


def factors_of(channels: Sequence[str]) -> set[str]:
    """Return the factors that channels use."""
    return {factor for channel in channels for factor in CHANNELS[channel]}


def unit_length(
    vectors: Float[Tensor, "*batch dim"], floor: float = MIN_NORM
) -> Float[Tensor, "*batch dim"]:
    """Return vectors of length 1, those shorter than ``floor`` as a share of it."""
    return torch.nn.functional.normalize(vectors, dim=-1, eps=floor)


def typical_row_length(table: Float[Tensor, "rows dim"]) -> Float[Tensor, ""]:
    """Return the root mean square length of rows, at least `MIN_NORM`."""
    return table.square().sum(-1).mean().sqrt().clamp_min(MIN_NORM)


def weighted_rows(
    table: Float[Tensor, "vocab dim"], residual: SparseResidual
) -> Float[Tensor, "positions dim"]:
    """Return sum_v residual(v) table[v], without gathering the rows into memory."""
    # also where a table could be scattered instead: this one adds in a fixed order on a GPU
    return torch.nn.functional.embedding_bag(
        residual.tokens, table, per_sample_weights=residual.values, mode="sum"
    )


def _dim(map_: Tensor | SparseMap | None) -> int:
    if map_ is None:
        return 0
    return map_.shape[1] if isinstance(map_, Tensor) else map_.dim


def _image(map_: Tensor | SparseMap, residual: SparseResidual) -> Tensor:
    if isinstance(map_, Tensor):
        return weighted_rows(map_, residual)
    return map_.apply_sparse(residual.tokens, residual.values)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def _joined_residuals(parts: Sequence[Tensor | SparseResidual]) -> Tensor | SparseResidual:
    sparse = [part for part in parts if isinstance(part, SparseResidual)]
    if not sparse:
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return SparseResidual(
        torch.cat([part.tokens for part in sparse]), torch.cat([part.values for part in sparse])
    )
