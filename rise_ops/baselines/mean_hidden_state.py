"""How far does it get that a model feels alike about two texts? Cosine of mean final hidden states.

No gradient, no residual: what the read-out head reads, averaged over a text's positions.
Rows may be coded as RISE's signatures are (`rise_ops.codes`), queries stay float32: how much
accuracy is in each byte is then asked of both alike.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int

from rise_ops.codes import RowCodes, decode, encode

StateCode = Literal["float32", "int8", "sign"]


def mean_states(
    hidden: Float[np.ndarray, "positions hidden"],
    text_index: Int[np.ndarray, " positions"],
    *,
    n_texts: int,
) -> Float32[np.ndarray, "texts hidden"]:
    """Return the direction of each text's mean state, of length 1; 0 for a text without positions.

    Args:
        hidden: What the head reads at each position.
        text_index: Text of each position.
        n_texts: Texts.
    """
    sums = np.zeros((n_texts, hidden.shape[1]))
    np.add.at(sums, text_index, hidden)
    return _directions(sums)


@dataclass(frozen=True, eq=False)
class RowStates:
    """Mean states of rows as they are kept.

    Attributes:
        rows: The states themselves, or their codes.
        centre: What is taken off every text's state before its direction counts; None: nothing.
    """

    rows: Float32[np.ndarray, "rows hidden"] | RowCodes
    centre: Float32[np.ndarray, " hidden"] | None

    @property
    def row_bytes(self) -> int:
        """Bytes of a row. Signs need no scale: every direction has length 1."""
        if not isinstance(self.rows, RowCodes):
            return self.rows.shape[1] * self.rows.itemsize
        has_scale = self.rows.values.dtype == np.int8
        return self.rows.values.shape[1] + (4 if has_scale else 0)


def kept_states(
    rows: Float32[np.ndarray, "rows hidden"], *, code: StateCode = "float32", centre: bool = False
) -> RowStates:
    """Return rows' mean states as they are kept.

    Args:
        rows: Directions, see `mean_states`; a line of zeros stays one.
        code: float32; int8 with a scale a row; or one bit a number.
        centre: Take the rows' mean off first, which leaves what tells texts apart.

    Raises:
        ValueError: Signs do not fill whole bytes, or a number is not finite.
    """
    middle = rows.mean(axis=0) if centre and len(rows) else None
    kept = _centred(rows, middle)
    return RowStates(kept if code == "float32" else encode(kept, code), middle)


def mean_state_scores(
    rows: RowStates, queries: Float32[np.ndarray, "queries hidden"]
) -> Float32[np.ndarray, "rows queries"]:
    """Return the cosine of every row with every query, as far as codes tell it.

    Args:
        rows: See `kept_states`.
        queries: Directions, see `mean_states`; never coded.
    """
    kept = decode(rows.rows) if isinstance(rows.rows, RowCodes) else rows.rows
    return np.asarray(kept @ _centred(queries, rows.centre).T, dtype=np.float32)


def _centred(states: np.ndarray, centre: np.ndarray | None) -> np.ndarray:
    """Return directions from the centre; a text without positions has none, and stays 0."""
    if centre is None:
        return states
    return _directions(np.where(states.any(axis=1, keepdims=True), states - centre, 0.0))


def _directions(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0.0, lengths, 1.0), dtype=np.float32)
