"""Releases: rows are selected, guarded, written with all that is known of them, and published.

A release is a folder that `datasets.load_dataset` opens. Its id is made of the scores, the
settings and what the guards look at: the same inputs and the same versions of the libraries that
judge texts (near duplicates, private strings, languages) give the same files. The versions of all
libraries lie in ``environment.json``, the Data Docs in ``quality/``; the manifest lists neither.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from storage.errors import MismatchError
from storage.files import write_json
from storage.layout import QUALITY_FOLDER
from storage.queries import QuerySet
from storage.refs import ReleaseRef, ScoresRef
from storage.release_pointer import mark_latest
from storage.release_writer import ReleaseWriter
from storage.releases import ENVIRONMENT_FILE, REPORT_FILE, open_release, release_exists
from storage.roots import shown
from storage.scores import Scores
from storage.tombstones import no_new_records
from tasks.dataset_card import dataset_card
from tasks.drift_config import NO_LIMITS, DriftConfig
from tasks.leakage import leakage_check
from tasks.privacy import privacy_check
from tasks.progress import NO_PROGRESS, Progress
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.quality_gate import GateReport, recorded_warnings, suite_facts
from tasks.release_config import ReleaseConfig
from tasks.release_drift import DriftReport, drift_from_latest
from tasks.release_files import (
    WrittenRows,
    write_dropped,
    write_hits,
    write_reports,
    write_rows,
)
from tasks.release_gate import GATE, Order, ReleaseRefused, StagedRelease, check_release
from tasks.release_lineage import (
    environment,
    open_parents,
    release_id,
    release_lineage,
    release_manifest,
)
from tasks.release_rows import ScoredRows
from tasks.row_checks import RecordingCheck
from tasks.row_values import row_values
from tasks.selection import select_rows
from tasks.selection_problem import TAKEDOWN
from tasks.selection_rows import StoredRows, candidate_table
from tasks.suite_files import GateSuite, load_suite
from tasks.takedown import masked_rows
from tasks.target_tokenizer import TargetTokenizer, load_target_tokenizer


@dataclass(frozen=True)
class ReleaseReport:
    """What releasing did.

    Attributes:
        ref: The published release.
        path: Its folder; ``datasets.load_dataset(path)`` opens it.
        n_rows: Rows released.
        n_tokens: Their tokens.
        n_bytes: Size of the Parquet files.
        n_dropped: Rows that something kept out, by reason.
        data_docs: First page of the quality report.
        page: The HTML report, once `tasks.report.write_report` has drawn it.
        seconds: Wall time of this call.
        already: It was published before; only ``latest`` was pointed to it.
        warnings: What the quality gate found odd, but refused nothing for, and drift.
        drift: How it compares with the latest before it; None when there was none.
    """

    ref: ReleaseRef
    path: str
    n_rows: int
    n_tokens: int
    n_bytes: int
    n_dropped: Mapping[str, int]
    data_docs: str
    page: str
    seconds: float
    already: bool
    warnings: tuple[str, ...] = ()
    drift: DriftReport | None = None


def release(
    scores: ScoresRef,
    name: str,
    config: ReleaseConfig,
    *,
    quality: QualityConfig = SHIPPED,
    drift: DriftConfig = NO_LIMITS,
    progress: Progress = NO_PROGRESS,
) -> ReleaseReport:
    """Select rows by their scores, check them and publish them as the latest release.

    One that is beyond a limit of drift is published and held: ``latest`` stays, and the report's
    ``drift`` says so.

    Args:
        scores: The stored scores.
        name: Name that the release is published under.
        config: Selection and layout; part of the release's identity.
        quality: Where the suite of the gate is.
        drift: Limits for how far it may be from the latest.
        progress: Receives one step a row.

    Raises:
        BusyError: Another process is making a release of that name.
        ValueError: The selection cannot be made; gives both numbers.
        ReleaseRefused: The staged files failed the gate; nothing was published.
        SuiteError: The suite cannot be used.
        MismatchError: The index was replaced since it was scored; or rows were taken down while
            this release was made.
        CorruptionError: Something that the release is made from, or the release of that id that
            was published before, is damaged; ``latest`` stays.
    """
    started = time.monotonic()
    opened = Scores.open(scores)
    tokenizer = config.target_tokenizer
    target = None if tokenizer is None else load_target_tokenizer(tokenizer)
    ref = ReleaseRef(scores.root, name, release_id(opened, config, target=target))
    already = release_exists(ref)
    if not already:
        plan = _Plan(ref, config, target, load_suite(GATE, quality))
        _publish(plan, opened, progress)
    published = open_release(ref)
    published.require_sound(deep=False)
    moved = drift_from_latest(ref, drift, fresh=not already)
    if moved is None or not moved.held:
        mark_latest(ref, why="asked again" if already else "published")
    return ReleaseReport(
        ref=ref,
        path=shown(published.folder),
        n_rows=published.manifest["n_rows"],
        n_tokens=published.manifest["n_tokens"],
        n_bytes=published.manifest["bytes"],
        n_dropped=published.manifest["n_dropped"],
        data_docs=str(published.folder / QUALITY_FOLDER / "index.html"),
        page=str(published.folder / REPORT_FILE),
        seconds=time.monotonic() - started,
        already=already,
        warnings=(
            *recorded_warnings(published.folder / QUALITY_FOLDER),
            *(() if moved is None else moved.warnings),
        ),
        drift=moved,
    )


@dataclass(frozen=True)
class _Plan:
    """What is to be published under which id, and what it must satisfy."""

    ref: ReleaseRef
    config: ReleaseConfig
    target: TargetTokenizer | None
    suite: GateSuite

    @property
    def order(self) -> Order:
        """How scores follow each other by rank."""
        return "falling" if self.config.prefer == "highest" else "rising"


def _publish(plan: _Plan, scores: Scores, progress: Progress) -> None:
    config = plan.config
    corpus, index, query_set = open_parents(scores)
    rows = ScoredRows(corpus, scores.manifest["batches"])
    candidates = _candidates(scores, query_set, rows, config)
    regions = config.privacy.phone_regions
    leaks = leakage_check(config.leakage, query_set, index, phone_regions=regions)
    found = [leaks, privacy_check(config.privacy)]
    checks: list[RecordingCheck] = [check for check in found if check is not None]
    selection = select_rows(candidates, config, StoredRows(scores), checks)
    with ReleaseWriter(plan.ref, jsonl="jsonl" in config.formats) as writer:
        written = write_rows(
            writer,
            selection.selected,
            rows,
            rows_per_shard=config.rows_per_shard,
            target=plan.target,
            progress=progress,
        )
        gate = _check(plan, writer, written, rows)
        dropped = write_dropped(writer, selection.dropped, rows)
        guards = write_hits(writer, checks, written.attributes, dropped)
        statistics = write_reports(writer, selection, candidates, rows, written)
        manifest = release_manifest(
            shape=written.shape,
            target=_target_tokens(plan.target, written.attributes),
            dropped=dropped,
            guards=guards,
            lineage=release_lineage(plan.ref, scores, config, written.attributes),
        )
        versions = {**environment(), "quality": suite_facts(plan.suite, gate)}
        write_json(writer.staging / ENVIRONMENT_FILE, versions)
        card = dataset_card(
            name=plan.ref.name,
            license_name=config.license,
            manifest=manifest,
            statistics=statistics,
        )
        with no_new_records(corpus.ref):
            _require_same_inputs(plan, scores)
            writer.commit(manifest, card, point=False)


def _require_same_inputs(plan: _Plan, scores: Scores) -> None:
    """Refuse to publish under an id what is no longer made of the same things.

    Raises:
        MismatchError: Rows were taken down, or an evaluation set was changed, meanwhile.
    """
    now = release_id(scores, plan.config, target=plan.target)
    if now != plan.ref.release_id:
        raise MismatchError(
            f"rows were taken down, or an evaluation set was changed, while release "
            f"{plan.ref.name!r} was made, so it was not published",
            [("release id", plan.ref.release_id, now)],
            "Release again.",
        )


def _candidates(
    scores: Scores, query_set: QuerySet, rows: ScoredRows, config: ReleaseConfig
) -> pa.Table:
    """Return one line a row of the index, as the selection wants them."""
    table = candidate_table(scores, row_values(scores, query_set, config))
    rows.require_rows_of(table)
    taken_down = np.zeros(len(rows), bool)
    taken_down[masked_rows(rows.corpus.ref, rows.batches)] = True
    return table.append_column(TAKEDOWN, pa.array(taken_down))


def _check(
    plan: _Plan, writer: ReleaseWriter, written: WrittenRows, rows: ScoredRows
) -> GateReport:
    """Hold the staged files against the gate; a refusal keeps its Data Docs."""
    docs = writer.staging / QUALITY_FOLDER
    n_tokens = written.shape["n_tokens"]
    staged = StagedRelease(plan.ref.name, written.files, n_tokens, plan.order)
    try:
        return check_release(staged, batches=rows.row_ids(), docs=docs, suite=plan.suite)
    except ReleaseRefused as error:
        if not docs.is_dir():  # the columns are wrong, so there was nothing to check
            raise
        page = writer.refuse() / "index.html"
        raise ReleaseRefused(f"{error}\nThe report of the refusal: {page}") from error


def _target_tokens(target: TargetTokenizer | None, attributes: pa.Table) -> dict[str, Any] | None:
    if target is None:
        return None
    counts = attributes.column("target_tokens").to_numpy()
    return {"tokenizer": target.name, "sha256": target.sha256, "n_tokens": int(counts.sum())}
