"""A method's mean over the tasks that decide, each pool of rows once, with its interval."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rise_ops.bootstrap import interval_of
from tasks.evaluate.lds import SCORED_KINDS
from tasks.evaluate.report_data import DECIDING, RESAMPLES, Key, Place, Results
from tasks.page.text import count, listed

PUBLISHED = "auprc"


@dataclass(frozen=True)
class Mean:
    """A mean over tasks and its 95 % interval; ends are None where it has none."""

    value: float
    low: float | None
    high: float | None


def averaged_pools(results: Results) -> list[list[Place]]:
    """Return the tasks that averages take, those of one pool together.

    They are the tasks that decide; where none does, all of them.
    """
    deciding = [place for place in results.places if results.verdict(place).decides]
    return _by_pool(deciding or results.places)


def averaged_words(results: Results) -> str:
    """Return what averages are over, such as ``mean over 3 pools of rows (a and b; c)``."""
    pools = averaged_pools(results)
    decides = results.verdict(pools[0][0]).decides
    return _words(pools, "tasks that decide" if decides else "tasks (none decides)")


def widest_cut(results: Results) -> Key:
    """Return the published measure at its widest cut that every task has; else what decides."""
    shared = [
        key
        for key in results.metrics()
        if key[0] == PUBLISHED and all(key in results.metrics(place) for place in results.places)
    ]
    return max(shared, key=lambda key: key[1] or 0, default=DECIDING)


def mean_of(results: Results, method: str, key: Key) -> Mean | None:
    """Return a method's mean over `averaged_pools`, each pool as much; None where it lacks one.

    Its interval draws queries anew in every task: it speaks of further queries, not of other tasks.
    """
    pools = averaged_pools(results)
    places = [place for pool in pools for place in pool]
    found = [results.measure(place, method, key) for place in places]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    if len(known) == 1:
        return Mean(known[0].value, known[0].low, known[0].high)
    of = {place.key: one.value for place, one in zip(places, known, strict=True)}
    value = float(np.mean([np.mean([of[place.key] for place in pool]) for pool in pools]))
    drawn = [_pool_means(results, pool, method, key, n) for n, pool in enumerate(pools)]
    means = [one for one in drawn if one is not None]
    if len(means) < len(drawn):
        return Mean(value, None, None)
    ends = interval_of(np.mean(means, axis=0))
    return Mean(value, ends.low, ends.high)


def means_of(results: Results, key: Key) -> dict[str, Mean]:
    """Return `mean_of` each method that has one."""
    found = {one.name: mean_of(results, one.name, key) for one in results.methods}
    return {name: mean for name, mean in found.items() if mean is not None}


def lds_words(results: Results) -> str | None:
    """Return what LDS is over, such as ``on finmed``; None where it was not measured."""
    lines = _lds_lines(results)
    pools = _by_pool([place for place in results.places if place.key in lines])
    return _words(pools, "tasks") if pools else None


def lds_means(results: Results) -> dict[str, Mean]:
    """Return the LDS of each method that has it on every task with LDS, each pool as much.

    Pools have retrainings of their own: their errors count as independent (too narrow where they
    share rows), those of tasks of one pool as the same.
    """
    lines = _lds_lines(results)
    pools = _by_pool([place for place in results.places if place.key in lines])
    means = {}
    for one in results.methods:
        found = [[lines[place.key].get(one.name) for place in pool] for pool in pools]
        known = [[line for line in own if line is not None] for own in found]
        if known and known == found:
            means[one.name] = _lds_mean(known)
    return means


def _lds_mean(pools: Sequence[Sequence[Mapping[str, Any]]]) -> Mean:
    value = float(np.mean([_mean_line(own, "value") for own in pools]))
    if any(line[end] is None for own in pools for line in own for end in ("low", "high")):
        return Mean(value, None, None)
    below, above = (
        math.hypot(*(_mean_line(own, end) - _mean_line(own, "value") for own in pools))
        for end in ("low", "high")
    )
    return Mean(value, value - below / len(pools), value + above / len(pools))


def _lds_lines(results: Results) -> dict[tuple[str, str], dict[str, Mapping[str, Any]]]:
    """Return the line of each method that has LDS, by task and paradigm."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for line in results.tables.lds.to_pylist():
        if line["kind"] in SCORED_KINDS and line["value"] is not None:
            found.setdefault((line["task"], line["paradigm"]), {})[line["method"]] = line
    return found


def _mean_line(lines: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([line[name] for line in lines]))


def _by_pool(places: Iterable[Place]) -> list[list[Place]]:
    pools: dict[str, list[Place]] = {}
    for place in places:
        pools.setdefault(place.pool, []).append(place)
    return list(pools.values())


def _words(pools: Sequence[Sequence[Place]], tasks: str) -> str:
    names = "; ".join(listed([place.name for place in pool]) for pool in pools)
    if sum(map(len, pools)) == 1:
        return f"on {names}"
    return f"mean over {tasks}, {count(len(pools), 'pool')} of rows: {names}"


def _pool_means(
    results: Results, pool: Sequence[Place], method: str, key: Key, seed: int
) -> npt.NDArray[np.float64] | None:
    """Return resampled means of a pool, ``[resamples]``; None where a task has under two values.

    Tasks of one pool with as many queries are drawn alike: their queries may be the same in other
    words, and then their errors do not cancel.
    """
    means = []
    for place in pool:
        values = results.per_query(place, method, key)
        values = None if values is None else values[~np.isnan(values)]
        if values is None or values.size < 2:
            return None
        rng = np.random.default_rng(seed)
        drawn = rng.integers(values.size, size=(RESAMPLES, values.size))
        means.append(values[drawn].mean(axis=1))
    return np.asarray(np.mean(means, axis=0))
