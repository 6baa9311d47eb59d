from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rise_ops.readout import ReadoutHead
from rise_ops.signature import RowMean, SignatureSettings, Sketcher
from rise_ops.sketch import CountSketch, SketchTables, TableSizes, draw_tables, identity_sketch

VOCAB, HIDDEN = 30, 6
TABLES = draw_tables(TableSizes(VOCAB, HIDDEN, 4), TableSizes(8, 5, 3), seed=0)


def _sketcher(settings=None, head=None, embedding=None, tables=TABLES) -> Sketcher:
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCAB, HIDDEN, generator=g)
    return Sketcher(
        head or ReadoutHead(weight),
        torch.randn(VOCAB, 4, generator=g) if embedding is None else embedding,
        tables,
        settings or SignatureSettings(top_k=10),
    )


def _features(sketcher: Sketcher, n: int = 7):
    g = torch.Generator().manual_seed(1)
    hidden, targets = torch.randn(n, HIDDEN, generator=g), torch.randint(VOCAB, (n,), generator=g)
    return sketcher.position_features(hidden, targets, max_logit_bytes=10**6)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1.0, 0.3, 0.0), 8 * 5 + 3 * 5),
        ((1.0, 0.3, 2.0), 8 * 5 + 3 * 5 + 8 * 3),
        ((0.0, 1.0, 0.0), 3 * 5),
        ((0.0, 0.0, 1.0), 8 * 3),
    ],
)
def test_channels_of_weight_zero_take_no_numbers(weights, expected):
    names = ("residual_weight", "projected_weight", "cross_weight")
    settings = SignatureSettings(top_k=10, **dict(zip(names, weights, strict=True)))
    sketcher = _sketcher(settings)
    signatures = sketcher.window_signatures(_features(sketcher), torch.zeros(7, dtype=int), 1)
    assert sketcher.n_numbers == expected
    assert signatures.shape == (1, expected)


def test_no_positions_give_zero_signatures():
    sketcher = _sketcher()
    found = sketcher.window_signatures(_features(sketcher, 0), torch.zeros(0, dtype=int), 3)
    assert torch.equal(found, torch.zeros(3, sketcher.n_numbers))
    mean = RowMean(2, sketcher.n_numbers, "cpu")
    mean.add(found, torch.tensor([0, 0, 1]))
    assert torch.equal(mean.finish(), torch.zeros(2, sketcher.n_numbers))


def test_too_small_max_positions_is_refused_rather_than_spilt():
    sketcher = _sketcher()
    with pytest.raises(IndexError):
        sketcher.window_signatures(
            _features(sketcher), torch.zeros(7, dtype=int), 2, max_positions=4
        )


def test_cancelled_tokens_fade_out_instead_of_becoming_noise():
    # both tokens of the residual share a bucket and a sign: (p, -p) sketches to rounding error
    one_bucket = CountSketch(torch.zeros(VOCAB, dtype=torch.long), torch.ones(VOCAB), 8)
    tables = SketchTables(one_bucket, identity_sketch(HIDDEN), TABLES.projected)
    sketcher = _sketcher(SignatureSettings(top_k=10), tables=tables)
    assert _features(sketcher).residual.abs().max() < 0.01


def test_vanishing_residuals_fade_out():
    # one token ahead by 200 at temperature 0.1: what is left of the others underflows
    weight = torch.zeros(VOCAB, HIDDEN)
    weight[3] = 20.0 / HIDDEN
    sketcher = _sketcher(head=ReadoutHead(weight))
    features = sketcher.position_features(
        torch.ones(1, HIDDEN), torch.tensor([3]), max_logit_bytes=10**6
    )
    assert torch.equal(features.residual, torch.zeros(1, 8))
    assert torch.isfinite(features.projected).all()


def test_scale_of_the_embedding_does_not_matter_to_unit_features():
    embedding = torch.randn(VOCAB, 4, generator=torch.Generator().manual_seed(2))
    large, small = (_features(_sketcher(embedding=embedding * size)) for size in (1e3, 1e-6))
    torch.testing.assert_close(large.projected, small.projected)
    torch.testing.assert_close(large.projected.norm(dim=1), torch.ones(7))


def test_features_carry_no_autograd_graph():
    weight = torch.nn.Parameter(torch.randn(VOCAB, HIDDEN))
    sketcher = _sketcher(head=ReadoutHead(weight), embedding=weight[:, :4])
    features = _features(sketcher)
    assert not any(
        x.requires_grad for x in (features.residual, features.hidden, features.projected)
    )


@contextmanager
def _largest_result():
    sizes: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel() * result.element_size())
            return result

    with Watch():
        yield sizes


def test_no_array_of_the_read_out_exceeds_the_logit_bytes():
    settings = SignatureSettings(top_k=4)
    head = ReadoutHead(torch.randn(VOCAB, HIDDEN), logit_scale=2.0, soft_cap=3.0)
    sketcher = _sketcher(settings, head=head)
    hidden, targets = torch.randn(100, HIDDEN), torch.randint(VOCAB, (100,))
    limit = 4 * VOCAB * 40
    with _largest_result() as sizes:
        sketcher.position_features(hidden, targets, max_logit_bytes=limit)
    # 40 positions' logits at a time; everything else here is smaller by choice of the sizes
    assert max(sizes) == limit


class _NoSync(TorchDispatchMode):
    """Fails on the operators that make the host wait for a device."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_", "is_nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.WAITS):
            raise RuntimeError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("weighting", ["unit", "gradient"])
def test_nothing_in_a_batch_waits_for_the_device(weighting):
    head = ReadoutHead(torch.randn(VOCAB, HIDDEN), torch.randn(VOCAB), 2.0, 3.0)
    settings = SignatureSettings(top_k=10, cross_weight=1.0, weighting=weighting)
    sketcher = _sketcher(settings, head=head)
    index, rows = torch.tensor([0, 0, 0, 2, 2, 3, 3]), torch.tensor([0, 0, 1, 2])
    mean = RowMean(3, sketcher.n_numbers, "cpu")
    with _NoSync():
        windows = sketcher.window_signatures(_features(sketcher), index, 4, max_positions=3)
        mean.add(windows, rows)
        mean.finish()
    with _NoSync(), pytest.raises(RuntimeError, match="waits"):
        windows.sum().item()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": torch.zeros(VOCAB, 5)}, r"model are \(30, 6, 5\), of the tables \(30, 6, 4"),
        ({"embedding": torch.zeros(31, 4)}, "31 rows but the head scores 30"),
        ({"settings": SignatureSettings()}, "top_k is 256 but the vocabulary has 30"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        _sketcher(**change)


def test_logit_bytes_below_one_position_are_refused():
    with pytest.raises(ValueError, match=r"max_logit_bytes is 100 .* take 120 bytes"):
        _sketcher().position_features(
            torch.zeros(1, HIDDEN), torch.tensor([0]), max_logit_bytes=100
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residual_weight": -1.0}, "not all 0, got"),
        ({"residual_weight": 0.0, "projected_weight": 0.0}, "not all 0, got"),
    ],
)
def test_settings_without_a_channel_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SignatureSettings(**change)
