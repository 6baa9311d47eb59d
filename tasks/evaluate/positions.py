"""Texts to positions: what the model's head reads at each, and which token comes next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from rise_ops.baselines.readout_gradient import TextPositions
from tasks.backbone import Backbone, RowTokenizer, model_shape
from tasks.batches import check_token_ids, cut_windows, make_batch, plan_batches
from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.method import LabelledText
from tasks.signature_config import WindowConfig

MOST_WINDOW_TOKENS = 1_024
"""Longer texts are read in windows of so many tokens, without overlap."""

Which = Literal["all", "completion"]


@dataclass(frozen=True, eq=False)
class ReadTexts:
    """Positions of texts, and how many tokens the model read for them."""

    positions: TextPositions
    n_tokens: int


@torch.inference_mode()
def read_positions(
    texts: Sequence[LabelledText],
    which: Which,
    model: ModelConfig,
    loaded: tuple[Backbone, RowTokenizer],
    runtime: RuntimeConfig,
) -> ReadTexts:
    """Run the model over texts and return every position that counts, text by text.

    Args:
        texts: In order.
        which: Every position, or those that predict a token behind the prompt.
        model: Its longest window bounds the windows.
        loaded: The model and its tokenizer.
        runtime: Size of batches.

    Raises:
        ValueError: Tokenizer and model do not belong together.
    """
    backbone, tokenizer = loaded
    borders = [one.prompt_chars if which == "completion" else 0 for one in texts]
    rows = tokenizer.encode([one.text for one in texts], borders)
    check_token_ids(rows, [one.text_id for one in texts], vocabulary=backbone.n_input_ids)
    longest = min(MOST_WINDOW_TOKENS, model_shape(model).max_tokens or MOST_WINDOW_TOKENS)
    windows, _ = cut_windows(rows, WindowConfig(tokens=longest, overlap=0))
    parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for chosen in plan_batches(windows, batch_tokens=runtime.batch_tokens):
        batch = make_batch(rows, chosen)
        hidden = backbone.hidden_states(torch.from_numpy(batch.ids).to(backbone.device))
        places = torch.from_numpy(batch.positions).to(backbone.device)
        parts.append(
            (
                hidden.flatten(0, 1)[places],
                torch.from_numpy(batch.targets),
                torch.from_numpy(batch.row_index[batch.window_index]),
            )
        )
    n_tokens = int(np.sum([len(row.ids) for row in rows]))
    return ReadTexts(_joined(parts, len(texts), backbone), n_tokens)


def _joined(
    parts: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    n_texts: int,
    backbone: Backbone,
) -> TextPositions:
    if not parts:
        none = torch.zeros(0, dtype=torch.int64, device=backbone.device)
        empty = torch.zeros(0, backbone.head.hidden_size, device=backbone.device)
        return TextPositions(empty, none, none, n_texts)
    hidden, targets, index = (torch.cat(one) for one in zip(*parts, strict=True))
    order = index.argsort(stable=True)
    where = backbone.device
    return TextPositions(
        hidden[order.to(where)], targets[order].to(where), index[order].to(where), n_texts
    )
