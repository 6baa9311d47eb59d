"""From numbers to places on a picture: linear scales in percent, and round tick marks."""

import math
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """A linear scale from ``[low, high]`` to 0 to 100 percent; what is outside is clipped.

    Attributes:
        low: Number at 0 %.
        high: Number at 100 %, above ``low``.
    """

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return the place of a number in percent, 0 to 100."""
        if self.high <= self.low:
            return 0.0
        return min(100.0, max(0.0, 100.0 * (value - self.low) / (self.high - self.low)))

    def ticks(self, n_most: int) -> list[float]:
        """Return at most ``n_most`` round numbers inside the scale, in order; at least one."""
        span = self.high - self.low
        if span <= 0 or not math.isfinite(span):
            return [self.low]
        for step in _round_steps(span / n_most):
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            if last - first < n_most:
                return [step * number + 0.0 for number in range(first, last + 1)] or [self.low]
        return [self.low]


def _round_steps(least: float) -> list[float]:
    power = 10.0 ** math.floor(math.log10(least))
    return [step * size for size in (power, 10 * power) for step in _STEPS]


def tick_label(value: float, ticks: list[float]) -> str:
    """Return a tick's number, with the decimals that tell it from its neighbours."""
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(value)
    decimals = 0 if step == 0 else max(0, -math.floor(math.log10(step) + 1e-9))
    if round(step * 10**decimals, 6) % 1:
        decimals += 1  # steps of 2.5
    if abs(value) >= 10_000 and decimals == 0:
        return _compact(value)
    return f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _compact(value: float) -> str:
    for size, unit in ((1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}".replace("-", "\N{MINUS SIGN}")
    return f"{value:g}"
