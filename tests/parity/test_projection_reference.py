"""Every projection against its literal definition in float64, a loop over positions and entries."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from parity.reference import residual, scaled

from rise_ops.calibration import Moments
from rise_ops.principal import PrincipalSettings, plain_tables, principal_tables
from rise_ops.projection import MIN_SHARE
from rise_ops.readout import ReadoutHead
from rise_ops.signature import SignatureSettings, Sketcher
from rise_ops.sketch import SketchTables, TableSizes, draw_tables
from rise_ops.tensor_sketch import draw_tensor_tables

VOCAB, HIDDEN, EMBEDDING = 37, 10, 8
SIZES = TableSizes(VOCAB, HIDDEN, EMBEDDING)
WEIGHTS = {"residual_hidden": 1.0, "projected_hidden": 0.3, "residual_projected": 0.5}
PAIRS = {"residual_hidden": "rh", "projected_hidden": "gh", "residual_projected": "rg"}


def _settings(weighting: str) -> SignatureSettings:
    return SignatureSettings(
        temperature=0.7, top_k=20, mass=0.95, cross_weight=0.5, weighting=weighting
    )


@pytest.fixture(scope="module")
def data() -> SimpleNamespace:
    g = torch.Generator().manual_seed(11)
    lengths = [6, 1, 0, 9]
    n = sum(lengths)
    mix = torch.randn(HIDDEN, HIDDEN, generator=g)  # hidden states with directions to find
    return SimpleNamespace(
        head=ReadoutHead(torch.randn(VOCAB, HIDDEN, generator=g)),
        embedding=torch.randn(VOCAB, EMBEDDING, generator=g) * 3.0,
        hidden=torch.randn(n, HIDDEN, generator=g) @ mix * 0.3,
        targets=torch.randint(VOCAB, (n,), generator=g),
        index=torch.repeat_interleave(torch.arange(4), torch.tensor(lengths)),
        lengths=lengths,
    )


def _found(data: SimpleNamespace, tables: object, weighting: str) -> np.ndarray:
    sketcher = Sketcher(data.head, data.embedding, tables, _settings(weighting))
    features = sketcher.position_features(data.hidden, data.targets, max_logit_bytes=4 * VOCAB * 5)
    return sketcher.window_signatures(features, data.index, 4, max_positions=10).double().numpy()


def _positions(data: SimpleNamespace, weighting: str) -> list[SimpleNamespace]:
    """Factors r, h and g of each position, before any projection."""
    found = []
    for h, y in zip(data.hidden.double().numpy(), data.targets.tolist(), strict=True):
        z = data.head.weight.double().numpy() @ h
        r = np.zeros(VOCAB)
        for v, value in residual(z, y, tau=0.7, top_k=20, mass=0.95, min_tokens=4).items():
            r[v] = value
        r = r if weighting == "gradient" else scaled(r)
        found.append(SimpleNamespace(r=r, h=h, g=data.embedding.double().numpy().T @ r))
    return found


def _signatures(data: SimpleNamespace, positions: list, combine, weighting: str) -> np.ndarray:
    """Sum ``combine(channel, position)``, then scale and weight as METHOD.md's step 6'."""
    rows = []
    for window in range(4):
        own = [p for p, of in zip(positions, data.index.tolist(), strict=True) if of == window]
        parts = []
        for channel, weight in WEIGHTS.items():
            total = sum((combine(channel, p) for p in own), np.zeros(()))
            total = np.broadcast_to(total, combine(channel, positions[0]).shape)
            parts.append(weight * (scaled(total) if weighting == "gradient" else total))
        rows.append(scaled(np.concatenate(parts)))
    return np.stack(rows)


def _typical(table: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.sum(table**2, axis=1))))


def _literal_tensor_sketch(u, v, left, right) -> np.ndarray:
    out = np.zeros(left.dim)
    for i, x in enumerate(u):
        for j, y in enumerate(v):
            bucket = (int(left.buckets[i]) + int(right.buckets[j])) % left.dim
            out[bucket] += float(left.signs[i]) * float(right.signs[j]) * x * y
    return out


@pytest.mark.parametrize("weighting", ["unit", "gradient"])
@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("dim", [48, 31, 2])
def test_tensor_sketch_equals_its_definition(data, weighting, whitened, dim):
    whitening = None
    if whitened:
        settings = PrincipalSettings(HIDDEN, EMBEDDING, whiten="hidden", damping=0.1)
        whitening = principal_tables(_moments(data), settings).hidden
    dims = {channel: dim + number for number, channel in enumerate(WEIGHTS)}
    tables = draw_tensor_tables(SIZES, dims, seed=5, whitening=whitening)
    positions = _positions(data, weighting)
    for p in positions:
        p.h = p.h if whitening is None else p.h @ whitening.matrix.double().numpy()
        if weighting == "unit":
            p.h = scaled(p.h)
            p.g = scaled(p.g / _typical(data.embedding.double().numpy()), MIN_SHARE)

    def combine(channel: str, p: SimpleNamespace) -> np.ndarray:
        u, v = (getattr(p, name) for name in PAIRS[channel])
        return _literal_tensor_sketch(u, v, *tables.sketches[channel])

    expected = _signatures(data, positions, combine, weighting)
    found = _found(data, tables, weighting)
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)
    assert not found[2].any()


def _moments(data: SimpleNamespace, residual_sketch_dim: int = 12) -> Moments:
    moments = Moments()
    moments.add(_plain(data, residual_sketch_dim)[1])
    return moments


def _plain(data: SimpleNamespace, residual_dim: int = 12):
    tables = plain_tables(VOCAB, HIDDEN, EMBEDDING, residual_dim=residual_dim, seed=2)
    sketcher = Sketcher(data.head, data.embedding, tables, _settings("gradient"))
    return tables, sketcher.position_features(data.hidden, data.targets, max_logit_bytes=10**6)


@pytest.mark.parametrize("weighting", ["unit", "gradient"])
@pytest.mark.parametrize("whiten", ["none", "hidden", "projected", "both"])
def test_principal_projection_equals_its_definition(data, weighting, whiten):
    settings = PrincipalSettings(5, 4, 3, whiten=whiten, damping=0.5)
    sketch = plain_tables(VOCAB, HIDDEN, EMBEDDING, residual_dim=12, seed=2).residual
    tables = principal_tables(_moments(data), settings, residual_sketch=sketch)
    matrices = {
        name: getattr(tables, name).matrix.double().numpy()
        for name in ("residual", "hidden", "projected")
    }
    positions = _positions(data, weighting)
    typical = _typical(data.embedding.double().numpy() @ matrices["projected"])
    for p in positions:
        sketched = np.zeros(12)
        np.add.at(sketched, sketch.buckets.numpy(), sketch.signs.double().numpy() * p.r)
        p.r = sketched @ matrices["residual"]
        p.h, p.g = p.h @ matrices["hidden"], p.g @ matrices["projected"]
        if weighting == "unit":
            p.r, p.h, p.g = scaled(p.r, MIN_SHARE), scaled(p.h), scaled(p.g / typical, MIN_SHARE)

    def combine(channel: str, p: SimpleNamespace) -> np.ndarray:
        u, v = (getattr(p, name) for name in PAIRS[channel])
        return np.outer(u, v).reshape(-1)

    expected = _signatures(data, positions, combine, weighting)
    np.testing.assert_allclose(_found(data, tables, weighting), expected, atol=5e-6, rtol=0)


def test_all_principal_directions_keep_the_kernel_of_gradients(data):
    """Unwhitened and of full rank, GH inner products are sum_ts <g_t, g_s> <h_t, h_s>."""
    settings = PrincipalSettings(HIDDEN, EMBEDDING, whiten="none")
    tables = principal_tables(_moments(data), settings)
    only = SignatureSettings(
        temperature=0.7, top_k=20, mass=0.95, residual_weight=0.0, weighting="gradient"
    )
    sketcher = Sketcher(data.head, data.embedding, tables, only)
    features = sketcher.position_features(data.hidden, data.targets, max_logit_bytes=10**6)
    found = sketcher.channel_sums(features, data.index, 4)["projected_hidden"].double()
    positions = _positions(data, "gradient")
    g, h = np.stack([p.g for p in positions]), np.stack([p.h for p in positions])
    kernel = (g @ g.T) * (h @ h.T)
    windows = np.eye(4)[data.index.numpy()]
    expected = windows.T @ kernel @ windows
    np.testing.assert_allclose(
        (found @ found.T).numpy(), expected, atol=1e-5 * np.abs(expected).max(), rtol=0
    )


# -------------------------------------------------------------------------- the paper's own preset


def _unit(x: torch.Tensor, floor: float) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=-1, eps=floor)


@pytest.mark.parametrize("weighting", ["unit", "gradient"])
def test_paper_projection_has_the_bits_of_scattered_count_sketches(data, weighting):
    """The preset as first released: scattered residuals, one matrix product a window."""
    tables = draw_tables(SIZES, TableSizes(9, 6, 5), seed=3)
    settings = _settings(weighting)
    sketcher = Sketcher(data.head, data.embedding, tables, settings)
    features = sketcher.position_features(data.hidden, data.targets, max_logit_bytes=10**6)
    sparse = sketcher._residual(data.hidden, data.targets)

    r = torch.zeros(len(data.targets), 9)
    r.scatter_add_(
        1,
        tables.residual.buckets[sparse.tokens],
        sparse.values * tables.residual.signs[sparse.tokens],
    )
    table = data.embedding @ tables.projected.matrix()
    if weighting == "unit":
        table = table / table.square().sum(-1).mean().sqrt()
    g = torch.nn.functional.embedding_bag(
        sparse.tokens, table, per_sample_weights=sparse.values, mode="sum"
    )
    h = data.hidden @ tables.hidden.matrix()
    if weighting == "unit":
        r, h, g = _unit(r, MIN_SHARE), _unit(h, 1e-12), _unit(g, MIN_SHARE)
    for expected, found in ((r, features.residual), (h, features.hidden), (g, features.projected)):
        assert torch.equal(expected, found)

    parts = []
    for (left, right), weight in zip(((r, h), (g, h), (r, g)), WEIGHTS.values(), strict=True):
        pads = [torch.zeros(4, 10, x.shape[1]) for x in (left, right)]
        for window in range(4):
            for pad, x in zip(pads, (left, right), strict=True):
                own = x[data.index == window]
                pad[window, : len(own)] = own
        flat = torch.bmm(pads[0].mT, pads[1]).flatten(1)
        parts.append((_unit(flat, 1e-12) if weighting == "gradient" else flat) * weight)
    expected = _unit(torch.cat(parts, dim=1), 1e-12)
    assert torch.equal(
        expected, sketcher.window_signatures(features, data.index, 4, max_positions=10)
    )


def test_paper_tables_are_still_nine_small_arrays():
    arrays = draw_tables(SIZES, TableSizes(9, 6, 5), seed=3).to_arrays()
    assert len(arrays) == 9
    assert {array.dtype.name for array in arrays.values()} == {"int32", "int8"}
    assert isinstance(SketchTables.from_arrays(arrays), SketchTables)
