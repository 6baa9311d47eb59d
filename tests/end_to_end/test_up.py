"""`rise up`: everything starts, a taken port is told, and everything is gone after SIGTERM."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml
from pipeline_samples import pipeline_settings
from prefect_process import PATIENCE_SECONDS, free_port, get, post, wait_until

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "up"]
MOST_SECONDS = 75
"""Of a stop: 15 for the run, the worker and the server each, and a busy machine."""


def test_up_and_down(tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(pipeline_settings(tmp_path, tiny_llama)))
    port = free_port()
    # what is set for another server is not for this one
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path.cwd()),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }
    arguments = ["pipeline.yaml", "--cron", "0 2 * * *", "--port", str(port)]
    log = tmp_path / "up.log"
    with log.open("wb") as file:
        up = subprocess.Popen(
            [*COMMAND, *arguments], env=environment, cwd=tmp_path, stdout=file, stderr=file
        )
    try:
        wait_until(lambda: "Stop      Ctrl-C" in log.read_text(), up, log)
        assert f"http://127.0.0.1:{port}/v2/dashboard" in log.read_text()

        here = {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
        nightly = get(here, "/deployments/name/refresh/inbox")
        assert isinstance(nightly, dict)
        assert nightly["parameters"]["config"]["store"] == str(tmp_path / "store")
        assert [line["active"] for line in nightly["schedules"]] == [True]

        for other, told in [(port, "A Prefect server is there already"), (None, "runs already")]:
            more = ["--state", "other"] if other else []
            again = subprocess.run(
                [*COMMAND, *arguments, *more],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert again.returncode == 1
            assert told in again.stderr
            assert "Traceback" not in again.stderr

        # the hardest moment: a flow run is going on
        post(here, f"/deployments/{nightly['id']}/create_flow_run", {})
        wait_until(lambda: len(family(up.pid)) > 2, up, log)
    finally:
        children = family(up.pid)
        started = time.monotonic()
        up.send_signal(signal.SIGTERM)
        status = up.wait(PATIENCE_SECONDS)
    assert status == 0, log.read_text()
    assert time.monotonic() - started < MOST_SECONDS
    assert [child for child in children if child.is_running()] == []
    assert "stopped. Everything is kept" in log.read_text()
    assert get(here, "/health") is None
    assert (tmp_path / "rise-prefect" / "prefect.db").is_file()


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)
