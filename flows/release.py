"""Flow: select rows by value and publish them as a validated release, with a page about it."""

from pathlib import Path

from prefect import flow

from flows.artifacts import leave_picture, leave_report, readable_bytes
from flows.drift_artifact import leave_drift
from flows.events import announce_release
from flows.failure import explain_failure
from flows.progress import FlowProgress
from flows.run_rules import run_rules
from storage.refs import ScoresRef
from tasks.config import RuntimeConfig
from tasks.drift_config import NO_LIMITS, DriftConfig
from tasks.prefect_tasks import draw_report, publish_release
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.release import ReleaseReport
from tasks.release_config import ReleaseConfig
from tasks.release_drift import require_not_held
from tasks.report_cost import StageCost, costs_of
from tasks.report_picture import CUT_LEGEND, cut_picture
from tasks.stage_config import Name


@flow(name="release", flow_run_name="release-{release}", on_failure=[explain_failure])
def release(  # noqa: PLR0913 - what a flow takes is its run form
    scores_id: str,
    store: str = "rise-store",
    release: Name = "main",
    config: ReleaseConfig = ReleaseConfig(),  # noqa: B008 - frozen
    quality: QualityConfig = SHIPPED,
    runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008 - frozen
    costs: tuple[StageCost, ...] = (),
    drift: DriftConfig = NO_LIMITS,
) -> ReleaseReport:
    """Select rows, write them as Parquet with their lineage, gate them, publish them atomically.

    Args:
        scores_id: The scores to select by; `rise ls` lists them.
        store: Folder of the store.
        release: Name of the release; its ``latest`` pointer moves to the new one.
        config: Selection rule and layout.
        quality: Where the suites of the quality gates are.
        runtime: Device, for token highlights in the report; how long the run may wait and take.
        costs: What the stages before took, for the report.
        drift: Limits for how far the release may be from the latest; beyond one that fails,
            ``latest`` stays, and the run fails.
    """
    with run_rules(runtime):
        with FlowProgress("release") as progress:
            report: ReleaseReport = publish_release(
                ScoresRef(store, scores_id),
                release,
                config,
                quality=quality,
                drift=drift,
                progress=progress,
            )
        if not (report.already and Path(report.page).is_file()):
            costs = (*costs, *costs_of(release=report))
            draw_report(report.ref, config.report, runtime=runtime, costs=costs)
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
        links={"release": report.path, "report": report.page, "Data Docs": report.data_docs},
        warnings=report.warnings,
    )
    leave_picture("release-cut", cut_picture(report.ref), description=CUT_LEGEND)
    leave_drift(report.drift)
    require_not_held(report.drift)
    announce_release(report.ref)
    return report
