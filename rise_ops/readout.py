"""How does a final hidden state become logits, and what is that map's slope?

The read-out head is the last matrix of a language model, with what some families put around it: a
bias, a factor on the logits (Cohere, Granite), a soft cap (Gemma). The factor comes before the cap.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ReadoutHead:
    """The map ``hidden -> soft_cap * tanh(logit_scale * (weight @ hidden + bias) / soft_cap)``.

    Attributes:
        weight: One row a vocabulary token, float32.
        bias: Added before scale and cap; None where the model has none.
        logit_scale: Factor on the logits, not 0; 1 where the model has none.
        soft_cap: Bound that the logits approach, above 0; None: no cap.

    Raises:
        ValueError: ``weight`` is not float32, ``logit_scale`` is 0 or ``soft_cap`` not positive.
    """

    weight: Float[Tensor, "vocab hidden"]
    bias: Float[Tensor, " vocab"] | None = None
    logit_scale: float = 1.0
    soft_cap: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no head can be."""
        if self.weight.dtype != torch.float32:
            raise ValueError(f"the head's weight must be float32, got {self.weight.dtype}.")
        if self.logit_scale == 0.0:
            raise ValueError("logit_scale must not be 0: every logit would be the same.")
        if self.soft_cap is not None and self.soft_cap <= 0.0:
            raise ValueError(f"soft_cap must be above 0 or None, got {self.soft_cap}.")

    @property
    def vocab_size(self) -> int:
        """Number of tokens that the head scores."""
        return self.weight.shape[0]

    @property
    def hidden_size(self) -> int:
        """Length of the hidden state that the head reads."""
        return self.weight.shape[1]

    def to(self, device: torch.device | str) -> "ReadoutHead":
        """Return the same head on another device."""
        bias = None if self.bias is None else self.bias.to(device)
        return ReadoutHead(self.weight.to(device), bias, self.logit_scale, self.soft_cap)

    def logits(self, hidden: Float[Tensor, "positions hidden"]) -> Float[Tensor, "positions vocab"]:
        """Return the model's logits for final hidden states, float32.

        Args:
            hidden: What the head reads (after the final norm), float32, on the weight's device.
        """
        logits = torch.nn.functional.linear(hidden, self.weight, self.bias)
        return self.scaled_and_capped(logits)

    def scaled_and_capped(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return logits from ``weight @ hidden + bias``, changed in place.

        Args:
            logits: Overwritten.
        """
        # in place: a second [positions, vocab] array would double the peak memory
        if self.logit_scale != 1.0:
            logits = logits.mul_(self.logit_scale)
        if self.soft_cap is not None:
            logits = logits.div_(self.soft_cap).tanh_().mul_(self.soft_cap)
        return logits

    def slope(self, logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return d logit / d (weight @ hidden) at given logits, elementwise.

        ``logit_scale * (1 - (logit / soft_cap)^2)``; the second factor is 1 without a cap.
        """
        if self.soft_cap is None:
            return torch.full_like(logits, self.logit_scale)
        return self.logit_scale * (1.0 - (logits / self.soft_cap).square())

    @property
    def is_linear(self) -> bool:
        """Whether logits are exactly ``weight @ hidden + bias``, so that the slope is 1."""
        return self.logit_scale == 1.0 and self.soft_cap is None
