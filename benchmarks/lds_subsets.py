"""How many subsets does LDS need? Intervals of invented methods whose LDS is known beforehand.

    python benchmarks/lds_subsets.py    # the numbers of docs/counterfactual.md

Every row has an effect on a query's loss, half of it the same for all queries; a method's scores
are the effects and an error. Methods that are alike have most of their error in common.
"""

import argparse

import numpy as np

from rise_ops.lds import lds, random_subsets

ROWS, QUERIES, SHARE = 96, 36, 0.5
CEILING = 0.95
"""Correlation that the order of rows leaves to a method which knows all effects."""
ASKED = {"good": 0.7, "like": 0.655, "unlike": 0.49}
"""Correlation of each method with the losses, before it is one of ranks."""
IN_COMMON = 0.8
"""Share of the error's variance that ``good`` and ``like`` have in common."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--subsets", type=int, nargs="+", default=[40, 100])
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()
    for n_subsets in arguments.subsets:
        told = np.array([_run(n_subsets, seed) for seed in range(arguments.runs)])
        names = ["good", "good - like", "good - unlike"]
        print(f"{n_subsets} subsets, {len(told)} runs")
        for name, (value, low, high) in zip(names, told.transpose(1, 2, 0), strict=True):
            print(
                f"  {name:14} {value.mean():.3f}, interval ± {(high - low).mean() / 2:.3f}, "
                f"above 0 in {(low > 0).mean():.0%}"
            )


def _run(n_subsets: int, seed: int) -> list[tuple[float, float, float]]:
    """Return value and interval of ``good``, and of its difference to each of the others."""
    rng = np.random.default_rng(seed)
    subsets = random_subsets(ROWS, n_subsets, share=SHARE, seed=seed)
    effects, common, own, other = (_effects(rng) for _ in range(4))
    order = np.sqrt(ROWS * SHARE * (1 - SHARE) * (1 / CEILING**2 - 1))
    losses = order * rng.normal(size=(n_subsets, QUERIES)) - subsets @ effects
    errors = {
        "good": common,
        "like": np.sqrt(IN_COMMON) * common + np.sqrt(1 - IN_COMMON) * own,
        "unlike": other,
    }
    scores = {
        name: effects + np.sqrt((CEILING / ASKED[name]) ** 2 - 1) * error
        for name, error in errors.items()
    }
    found = lds(scores, subsets, losses, seed=seed, n_shuffles=1)
    good = found["good"]
    told = [(good.value, good.interval.low, good.interval.high)]
    for name in ("like", "unlike"):
        ends = good.less(found[name])
        told.append((good.value - found[name].value, ends.low, ends.high))
    return told


def _effects(rng: np.random.Generator) -> np.ndarray:
    return (rng.normal(size=(ROWS, 1)) + rng.normal(size=(ROWS, QUERIES))) / np.sqrt(2)


if __name__ == "__main__":
    main()
