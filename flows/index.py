"""Flow: sketch the rows of a corpus into a signature index, block by block."""

from prefect import flow

from flows.artifacts import leave_report, readable_bytes
from flows.failure import explain_failure
from flows.progress import FlowProgress
from flows.run_rules import run_rules
from storage.refs import CorpusRef, IndexRef
from tasks.block_work import Sketched
from tasks.config import IndexConfig, RuntimeConfig
from tasks.index_plan import IndexPlan
from tasks.prefect_tasks import (
    calibrate_index,
    commit_index,
    plan_index,
    sketch_block,
    sketch_blocks,
)
from tasks.progress import Progress
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.signatures import IndexReport, writing_index
from tasks.stage_config import Name
from tasks.workers import Workers, open_workers


@flow(name="index", flow_run_name="index-{index}", on_failure=[explain_failure])
def index(
    store: str = "rise-store",
    corpus: Name = "main",
    index: Name = "main",
    config: IndexConfig = IndexConfig(),  # noqa: B008 - frozen
    runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008 - frozen
    quality: QualityConfig = SHIPPED,
) -> IndexReport:
    """Give every row of the corpus its signature; rows that have one are not read again.

    A run that was killed, cancelled or timed out starts again where it stopped: finished blocks
    are kept.

    Args:
        store: Folder of the store.
        corpus: Name of the corpus to index.
        index: Name of the index; made if missing, appended to if its settings are the same.
        config: Model, signature and block size: the identity of the index.
        runtime: Device, sizes and number of processes, which change speed only, and how long the
            run may wait and take.
        quality: Where the suites of the quality gates are.
    """
    ref = IndexRef(store, index)
    with (
        run_rules(runtime),
        writing_index(ref),
        FlowProgress("index") as progress,
        open_workers(runtime) as workers,
    ):
        rows = CorpusRef(store, corpus)
        calibrate_index(ref, rows, config, runtime, workers)
        plan = plan_index(ref, rows, config, runtime, workers)
        progress.start(total=plan.n_missing_rows, unit="rows")
        sketched = _sketched(plan, workers, progress)
        report: IndexReport = commit_index(plan, sketched.reports, quality, sketched.warnings)
    leave_report(
        "index",
        title=f"index {index}: {report.n_rows:,} rows",
        facts={
            "index id": report.index_id,
            "rows": report.n_rows,
            "rows sketched now": report.n_sketched,
            "rows without a predicted token": report.n_empty,
            "tokens sketched now": report.n_tokens,
            "tokens per second": report.tokens_per_second,
            "bytes of the index": readable_bytes(report.n_bytes),
            **calibration_facts(report),
            "predicted memory": readable_bytes(report.predicted_bytes),
            "device": report.device,
            "processes": report.n_processes,
            "number format": report.dtype,
        },
        links={"index": report.path, "Data Docs": report.data_docs},
        warnings=report.warnings,
    )
    return report


def _sketched(plan: IndexPlan, workers: Workers, progress: Progress) -> Sketched:
    """Sketch the blocks: a task each in this process, one task for all that others do."""
    if workers.alone:
        return Sketched([sketch_block(plan, block, progress=progress) for block in plan.blocks])
    sketched: Sketched = sketch_blocks(plan, workers, progress=progress)
    return sketched


def calibration_facts(report: IndexReport) -> dict[str, object]:
    """Return what calibration and drift have to say; nothing for a sketch without them."""
    facts: dict[str, object] = {
        f"{factor} energy captured": share for factor, share in report.energy.items()
    }
    if report.calibration_warning is not None:
        facts["calibration"] = report.calibration_warning
    if report.drift is not None:
        facts |= {
            f"{factor} energy of appended rows, relative": ratio
            for factor, ratio in report.drift.ratios.items()
        }
        facts["drift"] = report.drift.warning or "within limits"
    return facts
