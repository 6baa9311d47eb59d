"""The report's main picture: where all candidates lie, where chance would put them, and the cut."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from rise_ops.null_scores import NullScores
from tasks.page.markup import joined, tag
from tasks.page.parts import facts, figure
from tasks.page.plots import Layer, Mark, histogram, legend
from tasks.page.shell import Section
from tasks.page.text import count, number, percent
from tasks.report_data import Groups, ReportData

MOST_BINS, FEWEST_BINS = 64, 16
"""Bars of a picture: of 64, each is about five pixels wide on a phone."""
TAIL_HEIGHT = 0.12
"""When bars beyond the cut are lower than this part of the highest, they get their own picture."""
TAIL_MARGIN = 0.6
"""How far that picture begins before the cut: in widths of the better half of the release."""
OUTLIERS = 0.0005
"""Part of the candidates at the far end from the cut that may lie outside the picture."""

STYLES = {"selected": "released", "dropped": "passed over", "candidate": "not reached"}
"""Style class of a group of rows, and its name."""


@dataclass(frozen=True)
class Cut:
    """Where the release ends among all candidates.

    Attributes:
        value: The released value nearest to the other candidates.
        best: The released value farthest from them.
        median: Of all candidates.
        outscored: Part of the candidates with a worse value than every released row, 0 to 1.
        chance: Rows that would be expected beyond the cut if none answered the queries.
    """

    value: float
    best: float
    median: float
    outscored: float
    chance: float


def find_cut(data: ReportData) -> Cut:
    """Return where the release ends."""
    groups, lowest = data.groups, data.config.prefer == "lowest"
    taken, able = groups.values[groups.selected], groups.values[groups.able]
    worst, best = (taken.max(), taken.min()) if lowest else (taken.min(), taken.max())
    null, least = NullScores.of(_preferred(able, lowest)), _preferred(np.array([worst]), lowest)
    return Cut(
        value=float(worst),
        best=float(best),
        median=float(np.median(able)),
        outscored=float((able > worst if lowest else able < worst).mean()),
        chance=len(able) * float(null.chance(least)[0]),
    )


def null_values(values: np.ndarray, *, lowest: bool = False) -> np.ndarray:
    """Return what values would be if no row answered the queries: one half and its mirror image.

    The half away from the selected end has no proponents in it, so it shows how far values
    scatter by chance; calibrated scores count by the same null.

    Args:
        values: Of all candidates, at least one.
        lowest: The selected end is the lower one.
    """
    null = NullScores.of(_preferred(values, lowest))
    half = null.sample[: (len(null.sample) + 1) // 2]
    return _preferred(np.concatenate([half, 2 * null.median - half]), lowest)


def _preferred(values: np.ndarray, lowest: bool) -> np.ndarray:  # noqa: FBT001 - a sign
    return -values if lowest else values


def cut_section(data: ReportData) -> Section:
    """Return the section with the distribution of values and the cut."""
    cut = find_cut(data)
    side = "at most" if data.config.prefer == "lowest" else "at least"
    heading = f"Every released row has a value of {side} {number(cut.value)}"
    body = joined(*_pictures(data, cut), facts(_facts(data, cut)))
    return Section("Cut", heading, body)


def _pictures(data: ReportData, cut: Cut) -> list[Markup]:
    """Return the distribution, and its end once more where that is too small to be seen."""
    groups, lowest = data.groups, data.config.prefer == "lowest"
    able = groups.values[groups.able]
    edges = _all_edges(data)
    beyond = _beyond(groups, edges)
    is_small = beyond.max() < TAIL_HEIGHT * max(_counts(able, edges))
    pictures = [_picture(data, cut, edges, cap=None)]
    if data.n_released and is_small:
        edges = _tail_edges(groups, cut, lowest=lowest)
        # the slope before the cut would press what is beyond it to the ground
        cap = max(4.0, 2.5 * float(_beyond(groups, edges).max()))
        pictures.append(_picture(data, cut, edges, cap=cap))
    return pictures


def _all_edges(data: ReportData) -> np.ndarray:
    able = data.groups.values[data.groups.able]
    low, high = float(able.min()), float(able.max())
    low, high = (
        (low, float(np.quantile(able, 1 - OUTLIERS)))
        if data.config.prefer == "lowest"
        else (float(np.quantile(able, OUTLIERS)), high)
    )
    return _edges(low, high, len(able))


def _tail_edges(groups: Groups, cut: Cut, *, lowest: bool) -> np.ndarray:
    taken = groups.values[groups.selected]
    width = abs(float(np.quantile(taken, 0.25 if lowest else 0.75)) - cut.value)
    margin = TAIL_MARGIN * (width or abs(cut.value - cut.median) or 1.0)
    able = groups.values[groups.able]
    low, high = (
        (float(able.min()), cut.value + margin)
        if lowest
        else (cut.value - margin, float(able.max()))
    )
    return _edges(low, high, len(able))


def _picture(data: ReportData, cut: Cut, edges: np.ndarray, *, cap: float | None) -> Markup:
    """Return one histogram of all candidates, with its legend and what it shows."""
    picture, layers = _histogram(data, cut, edges, cap=cap)
    entries = [(STYLES[layer.style], layer.style) for layer in layers]
    keys = legend([*entries, ("what chance would give", "outline")])
    if cap is not None:
        note = "The end of the picture above, magnified; bars higher than the frame are cut off."
        return figure("The same, around the cut", picture, legend=keys, note=note)
    note = (
        "Rows by value: how much training on them would help. The dashed line is the half away "
        "from the cut and its mirror image: where rows would lie if none answered the queries."
    )
    return figure(_beyond_chance(data, cut), picture, legend=keys, note=note)


def cut_histogram(data: ReportData) -> Markup:
    """Return the distribution of values and the cut alone, as SVG in classes of the style sheet."""
    return _histogram(data, find_cut(data), _all_edges(data), cap=None)[0]


def _histogram(
    data: ReportData, cut: Cut, edges: np.ndarray, *, cap: float | None
) -> tuple[Markup, list[Layer]]:
    """Return all candidates, coloured by what became of them."""
    groups = data.groups
    able = groups.values[groups.able]
    masks = {"selected": groups.selected, "dropped": groups.dropped, "candidate": groups.rest}
    layers = [_layer(style, groups.values[mask], edges) for style, mask in masks.items()]
    layers = [layer for layer in layers if sum(layer.counts)]
    picture = histogram(
        edges.tolist(),
        layers,
        outline=_counts(null_values(able, lowest=data.config.prefer == "lowest"), edges),
        marks=[Mark(cut.value, f"cut at {number(cut.value)}")],
        cap=cap,
        alt=f"Histogram of the values of {count(data.n_candidates, 'candidate')}, their median at "
        f"{number(cut.median)}; {count(data.n_released, 'released row')} beyond "
        f"{number(cut.value)}, {count(int(groups.dropped.sum()), 'row')} passed over.",
    )
    return picture, layers


def _beyond_chance(data: ReportData, cut: Cut) -> str:
    expected = f"about {number(round(cut.chance))}" if cut.chance >= 0.5 else "none"
    return f"{count(data.n_released, 'row')} from beyond the cut, where chance would put {expected}"


def _beyond(groups: Groups, edges: np.ndarray) -> np.ndarray:
    return np.array(_counts(groups.values[groups.selected | groups.dropped], edges))


def _facts(data: ReportData, cut: Cut) -> dict[str, Markup | str]:
    part = percent(data.n_released / max(1, data.n_candidates))
    low, high = sorted((cut.value, cut.best))
    found: dict[str, Markup | str] = {
        "Released": f"{part} of {count(data.n_candidates, 'candidate')}",
        "Values released": f"{number(low)} to {number(high)}; median of all candidates "
        f"{number(cut.median)}",
        "At the cut": _at_the_cut(data),
    }
    n_empty = data.values.num_rows - data.n_candidates
    if n_empty:
        found["Without a value"] = f"{count(n_empty, 'row')} with nothing to predict"
    return {name: value for name, value in found.items() if value}


def _at_the_cut(data: ReportData) -> Markup | str:
    """Return the calibrated numbers of the least released row, where they were recorded."""
    column = data.attributes.column
    nearest = pc.max if data.config.prefer == "lowest" else pc.min
    worst = {
        "percentile": nearest(column("percentile")).as_py(),
        "z": nearest(column("z")).as_py(),
        "false discovery": pc.max(column("false_discovery")).as_py(),
    }
    words = [f"{name} {number(value)}" for name, value in worst.items() if value is not None]
    if not words:
        return ""
    note = (
        "Percentile and z place the row among random rows of the corpus; false discovery estimates "
        "the part of the release, down to this row, that chance alone would bring."
    )
    return joined("; ".join(words), ". ", tag("span", note, class_="note"))


def _layer(style: str, values: np.ndarray, edges: np.ndarray) -> Layer:
    return Layer(STYLES[style], style, _counts(values, edges))


def _counts(values: np.ndarray, edges: np.ndarray) -> list[int]:
    # float32 edges of a bin may exclude the very value that made them
    inside = np.clip(values, None, edges[-1])
    return [int(n) for n in np.histogram(inside[inside >= edges[0]], bins=edges)[0]]


def _edges(low: float, high: float, n_rows: int) -> np.ndarray:
    """Return the borders of bins, fewer for few rows, so that bars are more than noise."""
    n_bins = min(MOST_BINS, max(FEWEST_BINS, int(2 * n_rows**0.5)))
    return np.linspace(low, high if high > low else low + 1.0, n_bins + 1)
