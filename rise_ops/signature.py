"""What fixed-size vector stands for a row, so that inner products say who influenced whom?

Each position gives a residual r (over the vocabulary), a hidden state h, and a projected error
g = E^T r. The channels r x h, g x h and r x g, summed over a window's positions and weighted, are
its signature. Source: arXiv:2604.16197; METHOD.md, steps 1-6.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rise_ops.coarse_head import candidates_for, coarse_residual, repair
from rise_ops.coarse_product import CoarseHead
from rise_ops.projection import (
    MIN_NORM,
    PositionFeatures,
    ProjectionTables,
    Weighting,
    unit_length,
)
from rise_ops.readout import ReadoutHead
from rise_ops.residual import (
    ResidualRule,
    SparseResidual,
    sparse_residual,
    support_through_head,
    through_head,
)
from rise_ops.windows import add_rows


@dataclass(frozen=True)
class SignatureSettings:
    """What a signature is, besides its projection. Defaults: the paper's.

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
    weighting: Weighting = "unit"

    def __post_init__(self) -> None:
        """Refuse weights and weightings that make no signature."""
        weights = (self.residual_weight, self.projected_weight, self.cross_weight)
        if min(weights) < 0.0 or max(weights) == 0.0:
            raise ValueError(f"channel weights must be >= 0 and not all 0, got {weights}.")
        if self.weighting not in ("unit", "gradient"):
            raise ValueError(f"weighting must be 'unit' or 'gradient', got {self.weighting!r}.")

    @property
    def rule(self) -> ResidualRule:
        """Which tokens carry a residual."""
        return ResidualRule(self.temperature, self.top_k, self.mass, self.min_tokens)

    @property
    def channels(self) -> Mapping[str, float]:
        """Weight of each channel in use, in the order of the signature."""
        weights = {
            "residual_hidden": self.residual_weight,
            "projected_hidden": self.projected_weight,
            "residual_projected": self.cross_weight,
        }
        return {channel: weight for channel, weight in weights.items() if weight > 0.0}


class Sketcher:
    """Makes signatures of one space: one head, one embedding, one set of tables and settings.

    Nothing here makes the host wait for the device, as long as ``max_positions`` is given; but with
    a coarse head `position_features` does, once.

    Args:
        head: The model's read-out head.
        embedding: E of the projected error: the read-out weight, or the input embedding; float32.
        tables: What is random or calibrated in the projection, made for this vocabulary, hidden
            size and embedding size: `SketchTables`, `PrincipalTables` or `TensorTables`.
        settings: Residual, weights and weighting.
        coarse: The same head in low precision: residuals then equal those of ``head`` up to
            rounding, at the speed of the coarse product. None: ``head`` makes all logits.

    Raises:
        ValueError: Sizes do not fit together, ``top_k`` exceeds the vocabulary, or the tables lack
            what a channel needs.
    """

    def __init__(
        self,
        head: ReadoutHead,
        embedding: Float[Tensor, "vocab embedding"],
        tables: ProjectionTables,
        settings: SignatureSettings,
        *,
        coarse: CoarseHead | None = None,
    ) -> None:
        _check_sizes(head, embedding, tables, settings)
        self.head = head
        self._coarse = coarse
        self.settings = settings
        self.projection = tables.projection(
            embedding.detach().to(head.weight.device),
            channels=list(settings.channels),
            weighting=settings.weighting,
        )

    @property
    def n_numbers(self) -> int:
        """Length of a signature."""
        return sum(self.projection.channel_sizes.values())

    @torch.no_grad()
    def position_features(
        self,
        hidden: Float[Tensor, "positions hidden"],
        targets: Int[Tensor, " positions"],
        *,
        max_logit_bytes: int,
    ) -> PositionFeatures:
        """Return the projected factors of positions.

        A prompt is masked by leaving its positions out.

        Args:
            hidden: Final hidden states, float32.
            targets: The token that each position should have predicted.
            max_logit_bytes: Logits are made for so many positions at a time that they fit in this.

        Raises:
            ValueError: ``max_logit_bytes`` does not hold one position's logits.
        """
        size = _slice_size(self.head.vocab_size, max_logit_bytes)
        if self._coarse is not None:
            residual = self._coarse_residual(self._coarse, hidden, targets, max_logit_bytes)
            return self.projection.position_features(hidden, residual)
        # at least one slice, so that no positions give features of the right shape
        parts = [
            self.projection.position_features(
                hidden[part], self._residual(hidden[part], targets[part])
            )
            for part in _slices(hidden.shape[0], size)
        ]
        return PositionFeatures.joined(parts)

    @torch.no_grad()
    def channel_sums(
        self,
        features: PositionFeatures,
        window_index: Int[Tensor, " positions"],
        n_windows: int,
        *,
        max_positions: int | None = None,
    ) -> dict[str, Float[Tensor, "windows _"]]:
        """Return each channel's sum over a window, flattened, neither scaled nor weighted.

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
        return self.projection.channel_sums(
            features, window_index, n_windows, max_positions=max_positions
        )

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
        if self.settings.weighting == "gradient":
            sums = {channel: unit_length(flat) for channel, flat in sums.items()}
        weights = self.settings.channels
        return unit_length(torch.cat([weights[name] * sums[name] for name in weights], dim=1))

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
        return self._scaled(through_head(residual, logits, self.head))

    def _coarse_residual(
        self, coarse: CoarseHead, hidden: Tensor, targets: Tensor, max_logit_bytes: int
    ) -> SparseResidual:
        rule = self.settings.rule
        found = coarse_residual(
            coarse,
            hidden,
            targets,
            rule,
            n_candidates=candidates_for(rule, coarse),
            max_logit_bytes=max_logit_bytes,
        )
        # for all positions together: it is here that the host waits
        found = repair(found, self.head, hidden, targets, rule, max_logit_bytes=max_logit_bytes)
        return self._scaled(support_through_head(found.residual, found.logits, self.head))

    def _scaled(self, residual: SparseResidual) -> SparseResidual:
        if self.settings.weighting == "gradient":
            return residual
        return SparseResidual(residual.tokens, unit_length(residual.values, MIN_NORM))


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
        add_rows(self._sums, window_signatures, row_index)

    def finish(self) -> Float[Tensor, "rows n_numbers"]:
        """Return one signature a row, of length 1; zero for a row without positions."""
        # the mean's direction is the sum's: no count is needed
        return unit_length(self._sums)


def _check_sizes(
    head: ReadoutHead, embedding: Tensor, tables: ProjectionTables, settings: SignatureSettings
) -> None:
    expected = (head.vocab_size, head.hidden_size, embedding.shape[1])
    found = tables.input_sizes
    if any(size not in (None, own) for size, own in zip(found, expected, strict=True)):
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
