"""The shipped deployments, on a real server, run by a real worker."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline_samples import pipeline_settings
from prefect_process import Environment, post, prefect, prefect_server

REPOSITORY = Path(__file__).parents[2]
FLOWS = ["index", "ingest", "pipeline", "queries", "release", "score"]


@contextmanager
def running_worker(environment: Environment, folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "local"]
    quick = {**environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=quick, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            worker.terminate()
            worker.wait(60)


def test_a_worker_runs_the_whole_path(tmp_path: Path, tiny_llama: Path) -> None:
    home = tmp_path / "prefect"
    home.mkdir()
    checkout = tmp_path / "checkout"
    for name in ("flows", "tasks", "rise_ops", "storage", "deployments"):
        shutil.copytree(REPOSITORY / name, checkout / name)
    settings = pipeline_settings(tmp_path, tiny_llama)
    with prefect_server(home) as environment:
        prefect(environment, checkout, "work-pool create local --type process")
        prefect(environment, checkout, "deploy --all --prefect-file deployments/prefect.yaml")
        deployed = post(environment, "/flows/filter", {})
        assert sorted(item["name"] for item in deployed) == FLOWS

        with running_worker(environment, tmp_path):
            started = "deployment run pipeline/whole-path --watch --param"
            prefect(environment, checkout, started, f"config={json.dumps(settings)}")
        runs = post(environment, "/flow_runs/filter", {})
    states = {run["name"]: run["state"]["type"] for run in runs}
    assert set(states.values()) == {"COMPLETED"}, (tmp_path / "worker.log").read_text()[-3000:]
    released = tmp_path / "store" / "releases" / "main" / "latest" / "data"
    assert len(list(released.glob("*.parquet"))) == 1
