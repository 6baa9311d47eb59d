"""What fixed-size vector stands for a row, so that inner products say who influenced whom?

Each position gives a residual r (over the vocabulary), a hidden state h, and a projected error
g = E^T r. The channels r x h, g x h and r x g, summed over a window's positions and weighted, are
its signature. Source: arXiv:2604.16197; METHOD.md, steps 1-6.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rise_ops.readout import ReadoutHead
from rise_ops.residual import SparseResidual, sparse_residual, through_head
from rise_ops.sketch import SketchTables

MIN_NORM = 1e-12
"""Vectors shorter than this are not scaled up to length 1: so little is rounding."""

MIN_SHARE = 1e-4
"""A position's sketched vectors shorter than this share of its residual fade out instead of being
scaled up: the tokens cancelled in one bucket, and what is left is rounding."""


@dataclass(frozen=True)
class SignatureSettings:
    """What a signature is, besides its sketch tables. Defaults: the paper's.

    Attributes:
        temperature: See `sparse_residual`.
        top_k: See `sparse_residual`.
        mass: See `sparse_residual`.
        min_tokens: See `sparse_residual`.
        residual_weight: Weight of residual x hidden state (RH), 0 or more; 0 leaves it out.
        projected_weight: Weight of projected error x hidden state (GH), 0 or more.
        cross_weight: Weight of residual x projected error, 0 or more.
        weighting: ``unit``: each position's vectors have length 1, every position counts alike.
            ``gradient``: they keep their length, and a channel is scaled to length 1 at the end.

    Raises:
        ValueError: A weight is negative, all are 0, or the weighting is unknown.
    """

    temperature: float = 0.1
    top_k: int = 256
    mass: float = 0.92
    min_tokens: int = 4
    residual_weight: float = 1.0
    projected_weight: float = 0.3
    cross_weight: float = 0.0
    weighting: Literal["unit", "gradient"] = "unit"

    def __post_init__(self) -> None:
        """Refuse weights and weightings that make no signature."""
        weights = (self.residual_weight, self.projected_weight, self.cross_weight)
        if min(weights) < 0.0 or max(weights) == 0.0:
            raise ValueError(f"channel weights must be >= 0 and not all 0, got {weights}.")
        if self.weighting not in ("unit", "gradient"):
            raise ValueError(f"weighting must be 'unit' or 'gradient', got {self.weighting!r}.")


@dataclass(frozen=True, eq=False)
class PositionFeatures:
    """Sketched vectors of positions; length 1 (or 0) each with weighting ``unit``.

    Attributes:
        residual: Sketched residual; None when no channel uses it.
        hidden: Sketched hidden state; None when no channel uses it.
        projected: Sketched projected error; None when no channel uses it.
    """

    residual: Float[Tensor, "positions residual_dim"] | None
    hidden: Float[Tensor, "positions hidden_dim"] | None
    projected: Float[Tensor, "positions projected_dim"] | None


class Sketcher:
    """Makes signatures of one space: one head, one embedding, one set of tables and settings.

    Nothing here makes the host wait for the device, as long as ``max_positions`` is given.

    Args:
        head: The model's read-out head.
        embedding: E of the projected error: the read-out weight, or the input embedding; float32.
            Not kept.
        tables: Sketch tables for this vocabulary, hidden size and embedding size.
        settings: Residual, weights and weighting.

    Raises:
        ValueError: Sizes do not fit together, or ``top_k`` exceeds the vocabulary.
    """

    def __init__(
        self,
        head: ReadoutHead,
        embedding: Float[Tensor, "vocab embedding"],
        tables: SketchTables,
        settings: SignatureSettings,
    ) -> None:
        _check_sizes(head, embedding, tables, settings)
        self.head = head
        self.tables = tables.to(head.weight.device)
        self.settings = settings
        self._channels = _channels(settings)
        # CountSketch is linear: sketching E once replaces sketching E^T r at every position
        self._sketched_embedding = (
            self._sketch_embedding(embedding.detach()) if self._uses("projected") else None
        )

    @property
    def n_numbers(self) -> int:
        """Length of a signature."""
        dims = {
            name: getattr(self.tables, name).dim for name in ("residual", "hidden", "projected")
        }
        return sum(dims[left] * dims[right] for left, right, _ in self._channels)

    @torch.no_grad()
    def position_features(
        self,
        hidden: Float[Tensor, "positions hidden"],
        targets: Int[Tensor, " positions"],
        *,
        max_logit_bytes: int,
    ) -> PositionFeatures:
        """Return the sketched vectors of positions.

        A prompt is masked by leaving its positions out.

        Args:
            hidden: Final hidden states, float32.
            targets: The token that each position should have predicted.
            max_logit_bytes: Logits are made for so many positions at a time that they fit in this.

        Raises:
            ValueError: ``max_logit_bytes`` does not hold one position's logits.
        """
        size = _slice_size(self.head.vocab_size, max_logit_bytes)
        residuals, projections = [], []
        # at least one slice, so that no positions give features of the right shape
        for part in _slices(hidden.shape[0], size):
            residual = self._residual(hidden[part], targets[part])
            if self._uses("residual"):
                sketched = self.tables.residual.apply_sparse(residual.tokens, residual.values)
                residuals.append(self._scaled(sketched, MIN_SHARE))
            if self._sketched_embedding is not None:
                projected = _weighted_rows(self._sketched_embedding, residual)
                projections.append(self._scaled(projected, MIN_SHARE))
        return PositionFeatures(
            residual=torch.cat(residuals) if residuals else None,
            hidden=self._scaled(self.tables.hidden.apply(hidden), MIN_NORM)
            if self._uses("hidden")
            else None,
            projected=torch.cat(projections) if projections else None,
        )

    def channel_sums(
        self,
        features: PositionFeatures,
        window_index: Int[Tensor, " positions"],
        n_windows: int,
        *,
        max_positions: int | None = None,
    ) -> dict[str, Float[Tensor, "windows left right"]]:
        """Return each channel's sum of outer products over a window, neither scaled nor weighted.

        Keys: ``residual_hidden``, ``projected_hidden``, ``residual_projected``, those of weight 0
        absent. With weighting ``gradient`` and identity tables ``residual_hidden`` is the gradient
        of the summed cross-entropy with respect to the head's weight.

        Args:
            features: From `position_features`.
            window_index: Window of each position, ascending, 0 to ``n_windows - 1``.
            n_windows: Windows, those without a position included.
            max_positions: Positions of the longest window, or more. None: it is looked up, for
                which the host waits for the device.
        """
        if max_positions is None:
            max_positions = _longest(window_index)
        slots = _slots(window_index, n_windows)
        shape = (n_windows, max_positions)
        return {
            f"{left}_{right}": torch.bmm(
                _padded(getattr(features, left), slots, shape).mT,
                _padded(getattr(features, right), slots, shape),
            )
            for left, right, _ in self._channels
        }

    def window_signatures(
        self,
        features: PositionFeatures,
        window_index: Int[Tensor, " positions"],
        n_windows: int,
        *,
        max_positions: int | None = None,
    ) -> Float[Tensor, "windows n_numbers"]:
        """Return one signature a window, of length 1; zero for a window without positions.

        Args:
            features: From `position_features`.
            window_index: Window of each position, ascending, 0 to ``n_windows - 1``.
            n_windows: Windows, those without a position included.
            max_positions: See `channel_sums`.
        """
        sums = self.channel_sums(features, window_index, n_windows, max_positions=max_positions)
        flat = [sums[f"{left}_{right}"].flatten(1) for left, right, _ in self._channels]
        if self.settings.weighting == "gradient":
            flat = [_unit(channel) for channel in flat]
        weighted = [
            channel * weight for channel, (_, _, weight) in zip(flat, self._channels, strict=True)
        ]
        return _unit(torch.cat(weighted, dim=1))

    def _uses(self, name: str) -> bool:
        return any(name in (left, right) for left, right, _ in self._channels)

    def _residual(
        self, hidden: Float[Tensor, "positions hidden"], targets: Int[Tensor, " positions"]
    ) -> SparseResidual:
        logits = self.head.logits(hidden)
        residual = sparse_residual(
            logits,
            targets,
            temperature=self.settings.temperature,
            top_k=self.settings.top_k,
            mass=self.settings.mass,
            min_tokens=self.settings.min_tokens,
        )
        residual = through_head(residual, logits, self.head)
        return SparseResidual(residual.tokens, self._scaled(residual.values, MIN_NORM))

    def _sketch_embedding(
        self, embedding: Float[Tensor, "vocab embedding"]
    ) -> Float[Tensor, "vocab projected_dim"]:
        sketched = self.tables.projected.apply(embedding)
        if self.settings.weighting == "gradient":
            return sketched
        # rows of length about 1, so that MIN_SHARE means the same whatever the embedding's scale
        return sketched / sketched.square().sum(-1).mean().sqrt().clamp_min(MIN_NORM)

    def _scaled(
        self, vectors: Float[Tensor, "positions dim"], floor: float
    ) -> Float[Tensor, "positions dim"]:
        return _unit(vectors, floor) if self.settings.weighting == "unit" else vectors


class RowMean:
    """Averages the signatures of a row's windows and scales the mean to length 1.

    Args:
        n_rows: Rows.
        n_numbers: Length of a signature.
        device: Where the sums are kept.
    """

    def __init__(self, n_rows: int, n_numbers: int, device: torch.device | str) -> None:
        self._sums = torch.zeros(n_rows, n_numbers, device=device)

    def add(
        self,
        window_signatures: Float[Tensor, "windows n_numbers"],
        row_index: Int[Tensor, " windows"],
    ) -> None:
        """Add windows, in any order.

        Args:
            window_signatures: From `Sketcher.window_signatures`.
            row_index: Row of each window, 0 to ``n_rows - 1``.
        """
        self._sums.index_add_(0, row_index, window_signatures)

    def finish(self) -> Float[Tensor, "rows n_numbers"]:
        """Return one signature a row, of length 1; zero for a row without positions."""
        # the mean's direction is the sum's: no count is needed
        return _unit(self._sums)


def _channels(settings: SignatureSettings) -> list[tuple[str, str, float]]:
    """Return (left, right, weight) of the channels in use, in the order of the signature."""
    channels = [
        ("residual", "hidden", settings.residual_weight),
        ("projected", "hidden", settings.projected_weight),
        ("residual", "projected", settings.cross_weight),
    ]
    return [channel for channel in channels if channel[2] > 0.0]


def _check_sizes(
    head: ReadoutHead, embedding: Tensor, tables: SketchTables, settings: SignatureSettings
) -> None:
    expected = (head.vocab_size, head.hidden_size, embedding.shape[1])
    found = (tables.residual.n, tables.hidden.n, tables.projected.n)
    if found != expected:
        raise ValueError(
            "sketch tables are for another model: (vocabulary, hidden size, embedding size) of the "
            f"model are {expected}, of the tables {found}."
        )
    if embedding.shape[0] != head.vocab_size:
        raise ValueError(
            f"the embedding has {embedding.shape[0]} rows but the head scores {head.vocab_size} "
            "tokens; they must share one vocabulary."
        )
    if settings.top_k > head.vocab_size:
        raise ValueError(
            f"top_k is {settings.top_k} but the vocabulary has {head.vocab_size} tokens."
        )


def _slice_size(vocab_size: int, max_logit_bytes: int) -> int:
    position_bytes = 4 * vocab_size
    if max_logit_bytes < position_bytes:
        raise ValueError(
            f"max_logit_bytes is {max_logit_bytes} but the float32 logits of one position take "
            f"{position_bytes} bytes."
        )
    return max_logit_bytes // position_bytes


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, max(n, 1), size))


def _weighted_rows(
    table: Float[Tensor, "vocab dim"], residual: SparseResidual
) -> Float[Tensor, "positions dim"]:
    """Return sum_v residual(v) table[v], without gathering the rows into memory."""
    return torch.nn.functional.embedding_bag(
        residual.tokens, table, per_sample_weights=residual.values, mode="sum"
    )


def _unit(
    vectors: Float[Tensor, "*batch dim"], floor: float = MIN_NORM
) -> Float[Tensor, "*batch dim"]:
    """Return vectors of length 1, those shorter than ``floor`` as a share of it."""
    return torch.nn.functional.normalize(vectors, dim=-1, eps=floor)


def _longest(window_index: Int[Tensor, " positions"]) -> int:
    if window_index.numel() == 0:
        return 0
    return int(torch.bincount(window_index).max())


def _slots(
    window_index: Int[Tensor, " positions"], n_windows: int
) -> tuple[Int[Tensor, " positions"], Int[Tensor, " positions"]]:
    """Return each position's (window, place in the window)."""
    windows = torch.arange(n_windows, device=window_index.device, dtype=window_index.dtype)
    starts = torch.searchsorted(window_index, windows)
    places = torch.arange(window_index.shape[0], device=window_index.device)
    return window_index, places - starts[window_index]


def _padded(
    vectors: Float[Tensor, "positions dim"],
    slots: tuple[Int[Tensor, " positions"], Int[Tensor, " positions"]],
    shape: tuple[int, int],
) -> Float[Tensor, "windows places dim"]:
    """Return vectors laid out window by window, zeros behind the shorter ones."""
    padded = vectors.new_zeros(*shape, vectors.shape[1])
    return padded.index_put_(slots, vectors)
