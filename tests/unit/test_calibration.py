import itertools

import numpy as np
import pytest
import torch

from rise_ops.calibration import (
    Basis,
    Moments,
    energy_captured,
    energy_ratio,
    held_out_energy,
    principal_basis,
    without_empty_directions,
)
from rise_ops.projection import PositionFeatures
from rise_ops.residual import SparseResidual


def _features(n: int, seed: int, *, residual: bool = True, mix_seed: int = 0) -> PositionFeatures:
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(7, 7, generator=torch.Generator().manual_seed(mix_seed))
    hidden = torch.randn(n, 7, generator=g) @ mix * torch.tensor([9.0, 4, 2, 1, 1, 0.5, 0.1])
    return PositionFeatures(
        residual=torch.randn(n, 5, generator=g) if residual else None,
        hidden=hidden,
        projected=torch.randn(n, 4, generator=g),
    )


def _moments(*parts: PositionFeatures) -> Moments:
    moments = Moments()
    for part in parts:
        moments.add(part)
    return moments


def _moment(seed: int = 0, **kwargs: int) -> torch.Tensor:
    return _moments(_features(200, seed, **kwargs)).second_moment("hidden")


def test_batches_and_merging_give_the_moments_of_the_whole():
    whole = _features(90, 1)
    cuts = [0, 17, 17, 60, 90]
    parts = [
        PositionFeatures(whole.residual[a:b], whole.hidden[a:b], whole.projected[a:b])
        for a, b in itertools.pairwise(cuts)
    ]
    together = _moments(whole)
    merged = _moments(*parts[:2]).merge(_moments(*parts[2:]))
    empty = (
        Moments()
        .merge(_moments(*parts))
        .merge(Moments())
        .merge(Moments.from_arrays(together.to_arrays()))
    )
    for name in ("residual", "hidden", "projected"):
        x = getattr(whole, name).double()
        expected = x.T @ x / 90
        for found in (together, _moments(*parts), merged, empty):
            torch.testing.assert_close(found.second_moment(name), expected, rtol=1e-12, atol=1e-12)
    assert (together.n_positions, merged.n_positions, empty.n_positions) == (90, 90, 180)


def test_merging_leaves_its_parts_alone():
    first, second = _moments(_features(10, 1)), _moments(_features(10, 2))
    before = first.second_moment("hidden").clone()
    arrays = first.to_arrays()
    kept = arrays["hidden_sum"].copy()
    first.merge(second)
    assert torch.equal(first.second_moment("hidden"), before)
    first.add(_features(10, 3))
    assert (arrays["hidden_sum"] == kept).all()


def test_moments_keep_directions_that_float32_sums_would_lose():
    x = torch.ones(20_000, 2)
    x[:, 1] += torch.linspace(-1e-4, 1e-4, 20_000)
    moments = _moments(PositionFeatures(None, x, None))
    least = torch.linalg.eigvalsh(moments.second_moment("hidden"))[0]
    expected = torch.linalg.eigvalsh(x.double().T @ x.double() / 20_000)[0]
    torch.testing.assert_close(least, expected, rtol=1e-5, atol=0)


def test_moments_survive_as_arrays():
    moments = _moments(_features(30, 1, residual=False))
    arrays = moments.to_arrays()
    assert sorted(arrays) == ["hidden_sum", "n_positions", "projected_sum"]
    again = Moments.from_arrays(arrays)
    assert again.n_positions == 30
    assert torch.equal(again.second_moment("hidden"), moments.second_moment("hidden"))


def test_moments_that_do_not_belong_together_are_refused():
    moments = _moments(_features(10, 1))
    with pytest.raises(ValueError, match=r"'residual': 5.*but \{'hidden': 7, 'projected': 4\}"):
        moments.add(_features(10, 1, residual=False))
    with pytest.raises(ValueError, match="there are no moments of 'residual'"):
        _moments(_features(10, 1, residual=False)).second_moment("residual")
    with pytest.raises(ValueError, match="0 positions were added"):
        _moments(_features(0, 1)).second_moment("hidden")
    sparse = SparseResidual(torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="dense residual, got SparseResidual"):
        Moments().add(PositionFeatures(sparse, None, None))
    with pytest.raises(ValueError, match="lack 'n_positions'"):
        Moments.from_arrays({})
    with pytest.raises(ValueError, match=r"hidden_sum must be \[n, n\], got \(2, 3\)"):
        Moments.from_arrays({"n_positions": np.array([1]), "hidden_sum": np.zeros((2, 3))})


def test_basis_holds_the_leading_eigenvectors():
    moment = _moment()
    basis = principal_basis(moment, n_directions=3, whiten=False, damping=1.0)
    values = np.linalg.eigvalsh(moment.numpy())[::-1]
    np.testing.assert_allclose(basis.eigenvalues.numpy(), values, rtol=1e-9)
    q = basis.matrix.double()
    torch.testing.assert_close(q.T @ q, torch.eye(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        moment @ q, q * basis.eigenvalues[:3], atol=1e-5 * float(values[0]), rtol=0
    )
    assert basis.energy == pytest.approx(values[:3].sum() / values.sum())


@pytest.mark.parametrize("damping", [0.0, 0.1, 1.0])
def test_whitening_is_the_inverse_square_root(damping):
    moment = _moment()
    basis = principal_basis(moment, n_directions=7, whiten=True, damping=damping)
    m = basis.matrix.double()
    damped = moment + damping * moment.trace() / 7 * torch.eye(7).double()
    # M M^T = A^-1: inner products of projected vectors are those of A^(-1/2) x
    torch.testing.assert_close(m @ m.T @ damped, torch.eye(7).double(), atol=2e-3, rtol=0)
    if damping == 0.0:
        torch.testing.assert_close(m.T @ moment @ m, torch.eye(7).double(), atol=1e-4, rtol=0)


def test_signs_do_not_depend_on_the_solver(monkeypatch):
    moment = _moment()
    expected = principal_basis(moment, n_directions=7, whiten=False, damping=0.0).matrix
    eigh = torch.linalg.eigh
    flips = torch.tensor([-1.0, 1, -1, -1, 1, -1, 1]).double()
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: (eigh(a)[0], eigh(a)[1] * flips))
    assert torch.equal(
        principal_basis(moment, n_directions=7, whiten=False, damping=0.0).matrix, expected
    )
    largest = expected.gather(0, expected.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()


def test_directions_without_energy_see_nothing():
    vectors = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moment = vectors.T @ vectors / 3
    basis = principal_basis(moment, n_directions=5, whiten=True, damping=1.0)
    known = without_empty_directions(basis)
    torch.testing.assert_close(known.matrix[:, :3], basis.matrix[:, :3])
    assert not known.matrix[:, 3:].any()
    # what the sample lies in is kept whole
    assert float(known.energy) == pytest.approx(1.0)
    full = principal_basis(_moment(), n_directions=7, whiten=False, damping=0.0)
    torch.testing.assert_close(without_empty_directions(full).matrix, full.matrix)


def test_energy_grows_to_one_with_the_directions():
    own, other = _moment(0), _moment(1, mix_seed=5)
    bases = [
        principal_basis(own, n_directions=k, whiten=k % 2 == 0, damping=1.0) for k in range(1, 8)
    ]
    for moment in (own, other):
        energies = [energy_captured(moment, basis) for basis in bases]
        assert all(0.0 <= energy <= 1.0 for energy in energies)
        assert all(b >= a - 1e-6 for a, b in itertools.pairwise(energies))
        assert energies[-1] == pytest.approx(1.0, abs=1e-6)
    for basis in bases:
        assert energy_captured(own, basis) == pytest.approx(basis.energy, abs=1e-6)


def test_drift_shows_in_the_energy_ratio():
    basis = principal_basis(_moment(0), n_directions=2, whiten=True, damping=1.0)
    assert energy_ratio(_moment(1), basis, expected=basis.energy) == pytest.approx(1.0, abs=0.05)
    turned = _moment(0)[[5, 6, 0, 1, 2, 3, 4]][:, [5, 6, 0, 1, 2, 3, 4]]
    assert energy_ratio(turned, basis, expected=basis.energy) < 0.5


def test_energy_is_expected_from_text_that_the_directions_do_not_know():
    """Directions of few positions fit those better than any others; held out, they do not."""
    g = torch.Generator().manual_seed(0)
    n, k = 40, 10

    def moment(n_positions: int) -> torch.Tensor:
        vectors = torch.randn(n_positions, n, generator=g, dtype=torch.float64)
        return vectors.mT @ vectors / n_positions

    first, second, new = moment(60), moment(60), moment(5000)
    basis = principal_basis((first + second) / 2, n_directions=k, whiten=False, damping=0.0)
    held_out = held_out_energy(first, second, n_directions=k)
    assert basis.energy > 0.4  # in truth every direction has as much: k / n
    assert held_out == pytest.approx(k / n, abs=0.03)
    assert energy_ratio(new, basis, expected=held_out) == pytest.approx(1.0, abs=0.12)
    assert held_out_energy(first, first, n_directions=k) == pytest.approx(
        principal_basis(first, n_directions=k, whiten=False, damping=0.0).energy
    )
    assert held_out_energy(first, second, n_directions=n) == pytest.approx(1.0)


def test_basis_survives_as_arrays():
    basis = principal_basis(_moment(), n_directions=3, whiten=True, damping=0.1)
    again = Basis.from_arrays(basis.to_arrays("hidden"), "hidden")
    assert torch.equal(again.matrix, basis.matrix)
    assert torch.equal(again.eigenvalues, basis.eigenvalues)
    assert again.energy == basis.energy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_matrix": None}, r"lacks \['hidden_matrix'\]"),
        ({"hidden_matrix": np.full((7, 3), np.nan)}, "must be finite"),
        ({"hidden_eigenvalues": np.zeros(6)}, r"got \(7, 3\), \(6,\) and \(1,\)"),
    ],
)
def test_damaged_bases_are_refused(change, message):
    basis = principal_basis(_moment(), n_directions=3, whiten=True, damping=0.1)
    arrays = basis.to_arrays("hidden") | change
    with pytest.raises(ValueError, match=message):
        Basis.from_arrays({k: v for k, v in arrays.items() if v is not None}, "hidden")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_directions": 0}, "1 to 7"),
        ({"n_directions": 8}, "1 to 7"),
        ({"damping": -0.1}, "0 or more, got -0.1"),
        ({"second_moment": torch.zeros(7, 7).double()}, "is zero"),
        ({"second_moment": torch.full((7, 7), torch.inf).double()}, "not finite"),
        ({"second_moment": torch.ones(7, 7).double()}, "no energy. Raise the damping"),
    ],
)
def test_impossible_bases_are_refused(change, message):
    settings = {"second_moment": _moment(), "n_directions": 3, "whiten": True, "damping": 0.0}
    with pytest.raises(ValueError, match=message):
        principal_basis(**(settings | change))
