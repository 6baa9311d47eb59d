"""A Dask cluster that cannot do our tasks is refused before anything is sent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import dask_cluster
from scored_store import ScoredStore, make_scored_store

import tasks.block_graph as block_graph
import tasks.dask_client as dask_client
from tasks.config import RuntimeConfig
from tasks.dask_client import remote_client
from tasks.scoring import attribute

HIDE = "import sys; sys.modules['rise_ops'] = None"  # as if the project were not installed
SCHEDULER = f"{HIDE}; from distributed.cli.dask_scheduler import main; main()"


@pytest.fixture(name="bare_scheduler")
def scheduler_without_the_project(tmp_path: Path) -> Iterator[str]:
    """Yield the address of a scheduler in a process of its own."""
    file = tmp_path / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    options += ("--dashboard-address", "127.0.0.1:0")
    with subprocess.Popen([sys.executable, "-c", SCHEDULER, *options]) as process:
        while not (file.exists() and file.stat().st_size):
            assert process.poll() is None
            time.sleep(0.1)
        yield json.loads(file.read_text("utf-8"))["address"]
        process.terminate()


def test_a_scheduler_without_the_project_is_refused(bare_scheduler: str) -> None:
    expected = (
        f"^1 of the processes .* {bare_scheduler} .*, for instance its own process: .*Install"
    )
    with (
        pytest.raises(ConnectionError, match=expected),
        remote_client(bare_scheduler, otherwise="do without"),
    ):
        pass


def test_workers_without_the_project_are_named() -> None:
    from distributed import Client

    with dask_cluster(n_workers=2, threads_per_worker=1) as cluster:
        address = cluster.scheduler_address
        with Client(cluster, set_as_default=False) as client:
            one = next(iter(client.scheduler_info()["workers"]))
            client.run(exec, HIDE, workers=[one])
        expected = (
            f"^1 of the processes .* {address} cannot import .*, for instance {one}: .*Install"
        )
        with (
            pytest.raises(ConnectionError, match=expected),
            remote_client(address, otherwise="do without"),
        ):
            pass


def test_a_worker_that_hangs_is_left_to_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client

    with dask_cluster(n_workers=1, threads_per_worker=1) as cluster:
        address = cluster.scheduler_address
        with Client(cluster, set_as_default=False) as client:
            (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGSTOP)
        try:
            monkeypatch.setattr(dask_client, "CONNECT_SECONDS", 5)
            with remote_client(address, otherwise="do without") as client:
                assert client.status == "running"
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_search_without_any_worker_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_graph, "CONNECT_SECONDS", 1)
    store: ScoredStore = make_scored_store(str(tmp_path / "store"))
    with dask_cluster(n_workers=0, threads_per_worker=1) as cluster:
        runtime = RuntimeConfig(scheduler=cluster.scheduler_address)
        expected = (
            f"{cluster.scheduler_address} has had no worker for 1 s. Start .*scheduler: threads"
        )
        with pytest.raises(ConnectionError, match=expected):
            attribute(store.index, store.query_signatures, top_k=3, runtime=runtime)
