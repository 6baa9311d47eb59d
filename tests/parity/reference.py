"""The estimator once more: float64, one position at a time, straight from rise_ops/METHOD.md.

Shares no code with the package, so that the fast path has something to be wrong against.
"""

import math
from dataclasses import dataclass

import numpy as np

FLOOR = 1e-12
LEAST_SHARE = 1e-4  # of a residual of length 1, and of an embedding with rows of length 1


@dataclass(frozen=True)
class Space:
    """Everything that a signature depends on besides the row: arrays and the paper's symbols."""

    W: np.ndarray
    E: np.ndarray
    bias: np.ndarray | None
    scale: float
    cap: float | None
    buckets: dict[str, np.ndarray]
    signs: dict[str, np.ndarray]
    dims: dict[str, int]
    tau: float
    top_k: int
    mass: float
    min_tokens: int
    weights: tuple[float, float, float]
    weighting: str


def head_logits(space: Space, h: np.ndarray) -> np.ndarray:
    z = space.W @ h
    if space.bias is not None:
        z = z + space.bias
    z = z * space.scale
    return z if space.cap is None else space.cap * np.tanh(z / space.cap)


def residual(
    z: np.ndarray, y: int, *, tau: float, top_k: int, mass: float, min_tokens: int
) -> dict[int, float]:
    """Token -> p - onehot(y) on the kept tokens (0 omitted)."""
    order = sorted(range(len(z)), key=lambda v: (-z[v], v))
    support = order[:top_k]
    if y not in support:
        support[-1] = y
    support.sort(key=lambda v: (-z[v], v))
    largest = max(z[v] / tau for v in support)
    exponentials = [math.exp(z[v] / tau - largest) for v in support]
    p = [e / sum(exponentials) for e in exponentials]
    kept, reached = [], 0.0
    for rank, (v, probability) in enumerate(zip(support, p, strict=True)):
        if mass == 1.0 or reached < mass or rank < min_tokens or v == y:
            kept.append((v, probability))
        reached += probability
    total = sum(probability for _, probability in kept)
    values = {v: probability / total for v, probability in kept}
    # p(y) - 1, written so that float64 too keeps its digits when p(y) is next to 1
    values[y] = -sum(value for v, value in values.items() if v != y)
    return values


def sketch(space: Space, name: str, x: dict[int, float]) -> np.ndarray:
    out = np.zeros(space.dims[name])
    for i, value in x.items():
        out[space.buckets[name][i]] += space.signs[name][i] * value
    return out


def scaled(x: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    return x / max(float(np.sqrt(np.sum(x * x))), floor)


def typical_row_length(space: Space) -> float:
    """Root mean square length of the rows of CS_g(E)."""
    rows = [sketch(space, "projected", dict(enumerate(row))) for row in space.E]
    return float(np.sqrt(np.mean([row @ row for row in rows])))


def position_vectors(space: Space, h: np.ndarray, y: int) -> tuple[np.ndarray, ...]:
    z = head_logits(space, h)
    r = residual(
        z,
        y,
        tau=space.tau,
        top_k=space.top_k,
        mass=space.mass,
        min_tokens=space.min_tokens,
    )
    for v in r:
        bend = 1.0 if space.cap is None else 1.0 - (z[v] / space.cap) ** 2
        r[v] *= space.scale * bend
    if space.weighting == "unit":
        length = max(math.sqrt(sum(value * value for value in r.values())), FLOOR)
        r = {v: value / length for v, value in r.items()}
    g = np.zeros(space.E.shape[1])
    for v, value in r.items():
        g += value * space.E[v]
    r_ = sketch(space, "residual", r)
    h_ = sketch(space, "hidden", dict(enumerate(h)))
    g_ = sketch(space, "projected", dict(enumerate(g)))
    if space.weighting == "gradient":
        return r_, h_, g_
    g_ = g_ / typical_row_length(space)
    return scaled(r_, LEAST_SHARE), scaled(h_), scaled(g_, LEAST_SHARE)


def window_signature(space: Space, hidden: np.ndarray, targets: np.ndarray) -> np.ndarray:
    dims = space.dims
    rh = np.zeros((dims["residual"], dims["hidden"]))
    gh = np.zeros((dims["projected"], dims["hidden"]))
    rg = np.zeros((dims["residual"], dims["projected"]))
    for h, y in zip(hidden, targets, strict=True):
        r_, h_, g_ = position_vectors(space, h, int(y))
        rh += np.outer(r_, h_)
        gh += np.outer(g_, h_)
        rg += np.outer(r_, g_)
    parts = []
    for channel, weight in zip((rh, gh, rg), space.weights, strict=True):
        if weight > 0:
            flat = channel.reshape(-1)
            parts.append(weight * (scaled(flat) if space.weighting == "gradient" else flat))
    return scaled(np.concatenate(parts))


def row_signature(space: Space, windows: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    signatures = [window_signature(space, hidden, targets) for hidden, targets in windows]
    return scaled(np.mean(signatures, axis=0))
