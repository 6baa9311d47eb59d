"""Every stage function as a Prefect task: its name, its retries, its caching.

Storage is the cache: a completion record says what is done, so Prefect's result cache stays off
and nothing large is hashed. Only faults that may pass by themselves (`OSError`, timeouts) are
retried; a wrong input or a damaged file would fail the same way again.
"""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from storage.errors import StorageError
from tasks import block_work, corpus, queries, refresh, release, report, scoring, signatures
from tasks.evaluate import effects, gather, run

RETRIES = 2
RETRY_SECONDS = [2.0, 10.0]


def passes_by_itself(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Tell whether a failed task is worth another try: an I/O fault or timeout, nothing else."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, StorageError | FileNotFoundError | PermissionError | FileExistsError):
        return False
    return isinstance(error, OSError | TimeoutError)


def _stage(function: Any, name: str) -> Any:
    return task(
        function,
        name=name,
        task_run_name=name,
        retries=RETRIES,
        retry_delay_seconds=RETRY_SECONDS,
        retry_condition_fn=passes_by_itself,
        cache_policy=NO_CACHE,
        persist_result=False,
        log_prints=False,
    )


ingest_rows = _stage(corpus.ingest, "ingest rows")
take_inbox = _stage(refresh.take_inbox, "take inbox")
calibrate_index = _stage(signatures.calibrate_index, "calibrate")
plan_index = _stage(signatures.plan_index, "plan index")
sketch_block = _stage(block_work.sketch_block, "sketch block {block}")
sketch_blocks = _stage(block_work.sketch_blocks, "sketch blocks")
commit_index = _stage(signatures.commit_index, "commit index")
make_query_set = _stage(queries.make_query_set, "sketch queries")
score_rows = _stage(scoring.score, "score rows")
publish_release = _stage(release.release, "publish release")
draw_report = _stage(report.write_report, "draw report")
prepare_task = _stage(run.prepare, "prepare {task}, {paradigm}")
run_method = _stage(run.run_method, "{method} on {task}, {paradigm}")
measure_effects = _stage(effects.measure_effects, "trainings on {task}, {paradigm}")
gather_tables = _stage(gather.gather, "gather tables")
