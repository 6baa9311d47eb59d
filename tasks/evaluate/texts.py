"""The texts of a task: a pool of rows, queries, and which rows are right for which query.

Right means of one label, and a label says where a row came from, never what its text looks like.
The pool is shuffled by a seed, so that equal scores rank by chance, and limits take a random part.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from storage.files import digest
from tasks.evaluate.method import LabelledText
from tasks.evaluate.settings import TaskLimits


@dataclass(frozen=True, eq=False)
class TaskTexts:
    """A task before any model sees it.

    Attributes:
        name: As in the settings.
        title: For people.
        about: What a reader should know of it: its traps, what was made how.
        rows: The pool.
        queries: What is asked about.
        held_out: Further texts of the pool's kinds, in neither; for losses after training.
        of_rows: Rows before limits.
        of_queries: Queries before limits.
        caveat: Why it decides nothing between methods, whatever its numbers; empty where it may.
    """

    name: str
    title: str
    about: str
    rows: Sequence[LabelledText]
    queries: Sequence[LabelledText]
    held_out: Sequence[LabelledText] = ()
    of_rows: int = 0
    of_queries: int = 0
    caveat: str = ""

    @cached_property
    def positives(self) -> npt.NDArray[np.bool_]:
        """Rows of a query's label, bool ``[rows, queries]``; rows without a label are nobody's."""
        rows = np.array([row.label for row in self.rows], dtype=object)
        queries = np.array([query.label for query in self.queries], dtype=object)
        return np.asarray((rows[:, None] == queries[None, :]) & (queries[None, :] != ""))

    @property
    def labels(self) -> dict[str, int]:
        """Rows of each label."""
        return dict(sorted(Counter(row.label for row in self.rows).items()))

    @cached_property
    def identity(self) -> str:
        """Digest of rows, queries and their labels, in their order."""
        return pair_digest(self.rows, self.queries)


def pair_digest(rows: Sequence[LabelledText], queries: Sequence[LabelledText]) -> str:
    """Return a digest of rows and queries, with labels, borders and ids, in their order."""
    return digest({"rows": labelled_digest(rows), "queries": labelled_digest(queries)})


def labelled_digest(texts: Sequence[LabelledText]) -> str:
    """Return a digest of texts, borders, labels and ids, in their order."""
    parts = hashlib.sha256()
    for one in texts:
        for field in (one.text_id, one.text, str(one.prompt_chars), one.label):
            data = field.encode()
            parts.update(len(data).to_bytes(8, "little") + data)
    return parts.hexdigest()


def limited(texts: TaskTexts, limits: TaskLimits, *, seed: int) -> TaskTexts:
    """Return a task with its rows shuffled, and so many rows and queries, drawn by seed.

    Queries keep their order.

    Raises:
        ValueError: No row is right for any query that is left, or every row is right for each.
    """
    rows = list(texts.rows)
    random.Random(f"rows {seed}").shuffle(rows)
    order = list(range(len(texts.queries)))
    random.Random(f"queries {seed}").shuffle(order)
    chosen = sorted(order[: limits.queries])
    taken = replace(
        texts,
        rows=rows[: limits.rows],
        queries=[texts.queries[place] for place in chosen],
        of_rows=len(texts.rows),
        of_queries=len(texts.queries),
    )
    _require_both_kinds(taken)
    return taken


def _require_both_kinds(texts: TaskTexts) -> None:
    positives = texts.positives
    asked = sorted({query.label for query in texts.queries})
    counts = f"{len(texts.rows)} rows ({texts.labels}) and {len(texts.queries)} queries ({asked})"
    if not positives.any():
        raise ValueError(
            f"task {texts.name}: no row has the label of any query, among {counts}. Set "
            "label_field for rows and queries alike, or raise the limit of rows."
        )
    if positives.all():
        raise ValueError(
            f"task {texts.name}: every row has the label of every query, among {counts}, so that "
            "any method would be right. Add rows of other labels."
        )
