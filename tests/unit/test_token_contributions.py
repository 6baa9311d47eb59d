import pytest
import torch

from rise_ops.readout import ReadoutHead
from rise_ops.signature import RowMean, SignatureSettings, Sketcher
from rise_ops.sketch import TableSizes, draw_tables
from rise_ops.token_contributions import RowPositions, position_shares, token_contributions

VOCABULARY, HIDDEN = 40, 12
CHANNELS = [
    {"residual_hidden": 1.0, "projected_hidden": 0.3, "residual_projected": 0.0},
    {"residual_hidden": 0.0, "projected_hidden": 1.0, "residual_projected": 0.0},
    {"residual_hidden": 0.7, "projected_hidden": 1.0, "residual_projected": 0.5},
]


def sketcher_of(channels, weighting):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    sizes = TableSizes(residual=VOCABULARY, hidden=HIDDEN, projected=HIDDEN)
    settings = SignatureSettings(
        temperature=1.0,
        top_k=20,
        mass=0.95,
        residual_weight=channels["residual_hidden"],
        projected_weight=channels["projected_hidden"],
        cross_weight=channels["residual_projected"],
        weighting=weighting,
    )
    tables = draw_tables(sizes, TableSizes(residual=9, hidden=7, projected=5), seed=1)
    return Sketcher(ReadoutHead(weight), weight, tables, settings)


def positions_of(sketcher, window_sizes, seed):
    """Return random positions in windows of these sizes, and the row's signature."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(sum(window_sizes), HIDDEN, generator=generator)
    targets = torch.randint(VOCABULARY, (sum(window_sizes),), generator=generator)
    features = sketcher.position_features(hidden, targets, max_logit_bytes=2**20)
    n_windows = len(window_sizes)
    index = torch.arange(n_windows).repeat_interleave(torch.tensor(window_sizes))
    mean = RowMean(1, sketcher.n_numbers, "cpu")
    windows = sketcher.window_signatures(features, index, n_windows)
    mean.add(windows, torch.zeros(n_windows, dtype=torch.int64))
    names = ("residual", "hidden", "projected")
    factors = {name: getattr(features, name) for name in names}
    present = {name: factor for name, factor in factors.items() if factor is not None}
    return RowPositions(present, index), mean.finish()[0]


def explicit_signature(row, shares, keep=None):
    """Sum of one outer product a position, in plain Python and float64."""
    parts = []
    for channel, share in shares.items():
        left, right = (row.factors[name].double() for name in channel.split("_"))
        sums = torch.zeros(left.shape[1], right.shape[1], dtype=torch.float64)
        for t in range(len(share)) if keep is None else keep:
            sums += share[t].double() * torch.outer(left[t], right[t])
        parts.append(sums.flatten())
    return torch.cat(parts)


@pytest.mark.parametrize("weighting", ["unit", "gradient"])
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("window_sizes", [[6], [5, 1, 4]])
def test_contributions_add_up_to_the_score(channels, weighting, window_sizes):
    sketcher = sketcher_of(channels, weighting)
    row, row_signature = positions_of(sketcher, window_sizes, seed=1)
    query, query_signature = positions_of(sketcher, [3, 4], seed=2)
    found = token_contributions(row, query, channels=channels, weighting=weighting)
    score = row_signature @ query_signature
    for total in (found.score, found.row.sum(), found.query.sum()):
        torch.testing.assert_close(total, score, atol=2e-6, rtol=0)
    itself = token_contributions(row, row, channels=channels, weighting=weighting)
    torch.testing.assert_close(itself.score, torch.ones(()), atol=2e-6, rtol=0)


@pytest.mark.parametrize("weighting", ["unit", "gradient"])
@pytest.mark.parametrize("channels", CHANNELS)
def test_a_contribution_is_what_a_position_adds(channels, weighting):
    sketcher = sketcher_of(channels, weighting)
    row, row_signature = positions_of(sketcher, [5, 4], seed=3)
    query, query_signature = positions_of(sketcher, [6], seed=4)
    row_shares = position_shares(row, channels=channels, weighting=weighting)
    query_shares = position_shares(query, channels=channels, weighting=weighting)
    whole = explicit_signature(row, row_shares)
    torch.testing.assert_close(whole.float(), row_signature, atol=2e-6, rtol=0)
    found = token_contributions(row, query, channels=channels, weighting=weighting)
    for t in range(9):
        others = [other for other in range(9) if other != t]
        removed = (whole - explicit_signature(row, row_shares, others)) @ query_signature.double()
        torch.testing.assert_close(found.row[t].double(), removed, atol=2e-6, rtol=0)
        alone = explicit_signature(row, row_shares, [t])
        for s in range(6):
            pair = alone @ explicit_signature(query, query_shares, [s])
            torch.testing.assert_close(found.pairs[t, s].double(), pair, atol=2e-6, rtol=0)


@pytest.mark.parametrize("weighting", ["unit", "gradient"])
def test_a_row_without_positions_contributes_nothing(weighting):
    sketcher = sketcher_of(CHANNELS[0], weighting)
    query, _ = positions_of(sketcher, [6], seed=4)
    empty = RowPositions(
        {name: factor[:0] for name, factor in query.factors.items()}, query.window_index[:0]
    )
    found = token_contributions(empty, query, channels=CHANNELS[0], weighting=weighting)
    assert found.pairs.shape == (0, 6)
    assert found.score == 0.0
    assert torch.equal(found.query, torch.zeros(6))


def test_a_missing_factor_is_named():
    query, _ = positions_of(sketcher_of(CHANNELS[1], "unit"), [6], seed=4)
    with pytest.raises(ValueError, match=r"need the factors \['residual'\]"):
        token_contributions(query, query, channels=CHANNELS[0], weighting="unit")
