"""Flow: select rows by value and publish them as a validated release."""

from prefect import flow

from flows.artifacts import leave_report, readable_bytes
from flows.progress import FlowProgress
from storage.refs import ScoresRef
from tasks.prefect_tasks import publish_release
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.release import ReleaseReport
from tasks.release_config import ReleaseConfig
from tasks.stage_config import Name


@flow(name="release", flow_run_name="release-{release}")
def release(
    scores_id: str,
    store: str = "rise-store",
    release: Name = "main",
    config: ReleaseConfig = ReleaseConfig(),  # noqa: B008 - frozen
    quality: QualityConfig = SHIPPED,
) -> ReleaseReport:
    """Select rows, write them as Parquet with their lineage, gate them, publish them atomically.

    Args:
        scores_id: The scores to select by; `rise ls` lists them.
        store: Folder of the store.
        release: Name of the release; its ``latest`` pointer moves to the new one.
        config: Selection rule and layout.
        quality: Where the suites of the quality gates are.
    """
    with FlowProgress("release") as progress:
        report: ReleaseReport = publish_release(
            ScoresRef(store, scores_id), release, config, quality=quality, progress=progress
        )
    leave_report(
        "release",
        title=f"release {release}: {report.n_rows:,} rows",
        facts={
            "release id": report.ref.release_id,
            "rows": report.n_rows,
            "tokens": report.n_tokens,
            "bytes": readable_bytes(report.n_bytes),
            **{f"dropped: {reason}": n for reason, n in sorted(report.n_dropped.items())},
        },
        links={"release": report.path, "Data Docs": report.data_docs},
        warnings=report.warnings,
    )
    return report
