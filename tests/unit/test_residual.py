import math

import pytest
import torch

from rise_ops.readout import ReadoutHead
from rise_ops.residual import SparseResidual, sparse_residual, through_head

OPTIONS = {"temperature": 1.0, "top_k": 3, "mass": 1.0, "min_tokens": 1}


def test_missing_target_replaces_the_smallest_of_the_support():
    logits = torch.tensor([[5.0, 4.0, 3.0, -1.0]])
    found = sparse_residual(logits, torch.tensor([3]), **OPTIONS)
    assert found.tokens.tolist() == [[0, 1, 3]]
    p = [math.exp(x) for x in (5.0, 4.0, -1.0)]
    expected = torch.tensor([[p[0] / sum(p), p[1] / sum(p), p[2] / sum(p) - 1]])
    torch.testing.assert_close(found.values, expected)


def test_prefix_stops_where_the_mass_is_reached_but_keeps_the_target():
    logits = torch.log(torch.tensor([[0.6, 0.2, 0.15, 0.05]]))
    found = sparse_residual(
        logits, torch.tensor([3]), temperature=1.0, top_k=4, mass=0.7, min_tokens=1
    )
    expected = torch.tensor([[0.6 / 0.85, 0.2 / 0.85, 0.0, 0.05 / 0.85 - 1]])
    torch.testing.assert_close(found.values, expected)


def test_at_least_min_tokens_are_kept():
    logits = torch.tensor([[9.0, 1.0, 0.5, 0.0]])
    found = sparse_residual(
        logits, torch.tensor([0]), temperature=1.0, top_k=4, mass=0.5, min_tokens=3
    )
    assert (found.values != 0).tolist() == [[True, True, True, False]]


def test_certain_model_keeps_the_digits_of_a_tiny_error():
    # p(target) is 1 - 1e-11 or so: in float32 the difference p - 1 is exactly 0
    logits = torch.tensor([[25.0, 0.0, -1.0]])
    found = sparse_residual(logits, torch.tensor([0]), **OPTIONS)
    error = math.exp(-25) + math.exp(-26)
    torch.testing.assert_close(found.values[0, 0], torch.tensor(-error), rtol=1e-5, atol=0)


def test_support_of_one_token_has_no_error():
    found = sparse_residual(
        torch.randn(2, 5), torch.tensor([1, 4]), temperature=1.0, top_k=1, mass=1.0, min_tokens=1
    )
    assert found.tokens.tolist() == [[1], [4]]
    assert found.values.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"top_k": 5}, "vocabulary's size 4, got 5"),
        ({"top_k": 0}, "got 0"),
        ({"mass": 1.1}, "at most 1, got 1.1"),
        ({"min_tokens": 0}, "at least 1, got 0"),
    ],
)
def test_settings_outside_their_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        sparse_residual(torch.zeros(1, 4), torch.tensor([0]), **(OPTIONS | change))


def test_linear_head_leaves_the_residual_alone():
    residual = SparseResidual(torch.tensor([[0, 1]]), torch.tensor([[0.5, -0.5]]))
    assert through_head(residual, torch.zeros(1, 2), ReadoutHead(torch.eye(2))) is residual


def test_capped_and_scaled_head_bends_the_residual_by_its_slope():
    head = ReadoutHead(torch.eye(2), logit_scale=3.0, soft_cap=2.0)
    logits = head.logits(torch.tensor([[0.4, -0.2]]))
    residual = SparseResidual(torch.tensor([[1, 0]]), torch.tensor([[0.5, -0.5]]))
    x = torch.tensor([-0.2, 0.4], requires_grad=True)
    capped = 2.0 * torch.tanh(3.0 * x / 2.0)
    expected = torch.autograd.grad(capped @ residual.values[0], x)[0]
    torch.testing.assert_close(through_head(residual, logits, head).values[0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": torch.eye(2, dtype=torch.bfloat16)}, "must be float32, got torch.bfloat16"),
        ({"weight": torch.eye(2), "logit_scale": 0.0}, "logit_scale must not be 0"),
        ({"weight": torch.eye(2), "soft_cap": -1.0}, "soft_cap must be above 0"),
    ],
)
def test_impossible_heads_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ReadoutHead(**options)
