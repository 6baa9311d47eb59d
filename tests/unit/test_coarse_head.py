import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rise_ops import largest
from rise_ops.coarse_head import CoarseResidual, candidates_for, coarse_residual, repair
from rise_ops.coarse_product import coarse_head, fast_dtype, upper_bounds
from rise_ops.readout import ReadoutHead
from rise_ops.residual import (
    ResidualRule,
    sparse_residual,
    support_through_head,
    through_head,
)
from rise_ops.row_products import gathered_products, row_products

VOCAB, HIDDEN = 999, 32
PAPER = ResidualRule(0.1, 256, 0.92, 4)
COMPACT = ResidualRule(1.0, 64, 0.8, 4)
WHOLE = ResidualRule(1.0, 64, 1.0, 1)
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
RULES = pytest.mark.parametrize("rule", [PAPER, COMPACT, WHOLE])
HEADS = {
    "plain": {},
    "bias": {"bias": torch.linspace(-3, 3, VOCAB).sin()},
    "negative scale": {"logit_scale": -0.7},
    "cap": {"soft_cap": 30.0},
    "all": {"bias": torch.linspace(-9, 4, VOCAB), "logit_scale": 0.25, "soft_cap": 10.0},
}


def make(n=40, *, size=1.0, seed=0, **options):
    g = torch.Generator().manual_seed(seed)
    head = ReadoutHead(torch.randn(VOCAB, HIDDEN, generator=g) * size, **options)
    hidden = torch.randn(n, HIDDEN, generator=g)
    return head, hidden, torch.randint(VOCAB, (n,), generator=g)


def found_and_exact(head, hidden, targets, rule, *, dtype, n_candidates=None, **options):
    coarse = coarse_head(head, dtype=dtype)
    options = {
        "n_candidates": n_candidates or candidates_for(rule, coarse),
        "max_logit_bytes": 10**6,
    } | options
    found = coarse_residual(coarse, hidden, targets, rule, **options)
    return found, sparse_residual(head.logits(hidden), targets, **vars(rule))


def dense(residual, vocab=VOCAB):
    found = torch.zeros(len(residual.tokens), vocab)
    return found.scatter_add_(1, residual.tokens, residual.values)


def differences(found, exact):
    return (dense(found.residual) - dense(exact)).abs().amax(1)


class _NoSync(TorchDispatchMode):
    """Fails on the operators that make the host wait for a device."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique", "unique_", "is_nonzero")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.WAITS):
            raise RuntimeError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@DTYPES
@RULES
@pytest.mark.parametrize("name", HEADS)
def test_residuals_are_those_of_the_float32_head(dtype, rule, name):
    head, hidden, targets = make(**HEADS[name])
    found, exact = found_and_exact(head, hidden, targets, rule, dtype=dtype)
    assert found.certified.float().mean() > 0.8
    assert differences(found, exact)[found.certified].max() < 1e-4
    assert (found.residual.tokens == targets[:, None]).any(1).all()
    assert all(len(set(row)) == len(row) for row in found.residual.tokens.tolist())
    assert (found.logits.diff(dim=1) <= 0).all()


@DTYPES
@pytest.mark.parametrize("name", HEADS)
def test_no_logit_exceeds_its_upper_bound(dtype, name):
    for size in (1e-3, 1.0, 300.0):
        head, hidden, _ = make(size=size, seed=3, **HEADS[name])
        bounds = upper_bounds(coarse_head(head, dtype=dtype), hidden).double()
        exact = hidden.double() @ head.weight.double().T
        if head.bias is not None:
            exact = exact + head.bias.double()
        exact = exact * head.logit_scale
        assert (exact <= bounds).all()
        # and it is a margin, not infinity: a few roundings of the longest vectors
        lengths = head.weight.norm(dim=1).max() * hidden.norm(dim=1).max() + 9.0
        assert (bounds - exact).max() < 2**-6 * lengths


@DTYPES
def test_everything_is_exact_with_all_tokens_as_candidates(dtype):
    head, hidden, targets = make()
    rule = ResidualRule(1.0, VOCAB, 1.0, 1)
    found, exact = found_and_exact(head, hidden, targets, rule, dtype=dtype, n_candidates=VOCAB + 7)
    assert found.certified.all()
    assert differences(found, exact).max() < 1e-6


def test_flat_logits_are_not_certified_but_repaired():
    # 64 candidates hold a quarter of the probability that the support of 256 has
    head, hidden, targets = make(size=1e-4)
    found, exact = found_and_exact(head, hidden, targets, PAPER, dtype=torch.bfloat16)
    assert not found.certified.any()
    assert differences(found, exact).min() > 1e-3
    fixed = repair(found, head, hidden, targets, PAPER, max_logit_bytes=10**6)
    assert fixed.certified.all()
    assert torch.equal(fixed.residual.tokens, exact.tokens)
    assert torch.equal(fixed.residual.values, exact.values)


def test_repair_leaves_certified_positions_alone():
    head, hidden, targets = make()
    found, exact = found_and_exact(head, hidden, targets, PAPER, dtype=torch.bfloat16)
    half = torch.arange(len(hidden)) % 2 == 0
    found = CoarseResidual(found.residual, found.logits, half)
    fixed = repair(found, head, hidden, targets, PAPER, max_logit_bytes=1)
    assert fixed.residual.tokens.shape == fixed.logits.shape == (len(hidden), PAPER.top_k)
    assert torch.equal(dense(fixed.residual)[half], dense(found.residual)[half])
    torch.testing.assert_close(dense(fixed.residual)[~half], dense(exact)[~half])
    nothing = CoarseResidual(found.residual, found.logits, torch.ones_like(half))
    assert repair(nothing, head, hidden, targets, PAPER, max_logit_bytes=1) is nothing


@RULES
def test_exact_ties_at_the_border_are_never_certified(rule):
    # 300 identical rows at the top: which of them are in the support is nobody's to say
    weight = torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(0)) * 0.01
    weight[100:400] = 1.0
    hidden = torch.ones(3, HIDDEN)
    targets = torch.tensor([0, 100, 399])
    found, _ = found_and_exact(ReadoutHead(weight), hidden, targets, rule, dtype=torch.bfloat16)
    assert not found.certified.any()


def test_ties_without_a_choice_are_certified():
    weight = torch.zeros(VOCAB, HIDDEN)
    weight[10:13] = 1.0
    found, exact = found_and_exact(
        ReadoutHead(weight),
        torch.ones(2, HIDDEN),
        torch.tensor([11, 500]),
        PAPER,
        dtype=torch.bfloat16,
    )
    assert found.certified.all()
    assert differences(found, exact).max() < 1e-6


def test_near_ties_within_the_margin_are_resolved_in_float32():
    # steps of 1e-3 in logits near 20: bfloat16 sees one value, at temperature 0.1 each is 1 %
    weight = torch.zeros(VOCAB, HIDDEN)
    weight[:20, 0] = 20.0 - 1e-3 * torch.arange(20).float()
    weight[20:, 0] = -1.0
    hidden = torch.zeros(1, HIDDEN)
    hidden[0, 0] = 1.0
    rule = ResidualRule(0.1, 20, 1.0, 1)
    found, exact = found_and_exact(
        ReadoutHead(weight), hidden, torch.tensor([7]), rule, dtype=torch.bfloat16, n_candidates=40
    )
    assert found.certified.all()
    assert found.residual.tokens.tolist() == [list(range(20))]
    assert differences(found, exact).max() < 1e-5


@RULES
def test_one_row_that_dominates_and_huge_norms(rule):
    head, hidden, targets = make()
    head.weight[13] *= 1e4
    head.weight[14] *= 1e-6
    hidden[0] *= 1e4
    found, exact = found_and_exact(head, hidden, targets, rule, dtype=torch.bfloat16)
    logits = head.logits(hidden).double() - (hidden.double() @ head.weight.double().T)
    off = 4 * logits.abs().amax(1) / rule.temperature + 1e-5
    assert (differences(found, exact) <= off)[found.certified].all()
    assert found.certified.any()


def test_what_is_not_a_number_is_not_certified():
    head, hidden, targets = make()
    hidden[3] = torch.nan
    hidden[4, 0] = torch.inf
    found, _ = found_and_exact(head, hidden, targets, COMPACT, dtype=torch.bfloat16)
    assert not found.certified[3:5].any()
    assert found.certified[:3].any()


@DTYPES
@RULES
def test_batches_of_any_size_give_the_same_residuals(dtype, rule):
    head, hidden, targets = make(n=64, size=2.0)
    hidden = hidden.bfloat16().float()
    whole, _ = found_and_exact(head, hidden, targets, rule, dtype=dtype)
    whole = dense(whole.residual)
    for size in (1, 3, 64):
        parts = [
            found_and_exact(head, h, y, rule, dtype=dtype, max_logit_bytes=4 * 1100 * 2)[0]
            for h, y in zip(hidden.split(size), targets.split(size), strict=True)
        ]
        again = torch.cat([dense(part.residual) for part in parts])
        assert torch.nn.functional.cosine_similarity(whole, again).min() > 0.9999
        assert (whole - again).abs().max() < 1e-4


def test_the_same_call_gives_the_same_bits():
    head, hidden, targets = make()
    first, _ = found_and_exact(head, hidden, targets, COMPACT, dtype=torch.bfloat16)
    second, _ = found_and_exact(head, hidden, targets, COMPACT, dtype=torch.bfloat16)
    assert torch.equal(first.residual.tokens, second.residual.tokens)
    assert torch.equal(first.residual.values, second.residual.values)


def test_no_positions_give_empty_residuals():
    head, hidden, targets = make(n=0)
    found, _ = found_and_exact(head, hidden, targets, COMPACT, dtype=torch.bfloat16)
    assert found.residual.tokens.shape == found.logits.shape == (0, 64)
    assert found.certified.shape == (0,)
    assert repair(found, head, hidden, targets, COMPACT, max_logit_bytes=1) is found


def test_support_of_the_target_alone_has_no_error():
    head, hidden, targets = make()
    rule = ResidualRule(1.0, 1, 1.0, 1)
    found, _ = found_and_exact(head, hidden, targets, rule, dtype=torch.bfloat16)
    assert torch.equal(found.residual.tokens, targets[:, None])
    assert not found.residual.values.any()


def test_residual_goes_back_through_scale_and_cap():
    head, hidden, targets = make(**HEADS["all"])
    rule = ResidualRule(1.0, 64, 1.0, 1)
    found, exact = found_and_exact(head, hidden, targets, rule, dtype=torch.float32)
    bent = support_through_head(found.residual, found.logits, head)
    expected = through_head(exact, head.logits(hidden), head)
    torch.testing.assert_close(dense(bent)[found.certified], dense(expected)[found.certified])


def test_row_products_equal_their_plain_twin():
    head, hidden, _ = make()
    tokens = torch.randint(VOCAB, (len(hidden), 9))
    torch.testing.assert_close(
        row_products(head.weight, hidden, tokens), gathered_products(head.weight, hidden, tokens)
    )


@pytest.mark.parametrize(
    ("rule", "change", "message"),
    [
        (COMPACT, {"max_logit_bytes": 100}, "max_logit_bytes is 100 .* take 2000 bytes"),
        (COMPACT, {"n_candidates": -1}, "n_candidates must be at least 1, got -1"),
        (ResidualRule(1.0, 1001, 1.0, 1), {}, "vocabulary's size 999, got 1001"),
    ],
)
def test_impossible_calls_are_refused(rule, change, message):
    head, hidden, targets = make()
    with pytest.raises(ValueError, match=message):
        found_and_exact(head, hidden, targets, rule, dtype=torch.bfloat16, **change)


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"bfloat16 or float32, got torch\.float16"):
        coarse_head(make()[0], dtype=torch.float16)


def test_inputs_are_rounded_unless_weight_and_states_have_few_digits():
    head, _, _ = make()
    few = ReadoutHead(head.weight.bfloat16().float())
    scaled = ReadoutHead(few.weight, logit_scale=0.3)
    cases = [(few, torch.bfloat16), (few, torch.float32), (head, torch.bfloat16)]
    found = [coarse_head(h, dtype=torch.bfloat16, states=s).rounds_inputs for h, s in cases]
    assert found == [False, True, True]
    assert coarse_head(scaled, dtype=torch.bfloat16, states=torch.bfloat16).rounds_inputs
    assert not coarse_head(scaled, dtype=torch.float32).rounds_inputs


def test_fast_dtype_is_one_that_the_coarse_head_takes():
    assert fast_dtype("cuda") == torch.bfloat16
    assert fast_dtype("cpu") in (torch.bfloat16, torch.float32)


@RULES
def test_nothing_waits_for_the_device_before_the_repair(monkeypatch, rule):
    monkeypatch.setattr(largest, "_is_cpu", lambda _: False)  # as on a GPU
    head, hidden, targets = make(**HEADS["all"])
    coarse = coarse_head(head, dtype=torch.bfloat16)
    with _NoSync():
        coarse_residual(coarse, hidden, targets, rule, n_candidates=48, max_logit_bytes=10**5)
