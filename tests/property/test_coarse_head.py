import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.coarse_head import coarse_residual
from rise_ops.coarse_product import coarse_head
from rise_ops.readout import ReadoutHead
from rise_ops.residual import ResidualRule, sparse_residual

PROBLEMS = st.fixed_dictionaries(
    {
        "vocab": st.integers(2, 90),
        "hidden": st.sampled_from([1, 2, 8, 33]),
        "levels": st.sampled_from([1, 2, 5, 10**6]),  # few levels: exact ties
        "jitter": st.sampled_from([0.0, 1e-6, 1e-4, 1e-2]),  # near ties
        "size": st.sampled_from([1e-3, 0.1, 1.0, 30.0]),
        "bias": st.booleans(),
        "scale": st.sampled_from([1.0, -2.0, 0.0625]),
        "cap": st.sampled_from([None, 0.5, 30.0]),
        "temperature": st.sampled_from([0.1, 1.0]),
        "mass": st.sampled_from([0.5, 0.92, 1.0]),
        "min_tokens": st.integers(1, 5),
        "dtype": st.sampled_from([torch.bfloat16, torch.float32]),
        "seed": st.integers(0, 2**20),
    }
)
POSITIONS = 5


def head_and_hidden(problem):
    g = torch.Generator().manual_seed(problem["seed"])

    def draw(*shape):
        x = torch.randn(*shape, generator=g)
        x = (x * problem["levels"]).round() / problem["levels"]
        return x + torch.randn(*shape, generator=g) * problem["jitter"]

    weight = draw(problem["vocab"], problem["hidden"]) * problem["size"]
    weight[0] *= 50.0 if problem["seed"] % 3 == 0 else 1.0
    bias = draw(problem["vocab"]) * 3 if problem["bias"] else None
    head = ReadoutHead(weight, bias, problem["scale"], problem["cap"])
    targets = torch.randint(problem["vocab"], (POSITIONS,), generator=g)
    return head, draw(POSITIONS, problem["hidden"]), targets


def exact_logits(head, hidden):
    logits = hidden.double() @ head.weight.double().T
    if head.bias is not None:
        logits = logits + head.bias.double()
    logits = logits * head.logit_scale
    if head.soft_cap is not None:
        logits = head.soft_cap * torch.tanh(logits / head.soft_cap)
    return logits


def dense(residual, vocab):
    found = torch.zeros(len(residual.tokens), vocab, dtype=torch.float64)
    return found.scatter_add_(1, residual.tokens, residual.values.double())


@given(problem=PROBLEMS, support=st.floats(0.01, 1.0), share=st.floats(0.01, 1.2))
@settings(max_examples=400, deadline=None)
def test_certified_positions_equal_the_float32_head(problem, support, share):
    head, hidden, targets = head_and_hidden(problem)
    vocab = problem["vocab"]
    top_k = max(1, int(support * vocab))
    rule = ResidualRule(problem["temperature"], top_k, problem["mass"], problem["min_tokens"])
    found = coarse_residual(
        coarse_head(head, dtype=problem["dtype"]),
        hidden,
        targets,
        rule,
        n_candidates=max(1, int(share * vocab)),
        max_logit_bytes=4 * (vocab + 16) * 3,
    )
    logits = head.logits(hidden)
    expected = dense(sparse_residual(logits, targets, **vars(rule)), vocab)
    # two float32 heads differ by this much themselves
    rounding = (logits - exact_logits(head, hidden)).abs().amax(1) + 2e-7 * logits.abs().amax(1)
    allowed = 6.0 * rounding / rule.temperature + 3e-6
    error = (dense(found.residual, vocab) - expected).abs().amax(1)
    assert (error[found.certified] <= allowed[found.certified]).all()


@given(problem=PROBLEMS)
@settings(max_examples=60, deadline=None)
def test_with_every_candidate_only_rounding_can_deny_the_certificate(problem):
    head, hidden, targets = head_and_hidden(problem)
    rule = ResidualRule(problem["temperature"], problem["vocab"], 1.0, 1)
    found = coarse_residual(
        coarse_head(head, dtype=problem["dtype"]),
        hidden,
        targets,
        rule,
        n_candidates=problem["vocab"],
        max_logit_bytes=10**6,
    )
    assert found.certified.all()
