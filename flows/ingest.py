"""Flow: read raw files, gate them, commit one batch of canonical rows to a corpus."""

from prefect import flow

from flows.artifacts import leave_report
from flows.failure import explain_failure
from flows.progress import FlowProgress
from flows.run_rules import run_rules
from storage.refs import CorpusRef
from tasks.config import ModelConfig, RowsConfig, RuntimeConfig
from tasks.corpus import IngestReport
from tasks.prefect_tasks import ingest_rows
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.stage_config import Name


@flow(name="ingest", flow_run_name="ingest-{corpus}", on_failure=[explain_failure])
def ingest(
    rows: RowsConfig,
    store: str = "rise-store",
    corpus: Name = "main",
    model: ModelConfig = ModelConfig(),  # noqa: B008 - frozen
    quality: QualityConfig = SHIPPED,
    runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008 - frozen
) -> IngestReport:
    """Read training rows into a corpus; the failing ones go to quarantine, with reasons.

    Args:
        rows: Where the rows come from and how their fields are read.
        store: Folder of the store; made if missing.
        corpus: Name of the corpus that the batch is added to.
        model: Its tokenizer counts tokens and renders chats.
        quality: Where the suites of the quality gates are.
        runtime: How long the run may wait for another one, and take.
    """
    with run_rules(runtime), FlowProgress("ingest") as progress:
        report: IngestReport = ingest_rows(
            CorpusRef(store, corpus), rows, model, quality=quality, progress=progress
        )
    leave_report(
        "ingest",
        title=f"corpus {corpus}: {report.summary}",
        facts={
            "rows": report.n_rows,
            "rejected": report.n_rejected,
            "known from earlier batches": report.n_known,
            "tokens": report.n_tokens,
            "already ingested": report.already,
            "seconds": report.seconds,
        },
        links={"Data Docs": report.data_docs, "rejected rows": report.rejected_path},
        warnings=report.warnings,
    )
    return report
