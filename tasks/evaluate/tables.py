"""The tables that an evaluation leaves: their columns, how they are written, how they are read.

Whoever draws a report, or wants the numbers in a notebook, reads these and nothing else. One line
is one number with what it belongs to; a task's name and its paradigm say which task, a method's
name which method. Everything is there as Parquet, and whole, without texts, in ``results.json``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.files import publish_file, read_json, write_json
from storage.rows import conform, read_table, write_table

RESULTS_FILE = "results.json"
RESULTS_FORMAT = 2


def _schema(**columns: pa.DataType) -> pa.Schema:
    """Return a schema; a column's name that ends in ``_`` may hold null."""
    return pa.schema(
        [
            pa.field(name.removesuffix("_"), kind, nullable=name.endswith("_"))
            for name, kind in columns.items()
        ]
    )


_TASK = {"task": pa.string(), "paradigm": pa.string()}
_CELL = {**_TASK, "method": pa.string()}

TASKS_SCHEMA = _schema(
    **_TASK,
    title=pa.string(),
    about=pa.string(),
    n_rows=pa.int64(),
    of_rows=pa.int64(),
    n_queries=pa.int64(),
    of_queries=pa.int64(),
    n_positives=pa.int64(),
    positives_share=pa.float64(),
    median_tokens=pa.float64(),
    labels=pa.map_(pa.string(), pa.int64()),
    pool=pa.string(),
    caveat_=pa.string(),
    model=pa.string(),
    training_=pa.string(),
)
"""A task: its size, and of how many rows and queries that is (less where limits cut it).
``n_positives``: rows that are right for some query; ``positives_share``: of all pairs, the base
rate; ``labels``: rows of each; ``pool``: id of its rows' texts, the same for tasks that
share them, whatever their labels; ``caveat``: why it decides nothing whatever its numbers;
``training``: what was trained and how, for "recall"."""

METHODS_SCHEMA = _schema(
    method=pa.string(),
    key=pa.string(),
    family=pa.string(),
    positions_=pa.string(),
    settings=pa.string(),
)
"""A method: its name in the other tables, what settings call it, its family ("RISE", "gradients",
"words", ...), which positions of rows it reads (``all``, or ``completion``: behind their prompts;
null where it does not choose), and its settings as JSON."""

METRICS_SCHEMA = _schema(
    **_CELL,
    metric=pa.string(),
    k_=pa.int32(),
    value_=pa.float64(),
    low_=pa.float64(),
    high_=pa.float64(),
    n_used=pa.int32(),
    n_skipped=pa.int32(),
    control_=pa.float64(),
    control_deviation_=pa.float64(),
)
"""A metric's mean over queries, its 95 % bootstrap interval over queries, over how many queries,
and what it gives with shuffled positives. ``metric``: auprc, auroc, precision, recall (with ``k``),
full_ap, mrr, length_correlation (without). Null: not defined for any query; a control is null where
shuffled positives say nothing."""

PER_QUERY_SCHEMA = _schema(
    **_CELL, query_id=pa.string(), label=pa.string(), metric=pa.string(), k_=pa.int32(),
    value_=pa.float64(),
)  # fmt: skip
"""A metric of one query; null where the query is skipped."""

COSTS_SCHEMA = _schema(
    **_CELL,
    index_seconds=pa.float64(),
    query_seconds=pa.float64(),
    n_tokens=pa.int64(),
    tokens_per_second_=pa.float64(),
    bytes_per_row=pa.float64(),
    load_seconds_=pa.float64(),
    start_bytes_=pa.int64(),
    peak_bytes_=pa.int64(),
    increase_bytes_=pa.int64(),
    device_peak_bytes_=pa.int64(),
    pool=pa.string(),
    device=pa.string(),
    machine=pa.string(),
    made=pa.string(),
    notes=pa.list_(pa.string()),
)
"""What a method took when its scores were made (at the time ``made``, UTC), and its notes.

Tokens a second are of the rows, null where no model read any. ``load_seconds``: reading the model,
which is in no other seconds; null where it was in memory already. ``start_bytes``, ``peak_bytes``:
resident memory of the whole process when the method began, and at most; ``increase_bytes``: the
difference, which holds the model only where the method loaded it; ``device_peak_bytes``: tensors on
a CUDA device. Bytes of memory are null where parts were kept from before. ``pool``: id of rows with
their labels and of the model (not that of a task's line); what tasks with the same one share,
seconds for rows included. ``machine``: where this very result was made, as JSON."""

REFUSALS_SCHEMA = _schema(**_CELL, kind=pa.string(), reason=pa.string())
"""Why there are no scores: ``refused``, the method does not run on this task here; ``failed``, it
should have run."""

CURVES_SCHEMA = _schema(**_CELL, recall=pa.float64(), precision=pa.float64())
"""Precision at 41 levels of recall, mean over queries; at a level, the highest precision at that
recall or beyond."""

SPREAD_SCHEMA = _schema(
    **_CELL, is_positive=pa.bool_(), low=pa.float64(), high=pa.float64(), share=pa.float64()
)
"""How scores are spread: the share of positives, and of the others, in each bin. Scores are in
deviations from the query's mean; the outer bins hold whatever is beyond."""

EXAMPLES_SCHEMA = _schema(
    **_CELL,
    query_id=pa.string(),
    rank=pa.int32(),
    row_id=pa.string(),
    score=pa.float32(),
    is_positive=pa.bool_(),
    label=pa.string(),
    text=pa.string(),
    prompt_chars=pa.int32(),
)
"""The strongest rows of a few queries, rank from 1; rank 0 is the query itself, with score 0.
Texts are data of the user's: they are in this table alone."""

LDS_SCHEMA = _schema(
    **_CELL,
    kind=pa.string(),
    value_=pa.float64(),
    low_=pa.float64(),
    high_=pa.float64(),
    deviation_=pa.float64(),
    p_=pa.float64(),
    p_holm_=pa.float64(),
    to_best_low_=pa.float64(),
    to_best_high_=pa.float64(),
    to_label_low_=pa.float64(),
    to_label_high_=pa.float64(),
    n_constant_=pa.int32(),
    n_queries=pa.int32(),
    n_subsets=pa.int32(),
)
"""Linear datamodeling score, its 95 % interval over queries and subsets drawn together, deviation
over subsets. ``p``: share of shuffles of the rows' scores that are as high; ``p_holm``: corrected
for the number of methods. ``to_best_*``, ``to_label_*``: interval of the difference to the best
method and to ``same_domain``, on the same resamples. ``n_constant``: queries that count as 0, as
all their predictions or losses are equal. ``kind``: ``method``, or a control (then ``method`` names
it): ``control``, such as random scores; ``same_domain``; ``shuffled``, whose deviation is that of
one shuffle; ``ceiling`` and ``reliability``, of the ``n_subsets`` that were trained twice."""

TAIL_PATCH_SCHEMA = _schema(
    **_CELL,
    k=pa.int32(),
    value_=pa.float64(),
    low_=pa.float64(),
    high_=pa.float64(),
    random_=pa.float64(),
    above_=pa.float64(),
    above_low_=pa.float64(),
    above_high_=pa.float64(),
    tokens=pa.float64(),
    random_tokens=pa.float64(),
    n_queries=pa.int32(),
)
"""Change of a query's log-probability after one step on its strongest ``k`` rows, and on random
ones; the difference, paired by query, with its 95 % bootstrap interval over queries; and how many
predicted tokens a step had, mean."""

CLOSED_LOOP_SCHEMA = _schema(
    **_CELL,
    arm=pa.string(),
    seed=pa.int32(),
    n_rows=pa.int64(),
    n_tokens=pa.int64(),
    n_steps=pa.int64(),
    asked_tokens=pa.int64(),
    budget=pa.int64(),
    bound=pa.string(),
    purity_=pa.float64(),
    loss_target=pa.float64(),
    loss_elsewhere_=pa.float64(),
    apart_=pa.float64(),
    apart_low_=pa.float64(),
    apart_high_=pa.float64(),
)
"""A training on rows chosen by a method. ``arm``: top, random, bottom, oracle, base; arms that
need no method have an empty one. Tokens are predicted ones, of the rows once; ``bound`` is what the
budget is bound by: ``asked``, ``oracle`` (its rows have no more) or ``pool`` (half of it).
``apart``: of the arm's seeds together, random - top, random - oracle, bottom - random on the
target, with its 95 % bootstrap interval over held-out texts."""


@dataclass(frozen=True)
class Tables:
    """Everything that an evaluation leaves; a table that was not asked for is empty."""

    tasks: pa.Table = field(default_factory=TASKS_SCHEMA.empty_table)
    methods: pa.Table = field(default_factory=METHODS_SCHEMA.empty_table)
    metrics: pa.Table = field(default_factory=METRICS_SCHEMA.empty_table)
    per_query: pa.Table = field(default_factory=PER_QUERY_SCHEMA.empty_table)
    costs: pa.Table = field(default_factory=COSTS_SCHEMA.empty_table)
    refusals: pa.Table = field(default_factory=REFUSALS_SCHEMA.empty_table)
    curves: pa.Table = field(default_factory=CURVES_SCHEMA.empty_table)
    spread: pa.Table = field(default_factory=SPREAD_SCHEMA.empty_table)
    examples: pa.Table = field(default_factory=EXAMPLES_SCHEMA.empty_table)
    lds: pa.Table = field(default_factory=LDS_SCHEMA.empty_table)
    tail_patch: pa.Table = field(default_factory=TAIL_PATCH_SCHEMA.empty_table)
    closed_loop: pa.Table = field(default_factory=CLOSED_LOOP_SCHEMA.empty_table)
    about: Mapping[str, Any] = field(default_factory=dict)
    """``command``, ``date``, ``machine``, ``versions``, ``model``, ``settings``, ``lineage``."""


TABLE_NAMES = tuple(one.name for one in fields(Tables) if one.name != "about")
LONG = ("per_query", "curves", "spread", "examples")
"""Tables that are left out of ``results.json``: too long for it, or with texts."""


def write_tables(folder: Path, tables: Tables) -> None:
    """Write every table as Parquet, and ``results.json`` last; each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"format": RESULTS_FORMAT, "about": dict(tables.about)}
    for name in TABLE_NAMES:
        table = conform(getattr(tables, name), _empty(name).schema, what=name)

        def write(path: Path, table: pa.Table = table) -> None:
            write_table(path, table)

        publish_file(folder / f"{name}.parquet", write)
        if name not in LONG:
            results[name] = [_plain(line) for line in table.to_pylist()]
    write_json(folder / RESULTS_FILE, results)


def read_tables(folder: Path) -> Tables:
    """Read what `write_tables` wrote.

    Raises:
        NotFoundError: There are no results.
        CorruptionError: A table is missing or damaged.
        ValueError: The results are of another version of this program.
    """
    results = read_json(folder / RESULTS_FILE)
    if results.get("format") != RESULTS_FORMAT:
        raise ValueError(
            f"{folder / RESULTS_FILE}: expected results of format {RESULTS_FORMAT}, found "
            f"{results.get('format')!r}. Run the evaluation again; what was scored is kept."
        )
    tables = {name: read_table(folder / f"{name}.parquet") for name in TABLE_NAMES}
    return Tables(**tables, about=results["about"])


def lines_table(name: str, lines: list[dict[str, Any]]) -> pa.Table:
    """Return lines as the table of that name.

    Raises:
        ValueError: A line lacks a column or has one too many, or a value does not fit.
    """
    schema = _empty(name).schema
    wrong = next((line for line in lines if set(line) != set(schema.names)), None)
    if wrong is not None:
        raise ValueError(f"{name}: expected columns {schema.names}, got {sorted(wrong)}.")
    return pa.Table.from_pylist(lines, schema=schema)


def _empty(name: str) -> pa.Table:
    return getattr(Tables(), name)


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    # pyarrow gives a map column as a list of pairs
    return {name: dict(value) if name == "labels" else value for name, value in line.items()}
