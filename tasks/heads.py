"""Read a language model's LM head out of the model, and prove that it was read rightly.

The families differ in what surrounds the last matrix: a factor on the logits that some multiply
and some divide by, a soft cap, a bias, a factor on the hidden state before it. The config names the
numbers; how they are applied is decided by comparing with the model's own logits on random tokens.
A model that no reading reproduces is refused.
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from rise_ops.readout import ReadoutHead

SCALE_FIELDS = ("logit_scale", "logits_scaling", "lm_head_multiplier")
"""Config fields of a factor on the logits: Cohere multiplies, Granite divides, MiniCPM divides the
hidden state before the head (then nothing is left to do)."""

CAP_FIELDS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")

TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 1e-2}
"""Largest difference of logits, as a share of the largest logit: several roundings of the format.
A forgotten factor, cap or bias is far outside."""

CHECK_WINDOWS, CHECK_TOKENS = 2, 16


class HeadTap(nn.Module):
    """Stands in the LM head's place and keeps what the head would have read.

    It answers with one number a position, so that nothing as wide as the vocabulary is computed.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        # some models look at the head's weight, for its dtype
        self.weight: Any = getattr(head, "weight", None)
        self.bias: Any = getattr(head, "bias", None)
        self._seen: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Keep ``hidden`` [windows, tokens, size]."""
        self._seen = hidden
        return hidden[..., :1]

    def take(self) -> Tensor:
        """Return what came last, once.

        Raises:
            ValueError: The model did not call its output embedding.
        """
        seen, self._seen = self._seen, None
        if seen is None:
            raise ValueError("the model computes its logits without calling its output embedding")
        return seen


def tap_head(model: Any) -> HeadTap:
    """Put a tap in the place of the model's LM head."""
    tap = HeadTap(model.get_output_embeddings())
    model.set_output_embeddings(tap)
    return tap


@torch.no_grad()
def verified_head(model: Any, *, name: str, dtype: str) -> ReadoutHead:
    """Return the model's LM head as float32, after holding it against the model's own logits.

    Args:
        model: A causal language model of `transformers`, on its device.
        name: For messages.
        dtype: Number format that the model runs in.

    Raises:
        ValueError: The model has no linear head, its weights are not finite, its attention is not
            causal, or no reading of its head reproduces its logits.
    """
    kind = type(model).__name__
    module = model.get_output_embeddings()
    if module is None or getattr(module, "weight", None) is None or module.weight.ndim != 2:
        raise ValueError(f"{name} ({kind}) has no linear LM head; only causal models have one.")
    broken = (~module.weight.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the LM head of {name} ({kind}) has numbers that are not finite, in the rows of "
            f"tokens {broken[:5]} ({len(broken)} in all). Get an undamaged copy of the model."
        )
    ids = _check_ids(model, module)
    hidden, logits = _run(model, module, ids, kind=kind)
    if not logits.isfinite().any():
        raise ValueError(
            f"{name} ({kind}) gives no finite logits in {dtype}: the numbers overflow, or the "
            "weights are damaged. Try dtype float32 or bfloat16, or another copy of the model."
        )
    _check_causal(model, module, ids, hidden, dtype=dtype, kind=kind)
    readings = [
        (_largest_difference(head.logits(hidden), logits), head) for head in _readings(model)
    ]
    difference, best = min(readings, key=lambda reading: reading[0])
    if not difference <= TOLERANCE[dtype]:
        raise ValueError(
            f"the LM head of {name} ({kind}) is of a kind that is not known here: its logits are "
            f"not reproduced from the final hidden state; the largest difference is "
            f"{difference:.3g} of the largest logit, {TOLERANCE[dtype]:g} is allowed in {dtype}. "
            "Nothing was computed; use another model."
        )
    return best


def _readings(model: Any) -> list[ReadoutHead]:
    """Return every head that the config may mean, the plain one first."""
    module = model.get_output_embeddings()
    config = model.config.get_text_config()
    weight = module.weight.detach().float()
    bias = getattr(module, "bias", None)
    bias = None if bias is None else bias.detach().float()
    factors = [value for field in SCALE_FIELDS if (value := _number(config, field)) is not None]
    scales = dict.fromkeys([1.0, *factors, *(1.0 / value for value in factors)])
    caps = [value for field in CAP_FIELDS if (value := _number(config, field)) is not None]
    return [
        ReadoutHead(weight, bias, scale, cap)
        for scale, cap in itertools.product(scales, [*caps, None])
    ]


def _number(config: Any, field: str) -> float | None:
    value = getattr(config, field, None)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value else None


def _check_ids(model: Any, module: Any) -> Tensor:
    rows = min(module.weight.shape[0], model.get_input_embeddings().weight.shape[0])
    generator = torch.Generator().manual_seed(0)
    shape = (CHECK_WINDOWS, CHECK_TOKENS)
    return torch.randint(rows, shape, generator=generator).to(module.weight.device)


def _run(model: Any, module: nn.Module, ids: Tensor, *, kind: str) -> tuple[Tensor, Tensor]:
    """Return the head's input [positions, size] and the model's logits [positions, vocabulary]."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = model(input_ids=ids, use_cache=False).logits
    finally:
        hook.remove()
    if len(seen) != 1 or seen[0].shape[:2] != ids.shape:
        raise ValueError(
            f"{kind} calls its LM head {len(seen)} times in a pass; models that call it once, on "
            "every position, are supported."
        )
    return seen[0].flatten(0, 1).float(), logits.flatten(0, 1).float()


def _check_causal(
    model: Any, module: nn.Module, ids: Tensor, hidden: Tensor, *, dtype: str, kind: str
) -> None:
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % module.weight.shape[0]  # type: ignore[index]
    other, _ = _run(model, module, changed, kind=kind)
    before = (ids.shape[0], ids.shape[1], -1)
    difference = _largest_difference(other.reshape(before)[:, :-1], hidden.reshape(before)[:, :-1])
    if not difference <= TOLERANCE[dtype]:
        raise ValueError(
            f"the attention of {kind} is not causal: changing a later token changes earlier hidden "
            f"states (by {difference:.3g} of the largest). Use a causal language model."
        )


def _largest_difference(found: Tensor, expected: Tensor) -> float:
    """Return max |found - expected| as a share of max |expected|, over finite expected values.

    A broken embedding row makes some logits NaN; that is reported with the row that reads it.
    """
    finite = expected.isfinite()
    if found.shape != expected.shape or not finite.any():
        return float("inf")
    largest = expected[finite].abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return float((found - expected)[finite].abs().max() / largest)
