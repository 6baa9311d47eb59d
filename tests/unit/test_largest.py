import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops import largest as module
from rise_ops.largest import LAST_KEY, ascending, largest, logit_keys, tokens_and_logits

NUMBERS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_subnormal=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 3e38, -3e38]),
)
ROWS = st.integers(1, 40).flatmap(
    lambda width: st.lists(
        st.lists(NUMBERS, min_size=width, max_size=width), min_size=1, max_size=4
    )
)


@given(rows=ROWS, share=st.floats(0.01, 1.0))
@settings(max_examples=200, deadline=None)
def test_nothing_outside_exceeds_the_bound(rows, share):
    values = torch.tensor(rows, dtype=torch.float32)
    k = max(1, int(share * values.shape[1]))
    places, bound = largest(values, k)
    assert places.shape == (len(rows), k)
    assert (places.diff(dim=1) > 0).all()
    outside = values.scatter(1, places, -torch.inf).amax(1, keepdim=True)
    # above the largest number a float32 has no bound but "not a number", which certifies nothing
    assert ((outside <= bound) | bound.isnan()).all()
    if k == values.shape[1]:
        assert bound.isneginf().all()


def test_it_picks_what_topk_picks():
    values = torch.randn(20, 3_000, generator=torch.Generator().manual_seed(0)) * 5
    places, bound = largest(values, 50)
    exact = values.topk(50).values
    picked = values.gather(1, places).sort(dim=1, descending=True).values
    torch.testing.assert_close(picked, exact, rtol=2**-10, atol=0)
    torch.testing.assert_close(bound[:, 0], exact[:, 49], rtol=2**-9, atol=0)


def test_infinities_and_nan_are_picked_first_and_give_no_false_bound():
    values = torch.tensor([[1.0, torch.inf, 2.0, torch.nan, -torch.inf, 3.0]])
    places, bound = largest(values, 3)
    assert places.tolist() == [[1, 3, 5]]
    assert bound.item() >= 2.0
    _, bound = largest(values, 1)
    assert not bound.item() < torch.inf


@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 2**31), NUMBERS), min_size=1, max_size=30, unique_by=lambda p: p[0]
    )
)
@settings(max_examples=200, deadline=None)
def test_keys_order_by_logit_then_token_and_come_back(pairs):
    tokens = torch.tensor([[token for token, _ in pairs]])
    logits = torch.tensor([[logit for _, logit in pairs]], dtype=torch.float32)
    found_tokens, found_logits = tokens_and_logits(ascending(logit_keys(tokens, logits)))
    expected = sorted(
        zip(tokens[0].tolist(), logits[0].tolist(), strict=True), key=lambda p: (-p[1], p[0])
    )
    assert found_tokens[0].tolist() == [token for token, _ in expected]
    assert found_logits[0].tolist() == [logit for _, logit in expected]


def test_last_key_is_behind_every_logit():
    token, logit = tokens_and_logits(torch.tensor([[LAST_KEY]]))
    assert (token.item(), logit.item()) == (0, -torch.inf)
    assert logit_keys(torch.tensor([[0]]), torch.tensor([[-3.4e38]])).item() < LAST_KEY


@pytest.mark.parametrize("k", [1, 7, 64])
def test_other_devices_order_the_same_keys(monkeypatch, k):
    values = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    here = largest(values, k)
    monkeypatch.setattr(module, "_is_cpu", lambda _: False)
    there = largest(values, k)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    keys = torch.from_numpy(np.random.default_rng(0).integers(-(2**62), 2**62, (3, 50)))
    assert torch.equal(ascending(keys), keys.sort(dim=1).values)
