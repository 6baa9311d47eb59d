"""Does the model feel alike about two texts? Cosine of mean final hidden states, in several codes.

The states are kept by what they follow from, in the folder of the pool: a further code, centring or
task of the pool costs no forward pass, and is told the seconds of the one that was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from rise_ops.baselines.mean_hidden_state import (
    StateCode,
    kept_states,
    mean_state_scores,
    mean_states,
)
from storage.files import publish_file, short_id, waiting_lock
from tasks.backbone import load_tokenizer, resolve_device, resolve_dtype
from tasks.evaluate.measuring import Stopwatch, timed_backbone
from tasks.evaluate.method import Cost, LabelledText, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.positions import Which, read_positions
from tasks.evaluate.texts import labelled_digest
from tasks.models import model_fingerprint, resolve_model
from tasks.progress import NO_PROGRESS, Progress

MEAN_STATE_VERSION = 1
"""Raised whenever the same settings would give other numbers."""


@dataclass(frozen=True)
class MeanStateMethod:
    """Cosine of mean final hidden states; a query's prompt does not count.

    Attributes:
        positions: Of rows: all, or those behind the prompt.
        code: How rows are kept; queries are float32 always.
        centre: Take the rows' mean off rows and queries.
    """

    positions: Which = "all"
    code: StateCode = "float32"
    centre: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no code has.

        Raises:
            ValueError: ``positions`` or ``code`` is unknown.
        """
        for name, value, known in (
            ("positions", self.positions, get_args(Which)),
            ("code", self.code, get_args(StateCode)),
        ):
            if value not in known:
                raise ValueError(
                    f"methods: {name} of a mean hidden state must be one of "
                    f"{', '.join(known)}, got {value!r}."
                )

    @property
    def name(self) -> str:
        """See `Method`."""
        words = ["centred"] if self.centre else []
        words += [] if self.code == "float32" else [self.code]
        return f"mean hidden state{', ' if words else ''}{' '.join(words)}"

    @property
    def settings(self) -> dict[str, object]:
        """See `Method`."""
        return {
            "version": MEAN_STATE_VERSION,
            "positions": self.positions,
            "code": self.code,
            "centre": self.centre,
        }

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`."""
        watch = Stopwatch()
        rows = _states(task, task.rows, self.positions)
        queries = _states(task, task.queries, "completion")
        with watch("index"):
            try:
                kept = kept_states(rows.values, code=self.code, centre=self.centre)
            except ValueError as error:
                raise MethodRefused(f"{self.name}: {error}. Choose another code.") from error
        with watch("query"):
            found = mean_state_scores(kept, queries.values)
        cost = Cost(
            index_seconds=rows.seconds + watch["index"],
            query_seconds=queries.seconds + watch["query"],
            n_tokens=rows.n_tokens,
            bytes_per_row=float(kept.row_bytes),
            load_seconds=queries.load_seconds if rows.reused else rows.load_seconds,
            reused=rows.reused or queries.reused,
        )
        return MethodScores(found, cost, _notes(rows, queries))


@dataclass(frozen=True, eq=False)
class _States:
    """Mean states of texts.

    Attributes:
        values: float32 ``[texts, hidden]``, see `mean_states`.
        seconds: What the forward pass took, whenever it was.
        n_tokens: Tokens that the model read.
        load_seconds: See `Cost`.
        reused: They were kept from before.
    """

    values: np.ndarray
    seconds: float
    n_tokens: int
    load_seconds: float | None
    reused: bool

    @property
    def n_empty(self) -> int:
        """Texts without a position that counts."""
        return int((~self.values.any(axis=1)).sum())


def _states(task: PreparedTask, texts: Sequence[LabelledText], which: Which) -> _States:
    """Return the mean states of texts, kept or made now; a second process waits for the first."""
    identity = {
        "version": MEAN_STATE_VERSION,
        "positions": which,
        "model": model_fingerprint(resolve_model(task.model).path),
        "dtype": resolve_dtype(task.model.dtype, device=resolve_device(task.runtime.device)),
        "texts": labelled_digest(texts),
    }
    path = (task.pool_work or task.work).parent / f"mean-states-{short_id(identity)}.npz"
    with waiting_lock(path.with_suffix(".lock")):
        reused = path.is_file()
        loading = None if reused else _keep(path, task, texts, which)
    with np.load(path) as stored:
        seconds, n_tokens = stored["cost"].tolist()
        return _States(stored["states"], seconds, int(n_tokens), loading, reused)


def _keep(
    path: Path, task: PreparedTask, texts: Sequence[LabelledText], which: Which
) -> float | None:
    """Run the model over texts and keep their mean states; return the seconds of loading it."""
    watch, (backbone, loading) = Stopwatch(), timed_backbone(task)
    loaded = (backbone, load_tokenizer(task.model))
    with watch("reading"):
        read = read_positions(texts, which, task.model, loaded, task.runtime)
        positions = read.positions
        states = mean_states(
            positions.hidden.float().cpu().numpy(),
            positions.text_index.cpu().numpy(),
            n_texts=positions.n_texts,
        )
    arrays = {"states": states, "cost": np.array([watch["reading"], float(read.n_tokens)])}

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    publish_file(path, write)
    return loading


def _notes(rows: _States, queries: _States) -> tuple[str, ...]:
    notes = []
    if rows.reused:
        notes.append("states of a method or task with the same pool; their seconds")
    for one, what in ((rows, "rows"), (queries, "queries")):
        if one.n_empty:
            notes.append(
                f"{one.n_empty} of {len(one.values)} {what} have no predicted token, and score 0"
            )
    return tuple(notes)
