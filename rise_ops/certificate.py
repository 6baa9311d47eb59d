"""When is a residual made from some of the logits the residual that all of them would have given?

Known: float32 logits of the support, a bound on every logit outside it, and how far float32
rounding moves a logit. A position is certain when no choice that the rule makes (which tokens are
in the support, where the prefix ends) could go the other way within these, and when what the
choices do not settle weighs next to nothing.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rise_ops.residual import ResidualRule

TOLERANCE = 1e-6
"""Probability that may be misplaced, as a share of a position's residual. Float32 sums over a
support of 256 tokens are no better."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of positions whose residual was made from some of the logits.

    Attributes:
        logits: Of the support, largest first, before any temperature.
        is_target: Which one is the target.
        lowest: No logit of the support falls below this by rounding, the target's apart; inf when
            there is no other.
        outside: No logit outside the support exceeds this, by rounding neither; -inf when there is
            none.
        rounding: How far float32 rounding moves any logit of the support.
    """

    logits: Float[Tensor, "positions support"]
    is_target: Bool[Tensor, "positions support"]
    lowest: Float[Tensor, "positions 1"]
    outside: Float[Tensor, "positions 1"]
    rounding: Float[Tensor, "positions 1"]


def is_certain(evidence: Evidence, rule: ResidualRule) -> Bool[Tensor, " positions"]:
    """Return whether all logits would have given the same residual.

    Not a number anywhere: not certain.

    Args:
        evidence: What is known.
        rule: How the residual was made of it; ``top_k`` may exceed the support.
    """
    probabilities = torch.softmax(evidence.logits / rule.temperature, dim=-1)
    error = probabilities.masked_fill(evidence.is_target, 0.0).sum(-1, keepdim=True)
    settled = _support_is_settled(evidence, rule)
    misplaced = torch.where(settled, 0.0, _possible_mass(evidence, rule))
    if rule.mass == 1.0:
        return (misplaced <= TOLERANCE * error)[:, 0]
    return (
        _prefix_is_settled(evidence, rule, probabilities, misplaced)[:, 0]
        & (_prefix_end_is_settled(evidence, rule, probabilities, settled, TOLERANCE * error)[:, 0])
    )


def _support_is_settled(evidence: Evidence, rule: ResidualRule) -> Bool[Tensor, "positions 1"]:
    """Return whether these are the ``top_k`` largest for sure; the target is there anyway."""
    if evidence.logits.shape[1] < rule.top_k:
        return torch.isneginf(evidence.outside)
    return evidence.lowest > evidence.outside


def _possible_mass(evidence: Evidence, rule: ResidualRule) -> Float[Tensor, "positions 1"]:
    """Return the most that tokens of an unsettled support can weigh, relative to the support.

    Tokens wrongly left out, and those that have their place, have logits of at most ``outside``.
    """
    highest = evidence.outside + 2.0 * evidence.rounding
    total = (evidence.logits / rule.temperature).logsumexp(-1, keepdim=True)
    return 2.0 * rule.top_k * torch.exp(highest / rule.temperature - total)


def _prefix_is_settled(
    evidence: Evidence,
    rule: ResidualRule,
    probabilities: Float[Tensor, "positions support"],
    misplaced: Float[Tensor, "positions 1"],
) -> Bool[Tensor, "positions 1"]:
    """Return whether the number of tokens that reach the mass is beyond doubt."""
    before = probabilities.cumsum(-1) - probabilities
    # logits off by e change p by a factor of exp(2 e / tau) at most, so a sum P by P (1 - P) times
    doubt = torch.expm1(4.0 * evidence.rounding / rule.temperature) * before * (1.0 - before)
    doubt = doubt + misplaced + TOLERANCE
    return ((before - rule.mass).abs() > doubt).all(-1, keepdim=True)


def _prefix_end_is_settled(
    evidence: Evidence,
    rule: ResidualRule,
    probabilities: Float[Tensor, "positions support"],
    settled: Bool[Tensor, "positions 1"],
    negligible: Float[Tensor, "positions 1"],
) -> Bool[Tensor, "positions 1"]:
    """Return whether the last token of the prefix and the first behind it could not swap places."""
    logits = evidence.logits
    before = probabilities.cumsum(-1) - probabilities
    n_kept = (before < rule.mass).sum(-1, keepdim=True).clamp_min(rule.min_tokens)
    width = logits.shape[1]
    last = logits.gather(1, (n_kept - 1).clamp_max(width - 1))
    behind = torch.where(n_kept < width, logits.gather(1, n_kept.clamp_max(width - 1)), -torch.inf)
    # the best token outside matters only where it may belong inside
    behind = torch.where(settled, behind, torch.maximum(behind, evidence.outside))
    gap = last - behind > 2.0 * evidence.rounding
    # min_tokens can put the end among tokens without weight
    total = (logits / rule.temperature).logsumexp(-1, keepdim=True)
    weight = torch.exp(behind / rule.temperature - total)
    return gap | (rule.min_tokens * weight <= negligible)
