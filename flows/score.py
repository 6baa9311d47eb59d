"""Flow: score every row of an index against a query set, in parallel with Dask."""

from prefect import flow

from flows.artifacts import leave_report
from flows.failure import explain_failure
from flows.progress import FlowProgress
from flows.run_rules import run_rules
from storage.refs import IndexRef, QuerySetRef
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.prefect_tasks import score_rows
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.queries import latest_query_set
from tasks.scoring import ScoreReport
from tasks.stage_config import Name


@flow(name="score", flow_run_name="score-{index}-{query_set}", on_failure=[explain_failure])
def score(  # noqa: PLR0913 - what a flow takes is its run form
    store: str = "rise-store",
    index: Name = "main",
    query_set: Name = "main",
    config: ScoreConfig = ScoreConfig(),  # noqa: B008 - frozen
    runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008 - frozen
    version: Name | None = None,
    quality: QualityConfig = SHIPPED,
) -> ScoreReport:
    """Find each query's strongest rows and give every row its value for the query set.

    Args:
        store: Folder of the store.
        index: Name of the index.
        query_set: Name of the query set.
        config: Rows kept for each query, and whether every score is kept.
        runtime: Scheduler and workers, and how long the run may wait and take.
        version: Version of the query set; empty: the latest.
        quality: Where the suites of the quality gates are.
    """
    queries = (
        QuerySetRef(store, query_set, version) if version else latest_query_set(store, query_set)
    )
    with run_rules(runtime), FlowProgress("score") as progress:
        report: ScoreReport = score_rows(
            IndexRef(store, index), queries, config, runtime, quality=quality, progress=progress
        )
    leave_report(
        "score",
        title=f"{report.n_rows:,} rows scored against {report.n_queries:,} queries",
        facts={
            "scores id": report.ref.scores_id,
            "rows": report.n_rows,
            "queries": report.n_queries,
            "already scored": report.already,
            "seconds": report.seconds,
        },
        links={"scores": report.path, "Data Docs": report.data_docs},
        warnings=report.warnings,
    )
    return report
