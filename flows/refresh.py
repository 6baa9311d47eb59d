"""Flow: what is new in an inbox, all the way to a release; without news it does nothing."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.states import Completed

from flows.artifacts import leave_report, readable_bytes
from flows.failure import explain_failure
from flows.progress import FlowProgress
from flows.run_rules import run_rules
from tasks.config import PipelineConfig
from tasks.refresh import (
    IntakeReport,
    Outlook,
    look,
    released_inputs,
    remember,
    require_no_refusal,
)
from tasks.suite_expectations import require_suites

if TYPE_CHECKING:
    from flows.pipeline import MadeReport


@dataclass(frozen=True)
class RefreshReport:
    """What a refresh did.

    Attributes:
        summary: One sentence for people.
        intake: What became of the inbox's files; None when there was nothing to do.
        made: What the stages after it reported; None when there was nothing to do for them.
        warnings: Refused files, files left to the next run, what the gates found odd.
    """

    summary: str
    intake: IntakeReport | None = None
    made: "MadeReport | None" = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def nothing_new(self) -> bool:
        """There was nothing to do, and nothing was done."""
        return self.intake is None


@flow(name="refresh", flow_run_name="refresh-{config.release}", on_failure=[explain_failure])
def refresh(config: PipelineConfig) -> Any:
    """Ingest what is new, index what is missing, score, select and release.

    New and changed files of the inbox (rows.source) come in, one batch a file; changed and
    withdrawn rows are not used again. Without news nothing is done.

    Args:
        config: Everything the path needs; only rows and queries have no default.
    """
    with run_rules(config.runtime):
        outlook = look(config)
        report = nothing_new(outlook) if outlook.nothing else _refreshed(config)
    _leave_report(report)
    if report.intake is not None:
        require_no_refusal(config, report.intake)
    if report.warnings:
        # the run's state says it too; what the flow returns is the report all the same
        return Completed(name="CompletedWithWarnings", message=report.summary, data=report)
    return report


def nothing_new(outlook: Outlook) -> RefreshReport:
    """Return the report of a run without news."""
    refused = tuple(f"{one.name} is refused (as before): {one.reason}" for one in outlook.refused)
    waiting = tuple(
        f"{name}: {why}; it is left to the next run" for name, why in outlook.news.waiting.items()
    )
    return RefreshReport(outlook.summary, warnings=(*refused, *waiting))


def _refreshed(config: PipelineConfig) -> RefreshReport:
    # these load torch: not before there is something to do
    from flows.pipeline import release_rows
    from tasks.prefect_tasks import take_inbox

    require_suites(config.quality)
    with FlowProgress("refresh") as progress:
        intake: IntakeReport = take_inbox(config, progress=progress)
    if not intake.n_batches:
        summary = f"{intake.summary}; there are no rows yet"
        return RefreshReport(summary, intake, None, intake.warnings)
    inputs = released_inputs(config)
    made = release_rows(config, new_index=config.refresh.new_index)
    releases = {config.release: made.release, **made.also}
    remember(config, inputs, {name: one.ref.release_id for name, one in releases.items()})
    return RefreshReport(intake.summary, intake, made, (*intake.warnings, *made.warnings))


def _leave_report(report: RefreshReport) -> None:
    facts: dict[str, object] = {"what was done": report.summary}
    links: dict[str, str] = {}
    intake, made = report.intake, report.made
    if intake is not None:
        for one in intake.taken:
            counts = f"{one.n_rows:,} rows in, {one.n_changed:,} changed, "
            counts += f"{one.n_withdrawn:,} withdrawn, {one.n_rejected:,} rejected"
            facts[f"{one.name} ({one.why})"] = counts
        facts |= {f"{name} (gone)": f"{n:,} rows withdrawn" for name, n in intake.withdrawn}
        facts |= {f"{name} (duplicate)": "left out" for name in intake.duplicates}
        reports = {one.name: one.report for one in intake.refused if one.report}
        links |= {f"rejected records of {name}": path for name, path in reports.items()}
    if made is not None:
        facts |= {
            "rows indexed": made.index.n_rows,
            "rows sketched now": made.index.n_sketched,
            "bytes of the index": readable_bytes(made.index.n_bytes),
            "rows released": made.release.n_rows,
        }
        if made.replaced:
            facts["the index before, still readable"] = made.replaced
        links |= {"release": made.release.path, "report": made.release.page}
    leave_report(
        "refresh", title=report.summary, facts=facts, links=links, warnings=report.warnings
    )
