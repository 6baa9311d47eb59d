"""One fault for each gate, planted as a faulty source, model or program would make it.

Each function makes a small store, plants its fault, runs the stage, and returns what the gate said.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scored_store import SPACE, make_scored_store
from store_samples import make_rows
from tiny_rows import tiny_texts, write_texts

from rise_ops.codes import RowCodes
from storage.blocks import SignatureBlocks
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef
from tasks import block_work, release, release_files, scoring, signatures
from tasks.config import (
    FilesSource,
    IndexConfig,
    ModelConfig,
    RowLimits,
    RowsConfig,
    RuntimeConfig,
    ScoreConfig,
)
from tasks.corpus import IngestRefused, ingest_rows
from tasks.fields import Tokenizer
from tasks.index_gate import IndexRefused
from tasks.release_config import ReleaseConfig, TopK
from tasks.release_gate import ReleaseRefused
from tasks.scores_gate import ScoresRefused
from tasks.signature_config import ResidualConfig, SeparableSketch, SignatureConfig, WindowConfig

THREADS = RuntimeConfig(device="cpu", workers=1, batch_tokens=200)


def refused_batch(folder: Path, tokenizer: Tokenizer) -> IngestRefused:
    """Ingest 40 records of which three cannot be used; 5 % may be."""
    lines = [json.dumps({"id": f"row-{n}", "text": f"sentence {n} is short"}) for n in range(40)]
    lines[6] = lines[6][:-1]  # a broken line
    lines[17] = json.dumps({"id": "row-3", "text": "the id of another row"})
    lines[29] = json.dumps({"id": "row-29", "text": "  "})
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    rows = RowsConfig(
        source=FilesSource(paths=(str(path),)), id_field="id", limits=RowLimits(min_tokens=3)
    )
    with pytest.raises(IngestRefused) as caught:
        ingest_rows(CorpusRef(str(folder / "store"), "main"), rows, tokenizer)
    return caught.value


# ------------------------------------------------------------------------------------- index


def index_config(model: Path) -> IndexConfig:
    """Return settings for blocks of 16 rows of 96 numbers."""
    return IndexConfig(
        model=ModelConfig(name=str(model), dtype="float32"),
        signature=SignatureConfig(
            residual=ResidualConfig(temperature=1.0, top_k=64, mass=0.95),
            sketch=SeparableSketch(residual_dim=8, hidden_dim=8, projected_dim=4),
            window=WindowConfig(tokens=24, overlap=6),
        ),
        block_rows=16,
    )


def refused_index(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[np.ndarray], None]
) -> IndexRefused:
    """Build an index of 40 rows whose codes of block 1 (rows 16 to 31) are spoilt."""
    corpus, ref = CorpusRef(str(folder), "main"), IndexRef(str(folder), "main")
    write_texts(corpus, "b1", tiny_texts(40))
    real = block_work.encode

    def spoilt(rows: np.ndarray, code: Any) -> RowCodes:
        codes = real(rows, code)
        values = codes.values.copy()
        spoil(values)
        return replace(codes, values=values)

    def sketch_block(plan: Any, block: int, **named: Any) -> Any:
        with monkeypatch.context() as patch:
            if block == 1:
                patch.setattr(block_work, "encode", spoilt)
                patch.setattr(SignatureBlocks, "_check_values", lambda *_: None)
            return real_block(plan, block, **named)

    real_block = block_work.sketch_block
    with monkeypatch.context() as patch:
        patch.setattr(block_work, "sketch_block", sketch_block)
        with pytest.raises(IndexRefused) as caught:
            signatures.build_index(ref, corpus, index_config(model), THREADS)
    return caught.value


def lose_a_row(values: np.ndarray) -> None:
    """Make the fourth row of a block all zeros."""
    values[3] = 0


def break_two_rows(values: np.ndarray) -> None:
    """Put a NaN into two rows, not at their beginning."""
    values[[5, 9], 7] = np.nan


def forget_to_scale(values: np.ndarray) -> None:
    """Leave one row as long as a sum over its tokens would be."""
    values[2] *= 30


def index_that_drifts(folder: Path, model: Path) -> tuple[str, ...]:
    """Build an index that masks prompts, then append rows of which four are all prompt.

    Returns:
        What the second run warns of.
    """
    corpus, ref = CorpusRef(str(folder), "main"), IndexRef(str(folder), "main")
    config = index_config(model).model_copy(update={"positions": "completion"})
    write_texts(corpus, "b1", [f"{text} and more words" for text in tiny_texts(40)])
    signatures.build_index(ref, corpus, config, THREADS)
    short = [f"{'a' * (3 if n < 4 else 6)}{n}" for n in range(10)]
    write_texts(corpus, "b2", short, first=40)
    return signatures.build_index(ref, corpus, config, THREADS).warnings


# ------------------------------------------------------------------------------------ scores


def scores_without_a_query(folder: Path) -> ScoresRefused:
    """Score rows against queries whose signatures were lost."""
    store = make_scored_store(str(folder / "store"))
    queries = another_version(store.queries, np.zeros_like(store.query_signatures))
    with pytest.raises(ScoresRefused) as caught:
        scoring.score(store.index, queries, ScoreConfig(top_k=5), THREADS)
    return caught.value


def scores_turned_round(folder: Path) -> scoring.ScoreReport:
    """Score rows, then again after the sign of every query signature changed."""
    store = make_scored_store(str(folder / "store"))
    scoring.score(store.index, store.queries, ScoreConfig(top_k=5), THREADS)
    queries = another_version(store.queries, -store.query_signatures)
    return scoring.score(store.index, queries, ScoreConfig(top_k=5), THREADS)


def another_version(queries: QuerySetRef, numbers: np.ndarray) -> QuerySetRef:
    """Publish version v2 of a query set with these signatures."""
    return QuerySet.write(
        QuerySetRef(queries.root, queries.name, "v2"),
        queries=make_rows(1000, 1000 + len(numbers), source="queries.jsonl"),
        signatures=numbers.astype(np.float32),
        n_positions=np.ones(len(numbers), np.int32),
        manifest={"space": SPACE},
    )


# ----------------------------------------------------------------------------------- release


def refused_release(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ReleaseRefused:
    """Release twelve rows, of which one lost the end of its text on the way to the file."""
    store = make_scored_store(str(folder / "store"))
    scores = scoring.score(store.index, store.queries, ScoreConfig(top_k=5), THREADS).ref
    real = release_files._release_rows

    def cut(*arguments: Any) -> pa.Table:
        table = real(*arguments)
        texts = table.column("text").to_pylist()
        texts[4] = texts[4][:-3]
        return table.set_column(1, table.schema.field("text"), pa.array(texts))

    with monkeypatch.context() as patch:
        patch.setattr(release_files, "_release_rows", cut)
        with pytest.raises(ReleaseRefused) as caught:
            release.release(scores, "main", ReleaseConfig(select=TopK(top_k=12)))
    return caught.value
