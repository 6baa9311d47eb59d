"""Tasks of the user's own rows: with labels, or with a behaviour planted in them."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from tasks.candidates import CandidateReader
from tasks.config import RowsConfig
from tasks.corpus import canonical_rows
from tasks.evaluate.method import LabelledText
from tasks.evaluate.planted import plant
from tasks.evaluate.settings import LabelledTask, PlantedTask
from tasks.evaluate.texts import TaskTexts
from tasks.fields import Tokenizer
from tasks.gate import Gate
from tasks.sources import read_records

SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class ReadRows:
    """Rows of a source, and how many of its records were not usable."""

    rows: list[LabelledText]
    n_rejected: int

    @property
    def note(self) -> str:
        """What a reader should know of what is missing; empty where nothing is."""
        return f" {self.n_rejected} records were not usable." if self.n_rejected else ""


def read_rows(rows: RowsConfig, tokenizer: Tokenizer, *, what: str) -> ReadRows:
    """Read rows as ingestion would: what fails its gate is left out.

    Raises:
        ValueError: More records than ``limits`` allow are not usable (the first are listed), or the
            source is missing, empty or damaged.
    """
    gate = Gate(CandidateReader(rows, tokenizer), rows.limits)
    parts = list(gate.judge(read_records(rows.source, rows.limits)))
    share, limit = gate.tally.rejected_share, rows.limits.max_rejected_share
    if share > limit or not gate.tally.n_kept:
        problems = [problem for part in parts for problem in part.rejected.to_pylist()]
        lines = [f"  {item['location']}: {item['reason']}" for item in problems[:SHOWN_PROBLEMS]]
        raise ValueError(
            f"{gate.tally.n_rejected} of {gate.tally.n_records} records of the {what} are not "
            f"usable ({share:.2%}; at most {limit:.2%} may be, limits.max_rejected_share):\n"
            + "\n".join([*lines, "Mend these records, or their field mapping (fields)."])
        )
    return ReadRows(_labelled([part.kept for part in parts]), gate.tally.n_rejected)


def read_queries(rows: RowsConfig, tokenizer: Tokenizer, *, what: str) -> list[LabelledText]:
    """Read queries, of which every record must be usable.

    Raises:
        ValueError: A record is not usable, or the source is missing, empty or damaged.
    """
    return _labelled([canonical_rows(rows, tokenizer, what=what)])


def _labelled(tables: Sequence[pa.Table]) -> list[LabelledText]:
    return [
        LabelledText(line["row_id"], line["text"], line["prompt_chars"], line["label"] or "")
        for table in tables
        for line in table.select(["row_id", "text", "prompt_chars", "label"]).to_pylist()
    ]


def labelled_task(task: LabelledTask, tokenizer: Tokenizer, *, seed: int) -> TaskTexts:
    """Return a task of rows that carry labels.

    Raises:
        ValueError: No label_field, no rows, or no label that rows and queries share.
    """
    _require_label_field(task)
    read = read_rows(task.rows, tokenizer, what=f"rows of task {task.name}")
    rows = read.rows
    if task.queries is None:
        rows, queries = _taken(rows, task, seed=seed)
        about = f"Up to {task.taken_queries} rows of a label were taken out as queries."
    else:
        queries = read_queries(task.queries, tokenizer, what=f"queries of task {task.name}")
        about = "Your own rows and queries."
        if task.query_labels:
            queries = [query for query in queries if query.label in task.query_labels]
    return TaskTexts(task.name, task.name, about + read.note, rows, queries)


def planted_task(task: PlantedTask, tokenizer: Tokenizer) -> TaskTexts:
    """Return a task with a behaviour planted in rows.

    Raises:
        ValueError: The rows are not usable, or too few.
    """
    read = read_rows(task.rows, tokenizer, what=f"rows of task {task.name}")
    texts = plant(read.rows, task.plant, name=task.name)
    return replace(texts, about=texts.about + read.note)


def asked_labels(rows: Sequence[LabelledText]) -> list[str]:
    """Return every label but the most frequent; all of them where the first two are as frequent."""
    counts = Counter(row.label for row in rows if row.label).most_common()
    if len(counts) > 1 and counts[0][1] > counts[1][1]:
        counts = counts[1:]
    return sorted(label for label, _ in counts)


def _require_label_field(task: LabelledTask) -> None:
    lacking = [
        name
        for name, rows in (("rows", task.rows), ("queries", task.queries))
        if rows is not None and rows.label_field is None
    ]
    if lacking:
        raise ValueError(
            f"task {task.name}: {' and '.join(lacking)} have no label_field, so nothing says which "
            "rows are right. Set it to a label, or to any column that says where a row came from; "
            "or use a task of kind planted, which needs no labels."
        )


def _taken(
    rows: Sequence[LabelledText], task: LabelledTask, *, seed: int
) -> tuple[list[LabelledText], list[LabelledText]]:
    """Take rows of the asked labels out of the pool, at most half of a label's rows."""
    wanted = list(task.query_labels) or asked_labels(rows)
    by_label: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_label[row.label].append(place)
    missing = [label for label in wanted if len(by_label[label]) < 2]
    if missing or not wanted:
        raise ValueError(
            f"task {task.name}: expected at least two rows of each label that is asked about "
            f"({wanted}), found {dict(sorted(Counter(row.label for row in rows).items()))}. "
            "Set query_labels, or give more rows."
        )
    draw = random.Random(f"taken {seed}")
    taken = {
        place
        for label in wanted
        for place in draw.sample(
            by_label[label], min(task.taken_queries, len(by_label[label]) // 2)
        )
    }
    queries = [row for place, row in enumerate(rows) if place in taken]
    return [row for place, row in enumerate(rows) if place not in taken], queries
