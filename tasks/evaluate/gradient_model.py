"""The gradient of one text's loss with respect to chosen parameters.

The loss is the mean next-token cross-entropy over the positions that count. Texts go through the
model one at a time: gradients of single texts are what is asked for, and a batch would add them up.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from tasks.backbone import TokenRow
from tasks.config import ModelConfig
from tasks.evaluate.gradient_parameters import chosen_parameters
from tasks.evaluate.gradient_settings import ParameterChoice
from tasks.trainer import load_whole


class GradientModel:
    """A model in float32, dropout off, whose chosen parameters are differentiated.

    Attributes:
        device: Where it runs.
        shapes: Shape of each chosen parameter, by name, in the order of gradients.
    """

    def __init__(
        self, config: ModelConfig, choice: ParameterChoice, *, seed: int, device: str
    ) -> None:
        """Load a model; see `chosen_parameters` for what is refused."""
        self.device = device
        self._model = load_whole(config).to(device)
        chosen = chosen_parameters(self._model, choice, config=config, seed=seed)
        self._chosen = [*chosen.values()]
        self.shapes = {name: tuple(own.shape) for name, own in chosen.items()}

    @property
    def n_numbers(self) -> int:
        """Numbers in a gradient."""
        return sum(own.numel() for own in self._chosen)

    def gradients(self, row: TokenRow) -> list[Tensor]:
        """Return the gradient of a text's loss, one tensor a parameter; zero where nothing counts.

        Args:
            row: The text, cut to what is read.
        """
        losses = self._losses(row)
        if losses is None:
            return [torch.zeros_like(own) for own in self._chosen]
        return self._differentiated(losses.mean(), keep=False)

    def token_gradients(self, row: TokenRow) -> Iterator[list[Tensor]]:
        """Yield the gradient of each predicted token's own loss, in the order of tokens."""
        losses = self._losses(row)
        for loss in () if losses is None else losses:
            yield self._differentiated(loss, keep=True)

    def _losses(self, row: TokenRow) -> Tensor | None:
        first = max(1, row.first_target)
        if first >= len(row.ids):
            return None
        ids = torch.from_numpy(row.ids.astype(np.int64)).to(self.device)
        logits = self._model(input_ids=ids[None], use_cache=False).logits[0, first - 1 : -1]
        return torch.nn.functional.cross_entropy(logits.float(), ids[first:], reduction="none")

    def _differentiated(self, loss: Tensor, *, keep: bool) -> list[Tensor]:
        found = torch.autograd.grad(loss, self._chosen, retain_graph=keep, allow_unused=True)
        return [
            torch.zeros_like(own) if given is None else given
            for own, given in zip(self._chosen, found, strict=True)
        ]
