"""Stage: every row of a corpus gets its signature, block by block.

A block is one unit of work, of storage and of resume: its bytes follow from its rows, the index's
config and the kind of device. Rows are only ever appended, so a build does the blocks that are not
recorded as done, the last, half-full one anew, and nothing else. Whether there is anything to do is
known from fingerprints, without loading the model.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from storage.catalog import open_store
from storage.corpus import Corpus
from storage.files import digest
from storage.guards import index_guard
from storage.lease import Lease
from storage.refs import CorpusRef, IndexRef
from storage.roots import shown
from storage.signatures import SignatureIndex
from tasks.backbone import resolve_device
from tasks.block_work import sketch_blocks
from tasks.calibration import Drift, calibrated_tables, calibration_warning, measure_drift
from tasks.codes import code_rotation, coded_numbers, float_numbers
from tasks.config import IndexConfig, RuntimeConfig
from tasks.index_gate import check_index
from tasks.index_identity import (
    CALIBRATION_KEY,
    existing_index,
    index_identity,
    require_same_identity,
    with_tables,
)
from tasks.index_plan import BlockReport, IndexPlan, sendable
from tasks.memory import require_memory
from tasks.models import from_anywhere
from tasks.progress import NO_PROGRESS, Progress
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.workers import THIS_PROCESS, Workers, open_workers


@dataclass(frozen=True)
class CalibrationReport:
    """The sample that the tables of an index were made from.

    Attributes:
        index_id: Short id of the index's identity.
        n_rows: Rows of the sample; 0 where the sketch needs none.
        n_tokens: Their tokens.
        n_positions: Positions that count in it.
        energy: For each factor, the share of its energy that the kept directions capture.
        already: The index was there; nothing was computed.
    """

    index_id: str
    n_rows: int
    n_tokens: int
    n_positions: int
    energy: Mapping[str, float]
    already: bool


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
        n_processes: Processes that sketched blocks now.
        dtype: Number format of the model.
        seconds: Time spent on blocks, by the process that spent most.
        energy: See `CalibrationReport`; empty where the sketch needs no calibration.
        calibration_warning: That the sample was small; None when it was not, or there is none.
        drift: How the rows that were appended now fit the index; None where nothing was, or the
            sketch is not calibrated.
        warnings: What the quality gate found odd, but refused nothing for.
        data_docs: First page of the quality report.
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
    n_processes: int
    dtype: str
    seconds: float
    energy: Mapping[str, float]
    calibration_warning: str | None
    drift: Drift | None
    warnings: tuple[str, ...] = ()
    data_docs: str = ""


def writing_index(ref: IndexRef) -> AbstractContextManager[Lease]:
    """Return the lease that a build holds from plan to commit.

    Raises:
        NotFoundError: There is no store at that place.
        BusyError: Another process is building the index (on entering).
    """
    open_store(ref.root)  # before the lease, whose file would make a folder at a misspelt place
    return index_guard(ref).hold()


def calibrate_index(
    ref: IndexRef,
    corpus: CorpusRef,
    config: IndexConfig,
    runtime: RuntimeConfig,
    workers: Workers = THIS_PROCESS,
) -> CalibrationReport:
    """Make the index if it is missing: its tables, drawn or calibrated, and no row yet.

    It appears with its tables or not at all. The caller holds `writing_index`. The sample is small:
    one process reads it, a worker of the cluster where there is one.

    Raises:
        NotFoundError: The corpus has no rows.
        MismatchError: The index exists with another model, tokenizer, sketch, number format,
            corpus, choice of positions or block size.
        ValueError: The model does not read windows that long or lacks directions, or the sample
            predicts no token.
        MemoryError: The work will not fit into memory.
    """
    device = resolve_device(runtime.device)
    batches = _batch_ids(corpus)
    identity = index_identity(corpus, config, device=device)
    index = existing_index(ref, identity)
    already = index is not None
    if index is None:
        order = _Order(ref, corpus, batches, config, runtime)
        workers.call(_create_index, order.to_send() if workers.elsewhere else order, identity)
        index = SignatureIndex.open(ref)
    record = index.identity.get(CALIBRATION_KEY, {})
    return CalibrationReport(
        index_id=index.index_id,
        n_rows=record.get("n_rows", 0),
        n_tokens=record.get("n_tokens", 0),
        n_positions=record.get("n_positions", 0),
        energy=record.get("energy", {}),
        already=already,
    )


def plan_index(
    ref: IndexRef,
    corpus: CorpusRef,
    config: IndexConfig,
    runtime: RuntimeConfig,
    workers: Workers = THIS_PROCESS,
) -> IndexPlan:
    """Find the blocks that are still to do.

    The caller holds `writing_index`, and since then has called `calibrate_index` with the same
    arguments, which makes the index or says that it is another one.

    Raises:
        NotFoundError: There is no such index.
        ValueError: Rows were appended that the index's directions do not fit.
        MemoryError: The work will not fit into memory.
    """
    index = SignatureIndex.open(ref)
    batches = _batch_ids(corpus)
    contents = _block_contents(Corpus(corpus), batches, block_rows=config.block_rows)
    missing = tuple(
        block
        for block, (rows_digest, _) in enumerate(contents)
        if not index.is_done(block, rows_digest)
    )
    n_rows = sum(size for _, size in contents)
    predicted_bytes, drift, device = 0, None, ""
    if missing:
        order = _Order(ref, corpus, batches, config, runtime)
        predicted_bytes, drift, device = workers.call(
            _examine, order.to_send() if workers.elsewhere else order, len(missing)
        )
    fence = index_guard(ref).held().fence
    fence.check()
    index.remember_model(from_anywhere(config.model).model_dump(mode="json"))
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
        drift=drift,
        device=device,
        fence=fence,
    )


def commit_index(
    plan: IndexPlan,
    reports: Sequence[BlockReport],
    quality: QualityConfig = SHIPPED,
    warnings: Sequence[str] = (),
) -> IndexReport:
    """Make the planned rows what readers see, if they pass the gate.

    The caller holds `writing_index`.

    Args:
        plan: From `plan_index`.
        reports: Of the blocks that were sketched.
        quality: Where the suite of the gate is.
        warnings: What was odd about the work, for the report.

    Raises:
        IndexRefused: The gate refuses the rows; finished blocks and the earlier state stay.
        IncompleteError: A block is missing.
        CorruptionError: A block cannot be read back.
        SuiteError: The suite cannot be used.
        LeaseLostError: Another build has taken over; the earlier state stays.
    """
    index = SignatureIndex.open(plan.ref)
    plan.fence.check()
    gate = check_index(index, plan.n_rows, quality)
    plan.fence.check()
    index.commit(plan.batches, plan.n_rows)
    records = [index.block_record(block) or {} for block in range(plan.n_blocks)]
    seconds = _busiest_seconds(reports)
    n_tokens = sum(report.n_tokens for report in reports)
    return IndexReport(
        ref=plan.ref,
        index_id=index.index_id,
        path=shown(index.folder),
        n_rows=plan.n_rows,
        n_sketched=sum(report.n_rows for report in reports),
        n_empty=sum(record["n_empty"] for record in records),
        n_tokens=n_tokens,
        tokens_per_second=n_tokens / seconds if seconds else 0.0,
        n_bytes=sum(
            size for record in records for key, size in record.items() if key.endswith("_bytes")
        ),
        predicted_bytes=plan.predicted_bytes,
        device=", ".join(sorted({report.device for report in reports} - {""}))
        or plan.device
        or plan.runtime.device,
        n_processes=len({report.worker for report in reports}),
        dtype=index.identity["space"]["dtype"],
        seconds=seconds,
        energy=index.identity.get(CALIBRATION_KEY, {}).get("energy", {}),
        calibration_warning=calibration_warning(index.identity.get(CALIBRATION_KEY)),
        drift=plan.drift,
        warnings=(*gate.warnings, *warnings),
        data_docs=gate.data_docs,
    )


def build_index(
    ref: IndexRef,
    corpus: CorpusRef,
    config: IndexConfig,
    runtime: RuntimeConfig,
    *,
    quality: QualityConfig = SHIPPED,
    progress: Progress = NO_PROGRESS,
) -> IndexReport:
    """Bring an index up to its corpus under its lease: tables, plan, blocks, gate, commit.

    Raises:
        IndexRefused: The gate refuses the rows.
        BusyError: Another process is building it.
    """
    with writing_index(ref), open_workers(runtime) as workers:
        calibrate_index(ref, corpus, config, runtime, workers)
        plan = plan_index(ref, corpus, config, runtime, workers)
        progress.start(total=plan.n_missing_rows, unit="rows")
        sketched = sketch_blocks(plan, workers, progress=progress)
        return commit_index(plan, sketched.reports, quality, sketched.warnings)


def _batch_ids(corpus: CorpusRef) -> tuple[str, ...]:
    return tuple(batch.batch_id for batch in Corpus.batches(corpus))


@dataclass(frozen=True)
class _Order:
    """What is needed to make an index or to look at rows that are new to it, in any process."""

    ref: IndexRef
    corpus: CorpusRef
    batches: tuple[str, ...]
    config: IndexConfig
    runtime: RuntimeConfig

    def to_send(self) -> "_Order":
        ref, corpus, config = sendable(self.ref, self.corpus, self.config)
        return replace(self, ref=ref, corpus=corpus, config=config)


def _create_index(order: _Order, identity: Mapping[str, Any]) -> None:
    """Make the index; runs where the devices are."""
    device, config = resolve_device(order.runtime.device), order.config
    require_same_identity(order.ref, identity, index_identity(order.corpus, config, device=device))
    require_memory(config, order.runtime, device=device, dtype=identity["space"]["dtype"])
    tables, calibration = calibrated_tables(order.corpus, order.batches, config, device=device)
    arrays = tables.to_arrays()
    rotation = code_rotation(config.signature)
    SignatureIndex.create(
        order.ref,
        identity=with_tables(identity, arrays, calibration),
        tables=arrays if rotation is None else {**arrays, **rotation.to_arrays()},
        n_numbers=coded_numbers(config.signature),
        block_rows=config.block_rows,
        code=config.signature.code,
        float_numbers=float_numbers(config.signature),
    )


def _examine(order: _Order, n_blocks: int) -> tuple[int, Drift | None, str]:
    """Predict the memory and measure the drift; runs where the devices are."""
    index, device = SignatureIndex.open(order.ref), resolve_device(order.runtime.device)
    predicted = require_memory(
        order.config,
        order.runtime,
        device=device,
        dtype=index.identity["space"]["dtype"],
        # one without a block never loads the model
        n_processes=min(order.runtime.index_workers, n_blocks),
    )
    drift = measure_drift(index, order.corpus, order.batches, order.config, device=device)
    return predicted, drift, device


def _busiest_seconds(reports: Sequence[BlockReport]) -> float:
    """Return how long the process worked that worked longest."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        seconds[report.worker] += report.seconds
    return max(seconds.values(), default=0.0)


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
