import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.reference import residual

from rise_ops.residual import sparse_residual

PROBLEMS = st.fixed_dictionaries(
    {
        "vocab": st.integers(2, 40),
        "n": st.integers(1, 6),
        "temperature": st.sampled_from([0.1, 0.5, 1.0, 3.0]),
        "mass": st.sampled_from([0.3, 0.92, 1.0]),
        "min_tokens": st.integers(1, 6),
        "seed": st.integers(0, 2**20),
    }
)


@given(problem=PROBLEMS, share=st.floats(0.01, 1.0))
@settings(max_examples=60, deadline=None)
def test_residuals_sum_to_zero_and_pull_only_the_target_down(problem, share):
    g = torch.Generator().manual_seed(problem["seed"])
    logits = torch.randn(problem["n"], problem["vocab"], generator=g) * 4
    targets = torch.randint(problem["vocab"], (problem["n"],), generator=g)
    top_k = max(1, int(share * problem["vocab"]))
    found = sparse_residual(
        logits,
        targets,
        temperature=problem["temperature"],
        top_k=top_k,
        mass=problem["mass"],
        min_tokens=problem["min_tokens"],
    )
    assert found.tokens.shape == (problem["n"], top_k)
    assert all(len(set(row)) == top_k for row in found.tokens.tolist())
    is_target = found.tokens == targets[:, None]
    assert (is_target.sum(-1) == 1).all()
    assert (found.values[is_target] <= 0).all()
    assert (found.values[~is_target] >= 0).all()
    assert found.values.sum(-1).abs().max() < 1e-6


@given(problem=PROBLEMS)
@settings(max_examples=40, deadline=None)
def test_equal_logits_are_ordered_by_token(problem):
    # whole numbers: ties everywhere; full support, where the order decides the cut
    g = torch.Generator().manual_seed(problem["seed"])
    logits = torch.randint(-2, 3, (problem["n"], problem["vocab"]), generator=g).float()
    targets = torch.randint(problem["vocab"], (problem["n"],), generator=g)
    # 0.8437 of n equal shares is never reached exactly, so rounding cannot move the cut
    options = {"temperature": 1.0, "mass": 0.8437, "min_tokens": problem["min_tokens"]}
    found = sparse_residual(logits, targets, top_k=problem["vocab"], **options)
    for t in range(problem["n"]):
        expected = np.zeros(problem["vocab"])
        literal = residual(
            logits[t].double().numpy(),
            int(targets[t]),
            tau=options["temperature"],
            top_k=problem["vocab"],
            mass=options["mass"],
            min_tokens=options["min_tokens"],
        )
        for token, value in literal.items():
            expected[token] = value
        dense = np.zeros(problem["vocab"])
        dense[found.tokens[t].numpy()] = found.values[t].numpy()
        np.testing.assert_allclose(dense, expected, atol=1e-6)
