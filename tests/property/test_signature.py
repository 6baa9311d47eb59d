"""What must not change a signature: batching, slicing, masking versus deleting."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.readout import ReadoutHead
from rise_ops.signature import RowMean, SignatureSettings, Sketcher
from rise_ops.sketch import TableSizes, draw_tables

VOCAB, HIDDEN = 50, 8
SETTINGS = SignatureSettings(temperature=0.5, top_k=12, cross_weight=0.4)
CLOSE = {"rtol": 0.0, "atol": 2e-5}


def _sketcher(weighting: str = "unit") -> Sketcher:
    weight = torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(1))
    tables = draw_tables(TableSizes(VOCAB, HIDDEN, HIDDEN), TableSizes(9, 6, 5), seed=0)
    return Sketcher(ReadoutHead(weight), weight, tables, replace(SETTINGS, weighting=weighting))


def _data(lengths: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    index = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return torch.randn(n, HIDDEN, generator=g), torch.randint(VOCAB, (n,), generator=g), index


def _signatures(sketcher, hidden, targets, index, n_windows, *, slice_positions=1000, **kwargs):
    features = sketcher.position_features(
        hidden, targets, max_logit_bytes=4 * VOCAB * slice_positions
    )
    return sketcher.window_signatures(features, index, n_windows, **kwargs)


LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(sum)
WEIGHTING = st.sampled_from(["unit", "gradient"])


@given(lengths=LENGTHS, seed=st.integers(0, 999), weighting=WEIGHTING, size=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_slices_and_padding_change_nothing(lengths, seed, weighting, size):
    sketcher, data = _sketcher(weighting), _data(lengths, seed)
    whole = _signatures(sketcher, *data, len(lengths))
    sliced = _signatures(sketcher, *data, len(lengths), slice_positions=size, max_positions=12)
    torch.testing.assert_close(whole, sliced, **CLOSE)


@given(lengths=LENGTHS, seed=st.integers(0, 999), weighting=WEIGHTING)
@settings(max_examples=40, deadline=None)
def test_a_window_does_not_see_its_batch(lengths, seed, weighting):
    sketcher = _sketcher(weighting)
    hidden, targets, index = _data(lengths, seed)
    together = _signatures(sketcher, hidden, targets, index, len(lengths))
    for window, length in enumerate(lengths):
        own = index == window
        alone = _signatures(
            sketcher, hidden[own], targets[own], torch.zeros(length, dtype=torch.long), 1
        )
        torch.testing.assert_close(together[window], alone[0], **CLOSE)
        norm = float(together[window].norm())
        assert abs(norm - (1.0 if length else 0.0)) < 1e-5


@given(
    lengths=LENGTHS, seed=st.integers(0, 999), weighting=WEIGHTING, mask_seed=st.integers(0, 999)
)
@settings(max_examples=40, deadline=None)
def test_masking_a_position_equals_its_absence_from_the_sum(lengths, seed, weighting, mask_seed):
    sketcher = _sketcher(weighting)
    hidden, targets, index = _data(lengths, seed)
    kept = torch.rand(len(index), generator=torch.Generator().manual_seed(mask_seed)) < 0.5
    masked = _signatures(sketcher, hidden[kept], targets[kept], index[kept], len(lengths))
    # the same from features of all positions, those of the mask set to zero
    features = sketcher.position_features(hidden, targets, max_logit_bytes=10**6)
    zeroed = replace(
        features,
        residual=features.residual * kept[:, None],
        hidden=features.hidden * kept[:, None],
        projected=features.projected * kept[:, None],
    )
    torch.testing.assert_close(
        masked, sketcher.window_signatures(zeroed, index, len(lengths)), **CLOSE
    )


@given(order=st.permutations(range(6)), parts=st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_windows_may_reach_the_mean_in_any_order_and_batches(order, parts):
    windows = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0, 0, 0, 1, 3, 3])
    mean = RowMean(4, 10, "cpu")
    for chunk in torch.tensor(order).chunk(parts):
        mean.add(windows[chunk], rows[chunk])
    expected = torch.stack([windows[:3].mean(0), windows[3], torch.zeros(10), windows[4:].mean(0)])
    expected[[0, 1, 3]] /= expected[[0, 1, 3]].norm(dim=1, keepdim=True)
    torch.testing.assert_close(mean.finish(), expected)
