"""How is an outer product made short without making its two sides short first?

The paper sketches residual and hidden state apart, so that the noise is that of the small sides. A
tensor sketch sends the entry (i, j) of ``u h^T`` straight to bucket ``b_u(i) + b_h(j)`` modulo D,
with sign ``s_u(i) s_h(j)``: a count sketch of the outer product, which is the circular convolution
of the count sketches of u and h, hence a product in the frequency domain. Spectra add up over a
window's positions, so each window takes one inverse transform. Over the draw of the tables
``E<TX, TY> = <X, Y>``, with variance at most ``8 |X|^2 |Y|^2 / D``. Source: Pham and Pagh 2013;
Pagh 2013; METHOD.md, steps 13-14.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from rise_ops.calibration import Basis
from rise_ops.projection import (
    CHANNELS,
    MIN_NORM,
    MIN_SHARE,
    PositionFeatures,
    Weighting,
    factors_of,
    typical_row_length,
    unit_length,
    weighted_rows,
)
from rise_ops.residual import SparseResidual
from rise_ops.sketch import CountSketch, TableSizes, draw_count_sketch
from rise_ops.windows import WindowLayout

FIRST_STREAM = 3
"""First of the six streams that `draw_tensor_tables` takes; `draw_tables` has those below."""

SPECTRUM_BYTES = 2**25
"""Windows are taken in slices whose spectra fit in this, one window at least; about six arrays of
this size live at once. Changes speed and memory, and numbers by rounding only."""


@dataclass(frozen=True, eq=False)
class TensorTables:
    """A pair of count sketches a channel; two signatures compare only within one set.

    Attributes:
        sketches: For each channel that can be used, the sketches of its left and right factor, with
            the same number of buckets.
        whitening: Full-rank basis that whitens the hidden state before it is sketched; None: as it
            is.
    """

    sketches: Mapping[str, tuple[CountSketch, CountSketch]]
    whitening: Basis | None = None

    def __post_init__(self) -> None:
        """Refuse tables that do not fit together."""
        for channel, (left, right) in self.sketches.items():
            if left.dim != right.dim:
                raise ValueError(
                    f"both sketches of {channel} must have as many buckets, "
                    f"got {left.dim} and {right.dim}."
                )
        for name in ("residual", "hidden", "projected"):
            if len(sizes := self._sizes(name)) > 1:
                raise ValueError(f"sketches of the {name} must be for one size, got {sizes}.")
        kept = [] if self.whitening is None else [self.whitening.matrix.shape[1]]
        if kept and self._sizes("hidden") not in ([], kept):
            raise ValueError(
                f"whitening leaves {kept[0]} numbers of a hidden state, but its sketches are for "
                f"{self._sizes('hidden')[0]}."
            )

    @property
    def input_sizes(self) -> tuple[int | None, int | None, int | None]:
        """Vocabulary, hidden and embedding size that the tables are for; None: any."""
        sizes = {name: self._sizes(name) for name in ("residual", "hidden", "projected")}
        vocab, hidden, embedding = ((found[0] if found else None) for found in sizes.values())
        if self.whitening is not None:
            hidden = self.whitening.matrix.shape[0]
        return vocab, hidden, embedding

    def projection(
        self,
        embedding: Float[Tensor, "vocab embedding"],
        *,
        channels: Sequence[str],
        weighting: Weighting,
    ) -> "TensorProjection":
        """Return the tensor sketch; see `ProjectionTables.projection`.

        Raises:
            ValueError: A channel has no sketches.
        """
        return TensorProjection(self, embedding, channels=channels, weighting=weighting)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that hold the tables by value.

        Of each channel ``<channel>_left_...`` and ``<channel>_right_...``, see
        `CountSketch.to_arrays`; ``whitening_...``, see `Basis.to_arrays`.
        """
        arrays = {} if self.whitening is None else self.whitening.to_arrays("whitening")
        for channel, (left, right) in self.sketches.items():
            arrays |= left.to_arrays(f"{channel}_left") | right.to_arrays(f"{channel}_right")
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "TensorTables":
        """Return the tables that `to_arrays` gave, on the CPU.

        Raises:
            ValueError: An array is missing, or its values cannot be a table.
        """
        found = [channel for channel in CHANNELS if f"{channel}_left_dim" in arrays]
        if not found:
            raise ValueError(f"tensor sketch tables lack every channel; found {sorted(arrays)}.")
        sketches = {
            channel: (
                CountSketch.from_arrays(arrays, f"{channel}_left"),
                CountSketch.from_arrays(arrays, f"{channel}_right"),
            )
            for channel in found
        }
        whitened = "whitening_matrix" in arrays
        return cls(sketches, Basis.from_arrays(arrays, "whitening") if whitened else None)

    def _sizes(self, name: str) -> list[int]:
        """Return the different sizes that the sketches of a factor are for."""
        sizes = {
            sketch.n
            for channel, pair in self.sketches.items()
            for factor, sketch in zip(CHANNELS[channel], pair, strict=True)
            if factor == name
        }
        return sorted(sizes)


def draw_tensor_tables(
    inputs: TableSizes, dims: Mapping[str, int], *, seed: int, whitening: Basis | None = None
) -> TensorTables:
    """Draw the tables of a tensor sketch, on the CPU.

    Args:
        inputs: Vocabulary, hidden and embedding size.
        dims: Numbers of each channel, 1 or more; any will do, `fast_size` of it takes less time.
        seed: Seed, 0 to 2^64 - 1.
        whitening: See `TensorTables`.

    Raises:
        ValueError: A channel is unknown or its size below 1.
    """
    if unknown := sorted(dims.keys() - CHANNELS.keys()):
        raise ValueError(f"there are no channels {unknown}; channels are {list(CHANNELS)}.")
    sizes = {
        "residual": inputs.residual,
        "hidden": inputs.hidden if whitening is None else whitening.matrix.shape[1],
        "projected": inputs.projected,
    }
    sketches = {}
    for number, (channel, (left, right)) in enumerate(CHANNELS.items()):
        if channel in dims:
            stream = FIRST_STREAM + 2 * number
            sketches[channel] = (
                draw_count_sketch(sizes[left], dim=dims[channel], seed=seed, stream=stream),
                draw_count_sketch(sizes[right], dim=dims[channel], seed=seed, stream=stream + 1),
            )
    return TensorTables(sketches, whitening)


def fast_size(n: int) -> int:
    """Return the least number from ``n`` on without a prime factor above 7: fast to transform."""
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


class TensorProjection:
    """Tensor sketches of the channels; see `Projection`.

    Args:
        tables: The sketches.
        embedding: E of the projected error, float32. Kept, not copied.
        channels: Channels in use, keys of `CHANNELS` in that order.
        weighting: How positions are weighed.

    Raises:
        ValueError: A channel has no sketches.
    """

    def __init__(
        self,
        tables: TensorTables,
        embedding: Float[Tensor, "vocab embedding"],
        *,
        channels: Sequence[str],
        weighting: Weighting,
    ) -> None:
        if missing := [channel for channel in channels if channel not in tables.sketches]:
            raise ValueError(
                f"the tables have no sketches of {missing}, only of {list(tables.sketches)}; set "
                "the weights of these channels to 0."
            )
        device = embedding.device
        self._factors = factors_of(channels)
        self._sketches = {
            channel: tuple(_Bags.of(sketch.to(device)) for sketch in tables.sketches[channel])
            for channel in channels
        }
        self._whitening = None if tables.whitening is None else tables.whitening.matrix.to(device)
        self._embedding = embedding if "projected" in self._factors else None
        # of an embedding with rows of length 1, whatever its scale
        self._least_projected = MIN_SHARE * float(typical_row_length(embedding))
        self._weighting = weighting

    @property
    def channel_sizes(self) -> Mapping[str, int]:
        """Numbers of each channel in use, in the order of `CHANNELS`."""
        return {channel: left.sketch.dim for channel, (left, _) in self._sketches.items()}

    def position_features(
        self, hidden: Float[Tensor, "positions hidden"], residual: SparseResidual
    ) -> PositionFeatures:
        """Return the factors of positions, not yet sketched; the residual stays sparse."""
        return PositionFeatures(
            residual=residual if "residual" in self._factors else None,
            hidden=self._hidden(hidden) if "hidden" in self._factors else None,
            projected=None
            if self._embedding is None
            else self._scaled(weighted_rows(self._embedding, residual), self._least_projected),
        )

    def channel_sums(
        self,
        features: PositionFeatures,
        window_index: Int[Tensor, " positions"],
        n_windows: int,
        *,
        max_positions: int | None = None,
    ) -> dict[str, Float[Tensor, "windows _"]]:
        """Return the sketches of the summed outer products; see `Projection.channel_sums`."""
        layout = WindowLayout.of(window_index, n_windows, max_positions=max_positions)
        padded = {name: _padded(layout, getattr(features, name)) for name in self._factors}
        return {channel: self._channel_sum(channel, padded, layout) for channel in self._sketches}

    def _channel_sum(
        self, channel: str, padded: Mapping[str, tuple[Tensor, ...]], layout: WindowLayout
    ) -> Float[Tensor, "windows dim"]:
        left, right = self._sketches[channel]
        dim = left.sketch.dim
        if layout.n_windows * layout.n_places == 0:  # there are no transforms of nothing
            return left.signs.new_zeros(layout.n_windows, dim)
        n_frequencies = dim // 2 + 1
        # complex64 takes 8 bytes
        window_bytes = 8 * n_frequencies * layout.n_places
        size = max(1, SPECTRUM_BYTES // window_bytes)
        sums = []
        for start in range(0, layout.n_windows, size):
            pair = [[x[start : start + size] for x in padded[name]] for name in CHANNELS[channel]]
            spectra = left.spectra(*pair[0]) * right.spectra(*pair[1])
            shape = (pair[0][0].shape[0], layout.n_places, n_frequencies)
            sums.append(torch.fft.irfft(spectra.reshape(shape).sum(1), n=dim))
        return torch.cat(sums)

    def _hidden(self, hidden: Float[Tensor, "positions hidden"]) -> Float[Tensor, "positions _"]:
        whitened = hidden if self._whitening is None else hidden @ self._whitening
        return self._scaled(whitened, MIN_NORM)

    def _scaled(
        self, vectors: Float[Tensor, "positions dim"], floor: float
    ) -> Float[Tensor, "positions dim"]:
        return unit_length(vectors, floor) if self._weighting == "unit" else vectors


@dataclass(frozen=True, eq=False)
class _Bags:
    """A count sketch with many buckets, as the list of coordinates that meet in each.

    Far fewer operations than the sketch's matrix, and unlike scattering it adds in a fixed order on
    a GPU. Equals `CountSketch.apply`.
    """

    sketch: CountSketch
    coordinates: Int[Tensor, " n"]
    signs: Float[Tensor, " n"]
    starts: Int[Tensor, " dim"]

    @classmethod
    def of(cls, sketch: CountSketch) -> "_Bags":
        buckets, coordinates = sketch.buckets.sort(stable=True)
        starts = torch.searchsorted(buckets, torch.arange(sketch.dim, device=buckets.device))
        return cls(sketch, coordinates, sketch.signs[coordinates], starts)

    def apply(self, vectors: Float[Tensor, "positions n"]) -> Float[Tensor, "positions dim"]:
        """Sketch dense vectors."""
        sketched = embedding_bag(
            self.coordinates,
            vectors.mT.contiguous(),
            self.starts,
            mode="sum",
            per_sample_weights=self.signs,
        )
        # transforms of rows that lie apart in memory take twice as long
        return sketched.mT.contiguous()

    def spectra(self, *factor: Tensor) -> Complex[Tensor, "positions frequencies"]:
        """Return the transforms of sketched positions.

        Args:
            factor: Dense vectors [windows, places, n]; or tokens and values of sparse ones, each
                [windows, places, support].
        """
        flat = [part.flatten(0, 1) for part in factor]
        is_sparse = len(flat) == 2
        sketched = self.sketch.apply_sparse(*flat) if is_sparse else self.apply(flat[0])
        return torch.fft.rfft(sketched, dim=1)


def _padded(layout: WindowLayout, factor: Tensor | SparseResidual) -> tuple[Tensor, ...]:
    if isinstance(factor, SparseResidual):
        return layout.padded(factor.tokens), layout.padded(factor.values)
    return (layout.padded(factor),)
