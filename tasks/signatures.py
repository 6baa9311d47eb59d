"""Stage: every row of a corpus gets its signature, block by block.

A block is one unit of work, of storage and of resume: its bytes follow from its rows, the index's
config and the kind of device. Rows are only ever appended, so a build does the blocks that are not
recorded as done, the last, half-full one anew, and nothing else. Whether there is anything to do is
known from fingerprints, without loading the model.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.corpus import Corpus
from storage.errors import MismatchError, NotFoundError
from storage.files import digest
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex, flat_differences, index_lock
from tasks.backbone import load_backbone, resolve_device
from tasks.config import IndexConfig, ModelConfig, RuntimeConfig, SignatureConfig
from tasks.memory import require_memory
from tasks.progress import NO_PROGRESS, Progress
from tasks.sketching import sketch_rows
from tasks.space import (
    SignatureSpace,
    draw_space_tables,
    load_space,
    n_signature_numbers,
    space_identity,
    tables_digest,
)

FORMAT = 1

TABLES_KEY = "tables_sha256"
"""Field of a stored space that needs the sketch tables; the rest is known from fingerprints."""


@dataclass(frozen=True)
class IndexPlan:
    """What a build will do.

    Attributes:
        ref: The index.
        corpus: Its corpus.
        config: Identity of the index.
        runtime: Speed only.
        batches: Corpus batches that it will cover, in corpus order.
        n_rows: Their rows.
        blocks: Numbers of the blocks that are missing.
        n_blocks: All blocks.
        predicted_bytes: Memory that the work will take; 0 when there is none to do.
    """

    ref: IndexRef
    corpus: CorpusRef
    config: IndexConfig
    runtime: RuntimeConfig
    batches: tuple[str, ...]
    n_rows: int
    blocks: tuple[int, ...]
    n_blocks: int
    predicted_bytes: int


@dataclass(frozen=True)
class BlockReport:
    """What was done for one block."""

    block: int
    n_rows: int
    n_tokens: int
    n_empty: int
    seconds: float


@dataclass(frozen=True)
class IndexReport:
    """The state of an index after a build.

    Attributes:
        ref: The index.
        index_id: Short id of its identity.
        path: Its folder.
        n_rows: Rows that have a signature.
        n_sketched: Rows that were sketched now.
        n_empty: Rows, of all, without a predicted token.
        n_tokens: Tokens that were sketched now.
        tokens_per_second: Of the sketching; 0 when nothing was to do.
        n_bytes: Size of the signatures on disk.
        predicted_bytes: Memory that was predicted; 0 when nothing was to do.
        device: Where it ran.
        dtype: Number format of the model.
        seconds: Time spent on blocks.
    """

    ref: IndexRef
    index_id: str
    path: str
    n_rows: int
    n_sketched: int
    n_empty: int
    n_tokens: int
    tokens_per_second: float
    n_bytes: int
    predicted_bytes: int
    device: str
    dtype: str
    seconds: float


def writing_index(ref: IndexRef) -> AbstractContextManager[None]:
    """Return the lock that a build holds from plan to commit.

    Raises:
        BusyError: Another process is building the index (on entering).
    """
    return index_lock(ref)


def plan_index(
    ref: IndexRef, corpus: CorpusRef, config: IndexConfig, runtime: RuntimeConfig
) -> IndexPlan:
    """Make the index if it is missing, and find the blocks that are still to do.

    The caller holds `writing_index`.

    Raises:
        NotFoundError: The corpus has no rows.
        MismatchError: The index exists with another model, tokenizer, sketch, number format,
            corpus, choice of positions or block size.
        ValueError: The model does not read windows that long.
        MemoryError: The work will not fit into memory.
    """
    batches = tuple(batch.batch_id for batch in Corpus.batches(corpus))
    contents = _block_contents(Corpus(corpus), batches, block_rows=config.block_rows)
    device = resolve_device(runtime.device)
    identity = index_identity(corpus, config, device=device)
    index = _existing_index(ref, identity)
    missing = tuple(
        block
        for block, (rows_digest, _) in enumerate(contents)
        if index is None or not index.is_done(block, rows_digest)
    )
    n_rows = sum(size for _, size in contents)
    predicted_bytes = 0
    if missing:
        dtype = identity["space"]["dtype"]
        predicted_bytes = require_memory(config, runtime, device=device, dtype=dtype)
    if index is None:
        index = _create_index(ref, identity, config, device=device)
    index.remember_model(config.model.model_dump(mode="json"))
    index.reserve(n_rows)
    return IndexPlan(
        ref=ref,
        corpus=corpus,
        config=config,
        runtime=runtime,
        batches=batches,
        n_rows=n_rows,
        blocks=missing,
        n_blocks=len(contents),
        predicted_bytes=predicted_bytes,
    )


def sketch_block(plan: IndexPlan, block: int) -> BlockReport:
    """Sketch the rows of one block and store it; safe to run in another process.

    Raises:
        ValueError: A row cannot be sketched; the message names block and row. Nothing is stored.
        MemoryError: One window alone does not fit into memory.
        MismatchError: The model is not the one that the index was planned with.
    """
    started = time.monotonic()
    index = SignatureIndex.open(plan.ref)
    device = resolve_device(plan.runtime.device)
    space = index_space(index, plan.config.model, device=device)
    size = plan.config.block_rows
    rows = Corpus(plan.corpus).rows(
        block * size, min((block + 1) * size, plan.n_rows), batches=plan.batches
    )
    masked = plan.config.positions == "completion"
    token_rows = space.tokenizer.encode(
        [row.text for row in rows], [row.prompt_chars if masked else 0 for row in rows]
    )
    signatures, n_positions = sketch_rows(
        token_rows,
        space,
        plan.runtime,
        row_ids=[row.row_id for row in rows],
        where=f"index {plan.ref.index!r}, block {block}",
    )
    n_tokens = sum(len(row.ids) for row in token_rows)
    index.write_block(
        block,
        signatures.astype(np.float16),
        n_positions,
        rows_digest=digest([[row.row_id, row.content_hash] for row in rows]),
        n_tokens=n_tokens,
    )
    return BlockReport(
        block=block,
        n_rows=len(rows),
        n_tokens=n_tokens,
        n_empty=int(np.count_nonzero(n_positions == 0)),
        seconds=time.monotonic() - started,
    )


def commit_index(plan: IndexPlan, reports: Sequence[BlockReport]) -> IndexReport:
    """Make the planned rows what readers see; the caller holds `writing_index`.

    Raises:
        IncompleteError: A block is missing.
    """
    index = SignatureIndex.open(plan.ref)
    index.commit(plan.batches, plan.n_rows)
    records = [index.block_record(block) or {} for block in range(plan.n_blocks)]
    seconds = sum(report.seconds for report in reports)
    n_tokens = sum(report.n_tokens for report in reports)
    return IndexReport(
        ref=plan.ref,
        index_id=index.index_id,
        path=str(index.folder),
        n_rows=plan.n_rows,
        n_sketched=sum(report.n_rows for report in reports),
        n_empty=sum(record["n_empty"] for record in records),
        n_tokens=n_tokens,
        tokens_per_second=n_tokens / seconds if seconds else 0.0,
        n_bytes=sum(record["shard_bytes"] + record["positions_bytes"] for record in records),
        predicted_bytes=plan.predicted_bytes,
        device=resolve_device(plan.runtime.device),
        dtype=index.identity["space"]["dtype"],
        seconds=seconds,
    )


def build_index(
    ref: IndexRef,
    corpus: CorpusRef,
    config: IndexConfig,
    runtime: RuntimeConfig,
    *,
    progress: Progress = NO_PROGRESS,
) -> IndexReport:
    """Bring an index up to its corpus: plan, every missing block, commit; under the lock.

    Raises:
        BusyError: Another process is building it.
    """
    with writing_index(ref):
        plan = plan_index(ref, corpus, config, runtime)
        progress.start(total=len(plan.blocks), unit="blocks")
        reports = []
        for block in plan.blocks:
            reports.append(sketch_block(plan, block))
            progress.advance(1)
        return commit_index(plan, reports)


def index_identity(corpus: CorpusRef, config: IndexConfig, *, device: str) -> dict[str, Any]:
    """Return what decides the values in an index, all but the sketch tables."""
    return {
        "format": FORMAT,
        "corpus": corpus.corpus,
        "space": space_identity(config.model, config.signature, device=device),
        "positions": config.positions,
        "block_rows": config.block_rows,
    }


def index_space(index: SignatureIndex, model: ModelConfig, *, device: str) -> SignatureSpace:
    """Load the space of an index: its stored sketch tables, and ``model``, which must be its own.

    Raises:
        MismatchError: Model, tokenizer or number format are others than the index's.
    """
    require_index_model(index, model, device=device)
    return _load_index_space(index.ref, index.index_id, model, device)


def require_index_model(index: SignatureIndex, model: ModelConfig, *, device: str) -> None:
    """Refuse a model, tokenizer or number format that the index was not built with.

    Only fingerprints are compared; no weight is loaded.

    Raises:
        MismatchError: They differ; the fields are named.
    """
    stored = _without_tables(index.identity["space"])
    signature = SignatureConfig.model_validate(stored["signature"])
    found = space_identity(model, signature, device=device)
    _require_equal(index.ref, {"space": stored}, {"space": found})


@functools.lru_cache(maxsize=1)
def _load_index_space(
    ref: IndexRef, index_id: str, model: ModelConfig, device: str
) -> SignatureSpace:
    del index_id  # part of the cache's key: an index that was deleted and made anew is read again
    index = SignatureIndex.open(ref)
    space = index.identity["space"]
    tables = index.tables()
    _require_equal(ref, {TABLES_KEY: space[TABLES_KEY]}, {TABLES_KEY: tables_digest(tables)})
    signature = SignatureConfig.model_validate(space["signature"])
    return load_space(model, signature, tables, device=device)


def _existing_index(ref: IndexRef, identity: Mapping[str, Any]) -> SignatureIndex | None:
    try:
        index = SignatureIndex.open(ref)
    except NotFoundError:
        return None
    space = _without_tables(index.identity["space"])
    _require_equal(ref, {**index.identity, "space": space}, identity)
    return index


def _without_tables(space: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in space.items() if key != TABLES_KEY}


def _create_index(
    ref: IndexRef, identity: Mapping[str, Any], config: IndexConfig, *, device: str
) -> SignatureIndex:
    backbone = load_backbone(config.model, device=device)
    tables = draw_space_tables(backbone, config.signature).to_arrays()
    space = {**identity["space"], TABLES_KEY: tables_digest(tables)}
    return SignatureIndex.create(
        ref,
        identity={**identity, "space": space},
        tables=tables,
        n_numbers=n_signature_numbers(config.signature.sketch),
        block_rows=config.block_rows,
    )


def _require_equal(ref: IndexRef, stored: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    differences = flat_differences(stored, found)
    if differences:
        raise MismatchError(
            f"index {ref.index!r} was built with other settings",
            differences,
            "Use the settings of the index (for another machine, state its dtype instead of "
            "auto), or build a new index under another name.",
        )


def _block_contents(
    rows: Corpus, batches: Sequence[str], *, block_rows: int
) -> list[tuple[str, int]]:
    """Return the digest of each block's (row_id, content_hash) pairs, and how many there are."""
    contents: list[tuple[str, int]] = []
    waiting: list[list[str]] = []
    for table in rows.iter_tables(batches=batches, columns=["row_id", "content_hash"]):
        columns = (table.column(name).to_pylist() for name in ("row_id", "content_hash"))
        waiting += [list(pair) for pair in zip(*columns, strict=True)]
        while len(waiting) >= block_rows:
            contents.append((digest(waiting[:block_rows]), block_rows))
            del waiting[:block_rows]
    if waiting:
        contents.append((digest(waiting), len(waiting)))
    return contents
