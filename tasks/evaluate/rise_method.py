"""RISE as its users run it: a store of its own, every stage with its gates, the scores with matrix.

The store lies in the method's work folder, so that a killed run goes on at the block where it
stopped, as a build of any index does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from storage.files import read_json, write_bytes, write_json
from storage.refs import CorpusRef, IndexRef, ScoresRef
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks.backbone import load_tokenizer
from tasks.config import (
    FilesSource,
    IndexConfig,
    RowLimits,
    RowsConfig,
    ScoreConfig,
    TextFields,
)
from tasks.config_file import validated
from tasks.corpus import ingest
from tasks.evaluate.measuring import Stopwatch, timed_backbone
from tasks.evaluate.method import Cost, LabelledText, MethodRefused, MethodScores, PreparedTask
from tasks.progress import NO_PROGRESS, Progress
from tasks.quality_gate import GateRefused
from tasks.queries import make_query_set
from tasks.scoring import score
from tasks.signature_config import DEFAULT_PRESET, PRESETS, SignatureConfig
from tasks.signatures import IndexReport, build_index

RISE_METHOD_VERSION = 1
"""Raised whenever the same settings would give other numbers."""

NAME = "evaluate"
SCALE_BYTES = 4
BUILD_FILE = "index-cost.json"
BLOCK_ROWS = 256
"""Rows a block: what a killed run may lose."""


@dataclass(frozen=True)
class RiseMethod:
    """RISE with a preset, or with settings of a signature written out.

    Attributes:
        preset: Name of a preset; not looked at where ``signature`` is given.
        signature: Settings of a signature.
        positions: Of rows: all, or those behind the prompt.
    """

    preset: str = DEFAULT_PRESET
    signature: Mapping[str, Any] | None = None
    positions: Literal["all", "completion"] = "all"

    @property
    def name(self) -> str:
        """See `Method`."""
        return "RISE, own settings" if self.signature is not None else f"RISE {self.preset}"

    @property
    def settings(self) -> dict[str, object]:
        """See `Method`; the whole signature, so that a preset that changes is another method."""
        return {
            "version": RISE_METHOD_VERSION,
            "signature": self._signature().model_dump(mode="json"),
            "positions": self.positions,
        }

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`."""
        try:
            return self._scores(task, progress)
        except GateRefused as error:
            raise MethodRefused(str(error)) from error

    def _scores(self, task: PreparedTask, progress: Progress) -> MethodScores:
        home, watch = task.pool_work or task.work, Stopwatch()
        root = str(home / "store")
        _, loading = timed_backbone(task)
        with watch("index"):
            rows = _source(home / "rows.jsonl", task.rows)
            ingest(CorpusRef(root, NAME), rows, task.model)
            indexed = self._index(root, task, progress)
        built = _added_up(home / BUILD_FILE, watch["index"], indexed)
        with watch("query"):
            found, n_missing, n_silent = _answered(root, indexed, task)
        cost = Cost(
            index_seconds=built["seconds"],
            query_seconds=watch["query"],
            n_tokens=int(built["n_tokens"]),
            bytes_per_row=_row_bytes(indexed.ref),
            load_seconds=loading,
            reused=indexed.n_sketched < indexed.n_rows,
        )
        notes = _notes(built, indexed, n_missing)
        if n_silent:
            silent = f"{n_silent} of {len(task.queries)} queries have no predicted token"
            notes = (*notes, f"{silent}, and score 0")
        return MethodScores(found, cost, notes)

    def _index(self, root: str, task: PreparedTask, progress: Progress) -> IndexReport:
        ref, corpus = IndexRef(root, NAME), CorpusRef(root, NAME)
        config = IndexConfig(
            model=task.model,
            signature=self._signature(),
            positions=self.positions,
            block_rows=BLOCK_ROWS,
        )
        return build_index(ref, corpus, config, task.runtime, progress=progress)

    def _signature(self) -> SignatureConfig:
        if self.signature is not None:
            return validated(SignatureConfig, self.signature, origin="signature")
        if self.preset not in PRESETS:
            raise ValueError(f"there is no preset {self.preset!r}; presets: {', '.join(PRESETS)}.")
        return PRESETS[self.preset]


def _row_bytes(ref: IndexRef) -> float:
    """Return the bytes of a row and of its scale; blocks on disk are filled up, so are more."""
    index = SignatureIndex.open(ref)
    return float(index.row_bytes + (0 if index.code == "float16" else SCALE_BYTES))


def _source(path: Path, texts: Sequence[LabelledText]) -> RowsConfig:
    """Write texts as JSON Lines, and say how they are read: nothing may be left out for length."""
    lines = [
        json.dumps(
            {
                "id": one.text_id,
                "text": one.text,
                "prompt": one.text[: one.prompt_chars],
                "label": one.label,
            },
            ensure_ascii=False,
        )
        for one in texts
    ]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return RowsConfig(
        source=FilesSource(paths=(str(path),), format="jsonl"),
        fields=TextFields(text="text", prompt="prompt"),
        id_field="id",
        label_field="label",
        limits=RowLimits(max_rejected_share=0.5),
    )


def _answered(
    root: str, indexed: IndexReport, task: PreparedTask
) -> tuple[npt.NDArray[np.float32], int, int]:
    """Return scores of all rows and queries, how many rows have none, and how many queries.

    A query without a completion scores 0, as with every method that runs a model.
    """
    asked = _with_completion(task)
    found = np.zeros((len(task.rows), len(task.queries)), dtype=np.float32)
    if not asked:
        return found, 0, len(task.queries)
    source = _source(task.work / "queries.jsonl", [task.queries[place] for place in asked])
    queries = make_query_set(root, NAME, indexed.ref, source, task.runtime, model=task.model)
    keep_all = ScoreConfig(top_k=1, full_matrix=True)
    scored = score(indexed.ref, queries.ref, keep_all, task.runtime)
    found[:, asked], n_missing = _in_order(scored.ref, task.rows)
    return found, n_missing, len(task.queries) - len(asked)


def _with_completion(task: PreparedTask) -> list[int]:
    """Return the places of queries that have a token to predict behind their prompt."""
    rows = load_tokenizer(task.model).encode(
        [one.text for one in task.queries], [one.prompt_chars for one in task.queries]
    )
    return [place for place, row in enumerate(rows) if len(row.ids) > max(row.first_target, 1)]


def _in_order(ref: ScoresRef, rows: Sequence[LabelledText]) -> tuple[npt.NDArray[np.float32], int]:
    """Return scores in the order of the task's rows, and how many rows have none.

    A row that the gate put aside scores as the lowest row of each query does.
    """
    scores = Scores.open(ref)
    shape = scores.manifest["matrix"]
    n_blocks = -(-shape["n_rows"] // shape["block_rows"])
    matrix = np.concatenate([scores.matrix_block(block) for block in range(n_blocks)])
    place = {row_id: at for at, row_id in enumerate(scores.values()["row_id"].to_pylist())}
    known = np.array([place.get(row.text_id, -1) for row in rows])
    found = matrix[known].astype(np.float32)
    found[known < 0] = matrix.min(axis=0)
    return found, int((known < 0).sum())


def _added_up(path: Path, seconds: float, indexed: IndexReport) -> dict[str, float]:
    """Return what the index took in all: its rows may have been sketched by several runs.

    Rows beyond those of the index are of a store that was deleted since, and do not count.
    """
    before = read_json(path) if path.is_file() else {"seconds": 0.0, "n_tokens": 0, "n_rows": 0}
    if indexed.n_sketched == 0:
        return before
    if before["n_rows"] + indexed.n_sketched > indexed.n_rows:
        before = dict.fromkeys(before, 0.0)
    now = {"seconds": seconds, "n_tokens": indexed.n_tokens, "n_rows": indexed.n_sketched}
    added = {name: before[name] + now[name] for name in now}
    write_json(path, added)
    return added


def _notes(built: Mapping[str, float], indexed: IndexReport, n_missing: int) -> tuple[str, ...]:
    notes = [f"{indexed.dtype} on {indexed.device}"]
    if n_missing:
        notes.append(f"{n_missing} rows did not pass the gate of ingestion and score lowest")
    if indexed.n_empty:
        notes.append(f"{indexed.n_empty} rows predict no token")
    if indexed.n_sketched == 0:
        notes.append("the index of a task with the same pool, or of a run before; its seconds")
    if built["n_rows"] < indexed.n_rows:
        notes.append(
            f"a run before was stopped: seconds and tokens are of {built['n_rows']:,.0f} of "
            f"{indexed.n_rows:,} rows"
        )
    if indexed.calibration_warning:
        notes.append(indexed.calibration_warning)
    return (*notes, *indexed.warnings)
