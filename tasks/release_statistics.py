"""What a release changed: lengths, sources, labels and languages of the rows before and after.

*Before* are all rows that could have been selected, *after* those that were. Lengths, sources and
labels are counted on every row; languages on a sample of at most SAMPLE_ROWS, since a text must
be read for them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.languages import LIBRARY, languages, library_version

SAMPLE_ROWS = 2048
"""Rows whose language is looked at, before and after each: a share of 50 % is known to 2 %."""

RUN_ROWS = 8
"""Neighbours that are sampled together, so that few row groups of a large corpus are read."""

MOST_VALUES = 1000
"""Values of one field listed one by one; the rest is summed up as ``other``."""

LENGTH_EDGES = tuple(2**power for power in range(22))
"""Lower edges of the length bins, tokens; the last bin is open."""

QUANTILES = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}


def release_statistics(
    before: pa.Table, after: pa.Table, *, texts_before: Sequence[str], texts_after: Sequence[str]
) -> dict[str, Any]:
    """Return the histograms of a release, as JSON values.

    Args:
        before: n_tokens, source and label of every row that could have been selected.
        after: The same of the released rows.
        texts_before: Texts of a sample of the rows before.
        texts_after: Texts of a sample of the released rows.
    """
    both = {"before": before, "after": after}
    lengths = {name: table.column("n_tokens").to_numpy() for name, table in both.items()}
    spoken = {"before": languages(texts_before), "after": languages(texts_after)}
    return {
        "rows": {name: table.num_rows for name, table in both.items()},
        "tokens": {name: int(length.sum(dtype=np.int64)) for name, length in lengths.items()},
        "length": _length_histogram(lengths),
        "source": _value_counts({name: _counted(both[name], "source") for name in both}),
        "label": _value_counts({name: _counted(both[name], "label") for name in both}),
        "language": {
            **_value_counts({name: Counter(found) for name, found in spoken.items()}),
            "sampled": {name: len(found) for name, found in spoken.items()},
            "library": LIBRARY,
            "version": library_version(),
        },
    }


def sample_places(n_rows: int) -> NDArray[np.int64]:
    """Return the places of a sample: all, or SAMPLE_ROWS in runs spread evenly over the rows."""
    if n_rows <= SAMPLE_ROWS:
        return np.arange(n_rows)
    starts = np.linspace(0, n_rows - RUN_ROWS, SAMPLE_ROWS // RUN_ROWS).astype(np.int64)
    places: NDArray[np.int64] = np.unique(starts[:, None] + np.arange(RUN_ROWS))
    return places


def _length_histogram(lengths: Mapping[str, NDArray[np.int32]]) -> dict[str, Any]:
    edges = np.array([*LENGTH_EDGES, np.iinfo(np.int64).max], np.int64)
    levels = list(QUANTILES.values())
    return {
        "unit": "tokens",
        "edges": list(LENGTH_EDGES),
        **{
            name: np.histogram(found.astype(np.int64), edges)[0].tolist()
            for name, found in lengths.items()
        },
        "quantiles": {
            name: dict(zip(QUANTILES, _quantiles(found, levels), strict=True))
            for name, found in lengths.items()
        },
    }


def _quantiles(lengths: NDArray[np.int32], levels: Sequence[float]) -> list[int | None]:
    if len(lengths) == 0:
        return [None] * len(levels)
    found: list[int | None] = np.quantile(lengths, levels, method="lower").tolist()
    return found


def _counted(table: pa.Table, name: str) -> Counter[str | None]:
    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    pairs = pc.value_counts(column.combine_chunks()).to_pylist()
    return Counter({pair["values"]: pair["counts"] for pair in pairs})


def _value_counts(counts: Mapping[str, Counter[Any]]) -> dict[str, Any]:
    """Return the commonest values with both counts; null is a value as any other."""
    before, after = counts["before"], counts["after"]
    every = sorted(before | after, key=lambda v: (-before[v], -after[v], v is None, str(v)))
    shown = every[:MOST_VALUES]
    return {
        "n_values": {name: len(found) for name, found in counts.items()},
        "values": [
            {"value": value, "before": before[value], "after": after[value]} for value in shown
        ],
        "other": {
            name: sum(found[value] for value in every[MOST_VALUES:])
            for name, found in counts.items()
        },
    }
