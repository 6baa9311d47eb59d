"""Do the pinned libraries work together where pip's own choice would break them?

fastapi >= 0.151 makes `prefect deploy --all` die after the first deployment, SQLAlchemy 2.1 keeps
the server from ever scheduling a cron deployment: both only show with a real server.
"""

import time
from pathlib import Path

from prefect_process import PATIENCE_SECONDS, post, prefect, prefect_server

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


def test_a_cron_deployment_gets_scheduled_runs(tmp_path: Path) -> None:
    (tmp_path / "tick.py").write_text(FLOW_FILE)
    (tmp_path / "prefect.yaml").write_text(DEPLOYMENTS)
    with prefect_server(tmp_path) as environment:
        prefect(environment, tmp_path, "work-pool create pairs --type process --overwrite")
        prefect(environment, tmp_path, "deploy --all")
        deployed = post(environment, "/deployments/filter", {})
        assert sorted(item["name"] for item in deployed) == ["by-hand", "every-minute"]

        scheduled: list[dict] = []
        end = time.monotonic() + PATIENCE_SECONDS
        while not scheduled and time.monotonic() < end:
            time.sleep(1)
            only_scheduled = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
            scheduled = post(environment, "/flow_runs/filter", only_scheduled)
        by_name = {item["id"]: item["name"] for item in deployed}
        assert scheduled, "the server scheduled no run of a cron deployment"
        assert {by_name[run["deployment_id"]] for run in scheduled} == {"every-minute"}
