"""Which tokens of a row, and which of a query, made their score?

Where channels are sums of outer products, a signature is a weighted sum over positions,
``phi = sum_t a_t left_t right_t^T`` a channel, and all scaling to length 1 is in the numbers a_t.
The score of two rows then falls apart, exactly, into one number for each pair of positions,
``a_t b_s <left_t, left_s> <right_t, right_s>``, summed over channels. Nothing is approximated and
no gradient is taken: a contribution is what a position adds while the lengths stay as they are.

A position's contribution belongs to the token that it predicts. Contributions of overlapping
windows that predict the same token add up. Sums hold for float32 signatures; a coded row's score
differs from them by the code's error. Tensor sketches do not keep positions apart.
Source: METHOD.md, section "Token contributions".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rise_ops.projection import MIN_NORM


@dataclass(frozen=True, eq=False)
class RowPositions:
    """The positions of one row, or one query, with the factors that its signature was made of.

    Attributes:
        factors: Vectors of positions by name: ``residual``, ``hidden``, ``projected``, as
            `Sketcher.position_features` gives them; those that no channel uses may be absent.
        window_index: Window of each position, ascending from 0.
    """

    factors: Mapping[str, Float[Tensor, "positions _"]]
    window_index: Int[Tensor, " positions"]


@dataclass(frozen=True, eq=False)
class TokenContributions:
    """How a score falls apart.

    Attributes:
        pairs: What each pair of a row's and a query's position adds to the score.
    """

    pairs: Float[Tensor, "row_positions query_positions"]

    @property
    def row(self) -> Float[Tensor, " row_positions"]:
        """What each position of the row adds; together the score."""
        return self.pairs.sum(1)

    @property
    def query(self) -> Float[Tensor, " query_positions"]:
        """What each position of the query adds; together the score."""
        return self.pairs.sum(0)

    @property
    def score(self) -> Float[Tensor, ""]:
        """The inner product of the two signatures."""
        return self.pairs.sum()


def token_contributions(
    row: RowPositions,
    query: RowPositions,
    *,
    channels: Mapping[str, float],
    weighting: Literal["unit", "gradient"],
) -> TokenContributions:
    """Return what every pair of positions adds to the score of a row and a query.

    Args:
        row: The row's positions, all windows.
        query: The query's positions, made by the same sketcher.
        channels: Weight of each channel by its name, ``residual_hidden``, ``projected_hidden`` or
            ``residual_projected``: the two factors of its outer product. Those of weight 0 may be
            absent.
        weighting: As the signatures were made.

    Raises:
        ValueError: A channel's factor is missing.
    """
    row_shares = position_shares(row, channels=channels, weighting=weighting)
    query_shares = position_shares(query, channels=channels, weighting=weighting)
    pairs = row.window_index.new_zeros(
        (len(row.window_index), len(query.window_index)), dtype=torch.float32
    )
    for channel, shares in row_shares.items():
        alike = torch.outer(shares, query_shares[channel])
        for factor in _factors_of(channel):
            alike = alike * (row.factors[factor] @ query.factors[factor].mT)
        pairs = pairs + alike
    return TokenContributions(pairs)


def position_shares(
    row: RowPositions, *, channels: Mapping[str, float], weighting: Literal["unit", "gradient"]
) -> dict[str, Float[Tensor, " positions"]]:
    """Return a_t of every channel: a row's signature is ``sum_t a_t left_t right_t^T`` of each.

    Channel weight, the window's channel length (weighting ``gradient``), the window's length and
    the length of the sum of windows are in it: METHOD.md, steps 6' and 7.

    Args:
        row: The row's positions, all windows.
        channels: See `token_contributions`.
        weighting: As the signature was made.

    Raises:
        ValueError: A channel's factor is missing.
    """
    used = {channel: weight for channel, weight in channels.items() if weight > 0.0}
    _check_factors(row, used)
    windows, counts = torch.unique_consecutive(row.window_index, return_counts=True)
    scales = {
        channel: row.window_index.new_zeros(len(windows), dtype=torch.float32) for channel in used
    }
    total: dict[str, Tensor] = {}
    places = torch.arange(len(row.window_index), device=row.window_index.device)
    parts = torch.split(places, counts.tolist())
    for window, part in enumerate(parts):
        sums = {channel: _channel_sum(row, channel, part) for channel in used}
        found = _window_scales(sums, used, weighting)
        for channel, scale in found.items():
            scales[channel][window] = scale
            total[channel] = total.get(channel, 0.0) + scale * sums[channel]
    length = _length(total)
    return {
        channel: (scale / length).repeat_interleave(counts) for channel, scale in scales.items()
    }


def _channel_sum(row: RowPositions, channel: str, part: Tensor) -> Float[Tensor, "left right"]:
    left, right = _factors_of(channel)
    return row.factors[left][part].mT @ row.factors[right][part]


def _window_scales(
    sums: Mapping[str, Tensor], weights: Mapping[str, float], weighting: str
) -> dict[str, Tensor]:
    """Return what each channel's sum is multiplied with in its window's signature."""
    scales = {channel: torch.full_like(sums[channel][0, 0], weights[channel]) for channel in sums}
    if weighting == "gradient":
        scales = {
            channel: scale / sums[channel].norm().clamp_min(MIN_NORM)
            for channel, scale in scales.items()
        }
    length = _length({channel: scale * sums[channel] for channel, scale in scales.items()})
    return {channel: scale / length for channel, scale in scales.items()}


def _length(channels: Mapping[str, Tensor]) -> Tensor:
    """Return the length of the vector that all channels together are, at least `MIN_NORM`."""
    squares = [channel.square().sum() for channel in channels.values()]
    return torch.stack(squares).sum().sqrt().clamp_min(MIN_NORM) if squares else torch.ones(())


def _factors_of(channel: str) -> tuple[str, str]:
    left, right = channel.split("_")
    return left, right


def _check_factors(row: RowPositions, channels: Mapping[str, float]) -> None:
    needed = {factor for channel in channels for factor in _factors_of(channel)}
    missing = sorted(needed - row.factors.keys())
    if missing:
        raise ValueError(
            f"channels {sorted(channels)} need the factors {missing}; found {sorted(row.factors)}"
        )
