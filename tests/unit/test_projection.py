"""What every projection must do, whichever tables it has."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rise_ops.calibration import Moments
from rise_ops.principal import (
    PrincipalSettings,
    PrincipalTables,
    plain_tables,
    principal_tables,
)
from rise_ops.projection import CHANNELS, Projection, ProjectionTables, weighted_rows
from rise_ops.readout import ReadoutHead
from rise_ops.residual import SparseResidual
from rise_ops.signature import RowMean, SignatureSettings, Sketcher
from rise_ops.sketch import SketchTables, TableSizes, draw_tables
from rise_ops.tensor_sketch import TensorTables, draw_tensor_tables

VOCAB, HIDDEN, EMBEDDING, N = 50, 8, 6, 40
SIZES = TableSizes(VOCAB, HIDDEN, EMBEDDING)
G = torch.Generator().manual_seed(0)
HEAD = ReadoutHead(torch.randn(VOCAB, HIDDEN, generator=G))
EMBED = torch.randn(VOCAB, EMBEDDING, generator=G)
STATES = torch.randn(N, HIDDEN, generator=G)
TARGETS = torch.randint(VOCAB, (N,), generator=G)
INDEX = torch.arange(N) // 7
WEIGHTINGS = ["unit", "gradient"]


def _settings(weighting: str = "gradient", **changes: float) -> SignatureSettings:
    fields = {"temperature": 1.0, "top_k": 16, "mass": 1.0, "cross_weight": 0.5}
    return SignatureSettings(**(fields | {"weighting": weighting} | changes))


def _principal() -> PrincipalTables:
    plain = plain_tables(VOCAB, HIDDEN, EMBEDDING, residual_dim=12, seed=1)
    moments = Moments()
    sketcher = Sketcher(HEAD, EMBED, plain, _settings())
    moments.add(sketcher.position_features(STATES, TARGETS, max_logit_bytes=10**6))
    settings = PrincipalSettings(5, 4, 3, whiten="both")
    return principal_tables(moments, settings, residual_sketch=plain.residual)


def _tensor() -> TensorTables:
    whitening = principal_tables(_moments(), PrincipalSettings(HIDDEN, 1)).hidden
    return draw_tensor_tables(SIZES, dict.fromkeys(CHANNELS, 30), seed=4, whitening=whitening)


def _moments() -> Moments:
    plain = plain_tables(VOCAB, HIDDEN, EMBEDDING, residual_dim=12, seed=1)
    sketcher = Sketcher(HEAD, EMBED, plain, _settings())
    moments = Moments()
    moments.add(sketcher.position_features(STATES, TARGETS, max_logit_bytes=10**6))
    return moments


TABLES = {
    "paper": (lambda: draw_tables(SIZES, TableSizes(9, 6, 5), seed=0), SketchTables),
    "principal": (_principal, PrincipalTables),
    "tensor": (_tensor, TensorTables),
}


@pytest.fixture(params=list(TABLES))
def tables(request) -> SimpleNamespace:
    make, kind = TABLES[request.param]
    return SimpleNamespace(value=make(), kind=kind)


def _signatures(sketcher: Sketcher, **sizes: int) -> torch.Tensor:
    features = sketcher.position_features(
        STATES, TARGETS, max_logit_bytes=sizes.pop("max_logit_bytes", 10**6)
    )
    return sketcher.window_signatures(features, INDEX, 7, **sizes)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_tables_survive_as_arrays_bit_by_bit(tables, weighting):
    again = tables.kind.from_arrays(tables.value.to_arrays())
    assert again.input_sizes == tables.value.input_sizes
    first, second = (
        _signatures(Sketcher(HEAD, EMBED, t, _settings(weighting))) for t in (tables.value, again)
    )
    assert torch.equal(first, second)
    for name, array in tables.value.to_arrays().items():
        assert (again.to_arrays()[name] == array).all()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_signatures_have_length_one_and_the_stated_size(tables, weighting):
    sketcher = Sketcher(HEAD, EMBED, tables.value, _settings(weighting))
    found = _signatures(sketcher)
    assert isinstance(tables.value, ProjectionTables)
    assert isinstance(sketcher.projection, Projection)
    assert found.shape == (7, sketcher.n_numbers)
    assert list(sketcher.projection.channel_sizes) == list(CHANNELS)
    # 40 positions make six windows; the seventh has none
    torch.testing.assert_close(found.norm(dim=1), torch.tensor([1.0] * 6 + [0.0]))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_slices_padding_and_batches_change_nothing(tables, weighting, monkeypatch):
    sketcher = Sketcher(HEAD, EMBED, tables.value, _settings(weighting))
    whole = _signatures(sketcher)
    # one window a slice of spectra
    monkeypatch.setattr("rise_ops.tensor_sketch.SPECTRUM_BYTES", 1)
    sliced = _signatures(sketcher, max_logit_bytes=4 * VOCAB * 3, max_positions=12)
    torch.testing.assert_close(sliced, whole, rtol=0, atol=2e-5)
    own = INDEX == 2
    features = sketcher.position_features(STATES[own], TARGETS[own], max_logit_bytes=10**6)
    alone = sketcher.window_signatures(features, torch.zeros(7, dtype=torch.long), 1)
    torch.testing.assert_close(alone[0], whole[2], rtol=0, atol=2e-5)


def test_no_positions_give_zero_signatures(tables):
    sketcher = Sketcher(HEAD, EMBED, tables.value, _settings())
    none = torch.zeros(0, dtype=torch.long)
    features = sketcher.position_features(torch.zeros(0, HIDDEN), none, max_logit_bytes=10**6)
    for n_windows in (0, 3):
        found = sketcher.window_signatures(features, none, n_windows)
        assert torch.equal(found, torch.zeros(n_windows, sketcher.n_numbers))


class _FixedOrder(TorchDispatchMode):
    """Fails on the operators that add floats in any order on a GPU, or make the host wait."""

    BANNED = (
        "scatter_add", "scatter_reduce", "index_reduce", "bincount", "histc", "put_.", "segment",
        "_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero",
    )  # fmt: skip

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        accumulates = "index_put" in name and (len(args) > 3 and args[3])
        plain_put = "index_put" in name and not accumulates
        if accumulates or (not plain_put and any(banned in name for banned in self.BANNED)):
            raise RuntimeError(f"{func} on the path")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_nothing_adds_in_an_open_order_or_waits_for_the_device(tables, weighting):
    sketcher = Sketcher(HEAD, EMBED, tables.value, _settings(weighting))
    mean = RowMean(3, sketcher.n_numbers, "cpu")
    rows = torch.tensor([0, 1, 0, 2, 0, 1, 2])
    with _FixedOrder():
        mean.add(_signatures(sketcher, max_positions=7), rows)
        mean.finish()
    with _FixedOrder(), pytest.raises(RuntimeError, match="scatter_add"):
        torch.zeros(3).scatter_add_(0, torch.zeros(3, dtype=torch.long), torch.ones(3))
    with _FixedOrder(), pytest.raises(RuntimeError, match="index_put"):
        torch.zeros(3).index_put_((rows[:3],), torch.ones(3), accumulate=True)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_same_input_same_bytes(tables, weighting):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    repeats = 64  # enough for a GPU to run blocks in another order
    states, targets = STATES.repeat(repeats, 1).to(device), TARGETS.repeat(repeats).to(device)
    index = torch.arange(N * repeats, device=device) // 7
    n_windows = int(index[-1]) + 1
    rows = torch.arange(n_windows, device=device) % 5
    found = []
    for _ in range(3):
        sketcher = Sketcher(HEAD.to(device), EMBED.to(device), tables.value, _settings(weighting))
        features = sketcher.position_features(states, targets, max_logit_bytes=10**6)
        mean = RowMean(5, sketcher.n_numbers, device)
        mean.add(sketcher.window_signatures(features, index, n_windows, max_positions=7), rows)
        found.append(mean.finish())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_large_vocabularies_need_no_table(monkeypatch):
    tables = draw_tables(SIZES, TableSizes(9, 6, 5), seed=0)
    by_table = _signatures(Sketcher(HEAD, EMBED, tables, _settings()))
    monkeypatch.setattr("rise_ops.sketch.MAX_TABLE_NUMBERS", VOCAB * 9 - 1)
    sketcher = Sketcher(HEAD, EMBED, tables, _settings())
    monkeypatch.setattr("rise_ops.projection.weighted_rows", _only_projected)
    torch.testing.assert_close(_signatures(sketcher), by_table, rtol=0, atol=1e-6)


def _only_projected(table: torch.Tensor, residual: SparseResidual) -> torch.Tensor:
    assert table.shape == (VOCAB, 5)
    return weighted_rows(table, residual)


def test_tables_of_another_model_are_refused(tables):
    with pytest.raises(
        ValueError, match=r"of the model are \(50, 9, 6\), of the tables \(50, 8, 6"
    ):
        Sketcher(ReadoutHead(torch.zeros(VOCAB, 9)), EMBED, tables.value, _settings())


def test_channels_without_tables_are_refused():
    plain = principal_tables(_moments(), PrincipalSettings(4, 4))
    with pytest.raises(ValueError, match=r"need maps of \['residual'\]"):
        Sketcher(HEAD, EMBED, plain, _settings())
    assert plain.input_sizes == (None, HIDDEN, EMBEDDING)
    only = draw_tensor_tables(SIZES, {"projected_hidden": 8}, seed=0)
    with pytest.raises(ValueError, match=r"no sketches of \['residual_hidden'"):
        Sketcher(HEAD, EMBED, only, _settings())
    gh = Sketcher(HEAD, EMBED, only, _settings(residual_weight=0.0, cross_weight=0.0))
    assert (gh.n_numbers, only.input_sizes) == (8, (None, HIDDEN, EMBEDDING))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PrincipalSettings(0, 4), "hidden_dim must be 1 or more"),
        (lambda: PrincipalSettings(4, 0, 0), "not both 0, got 4, 0 and 0"),
        (lambda: principal_tables(_moments(), PrincipalSettings(4, 4, 2)), "give residual_sketch"),
        (
            lambda: principal_tables(_moments(), PrincipalSettings(9, 4)),
            "n_directions must be 1 to 8",
        ),
        (lambda: draw_tensor_tables(SIZES, {"hidden_hidden": 4}, seed=0), "no channels"),
        (lambda: draw_tensor_tables(SIZES, {"residual_hidden": 0}, seed=0), "dim in"),
        (lambda: TensorTables.from_arrays({}), "lack every channel"),
        (lambda: PrincipalTables.from_arrays({}), "basis of 'hidden' lacks"),
    ],
)
def test_impossible_tables_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_sketches_that_do_not_fit_together_are_refused():
    left, right = draw_tensor_tables(SIZES, {"residual_hidden": 8}, seed=0).sketches[
        "residual_hidden"
    ]
    other = draw_tensor_tables(SIZES, {"residual_hidden": 9}, seed=0).sketches["residual_hidden"]
    with pytest.raises(ValueError, match="as many buckets, got 8 and 9"):
        TensorTables({"residual_hidden": (left, other[1])})
    with pytest.raises(ValueError, match=r"sketches of the hidden must be for one size"):
        TensorTables({"residual_hidden": (left, right), "projected_hidden": (left, left)})
    narrow = principal_tables(_moments(), PrincipalSettings(4, 1)).hidden
    with pytest.raises(ValueError, match=r"leaves 4 numbers .* are for 8"):
        TensorTables({"residual_hidden": (left, right)}, narrow)
    arrays = _principal().to_arrays()
    arrays["residual_dim"][0] += 1
    with pytest.raises(ValueError, match=r"basis is for 12 numbers, but its sketch gives 13"):
        PrincipalTables.from_arrays(arrays)
