"""Which windows is a long row cut into?

A row is read in windows of at most ``window`` tokens; neighbours share ``overlap`` tokens so that
few tokens lose their left context. Source: arXiv:2604.16197; METHOD.md, step 0.
"""


def window_spans(n_tokens: int, *, window: int, overlap: int) -> list[tuple[int, int]]:
    """Return the ``[start, stop)`` windows of a row, in order.

    Every token is in at least one window. A last window that would hold only tokens of the one
    before it is not made, so each window brings at least one new token.

    Args:
        n_tokens: Tokens in the row, 0 or more; 0 gives no window.
        window: Most tokens in a window, 1 or more.
        overlap: Tokens that a window repeats from the one before it, 0 to ``window - 1``.

    Raises:
        ValueError: A value is outside its range.
    """
    if n_tokens < 0 or window < 1:
        raise ValueError(f"n_tokens must be >= 0 and window >= 1, got {n_tokens} and {window}.")
    if not 0 <= overlap < window:
        raise ValueError(f"overlap must be in [0, window), got {overlap} with window {window}.")
    if n_tokens == 0:
        return []
    # the window at `start` is needed only where the one before it stopped short of the row's end
    starts = range(0, max(n_tokens - overlap, 1), window - overlap)
    return [(start, min(start + window, n_tokens)) for start in starts]
