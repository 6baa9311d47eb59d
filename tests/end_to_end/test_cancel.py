"""Cancel of a run that extracts, on a real server and worker: it ends at once and loses nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from refresh_samples import refresh_settings, rows, write_inbox_file
from store_samples import tree_bytes

from storage.guards import index_guard
from storage.refs import CorpusRef, IndexRef
from tasks.config import PipelineConfig
from tasks.refresh import take_inbox
from tasks.signatures import IndexReport, build_index

REPOSITORY = Path(__file__).parents[2]
BLOCK_ROWS, N_BLOCKS = 8, 16
"""A minute of work, so that a worker which is slow to listen is not taken for a deaf one."""
PATIENCE_SECONDS = 240
"""Not what is measured, blocks are: on a busy machine imports alone may take a minute."""
POOL = "cancelled"


@contextmanager
def running_worker(folder: Path, url: str) -> Iterator[psutil.Process]:
    environment = {
        **os.environ,
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "2",
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}",
    }
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL]
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            yield psutil.Process(worker.pid)
        finally:
            for process in psutil.Process(worker.pid).children(recursive=True):
                process.kill()
            worker.kill()
            worker.wait()


def wait_until(holds: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > end:
            pytest.fail(log.read_text()[-4000:])
        time.sleep(0.1)


def deploy(client: Any, parameters: dict[str, Any]) -> UUID:
    """Deploy the slow flow to a new pool; return the deployment's id."""
    from prefect.client.schemas.actions import WorkPoolCreate

    client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    where = {"prefect.deployments.steps.set_working_directory": {"directory": str(REPOSITORY)}}
    return client.create_deployment(
        client.create_flow_from_name("refresh"),
        "slow",
        work_pool_name=POOL,
        entrypoint="tests/slow_refresh.py:refresh",
        pull_steps=[where],
        parameters=parameters,
    )


def indexed(config: PipelineConfig) -> IndexReport:
    index, corpus = IndexRef(config.store, "main"), CorpusRef(config.store, "main")
    return build_index(index, corpus, config.indexing, config.runtime)


@pytest.mark.usefixtures("prefect_harness")
def test_a_cancelled_run_ends_within_a_block_and_the_next_one_goes_on(
    tmp_path: Path, tiny_llama: Path
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL
    from prefect.states import Cancelling

    config = refresh_settings(tmp_path, tiny_llama, **{"runtime.batch_tokens": 64})
    write_inbox_file(tmp_path / "inbox" / "a.jsonl", rows(0, BLOCK_ROWS * N_BLOCKS))
    ref, log = IndexRef(config.store, "main"), tmp_path / "worker.log"
    blocks = tmp_path / "store" / "indexes" / "main" / "blocks"
    with (
        get_client(sync_client=True) as client,
        running_worker(tmp_path, str(PREFECT_API_URL.value())) as worker,
    ):
        run = client.create_flow_run_from_deployment(
            deploy(client, {"config": config.model_dump(mode="json")})
        ).id
        wait_until(lambda: len(list(blocks.glob("*.json"))) >= 2, log)
        holder = index_guard(ref).holder()
        assert holder is not None
        assert str(run) in holder.owner.run
        process = psutil.Process(holder.owner.pid)
        assert process in worker.children(recursive=True)
        client.set_flow_run_state(run, Cancelling())  # what the button of the UI sends
        wait_until(lambda: not process.is_running(), log)
        wait_until(lambda: client.read_flow_run(run).state.type.value == "CANCELLED", log)
    kept = {path.name: path.stat().st_mtime_ns for path in blocks.glob("*.json")}
    assert 2 <= len(kept) < N_BLOCKS
    assert index_guard(ref).holder() is None

    assert indexed(config).n_sketched == BLOCK_ROWS * (N_BLOCKS - len(kept))
    assert {name: (blocks / name).stat().st_mtime_ns for name in kept} == kept
    clean = config.model_copy(update={"store": str(tmp_path / "clean")})
    take_inbox(clean)
    indexed(clean)
    assert tree_bytes(blocks.parent) == tree_bytes(tmp_path / "clean" / "indexes" / "main")
