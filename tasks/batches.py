"""Which windows are read together, and which of their positions count?

Arithmetic on the host, without a model: rows are cut into windows, windows of like length are put
into batches of bounded size (so that little is spent on padding), and each batch becomes a handful
of index arrays that the device needs. The order is fixed by the rows alone, and so is how far a
window is padded: attention in bfloat16 rounds differently in a longer window, and what a row's
signature is must not depend on the rows beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rise_ops.chunking import window_spans
from tasks.backbone import TokenRow
from tasks.signature_config import WindowConfig

MAX_BATCH_WINDOWS = 256
"""Most windows a batch: bounds the float32 signatures of one batch however short its rows are."""

PADDING_ID = 0
"""Any valid token will do: it stands behind the real ones, where causal attention never looks."""


@dataclass(frozen=True)
class Window:
    """Tokens ``[start, stop)`` of a row; those from ``first_target`` on are predicted in it.

    ``most_tokens`` is as long as any window may be, its padding counted; None: no bound.
    """

    row: int
    start: int
    stop: int
    first_target: int
    most_tokens: int | None = None

    @property
    def n_tokens(self) -> int:
        """Length in tokens."""
        return self.stop - self.start

    @property
    def padded_tokens(self) -> int:
        """Length with padding: the next of 16 steps between two powers of two."""
        step = 1 << max(0, (self.n_tokens - 1).bit_length() - 5)
        padded = -(-self.n_tokens // step) * step
        return padded if self.most_tokens is None else min(padded, self.most_tokens)


@dataclass(frozen=True)
class TokenBatch:
    """Windows ready for the device.

    Attributes:
        ids: Padded on the right, int64 [windows, tokens].
        positions: Places in the flattened ``ids`` whose next token is predicted, int64 [positions].
        targets: That next token, int64 [positions].
        window_index: Window of each position, ascending, int64 [positions].
        row_index: Row of each window, int64 [windows].
        max_positions: Positions of the window that has most.
    """

    ids: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    window_index: np.ndarray
    row_index: np.ndarray
    max_positions: int


def cut_windows(rows: Sequence[TokenRow], window: WindowConfig) -> tuple[list[Window], np.ndarray]:
    """Cut rows into the windows that predict something.

    A window that holds nothing but prompt is not read. A token that two windows share is predicted
    in both, from its shorter and its longer context, as in the paper.

    Returns:
        The windows, row by row, and how many tokens of each row are predicted, int32 [rows].
    """
    windows: list[Window] = []
    n_positions = np.zeros(len(rows), dtype=np.int32)
    for number, row in enumerate(rows):
        counted = 0
        for start, stop in window_spans(len(row.ids), window=window.tokens, overlap=window.overlap):
            first_target = max(row.first_target, start + 1)  # nothing precedes a window's token 0
            if first_target < stop:
                windows.append(Window(number, start, stop, first_target, window.tokens))
                n_positions[number] += stop - max(first_target, counted)
                counted = stop
    return windows, n_positions


def plan_batches(windows: Sequence[Window], *, batch_tokens: int) -> list[list[Window]]:
    """Group windows that are padded to the same length, longest first.

    Args:
        windows: In any order; ties keep it.
        batch_tokens: Most tokens a batch, padding included; one window is always taken.
    """
    batches: list[list[Window]] = []
    length = 0
    for window in sorted(windows, key=lambda window: -window.n_tokens):
        last = batches[-1] if batches else []
        fits = (len(last) + 1) * length <= batch_tokens and len(last) < MAX_BATCH_WINDOWS
        if window.padded_tokens == length and fits:
            last.append(window)
        else:
            batches.append([window])
            length = window.padded_tokens
    return batches


def make_batch(rows: Sequence[TokenRow], windows: Sequence[Window]) -> TokenBatch:
    """Lay windows out for the device."""
    n_tokens = max(window.padded_tokens for window in windows)
    ids = np.full((len(windows), n_tokens), PADDING_ID, dtype=np.int64)
    positions, targets = [], []
    for number, window in enumerate(windows):
        tokens = rows[window.row].ids
        ids[number, : window.n_tokens] = tokens[window.start : window.stop]
        first = number * n_tokens - window.start - 1  # the position before a token predicts it
        positions.append(np.arange(first + window.first_target, first + window.stop))
        targets.append(tokens[window.first_target : window.stop].astype(np.int64))
    lengths = [len(part) for part in targets]
    return TokenBatch(
        ids=ids,
        positions=np.concatenate(positions),
        targets=np.concatenate(targets),
        window_index=np.repeat(np.arange(len(windows)), lengths),
        row_index=np.array([window.row for window in windows], dtype=np.int64),
        max_positions=max(lengths),
    )


def check_token_ids(rows: Sequence[TokenRow], row_ids: Sequence[str], *, vocabulary: int) -> None:
    """Refuse tokens that the model has no row for.

    Raises:
        ValueError: Tokenizer and model do not belong together.
    """
    for row, row_id in zip(rows, row_ids, strict=True):
        if len(row.ids) and row.ids.max() >= vocabulary:
            raise ValueError(
                f"row {row_id!r} has token id {row.ids.max()}, but the model knows ids 0 to "
                f"{vocabulary - 1}: tokenizer and model do not belong together."
            )
