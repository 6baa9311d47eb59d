"""What did the model get wrong at a position, over the tokens that matter?

The gradient of a token's cross-entropy with respect to its logits is the residual
``softmax(logits) - onehot(target)``. Sharpened by a temperature below 1 it sits on a few tokens, so
it is kept sparse. Source: arXiv:2604.16197; METHOD.md, steps 2-3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rise_ops.readout import ReadoutHead


@dataclass(frozen=True, eq=False)
class SparseResidual:
    """Residuals on each position's support, largest logit first.

    Attributes:
        tokens: Token ids; within a position all different.
        values: Residual of each; exactly 0 for a token of the support that was not kept.
    """

    tokens: Int[Tensor, "positions support"]
    values: Float[Tensor, "positions support"]


@dataclass(frozen=True)
class ResidualRule:
    """Which tokens of a position's softmax are kept; the arguments of `sparse_residual`.

    Attributes:
        temperature: Divides the logits, above 0.
        top_k: Tokens in the support, 1 or more.
        mass: Probability that the kept tokens must reach, above 0 to 1.
        min_tokens: Least tokens kept, 1 or more.

    Raises:
        ValueError: A setting is outside its range.
    """

    temperature: float
    top_k: int
    mass: float
    min_tokens: int

    def __post_init__(self) -> None:
        """Refuse settings that keep nothing."""
        if not self.temperature > 0.0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}.")
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}.")
        if not 0.0 < self.mass <= 1.0:
            raise ValueError(f"mass must be above 0 and at most 1, got {self.mass}.")
        if self.min_tokens < 1:
            raise ValueError(f"min_tokens must be at least 1, got {self.min_tokens}.")

    def check_vocab(self, vocab_size: int) -> None:
        """Raise ValueError when the support is larger than the vocabulary."""
        if self.top_k > vocab_size:
            raise ValueError(
                f"top_k must be 1 to the vocabulary's size {vocab_size}, got {self.top_k}."
            )


def sparse_residual(
    logits: Float[Tensor, "positions vocab"],
    targets: Int[Tensor, " positions"],
    *,
    temperature: float,
    top_k: int,
    mass: float,
    min_tokens: int,
) -> SparseResidual:
    """Return ``softmax(logits / temperature) - onehot(targets)`` on the kept tokens.

    The support is the ``top_k`` largest logits, with the target in the smallest one's place when
    it is missing. Of the softmax over the support the shortest prefix that reaches ``mass`` is
    kept, with at least ``min_tokens`` tokens and always the target, and renormalised. Equal
    logits are ordered by token id; which of several tokens equal to the last logit of the support
    enters it is left to ``torch.topk``. Full support: ``top_k`` = vocabulary, ``mass`` = 1.

    Args:
        logits: Read-out logits, before any temperature.
        targets: The token that each position should have predicted.
        temperature: Divides the logits; below 1 sharpens, 1 is the true gradient. Above 0.
        top_k: Tokens in the support, the target included; 1 to the vocabulary's size.
        mass: Probability that the kept tokens must reach, above 0 to 1.
        min_tokens: Least tokens kept, 1 or more; the whole support where it is smaller.

    Returns:
        Tokens and float32 residuals; the residuals of a position sum to zero.

    Raises:
        ValueError: A setting is outside its range.

    Source: arXiv:2604.16197, section 3; METHOD.md, steps 2-3.
    """
    rule = ResidualRule(temperature, top_k, mass, min_tokens)
    rule.check_vocab(logits.shape[-1])
    tokens, support_logits = _support(logits, targets, top_k)
    return support_residual(tokens, support_logits, targets, rule)


def support_residual(
    tokens: Int[Tensor, "positions support"],
    logits: Float[Tensor, "positions support"],
    targets: Int[Tensor, " positions"],
    rule: ResidualRule,
) -> SparseResidual:
    """Return the residuals on a given support: softmax, prefix, renormalisation.

    Args:
        tokens: The support, largest logit first, the target included.
        logits: Their logits, before any temperature.
        targets: The token that each position should have predicted.
        rule: Everything but its ``top_k`` is read.
    """
    probabilities = torch.softmax(logits / rule.temperature, dim=-1)
    is_target = tokens == targets[:, None]
    kept = _kept(probabilities, is_target, rule.mass, rule.min_tokens)
    probabilities = probabilities * kept
    probabilities = probabilities / probabilities.sum(-1, keepdim=True)
    # 1 - p(target) as the sum of the others: the difference loses every digit when p is near 1
    others = probabilities.masked_fill(is_target, 0.0)
    values = torch.where(is_target, -others.sum(-1, keepdim=True), others)
    return SparseResidual(tokens, values)


def through_head(
    residual: SparseResidual, logits: Float[Tensor, "positions vocab"], head: ReadoutHead
) -> SparseResidual:
    """Pull a residual back through the head's logit scale and soft cap.

    Afterwards ``outer(residual, hidden)`` is the gradient with respect to the head's weight. For a
    linear head nothing changes; with a cap the values of a position no longer sum to zero.

    Args:
        residual: Gradient with respect to the logits.
        logits: The logits that it was made from, before any temperature.
        head: The head that made them.
    """
    if head.is_linear:
        return residual
    return support_through_head(residual, logits.gather(-1, residual.tokens), head)


def support_through_head(
    residual: SparseResidual, logits: Float[Tensor, "positions support"], head: ReadoutHead
) -> SparseResidual:
    """Do what `through_head` does, given the logits of the support only.

    Args:
        residual: Gradient with respect to the logits.
        logits: Logits of ``residual.tokens``, before any temperature.
        head: The head that made them.
    """
    if head.is_linear:
        return residual
    return SparseResidual(residual.tokens, residual.values * head.slope(logits))


def _support(
    logits: Float[Tensor, "positions vocab"], targets: Int[Tensor, " positions"], top_k: int
) -> tuple[Int[Tensor, "positions support"], Float[Tensor, "positions support"]]:
    """Return the support's tokens and logits, by (logit descending, token ascending)."""
    values, tokens = torch.topk(logits, top_k, dim=-1, sorted=True)
    missing = (tokens != targets[:, None]).all(-1)
    target_logits = logits.gather(-1, targets[:, None])[:, 0]
    # torch.where, not boolean indexing: the latter makes the host wait for the device
    tokens[:, -1] = torch.where(missing, targets, tokens[:, -1])
    values[:, -1] = torch.where(missing, target_logits, values[:, -1])
    return _ordered(tokens, values)


def _ordered(
    tokens: Int[Tensor, "positions support"], logits: Float[Tensor, "positions support"]
) -> tuple[Int[Tensor, "positions support"], Float[Tensor, "positions support"]]:
    """Return tokens and logits by (logit descending, token ascending)."""
    tokens, order = tokens.sort(-1)
    logits, order = logits.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return tokens.gather(-1, order), logits


def _kept(
    probabilities: Float[Tensor, "positions support"],
    is_target: Bool[Tensor, "positions support"],
    mass: float,
    min_tokens: int,
) -> Bool[Tensor, "positions support"]:
    if mass == 1.0:  # a float32 running sum can reach 1 before the last token
        return torch.ones_like(is_target)
    before = probabilities.cumsum(-1) - probabilities
    kept = (before < mass) | is_target
    kept[:, :min_tokens] = True
    return kept
