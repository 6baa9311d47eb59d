"""From cached positions to signatures, calibrations and codes, through rise_ops.

Two shortcuts, both exact but for rounding: residuals are stripped of their zeros before they are
projected, and the projected errors of one residual setting are made once and then seen through many
bases.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from evidence_cache import Readout
from evidence_estimators import RESIDUAL_SKETCH, Estimator, Separable, Tensor

from rise_ops.calibration import Basis, Moments, principal_basis
from rise_ops.codes import Code, decode, draw_rotation, encode
from rise_ops.principal import PrincipalSettings, plain_tables, principal_tables
from rise_ops.projection import (
    MIN_NORM,
    OuterProjection,
    PositionFeatures,
    ProjectionTables,
    Weighting,
    unit_length,
    weighted_rows,
)
from rise_ops.readout import ReadoutHead
from rise_ops.residual import SparseResidual
from rise_ops.signature import RowMean, SignatureSettings, Sketcher
from rise_ops.sketch import SketchTables, TableSizes, draw_tables
from rise_ops.tensor_sketch import TensorTables, draw_tensor_tables

CHUNK, GROUP = 8_192, 1_024
RUN_WINDOWS = 64
_FACTORS = ("residual", "hidden", "projected")


@dataclass(frozen=True, eq=False)
class Residuals:
    """Residuals of a readout's positions, without their zeros.

    Of `settings` only temperature and support matter: estimators that agree in these share one.
    """

    readout: Readout
    settings: SignatureSettings
    embedding: torch.Tensor

    @cached_property
    def parts(self) -> list[tuple[torch.Tensor, SparseResidual]]:
        """Positions and their residuals, in groups of similar support."""
        return list(self._parts())

    @cached_property
    def projected(self) -> torch.Tensor:
        """Every position's projected error E^T r, float32 [P, e]."""
        errors = torch.empty(len(self.readout.text_index), self.embedding.shape[1])
        for places, residual in self.parts:
            errors[places] = weighted_rows(self.embedding, residual)
        return errors

    def _parts(self) -> Iterator[tuple[torch.Tensor, SparseResidual]]:
        for start in range(0, len(self.readout.text_index), CHUNK):
            residual = self.readout.residual(slice(start, start + CHUNK), self.settings)
            is_zero = residual.values == 0.0
            front = is_zero.int().argsort(dim=-1, stable=True)
            tokens, values = residual.tokens.gather(-1, front), residual.values.gather(-1, front)
            n_kept = (~is_zero).sum(-1)
            for group in n_kept.argsort(stable=True).split(GROUP):
                width = max(1, int(n_kept[group].max()))
                own = SparseResidual(tokens[group, :width].int(), values[group, :width].clone())
                yield start + group, own


@dataclass(frozen=True, eq=False)
class WhitenedSketch:
    """The paper's tables behind a full whitening of the hidden state."""

    tables: SketchTables
    whitening: Basis

    @property
    def input_sizes(self) -> tuple[int, int, int]:
        return self.tables.input_sizes

    def projection(
        self, embedding: torch.Tensor, *, channels: Sequence[str], weighting: Weighting
    ) -> OuterProjection:
        return OuterProjection(
            residual=self.tables.residual.matrix(),
            hidden=self.whitening.matrix @ self.tables.hidden.matrix(),
            projected=self.tables.projected.apply(embedding),
            channels=channels,
            weighting=weighting,
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        return self.tables.to_arrays() | self.whitening.to_arrays("whitening")


def calibrate(
    readout: Readout,
    settings: SignatureSettings,
    embedding: torch.Tensor,
    *,
    n_tokens: int,
    seed: int,
) -> Moments:
    """Return the moments of random rows that hold `n_tokens` positions, or of all rows."""
    tables = plain_tables(*_sizes(embedding), residual_dim=RESIDUAL_SKETCH, seed=0)
    projection = tables.projection(
        embedding,
        channels=[*settings.channels],
        weighting=settings.weighting,
    )
    places = _sampled(readout, n_tokens, seed)
    moments = Moments()
    for part in places.split(GROUP):
        residual = readout.kept(part).residual(slice(None), settings)
        features = projection.position_features(
            readout.hidden[part].float(), _weighted(residual, settings)
        )
        moments.add(features)
    return moments


def make_tables(
    estimator: Estimator, embedding: torch.Tensor, moments: Moments | None
) -> ProjectionTables:
    """Return what is random or calibrated in an estimator."""
    vocab, hidden, size = _sizes(embedding)
    inputs, projection = TableSizes(vocab, hidden, size), estimator.projection
    if isinstance(projection, Separable):
        dims = TableSizes(projection.residual, projection.hidden, projection.projected)
        drawn = draw_tables(inputs, dims, seed=estimator.seed)
        return WhitenedSketch(drawn, _whitening(moments)) if projection.whiten else drawn
    if isinstance(projection, Tensor):
        channels = {
            "residual_hidden": projection.residual_hidden,
            "projected_hidden": projection.projected_hidden,
        }
        whitening = _whitening(moments) if projection.whiten else None
        return draw_tensor_tables(
            inputs,
            {name: channels[name] for name in estimator.settings.channels},
            seed=estimator.seed,
            whitening=whitening,
        )
    if moments is None:
        raise ValueError(f"{estimator.name} needs a calibration.")
    plain = plain_tables(vocab, hidden, size, residual_dim=RESIDUAL_SKETCH, seed=0)
    return principal_tables(moments, projection, residual_sketch=plain.residual)


def needs_calibration(estimator: Estimator) -> bool:
    """Tell whether an estimator's tables come from moments."""
    return isinstance(estimator.projection, PrincipalSettings) or estimator.projection.whiten


def signatures(
    residuals: Residuals,
    settings: SignatureSettings,
    head: ReadoutHead,
    tables: ProjectionTables,
) -> torch.Tensor:
    """Return one signature a text, float32 [texts, numbers].

    Args:
        residuals: Of the texts.
        settings: Agree with those of the residuals in temperature and support.
        head: Only its sizes matter here.
        tables: From `make_tables`.
    """
    readout = residuals.readout
    sketcher = Sketcher(head, residuals.embedding, tables, settings)
    # a tensor sketch keeps the residuals of positions sparse: they are not laid end to end
    is_dense = not isinstance(tables, TensorTables)
    n_windows = int(readout.window_index.max()) + 1
    text_of_window = torch.zeros(n_windows, dtype=torch.int64)
    text_of_window[readout.window_index] = readout.text_index
    rows = RowMean(readout.n_texts, sketcher.n_numbers, "cpu")
    features = _dense_features(residuals, sketcher, tables) if is_dense else None
    for first in range(0, n_windows, RUN_WINDOWS):
        last = min(first + RUN_WINDOWS, n_windows)
        ends = torch.searchsorted(readout.window_index, torch.tensor([first, last]))
        run = slice(int(ends[0]), int(ends[1]))
        own = _run_features(residuals, sketcher, run) if features is None else _cut(features, run)
        windows = sketcher.window_signatures(own, readout.window_index[run] - first, last - first)
        rows.add(windows, text_of_window[first:last])
    return rows.finish()


def agreement(
    readout: Readout, settings: SignatureSettings, head: ReadoutHead, tables: ProjectionTables
) -> float:
    """Return the least cosine of signatures made here and those that `Sketcher` makes by itself."""
    own = signatures(Residuals(readout, settings, head.weight), settings, head, tables)
    sketcher = Sketcher(head, head.weight, tables, settings)
    targets = readout.tokens.gather(-1, readout.target_place[:, None].long())[:, 0].long()
    features = sketcher.position_features(readout.hidden.float(), targets, max_logit_bytes=2**26)
    n_windows = int(readout.window_index.max()) + 1
    windows = sketcher.window_signatures(features, readout.window_index, n_windows)
    text_of_window = torch.zeros(n_windows, dtype=torch.int64)
    text_of_window[readout.window_index] = readout.text_index
    rows = RowMean(readout.n_texts, sketcher.n_numbers, "cpu")
    rows.add(windows, text_of_window)
    return float((own * rows.finish()).sum(-1).min())


def coded(rows: np.ndarray, queries: np.ndarray, code: Code, *, rotate: bool) -> np.ndarray:
    """Return scores [rows, queries] of coded rows and float32 queries."""
    if rotate:
        rotation = draw_rotation(rows.shape[1], seed=0)
        rows, queries = rotation.apply(rows), rotation.apply(queries)
    return decode(encode(rows, code)) @ queries.T


def code_bytes(n_numbers: int, code: Code, *, rotate: bool) -> int:
    """Return the bytes of a row's code, its scale left out."""
    if rotate:
        n_numbers = max(8, 1 << (n_numbers - 1).bit_length())
    return {"float16": 2 * n_numbers, "int8": n_numbers, "sign": n_numbers // 8}[code]


def _dense_features(
    residuals: Residuals, sketcher: Sketcher, tables: ProjectionTables
) -> PositionFeatures:
    settings, hidden = sketcher.settings, residuals.readout.hidden
    bases = {name: getattr(tables, name, None) for name in ("hidden", "projected")}
    is_shared = settings.weighting == "gradient" and [*settings.channels] == ["projected_hidden"]
    if is_shared and all(isinstance(basis, Basis) for basis in bases.values()):
        return PositionFeatures(
            residual=None,
            hidden=hidden.float() @ bases["hidden"].matrix,
            projected=residuals.projected @ bases["projected"].matrix,
        )
    found: dict[str, torch.Tensor] = {}
    for places, residual in residuals.parts:
        part = sketcher.projection.position_features(
            hidden[places].float(), _weighted(residual, settings)
        )
        for name in _FACTORS:
            vectors = getattr(part, name)
            if vectors is not None:
                found.setdefault(name, torch.empty(len(hidden), vectors.shape[1]))[places] = vectors
    return _features(found)


def _run_features(residuals: Residuals, sketcher: Sketcher, run: slice) -> PositionFeatures:
    residual = residuals.readout.residual(run, sketcher.settings)
    n_kept = max(1, int((residual.values != 0.0).sum(-1).max()) if len(residual.values) else 1)
    front = (residual.values == 0.0).int().argsort(dim=-1, stable=True)[:, :n_kept]
    kept = SparseResidual(residual.tokens.gather(-1, front), residual.values.gather(-1, front))
    return sketcher.projection.position_features(
        residuals.readout.hidden[run].float(), _weighted(kept, sketcher.settings)
    )


def _cut(features: PositionFeatures, run: slice) -> PositionFeatures:
    vectors = {name: getattr(features, name) for name in _FACTORS}
    return _features({name: own[run] for name, own in vectors.items() if own is not None})


def _features(found: Mapping[str, torch.Tensor]) -> PositionFeatures:
    return PositionFeatures(
        residual=found.get("residual"),
        hidden=found.get("hidden"),
        projected=found.get("projected"),
    )


def _weighted(residual: SparseResidual, settings: SignatureSettings) -> SparseResidual:
    """Scale residuals as `Sketcher` does before it projects them."""
    if settings.weighting == "gradient":
        return residual
    return SparseResidual(residual.tokens, unit_length(residual.values, MIN_NORM))


def _sampled(readout: Readout, n_tokens: int, seed: int) -> torch.Tensor:
    n_positions = torch.bincount(readout.text_index, minlength=readout.n_texts)
    order = torch.randperm(readout.n_texts, generator=torch.Generator().manual_seed(seed))
    before = n_positions[order].cumsum(0) - n_positions[order]
    chosen = torch.zeros(readout.n_texts, dtype=torch.bool)
    chosen[order[before < n_tokens]] = True
    return chosen[readout.text_index].nonzero()[:n_tokens, 0]


def _whitening(moments: Moments | None) -> Basis:
    if moments is None:
        raise ValueError("whitening needs a calibration.")
    second_moment = moments.second_moment("hidden")
    return principal_basis(second_moment, n_directions=len(second_moment), whiten=True, damping=1.0)


def _sizes(embedding: torch.Tensor) -> tuple[int, int, int]:
    # the read-out weight is the embedding here, so hidden and embedding size are one
    return embedding.shape[0], embedding.shape[1], embedding.shape[1]
