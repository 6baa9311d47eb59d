"""Do the pinned libraries work together where pip's own choice would break them?

fastapi >= 0.151 makes `prefect deploy --all` die after the first deployment, SQLAlchemy 2.1 keeps
the server from ever scheduling a cron deployment: both only show with a real server.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FLOW_FILE = """
from prefect import flow

@flow
def tick(n: int = 1) -> int:
    return n
"""
DEPLOYMENTS = """
name: pairs
deployments:
  - name: every-minute
    entrypoint: tick.py:tick
    schedules: [{cron: "* * * * *", timezone: UTC}]
    work_pool: {name: pairs}
  - name: by-hand
    entrypoint: tick.py:tick
    work_pool: {name: pairs}
"""
PATIENCE_SECONDS = 60


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """Run a real Prefect server in a process; yield the environment of its clients."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    log = (home / "server.log").open("wb")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_until(lambda: _get(environment, "/health") is True, server, home)
        yield environment
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _get(environment: dict[str, str], path: str) -> object:
    try:
        with urllib.request.urlopen(environment["PREFECT_API_URL"] + path, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def _post(environment: dict[str, str], path: str, body: dict[str, object]) -> list[dict]:
    request = urllib.request.Request(
        environment["PREFECT_API_URL"] + path,
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def _wait_until(holds, server: subprocess.Popen, home: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if server.poll() is not None or time.monotonic() > end:
            pytest.fail((home / "server.log").read_text()[-3000:])
        time.sleep(0.5)


def test_a_cron_deployment_gets_scheduled_runs(tmp_path: Path) -> None:
    (tmp_path / "tick.py").write_text(FLOW_FILE)
    (tmp_path / "prefect.yaml").write_text(DEPLOYMENTS)
    with prefect_server(tmp_path) as environment:

        def prefect(*arguments: str) -> None:
            subprocess.run(
                [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
                env=environment,
                cwd=tmp_path,
                check=True,
                capture_output=True,
                timeout=120,
            )

        prefect("work-pool", "create", "pairs", "--type", "process", "--overwrite")
        prefect("deploy", "--all")
        deployed = _post(environment, "/deployments/filter", {})
        assert sorted(item["name"] for item in deployed) == ["by-hand", "every-minute"]

        scheduled: list[dict] = []
        end = time.monotonic() + PATIENCE_SECONDS
        while not scheduled and time.monotonic() < end:
            time.sleep(1)
            only_scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
            scheduled = _post(environment, "/flow_runs/filter", only_scheduled)
        by_name = {item["id"]: item["name"] for item in deployed}
        assert scheduled, "the server scheduled no run of a cron deployment"
        assert {by_name[run["deployment_id"]] for run in scheduled} == {"every-minute"}
