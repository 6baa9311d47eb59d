"""Token rows in, signatures or moments out: the loop that keeps the device busy.

Within the loop the host never waits for the device: index arrays are made on the host and sent
ahead, and whether a number went wrong is noted on the device and asked once, at the end. A batch
that does not fit into memory is halved instead of failing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rise_ops.calibration import Moments
from rise_ops.projection import PositionFeatures
from rise_ops.signature import RowMean
from tasks.backbone import TokenRow
from tasks.batches import TokenBatch, Window, check_token_ids, cut_windows, make_batch, plan_batches
from tasks.config import RuntimeConfig
from tasks.memory import is_out_of_memory
from tasks.progress import NO_PROGRESS, Progress
from tasks.space import SignatureSpace


def sketch_rows(
    rows: Sequence[TokenRow],
    space: SignatureSpace,
    runtime: RuntimeConfig,
    *,
    row_ids: Sequence[str],
    where: str,
    progress: Progress = NO_PROGRESS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the signatures of rows.

    Args:
        rows: Tokens, each with the index from which on tokens are predicted.
        space: Model, sketch and windows.
        runtime: Sizes of batches.
        row_ids: Name of each row, for messages.
        where: What the rows are ("block 3"), for messages.
        progress: Told of rows as their batches are handed to the device.

    Returns:
        float32 [rows, numbers], of length 1 each, or 0 for a row that predicts nothing; and how
        many tokens of each row are predicted, int32 [rows].

    Raises:
        ValueError: A token that the model does not know, or a signature that is not finite; the
            message names the rows.
        MemoryError: One window alone does not fit.
    """
    check_token_ids(rows, row_ids, vocabulary=space.vocabulary)
    windows, n_positions = cut_windows(rows, space.window)
    device = space.backbone.device
    means = RowMean(len(rows), space.sketcher.n_numbers, device)
    broken = torch.zeros(len(rows), device=device)

    def add(chosen: Sequence[Window]) -> None:
        batch = _sent(make_batch(rows, chosen), device)
        features, is_broken = _read(batch, space, runtime)
        signatures = space.sketcher.window_signatures(
            features, batch.window_index, len(batch.row_index), max_positions=batch.max_positions
        )
        # scaling to length 1 may hide a NaN, so the hidden states are looked at as well
        is_broken += signatures.isfinite().all(dim=1).logical_not()
        # last, and without new memory: a batch that runs out of it has added nothing
        means.add(signatures, batch.row_index)
        broken.index_add_(0, batch.row_index, is_broken)
        progress.advance(sum(one.stop == len(rows[one.row].ids) for one in chosen))

    progress.advance(len(rows) - len({window.row for window in windows}))  # nothing to predict
    _run_batches(windows, add, batch_tokens=runtime.batch_tokens, device=device)
    _refuse_broken(broken, row_ids, dtype=space.backbone.dtype, where=where)
    return means.finish().cpu().numpy(), n_positions


def measure_moments(
    rows: Sequence[TokenRow],
    space: SignatureSpace,
    runtime: RuntimeConfig,
    *,
    row_ids: Sequence[str],
    where: str,
) -> Moments:
    """Return the second moments of the rows' factors, as calibration needs them.

    Args:
        rows: Tokens, each with the index from which on tokens are predicted.
        space: Model, windows, and a sketch that changes nothing (`sketch_tables.measuring_tables`).
        runtime: Sizes of batches; they change the sums by rounding.
        row_ids: Name of each row, for messages.
        where: What the rows are ("calibration sample"), for messages.

    Raises:
        ValueError: A token that the model does not know, or a hidden state that is not finite; the
            message names the rows.
        MemoryError: One window alone does not fit.
    """
    check_token_ids(rows, row_ids, vocabulary=space.vocabulary)
    windows, _ = cut_windows(rows, space.window)
    device = space.backbone.device
    moments = Moments()
    broken = torch.zeros(len(rows), device=device)

    def add(chosen: Sequence[Window]) -> None:
        batch = _sent(make_batch(rows, chosen), device)
        features, is_broken = _read(batch, space, runtime)
        moments.add(features)
        broken.index_add_(0, batch.row_index, is_broken)

    _run_batches(windows, add, batch_tokens=runtime.batch_tokens, device=device)
    _refuse_broken(broken, row_ids, dtype=space.backbone.dtype, where=where)
    return moments


def window_features(
    row: TokenRow, windows: Sequence[Window], space: SignatureSpace, runtime: RuntimeConfig
) -> tuple[PositionFeatures, Tensor]:
    """Return the features of one row's positions, window by window, and the window of each.

    Args:
        row: The tokens.
        windows: From `cut_windows` of that row alone.
        space: Model and sketch.
        runtime: Sizes of batches.
    """
    per_batch = max(1, runtime.batch_tokens // space.window.tokens)
    parts, indexes, start = [], [], 0
    while start < len(windows):
        batch = windows[start : start + per_batch]
        # padded as they were when the row was sketched: the last window may be shorter
        batch = [window for window in batch if window.padded_tokens == batch[0].padded_tokens]
        sent = _sent(make_batch([row], batch), space.backbone.device)
        parts.append(_read(sent, space, runtime)[0])
        indexes.append(sent.window_index + start)
        start += len(batch)
    return PositionFeatures.joined(parts), torch.cat(indexes)


def _run_batches(
    windows: Sequence[Window],
    run: Callable[[Sequence[Window]], None],
    *,
    batch_tokens: int,
    device: str,
) -> None:
    """Run every window once, in batches that shrink when memory runs out."""
    waiting = plan_batches(windows, batch_tokens=batch_tokens)
    while waiting:
        batch = waiting[0]
        if _fits_in_memory(run, batch):
            waiting.pop(0)
            continue
        n_tokens = len(batch) * batch[0].padded_tokens
        if len(batch) == 1:
            raise MemoryError(
                f"one window of {n_tokens} tokens does not fit into the memory of {device}. Lower "
                "runtime.head_bytes, signature.window.tokens or block_rows, or use another device."
            )
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        left = [window for part in waiting for window in part]
        waiting = plan_batches(left, batch_tokens=n_tokens // 2)


def _fits_in_memory(run: Callable[[Sequence[Window]], None], batch: Sequence[Window]) -> bool:
    try:
        run(batch)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


@dataclass(frozen=True, eq=False)
class _SentBatch:
    """A `TokenBatch` on the device."""

    ids: Tensor
    positions: Tensor
    targets: Tensor
    window_index: Tensor
    row_index: Tensor
    max_positions: int


def _sent(batch: TokenBatch, device: str) -> _SentBatch:
    def sent(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if device.startswith("cuda"):
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    return _SentBatch(
        sent(batch.ids),
        sent(batch.positions),
        sent(batch.targets),
        sent(batch.window_index),
        sent(batch.row_index),
        batch.max_positions,
    )


@torch.no_grad()
def _read(
    batch: _SentBatch, space: SignatureSpace, runtime: RuntimeConfig
) -> tuple[PositionFeatures, Tensor]:
    """Return the features of a batch's positions, and for each window how many are not finite."""
    hidden = space.backbone.hidden_states(batch.ids).flatten(0, 1)[batch.positions]
    features = space.sketcher.position_features(
        hidden, batch.targets, max_logit_bytes=runtime.head_bytes
    )
    is_broken = hidden.new_zeros(len(batch.row_index))
    is_broken.index_add_(0, batch.window_index, hidden.isfinite().all(dim=1).logical_not().float())
    return features, is_broken


def _refuse_broken(broken: Tensor, row_ids: Sequence[str], *, dtype: str, where: str) -> None:
    marked: list[Any] = broken.nonzero().flatten().tolist()
    if marked:
        names = ", ".join(repr(row_ids[number]) for number in marked[:5])
        raise ValueError(
            f"{where}: the model gives numbers that are not finite in {dtype} for "
            f"{len(marked)} row(s): {names}. Nothing of it was stored. Try dtype float32 or "
            "bfloat16, check the model's weights, or ingest the others under another corpus name."
        )
