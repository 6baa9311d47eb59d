"""What the model says about every position, kept on disk: estimators then need no model.

A forward pass (backbone in its own format, here bfloat16, head in float32) leaves for each position
the final hidden state and the 256 largest logits, the target forced in. That is all that any
estimator with at most 256 tokens of support ever sees, at any temperature. Texts are kept in parts
of `PART_TEXTS`, each written whole: a killed run goes on where it stopped.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from evidence_texts import Text

from rise_ops.chunking import window_spans
from rise_ops.residual import SparseResidual, sparse_residual
from rise_ops.signature import SignatureSettings
from tasks.backbone import Backbone, RowTokenizer, TokenRow

SUPPORT = 256
WINDOW, OVERLAP = 256, 50
PART_TEXTS = 100
BATCH_TOKENS = 2048
HEAD_POSITIONS = 256

_ARRAYS = ("hidden", "tokens", "logits", "target_place", "text_index", "window_index", "completion")


@dataclass(frozen=True, eq=False)
class Readout:
    """Positions of texts, end to end, window by window.

    hidden bfloat16 [P, d]; tokens int32 [P, 256] ascending; logits float32 [P, 256];
    target_place uint8 [P]: column of the target; text_index, window_index int64 [P]; completion
    bool [P]: predicts a token behind the prompt; n_texts, n_tokens.
    """

    hidden: torch.Tensor
    tokens: torch.Tensor
    logits: torch.Tensor
    target_place: torch.Tensor
    text_index: torch.Tensor
    window_index: torch.Tensor
    completion: torch.Tensor
    n_texts: int

    def kept(self, mask: torch.Tensor) -> "Readout":
        """Return the positions of a mask."""
        return Readout(*(getattr(self, name)[mask] for name in _ARRAYS), self.n_texts)

    def first_texts(self, n_texts: int) -> "Readout":
        """Return the first texts."""
        kept = self.kept(self.text_index < n_texts)
        return Readout(*(getattr(kept, name) for name in _ARRAYS), min(n_texts, self.n_texts))

    def residual(self, part: slice, settings: SignatureSettings) -> SparseResidual:
        """Return residuals of a run of positions, as `sparse_residual` has them of all logits.

        Exactly the same: columns ascend by token, so that ties fall alike, and the 256 largest
        logits hold every smaller support.
        """
        small = sparse_residual(
            self.logits[part],
            self.target_place[part].long(),
            temperature=settings.temperature,
            top_k=settings.top_k,
            mass=settings.mass,
            min_tokens=settings.min_tokens,
        )
        tokens = self.tokens[part].long().gather(-1, small.tokens)
        return SparseResidual(tokens, small.values)


def read_out(rows: list[TokenRow], backbone: Backbone) -> Readout:
    """Return the positions of texts, without keeping them."""
    return _readout([_read_out(rows, backbone)], len(rows))


def build_cache(
    folder: Path, texts: list[Text], tokenizer: RowTokenizer, backbone: Backbone
) -> float:
    """Make the parts of `folder` that are missing; return the seconds that took."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for number in range(0, len(texts), PART_TEXTS):
        path = folder / f"part-{number // PART_TEXTS:04d}.npz"
        if path.exists():
            continue
        part = texts[number : number + PART_TEXTS]
        rows = tokenizer.encode([t.text for t in part], [t.prompt_chars for t in part])
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **_read_out(rows, backbone), n_texts=np.array([len(rows)]))
        partial.rename(path)
        print(f"{folder.name}: {number + len(part)} texts, {time.monotonic() - started:.0f} s")
    return time.monotonic() - started


def load_cache(folder: Path, n_texts: int | None = None) -> Readout:
    """Return the cached positions of a folder's (first) texts."""
    loaded: list[dict[str, np.ndarray]] = []
    texts = windows = 0
    for path in sorted(folder.glob("part-????.npz")):
        if n_texts is not None and texts >= n_texts:
            break
        with np.load(path) as stored:
            part = {name: stored[name] for name in _ARRAYS}
            part["text_index"] = part["text_index"] + texts
            part["window_index"] = part["window_index"] + windows
            texts += int(stored["n_texts"][0])
        windows = int(part["window_index"].max()) + 1
        loaded.append(part)
    if not loaded:
        raise ValueError(f"{folder} holds no cached texts; run the cache stage first.")
    readout = _readout(loaded, texts)
    return readout if n_texts is None else readout.first_texts(n_texts)


def _readout(parts: list[dict[str, np.ndarray]], n_texts: int) -> Readout:
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in _ARRAYS}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if name != "hidden"}
    hidden = torch.from_numpy(arrays["hidden"].view(np.int16)).view(torch.bfloat16)
    return Readout(hidden=hidden, **tensors, n_texts=n_texts)


def _read_out(rows: list[TokenRow], backbone: Backbone) -> dict[str, np.ndarray]:
    windows = [
        (text, row.ids[start:stop], row.first_target - start)
        for text, row in enumerate(rows)
        for start, stop in window_spans(len(row.ids), window=WINDOW, overlap=OVERLAP)
        if stop - start > 1
    ]
    order = sorted(range(len(windows)), key=lambda number: len(windows[number][1]))
    parts: list[dict[str, np.ndarray]] = [{}] * len(windows)
    for batch in _batches(order, [len(window[1]) for window in windows]):
        found = _position_arrays([windows[number][1] for number in batch], backbone)
        ends = np.cumsum([len(windows[number][1]) - 1 for number in batch])
        for number, end in zip(batch, ends, strict=True):
            text, own, first = windows[number]
            n = len(own) - 1
            parts[number] = {name: array[end - n : end] for name, array in found.items()}
            parts[number]["text_index"] = np.full(n, text)
            parts[number]["window_index"] = np.full(n, number)
            parts[number]["completion"] = np.arange(1, n + 1) >= first
    return {name: np.concatenate([part[name] for part in parts]) for name in _ARRAYS}


def _position_arrays(ids: list[np.ndarray], backbone: Backbone) -> dict[str, np.ndarray]:
    """Return the arrays of windows' positions, the windows end to end."""
    padded = torch.zeros(len(ids), max(len(own) for own in ids), dtype=torch.int64)
    for line, own in enumerate(ids):
        padded[line, : len(own)] = torch.from_numpy(own)
    states = backbone.hidden_states(padded)
    hidden = torch.cat([states[line, : len(own) - 1] for line, own in enumerate(ids)])
    targets = torch.cat([padded[line, 1 : len(own)] for line, own in enumerate(ids)])
    pieces = [
        _largest(*part, backbone)
        for part in zip(hidden.split(HEAD_POSITIONS), targets.split(HEAD_POSITIONS), strict=True)
    ]
    tokens, logits, places = (torch.cat(column) for column in zip(*pieces, strict=True))
    return {
        "hidden": hidden.bfloat16().view(torch.int16).numpy().view(np.uint16),
        "tokens": tokens.int().numpy(),
        "logits": logits.numpy(),
        "target_place": places.to(torch.uint8).numpy(),
    }


def _largest(
    hidden: torch.Tensor, targets: torch.Tensor, backbone: Backbone
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = backbone.head.logits(hidden)
    tokens = logits.topk(SUPPORT, dim=-1).indices
    missing = (tokens != targets[:, None]).all(-1)
    tokens[:, -1] = torch.where(missing, targets, tokens[:, -1])
    tokens = tokens.sort(-1).values
    return tokens, logits.gather(-1, tokens), (tokens == targets[:, None]).int().argmax(-1)


def _batches(order: list[int], lengths: list[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for number in order:
        if batch and (len(batch) + 1) * lengths[number] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
