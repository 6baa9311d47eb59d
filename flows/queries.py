"""Flow: sketch a named set of queries in the space of an index."""

from prefect import flow

from flows.artifacts import leave_report
from flows.failure import explain_failure
from flows.run_rules import run_rules
from storage.refs import IndexRef
from tasks.config import RowsConfig, RuntimeConfig
from tasks.prefect_tasks import make_query_set
from tasks.queries import QuerySetReport
from tasks.stage_config import Name


@flow(name="queries", flow_run_name="queries-{query_set}", on_failure=[explain_failure])
def queries(
    rows: RowsConfig,
    store: str = "rise-store",
    query_set: Name = "main",
    index: Name = "main",
    runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008 - frozen
) -> QuerySetReport:
    """Read queries and give each its signature; prompts are masked.

    Args:
        rows: Where the queries come from and how their fields are read.
        store: Folder of the store.
        query_set: Name of the query set; other content makes another version of it.
        index: Name of the index whose model and sketch are used.
        runtime: Device and sizes that change speed only.
    """
    ref = IndexRef(store, index)
    with run_rules(runtime):
        report: QuerySetReport = make_query_set(store, query_set, ref, rows, runtime)
    leave_report(
        "queries",
        title=f"query set {query_set}: {report.n_queries:,} queries",
        facts={
            "version": report.ref.version,
            "queries": report.n_queries,
            "predicted tokens": report.n_positions,
        },
        links={"query set": report.path},
    )
    return report
