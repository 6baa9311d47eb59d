"""Ingestion: a source becomes a validated batch of a corpus, or is refused as a whole.

Rows that fail are put aside with place and reason; when their share is above the limit, the
corpus is left as it was. A batch is identified by the bytes of its source, its config and the
tokenizer, so ingesting the same thing again does nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.corpus import BatchWriter, Corpus, find_batch
from storage.files import short_id
from storage.refs import BatchRef, CorpusRef
from storage.rows import ROW_SCHEMA
from storage.tombstones import BarredRows, Tombstones
from tasks.backbone import load_tokenizer
from tasks.candidates import CandidateReader
from tasks.config import ModelConfig, RowsConfig
from tasks.corpus_suite import GATE
from tasks.fields import Tokenizer
from tasks.gate import Gate, Tally
from tasks.progress import NO_PROGRESS, Progress
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.quality_gate import listed, recorded_warnings
from tasks.revision import Revision, Unrevised
from tasks.sources import pinned, read_records, source_identity
from tasks.suite_files import GateSuite, load_suite

INGEST_VERSION = 1
"""Raised when the same source and config would give other rows; part of a batch's identity."""

QUALITY_FOLDER = "quality"
REJECTED_FILE = "rejected.parquet"
SHOWN_PROBLEMS = 20
"""Rejected query rows that the message lists."""
SHOWN_KINDS = 5
"""Kinds of reasons that the message of a refused batch lists."""


class IngestRefused(ValueError):  # noqa: N818 - a verdict on the rows, not a fault of the program
    """Too many records were rejected; the corpus is unchanged.

    Args:
        message: Counts, limit, most common reasons, and where to look.
        rejected_path: Parquet file with every rejected record and its reason.
        data_docs: Index page of the quality report.
    """

    def __init__(self, message: str, rejected_path: str = "", data_docs: str = "") -> None:
        super().__init__(message)
        self.rejected_path = rejected_path
        self.data_docs = data_docs


@dataclass(frozen=True)
class IngestReport:
    """What an ingestion did.

    Attributes:
        batch: The committed batch; None when the source had nothing new.
        n_rows: Rows of the batch.
        n_rejected: Records that were put aside.
        n_known: Records that the corpus had already, with equal content.
        n_taken_down: Records that may not come in, because they were taken down.
        n_tokens: Tokens of the batch's rows.
        data_docs: Index page of the quality report; empty when there is none.
        rejected_path: Parquet file of the rejected records; empty when there is none.
        already: This very batch was committed before; nothing was read.
        seconds: Wall time.
        warnings: What the gate found odd, but refused nothing for.
    """

    batch: BatchRef | None
    n_rows: int
    n_rejected: int
    n_known: int
    n_tokens: int
    data_docs: str
    rejected_path: str
    already: bool
    seconds: float
    n_taken_down: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One sentence for people."""
        gone = f", {self.n_taken_down:,} taken down" if self.n_taken_down else ""
        if self.batch is None:
            return (
                f"Nothing new: the corpus has all {self.n_known:,} good rows already "
                f"({self.n_rejected:,} records rejected{gone}); no batch was added."
            )
        before = "was ingested before" if self.already else "ingested"
        return (
            f"Batch {self.batch.batch_id} {before}: {self.n_rows:,} rows, {self.n_tokens:,} "
            f"tokens; {self.n_rejected:,} records rejected, {self.n_known:,} known before{gone}."
        )


def ingest(
    ref: CorpusRef,
    rows: RowsConfig,
    model: ModelConfig,
    *,
    quality: QualityConfig = SHIPPED,
    progress: Progress = NO_PROGRESS,
) -> IngestReport:
    """Read a source into a corpus as one batch.

    Args:
        ref: The corpus; made when it does not exist.
        rows: Source, fields and limits.
        model: Its tokenizer counts the tokens.
        quality: The suite that rows and batch must satisfy.
        progress: Told the bytes that were read.

    Raises:
        IngestRefused: Too many records were rejected, or one failed what refuses a batch.
        SuiteError: The suite cannot be used.
        ValueError: The source is missing, empty or damaged.
        BusyError: Another process is writing the corpus.
    """
    return ingest_rows(ref, rows, load_tokenizer(model), quality=quality, progress=progress)


def ingest_rows(
    ref: CorpusRef,
    rows: RowsConfig,
    tokenizer: Tokenizer,
    *,
    quality: QualityConfig = SHIPPED,
    progress: Progress = NO_PROGRESS,
    revision: Revision | None = None,
) -> IngestReport:
    """Read a source into a corpus with a tokenizer that is already there; see `ingest`.

    With a ``revision`` the source is one file of an inbox, maybe in a new version: what it changes
    and drops is given tombstones, and that the same batch was committed before stops nothing.
    """
    started = time.perf_counter()
    suite = load_suite(GATE, quality)
    file = revision or Unrevised(ref)
    source = source_identity(rows.source)
    identity = {
        "source": source,
        "rows": rows.model_dump(mode="json"),
        "tokenizer": tokenizer.fingerprint,
        "version": INGEST_VERSION,
        # absent means the shipped suite, so that batches keep their ids
        **({} if suite.is_shipped else {"suite": suite.sha256}),
        **file.identity,
    }
    batch_id = short_id(identity)
    done = find_batch(ref, batch_id) if revision is None else None
    if done is not None:
        return replace(_report_of(ref, done), seconds=time.perf_counter() - started)
    n_bytes = sum(int(str(entry.get("bytes", 0))) for entry in source)
    progress.start(total=n_bytes, unit="bytes")
    with BatchWriter(ref, batch_id) as writer:
        barred = BarredRows(Tombstones(ref))  # under the lease, which a takedown takes as well
        reader = CandidateReader(rows, tokenizer, file.begin(), barred)
        gate = Gate(reader, rows.limits, suite)
        records = read_records(pinned(rows.source, source), rows.limits, advance=progress.advance)
        for part in gate.judge(records):
            if part.kept.num_rows:
                writer.add(part.kept)
                file.keep(part.kept)
            writer.reject(part.rejected)
        report = _conclude(ref, writer, gate, identity, file)
    return replace(report, seconds=time.perf_counter() - started)


def canonical_rows(rows: RowsConfig, tokenizer: Tokenizer, *, what: str = "query set") -> pa.Table:
    """Read a source of which every record must be good, as query sets are.

    Returns:
        The rows (``ROW_SCHEMA``), in order.

    Raises:
        ValueError: A record is not usable (the first 20 are listed with their places), or the
            source is missing, empty or damaged.
    """
    strict = rows.limits.model_copy(update={"max_rejected_share": 0.0})
    gate = Gate(CandidateReader(rows, tokenizer), strict)
    parts = list(gate.judge(read_records(rows.source, strict)))
    problems = [problem for part in parts for problem in part.rejected.to_pylist()]
    if problems:
        lines = [f"  {item['location']}: {item['reason']}" for item in problems[:SHOWN_PROBLEMS]]
        more = len(problems) - len(lines)
        raise ValueError(
            "\n".join(
                [
                    f"{len(problems)} of {gate.tally.n_records} records of the {what} are not "
                    "usable, and none may be left out:",
                    *lines,
                    *([f"  and {more} more"] if more else []),
                    "Mend or remove these records.",
                ]
            )
        )
    return pa.concat_tables([ROW_SCHEMA.empty_table(), *(part.kept for part in parts)])


def require_rows(ref: CorpusRef, wanted: Mapping[str, int]) -> None:
    """Refuse settings that ask for more rows than a corpus has, before any work is done for them.

    Args:
        ref: A corpus with at least one batch.
        wanted: Name of a setting to the rows that it asks for.

    Raises:
        ValueError: Names each setting that asks for too many, with both numbers.
    """
    n_rows = Corpus(ref).n_rows
    too_many = [f"{name} is {rows}" for name, rows in wanted.items() if rows > n_rows]
    if too_many:
        raise ValueError(
            f"{' and '.join(too_many)}, but corpus {ref.corpus!r} has {n_rows} rows. Lower it, or "
            "ingest more rows; what was ingested is kept."
        )


def _conclude(
    ref: CorpusRef,
    writer: BatchWriter,
    gate: Gate,
    identity: dict[str, Any],
    revision: Revision,
) -> IngestReport:
    """Commit the batch, refuse it, or leave the corpus as it is when nothing is new."""
    verdict, tally = gate.judge_batch(), gate.tally
    revision.require_same_bytes()
    if not tally.n_kept and not tally.n_rejected:
        revision.accept(None)
        return _report(None, tally, None)
    gate.write(writer.staging / QUALITY_FOLDER)
    manifest = {
        "identity": identity,
        "n_records": tally.n_records,
        "n_known": tally.n_known,
        "n_tokens": tally.n_tokens,
        "reasons": dict(sorted(tally.reasons.items())),
        **({"n_taken_down": tally.n_taken_down} if tally.n_taken_down else {}),
    }
    if verdict.success and tally.n_kept and not gate.refusals:
        revision.accept(writer.ref.batch_id)
        batch = writer.commit(manifest)
        return _report(batch, tally, Corpus(ref).folder(batch.batch_id), gate.warnings)
    folder = writer.refuse(manifest)
    limit = gate.limits.max_rejected_share
    found = [*verdict.fatal, *(reason for found in verdict.refusing.values() for reason in found)]
    reasons = gate.refusals or (found if tally.rejected_share <= limit else [])
    if reasons:
        raise _refused_by(ref, gate.suite, reasons, folder)
    if verdict.success and (tally.n_known or tally.n_taken_down):
        revision.accept(None)
        return _report(None, tally, folder, gate.warnings)
    raise _refusal(ref, tally, limit, folder)


def _report(
    batch: BatchRef | None, tally: Tally, folder: Path | None, warnings: tuple[str, ...] = ()
) -> IngestReport:
    return IngestReport(
        batch=batch,
        n_rows=tally.n_kept,
        n_rejected=tally.n_rejected,
        n_known=tally.n_known,
        n_tokens=tally.n_tokens,
        data_docs="" if folder is None else str(folder / QUALITY_FOLDER / "index.html"),
        rejected_path="" if folder is None else str(folder / REJECTED_FILE),
        already=False,
        seconds=0.0,
        n_taken_down=tally.n_taken_down,
        warnings=warnings,
    )


def _report_of(ref: CorpusRef, batch: BatchRef) -> IngestReport:
    corpus = Corpus(ref)
    manifest = corpus.manifest(batch.batch_id)
    tally = Tally(
        n_kept=manifest["n_rows"],
        n_known=manifest["n_known"],
        n_taken_down=manifest.get("n_taken_down", 0),
        n_rejected=manifest["n_rejected"],
        n_tokens=manifest["n_tokens"],
    )
    folder = corpus.folder(batch.batch_id)
    warnings = recorded_warnings(folder / QUALITY_FOLDER)
    return replace(_report(batch, tally, folder, warnings), already=True)


def _refused_by(
    ref: CorpusRef, suite: GateSuite, reasons: Sequence[str], folder: Path
) -> IngestRefused:
    """Return the error for failures of severity ``fail``, of which one is enough."""
    docs, rejected = folder / QUALITY_FOLDER / "index.html", folder / REJECTED_FILE
    return IngestRefused(
        f"The batch is refused and corpus {ref.corpus!r} is unchanged: the ingest suite "
        f"({suite.origin}) refuses a batch for\n{listed(reasons)}\n"
        f"Quality report: {docs}\n"
        "Mend the source, or set severity: quarantine for what single rows may fail.",
        rejected_path=str(rejected),
        data_docs=str(docs),
    )


def _refusal(ref: CorpusRef, tally: Tally, limit: float, folder: Path) -> IngestRefused:
    docs, rejected = folder / QUALITY_FOLDER / "index.html", folder / REJECTED_FILE
    kinds = ", ".join(f"{kind} ({n:,})" for kind, n in tally.reasons.most_common(SHOWN_KINDS))
    allowed = f"at most {limit:.2%} are allowed (limits.max_rejected_share)"
    if not tally.n_kept and not tally.n_known and not tally.n_taken_down:
        allowed = "so no row is left"
    return IngestRefused(
        f"The batch is refused and corpus {ref.corpus!r} is unchanged: {tally.n_rejected:,} of "
        f"{tally.n_records:,} records were rejected ({tally.rejected_share:.2%}), {allowed}.\n"
        f"Most common reasons: {kinds}.\n"
        f"Every rejected record with its place and reason: {rejected}\n"
        f"Quality report: {docs}\n"
        "Mend the source or its field mapping (rows.fields), or raise the limit.",
        rejected_path=str(rejected),
        data_docs=str(docs),
    )
