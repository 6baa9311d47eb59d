"""Flow: methods times tasks, measured; tables are left after every task."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from prefect import flow

from flows.artifacts import leave_report, leave_table
from flows.evaluate_artifacts import artifact_key, leave_measured
from flows.failure import explain_failure
from flows.progress import FlowProgress
from tasks.evaluate.effects import EffectsReport, scored_methods
from tasks.evaluate.gather import Gathered
from tasks.evaluate.run import (
    Outcome,
    TaskReport,
    cells,
    check_evaluation,
    method_names,
    without_task,
)
from tasks.evaluate.settings import EvaluateConfig, Paradigm
from tasks.page.shell import WrittenPage
from tasks.prefect_tasks import (
    draw_evaluation,
    gather_tables,
    measure_effects,
    prepare_task,
    run_method,
)


@flow(name="evaluate", flow_run_name="evaluate", on_failure=[explain_failure])
def evaluate(config: EvaluateConfig, command: str = "") -> Gathered:
    """Run attribution methods on tasks whose right rows are known, and measure them.

    What was scored before is not scored again: an interrupted run goes on, and a further method
    costs only itself. A method that refuses or fails is recorded, the others go on; so are all
    methods of a task that cannot be made ready, its training for instance.

    Args:
        config: Tasks, methods, model, what is measured.
        command: How it was started, for the record; may be empty.
    """
    check_evaluation(config)
    names, todo = method_names(config), cells(config)
    outcomes: list[Outcome] = []
    gathered: Gathered | None = None
    for task, paradigm in todo:
        try:
            with FlowProgress(f"prepare {task}") as progress:
                prepared: TaskReport = prepare_task(config, task, paradigm, progress=progress)
        except Exception as error:  # noqa: BLE001 - a training that fails must not end the others
            outcomes += without_task(config, task, paradigm, error)
            where = f"{task} ({paradigm}): {outcomes[-1].reason.splitlines()[0]}"
            _say(f"{len(outcomes)} of {len(todo) * len(names)}: {where}")
            gathered = gather_tables(config, outcomes, command=command)
            continue
        for method in names:
            with FlowProgress(f"{method} on {task}") as progress:
                outcome: Outcome = run_method(config, task, paradigm, method, progress=progress)
            outcomes.append(outcome)
            _say(f"{len(outcomes)} of {len(todo) * len(names)}: {outcome.summary}")
        if config.measures_training(task, paradigm):
            _measure_effects(config, task, paradigm, outcomes)
        gathered = gather_tables(config, outcomes, command=command)
        _leave_task(prepared, gathered, outcomes)
    if gathered is None:  # settings have at least one task, one paradigm and one method
        raise ValueError("there is no task to evaluate; set tasks.")
    page: WrittenPage = draw_evaluation(gathered.folder, highlights=True, runtime=config.runtime)
    gathered = replace(gathered, page=page.path)
    _leave_summary(config, gathered, outcomes, page.title)
    return gathered


def _measure_effects(
    config: EvaluateConfig, task: str, paradigm: Paradigm, outcomes: Sequence[Outcome]
) -> None:
    scored = scored_methods(outcomes, task, paradigm)
    with FlowProgress(f"trainings on {task}") as progress:
        report: EffectsReport = measure_effects(config, task, paradigm, scored, progress=progress)
    _say(report.summary)


def _say(line: str) -> None:
    from prefect.logging import get_run_logger

    get_run_logger().info(line)
    sys.stderr.write(f"{line}\n")  # a run of hours says where it is, wherever its log goes
    sys.stderr.flush()


def _leave_task(report: TaskReport, gathered: Gathered, outcomes: Sequence[Outcome]) -> None:
    """Leave a table of one task: a line a method."""
    lines = gathered.shown(report.task, report.paradigm)
    lines += [
        {"method": one.method, "no scores": f"{one.kind}: {one.reason.splitlines()[0]}"}
        for one in outcomes
        if (one.task, one.paradigm) == (report.task, report.paradigm) and one.reason
    ]
    leave_table(
        artifact_key("evaluate", report.task, report.paradigm),
        lines,
        description=f"{report.task} ({report.paradigm}): {report.n_rows:,} rows, "
        f"{report.n_queries:,} queries",
    )


def _leave_summary(
    config: EvaluateConfig, gathered: Gathered, outcomes: Sequence[Outcome], headline: str
) -> None:
    leave_report(
        "evaluate",
        title=f"{gathered.n_results:,} results of {len(method_names(config)):,} methods on "
        f"{len(cells(config)):,} tasks",
        facts={
            "which method to trust": headline,
            "results": gathered.n_results,
            "kept from runs before": sum(one.kind == "kept" for one in outcomes),
            "methods that refused": gathered.n_refused,
            "methods that failed": gathered.n_failed,
            "model": config.model.name,
        },
        links={"report": gathered.page, "tables": gathered.folder},
        warnings=[one.summary for one in outcomes if one.reason],
    )
    if gathered.n_results:
        leave_measured(gathered.folder, headline=headline)
