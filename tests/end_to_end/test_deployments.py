"""The shipped deployments, on a real server, run by a real worker."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from pipeline_samples import pipeline_settings
from prefect_process import (
    PATIENCE_SECONDS,
    Environment,
    post,
    prefect,
    prefect_server,
    wait_until,
)

REPOSITORY = Path(__file__).parents[2]
FLOWS = [
    "consume",
    "evaluate",
    "index",
    "ingest",
    "pipeline",
    "queries",
    "refresh",
    "release",
    "score",
]


@contextmanager
def running_worker(environment: Environment, folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "local"]
    quick = {**environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=quick, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            stop_idle(worker)


@contextmanager
def serving(environment: Environment, folder: Path) -> Iterator[None]:
    """Run `rise serve` until it has said that it is ready."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "serve"]
    paths = {**environment, "PYTHONPATH": str(REPOSITORY), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    log = folder / "serve.log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=paths, cwd=folder, stdout=file, stderr=file)
        try:
            wait_until(lambda: "being served" in log.read_text(), server, log)
            yield
        finally:
            stop_idle(server)


def stop_idle(process: subprocess.Popen) -> None:
    """Stop a worker between two runs; Prefect's sometimes waits for ever after its last run."""
    end = time.monotonic() + 30
    while psutil.Process(process.pid).children() and time.monotonic() < end:
        time.sleep(0.2)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    process.kill()
    process.wait()


def wait_for_run(environment: Environment, flow: str) -> dict[str, Any]:
    """Wait until a run of a flow is completed; return it."""
    body = {"flows": {"name": {"any_": [flow]}}}
    found: list[dict[str, Any]] = []
    end = time.monotonic() + PATIENCE_SECONDS
    while not found and time.monotonic() < end:
        time.sleep(1)
        runs = post(environment, "/flow_runs/filter", body)
        found = [run for run in runs if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")]
    assert found, f"no run of {flow} ended"
    return found[0]


def test_a_worker_runs_the_whole_path(tmp_path: Path, tiny_llama: Path) -> None:
    home = tmp_path / "prefect"
    home.mkdir()
    checkout = tmp_path / "checkout"
    for name in ("flows", "tasks", "rise_ops", "storage", "deployments", "examples"):
        shutil.copytree(REPOSITORY / name, checkout / name)
    shipped = checkout / "deployments" / "prefect.yaml"
    shipped.write_text(shipped.read_text().replace("enabled: false", "enabled: true"))
    settings = pipeline_settings(tmp_path, tiny_llama)
    with prefect_server(home) as environment:
        prefect(environment, checkout, "work-pool create local --type process")
        prefect(environment, checkout, "deploy --all --prefect-file deployments/prefect.yaml")
        deployed = post(environment, "/flows/filter", {})
        assert sorted(item["name"] for item in deployed) == FLOWS

        with running_worker(environment, tmp_path):
            started = "deployment run pipeline/whole-path --watch --param"
            prefect(environment, checkout, started, f"config={json.dumps(settings)}")
            used = wait_for_run(environment, "consume")
        runs = post(environment, "/flow_runs/filter", {})
        stories = post(environment, "/artifacts/filter", {})
        with serving(environment, tmp_path):
            prefect(
                environment,
                checkout,
                "deployment run score/score --watch --param",
                f"store={settings['store']}",
            )
    states = {run["name"]: run["state"]["type"] for run in runs}
    assert set(states.values()) == {"COMPLETED"}, (tmp_path / "worker.log").read_text()[-3000:]
    release = (tmp_path / "store" / "releases" / "main" / "latest").resolve()
    assert len(list((release / "data").glob("*.parquet"))) == 1
    # the event of the release has started a flow that reads it
    assert used["name"] == f"consume-main-{release.name}"
    assert used["parameters"]["store"] == str(tmp_path / "store")
    assert json.loads((checkout / "consumed" / "main.json").read_text()) == {
        "release_id": release.name
    }
    assert any(story["key"] == "release-cut" for story in stories)
