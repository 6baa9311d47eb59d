"""What the stored rows of an index are like: numbers a block, and what they add up to.

Measured on the bytes as they lie on the disk, right after they were written, so that nothing is
read twice when the gate asks. Sums are kept beside means: the difference of two runs is then what
the new rows alone are like, also where they share a block with old ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rise_ops.codes import RowCodes, unpacked
from storage.index_quality import IndexQuality
from storage.signatures import SignatureIndex

SLICE_ROWS = 256
"""Rows whose numbers are float32 at a time."""

SIGN_LENGTH = float(np.sqrt(np.pi / 2.0))
"""A row of signs, as it is scored, is longer by this than the row that it stands for."""

_SIGNIFICANT = 6
"""Digits that are kept: what is beyond depends on the machine's order of summing."""

_SUMS = ("n_rows", "n_empty", "n_nonfinite", "n_zero", "n_live", "positions_sum")


def block_statistics(index: SignatureIndex, block: int) -> dict[str, Any]:
    """Return the numbers of one block, measured now unless they are noted for its bytes.

    Returns:
        The columns of the suite's table ``blocks``, with the sums that `index_statistics` needs.
        Lengths are those of live rows: not empty, finite and not all zero; None without any.

    Raises:
        IncompleteError: The block is not finished.
        CorruptionError: It cannot be read.
    """
    notes = IndexQuality(index)
    noted = notes.statistics(block)
    if noted is not None:
        return noted
    values, scales, n_positions = notes.recorded_rows(block)
    norms = _norms(RowCodes(values, scales))
    first = block * index.block_rows
    measured = {"block": block, "first_row": first, **_measured(norms, n_positions, first)}
    notes.remember_statistics(block, measured)
    return measured


def index_statistics(blocks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the numbers of all blocks together: sums, extremes, means."""
    total: dict[str, Any] = {name: sum(block[name] for block in blocks) for name in _SUMS}
    live = [block for block in blocks if block["n_live"]]
    norm_sum, square_sum = (
        sum(block[name] for block in live) for name in ("norm_sum", "norm_square_sum")
    )
    mean = norm_sum / total["n_live"] if live else None
    spread = None
    if mean is not None:
        spread = max(0.0, square_sum / total["n_live"] - mean * mean) ** 0.5
    return {
        **total,
        "n_blocks": len(blocks),
        "empty_share": _share(total["n_empty"], total["n_rows"]),
        "norm_sum": norm_sum,
        "norm_square_sum": square_sum,
        "norm_min": min((block["norm_min"] for block in live), default=None),
        "norm_mean": mean,
        "norm_max": max((block["norm_max"] for block in live), default=None),
        "norm_spread": spread,
        "positions_mean": _share(total["positions_sum"], total["n_rows"] - total["n_empty"]),
    }


def drift(now: Mapping[str, Any], last: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how the rows that are new since the last run differ from those before.

    Args:
        now: `index_statistics` of this run.
        last: Those of the last run that passed; None when there was none.

    Returns:
        ``n_new``, ``new_empty_share``, ``empty_share_change``, ``norm_mean_change`` and
        ``positions_mean_ratio``; all but the first None where there is nothing to compare.
    """
    keys = ("new_empty_share", "empty_share_change", "norm_mean_change", "positions_mean_ratio")
    found: dict[str, Any] = {"n_new": now["n_rows"], **dict.fromkeys(keys)}
    if last is None:
        return found
    new = {name: now[name] - last[name] for name in (*_SUMS, "norm_sum")}
    found["n_new"] = new["n_rows"]
    if new["n_rows"] <= 0 or not last["n_rows"]:
        return found
    found["new_empty_share"] = _share(new["n_empty"], new["n_rows"])
    found["empty_share_change"] = found["new_empty_share"] - last["empty_share"]
    if new["n_live"] and last["norm_mean"] is not None:
        found["norm_mean_change"] = new["norm_sum"] / new["n_live"] - last["norm_mean"]
    new_positions = _share(new["positions_sum"], new["n_rows"] - new["n_empty"])
    if new_positions is not None and last["positions_mean"]:
        found["positions_mean_ratio"] = new_positions / last["positions_mean"]
    return found


def _norms(codes: RowCodes) -> np.ndarray:
    """Return the length of each row as it is scored, float64 [rows]; 1 is right for every code."""
    parts = []
    for start in range(0, len(codes.values), SLICE_ROWS):
        values = codes.values[start : start + SLICE_ROWS]
        numbers = torch.from_numpy(values if codes.scales is None else unpacked(values))
        norms = torch.linalg.vector_norm(numbers.float(), dim=1).double().numpy()
        if codes.scales is not None:
            norms = norms * codes.scales[start : start + SLICE_ROWS]
        parts.append(norms / SIGN_LENGTH if codes.values.dtype == np.uint8 else norms)
    return np.concatenate(parts)


def _measured(norms: np.ndarray, n_positions: np.ndarray, first: int) -> dict[str, Any]:
    empty = n_positions == 0
    broken = ~np.isfinite(norms)
    zero = ~empty & (norms == 0)
    live = norms[~(empty | broken | zero)]
    counts: dict[str, Any] = {
        "n_rows": len(norms),
        "n_empty": int(np.count_nonzero(empty)),
        "empty_share": float(np.mean(empty)),
        "n_nonfinite": int(np.count_nonzero(broken)),
        "first_nonfinite": _first(broken, first),
        "n_zero": int(np.count_nonzero(zero)),
        "first_zero": _first(zero, first),
        "n_live": len(live),
        "positions_sum": int(n_positions.sum(dtype=np.int64)),
        "norm_sum": _rounded(live.sum()),
        "norm_square_sum": _rounded(np.square(live).sum()),
    }
    names = ("norm_min", "norm_low", "norm_median", "norm_high", "norm_max")
    quantiles = np.quantile(live, [0.0, 0.01, 0.5, 0.99, 1.0]) if len(live) else [None] * 5
    shape = {name: _rounded(value) for name, value in zip(names, quantiles, strict=True)}
    return {**counts, **shape, "norm_mean": _rounded(live.mean()) if len(live) else None}


def _first(marked: np.ndarray, first: int) -> int | None:
    places = np.flatnonzero(marked)
    return first + int(places[0]) if len(places) else None


def _rounded(value: Any) -> float | None:
    return None if value is None else float(f"{value:.{_SIGNIFICANT}g}")


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
