"""How far does it get that a model feels alike about two texts? Cosine of mean final hidden states.

No gradient, no residual: what the read-out head reads, averaged over a text's positions.
"""

import numpy as np
from jaxtyping import Float, Float32, Int


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
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return (sums / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)


def mean_state_scores(
    rows: Float32[np.ndarray, "rows hidden"], queries: Float32[np.ndarray, "queries hidden"]
) -> Float32[np.ndarray, "rows queries"]:
    """Return the cosine of every row with every query; higher = stronger proponent."""
    return np.asarray(rows @ queries.T, dtype=np.float32)
