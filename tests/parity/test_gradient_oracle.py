"""The unsketched limit against autograd: the strongest statement about what a signature means.

With identity tables, temperature 1, full support and gradient weighting, the residual x hidden
channel *is* the gradient of the summed cross-entropy with respect to the LM head, for every family
of read-out head. Models are random and tiny, built from configurations.
"""

from types import SimpleNamespace

import pytest
import torch

from rise_ops.readout import ReadoutHead
from rise_ops.signature import PositionFeatures, SignatureSettings, Sketcher
from rise_ops.sketch import SketchTables, identity_sketch

VOCAB, HIDDEN, N_TOKENS = 67, 16, 9

GRADIENT = SignatureSettings(
    temperature=1.0,
    top_k=VOCAB,
    mass=1.0,
    min_tokens=1,
    residual_weight=1.0,
    projected_weight=0.0,
    weighting="gradient",
)

_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_NEOX = {name: value for name, value in _SIZES.items() if name != "num_key_value_heads"}
_GPT2 = {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": 2, "n_head": 2, "n_positions": 32}
_GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}

MODELS = {
    "gpt-neox": ("GPTNeoX", _NEOX),
    "olmo-2": ("Olmo2", _SIZES),
    "olmo-3": ("Olmo3", _SIZES),
    "llama untied": ("Llama", _SIZES | {"tie_word_embeddings": False}),
    "llama tied": ("Llama", _SIZES | {"tie_word_embeddings": True}),
    "gpt-2 (tied)": ("GPT2", _GPT2),
    "qwen-2": ("Qwen2", _SIZES | {"tie_word_embeddings": True}),
    "qwen-3": ("Qwen3", _SIZES | {"head_dim": 8}),
    # a cap of 2 bends the logits of a random model; the family's own 30 would hardly touch them
    "gemma-2 (soft cap)": ("Gemma2", _SIZES | {"head_dim": 8, "final_logit_softcapping": 2.0}),
    "cohere (logit scale)": ("Cohere", _SIZES | {"logit_scale": 0.25}),
    "granite (logit divisor)": ("Granite", _SIZES | {"logits_scaling": 4.0}),
    "phi (head bias)": ("Phi", _SIZES),
}


def _load(name: str) -> SimpleNamespace:
    import transformers

    family, sizes = MODELS[name]
    torch.manual_seed(5)
    config = getattr(transformers, f"{family}Config")(**sizes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    weight, bias = model.get_output_embeddings().weight, model.get_output_embeddings().bias
    # random heads start near zero, where every residual looks alike
    with torch.no_grad():
        weight.normal_(0.0, 0.7)
        if bias is not None:
            bias.normal_(0.0, 0.5)
    ids = torch.randint(3, VOCAB, (2, N_TOKENS))
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids).last_hidden_state
        logits = model(input_ids=ids).logits
    head = ReadoutHead(
        weight.detach().clone(),
        None if bias is None else bias.detach().clone(),
        logit_scale=getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0),
        soft_cap=getattr(config, "final_logit_softcapping", None),
    )
    return SimpleNamespace(head=head, ids=ids, hidden=hidden, logits=logits)


@pytest.fixture(scope="module", params=list(MODELS))
def model(request):
    return _load(request.param)


def _loss(head: ReadoutHead, weight: torch.Tensor, hidden: torch.Tensor, ids: torch.Tensor):
    """Sum of token cross-entropies, written out for a leaf copy of the head's weight only."""
    bias = 0.0 if head.bias is None else head.bias
    logits = (hidden[:-1] @ weight.T + bias) * head.logit_scale
    if head.soft_cap is not None:
        logits = head.soft_cap * torch.tanh(logits / head.soft_cap)
    return torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum")


def _gradient(head: ReadoutHead, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    weight = head.weight.clone().requires_grad_()
    return torch.autograd.grad(_loss(head, weight, hidden, ids), weight)[0]


def _sketcher(head: ReadoutHead, settings: SignatureSettings) -> Sketcher:
    tables = SketchTables(identity_sketch(VOCAB), identity_sketch(HIDDEN), identity_sketch(HIDDEN))
    return Sketcher(head, head.weight, tables, settings)


def _features(model: SimpleNamespace, sketcher: Sketcher) -> tuple[PositionFeatures, torch.Tensor]:
    hidden = model.hidden[:, :-1].reshape(-1, HIDDEN)
    targets = model.ids[:, 1:].reshape(-1)
    index = torch.arange(2).repeat_interleave(N_TOKENS - 1)
    return sketcher.position_features(hidden, targets, max_logit_bytes=4 * VOCAB * 5), index


def test_head_reproduces_the_models_logits(model):
    found = model.head.logits(model.hidden.reshape(-1, HIDDEN))
    torch.testing.assert_close(found, model.logits.reshape(-1, VOCAB).float(), rtol=1e-6, atol=2e-6)


def test_channel_is_the_gradient_of_the_head(model):
    sketcher = _sketcher(model.head, GRADIENT)
    found = sketcher.channel_sums(*_features(model, sketcher), 2)["residual_hidden"].unflatten(
        1, (VOCAB, HIDDEN)
    )
    expected = torch.stack([_gradient(model.head, model.hidden[i], model.ids[i]) for i in range(2)])
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        (found[0] * found[1]).sum(), (expected[0] * expected[1]).sum(), rtol=1e-4, atol=1e-4
    )


def test_signature_inner_product_is_the_cosine_of_gradients(model):
    sketcher = _sketcher(model.head, GRADIENT)
    signatures = sketcher.window_signatures(*_features(model, sketcher), 2)
    first, second = (
        _gradient(model.head, model.hidden[i], model.ids[i]).flatten() for i in range(2)
    )
    expected = torch.nn.functional.cosine_similarity(first, second, dim=0)
    torch.testing.assert_close(signatures[0] @ signatures[1], expected, rtol=0, atol=1e-5)


def test_unit_weighting_is_the_sum_of_token_gradients_over_their_norms(model):
    unit = SignatureSettings(
        temperature=1.0, top_k=VOCAB, mass=1.0, residual_weight=1.0, projected_weight=0.0
    )
    sketcher = _sketcher(model.head, unit)
    found = sketcher.channel_sums(*_features(model, sketcher), 2)["residual_hidden"].unflatten(
        1, (VOCAB, HIDDEN)
    )
    expected = torch.zeros(2, VOCAB, HIDDEN)
    for row in range(2):
        for t in range(N_TOKENS - 1):
            token = slice(t, t + 2)
            gradient = _gradient(model.head, model.hidden[row, token], model.ids[row, token])
            # |r h^T| = |r| |h|
            expected[row] += gradient / gradient.norm()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_projected_channel_is_the_kernel_of_errors_seen_through_the_embedding(model):
    settings = SignatureSettings(
        temperature=1.0,
        top_k=VOCAB,
        mass=1.0,
        residual_weight=0.0,
        projected_weight=1.0,
        weighting="gradient",
    )
    sketcher = _sketcher(model.head, settings)
    sums = sketcher.channel_sums(*_features(model, sketcher), 2)["projected_hidden"]
    # sum over pairs of positions of <E^T r_t, E^T r_s> <h_t, h_s>, with r_t from autograd
    weight = model.head.weight
    projected, hidden = [], []
    for row in range(2):
        rows = []
        for t in range(N_TOKENS - 1):
            token = slice(t, t + 2)
            gradient = _gradient(model.head, model.hidden[row, token], model.ids[row, token])
            h = model.hidden[row, t]
            rows.append(weight.T @ (gradient @ h / (h @ h)))
        projected.append(torch.stack(rows))
        hidden.append(model.hidden[row, :-1])
    expected = ((projected[0] @ projected[1].T) * (hidden[0] @ hidden[1].T)).sum()
    torch.testing.assert_close((sums[0] * sums[1]).sum(), expected, rtol=1e-3, atol=1e-3)
