"""Some days of `rise up`: nightly refreshes, one killed, a bad file, a run by hand cancelled.

A real server, a real worker, a real schedule. At the end data and attributes of the release have
the bytes of one clean run on the same files.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect_process import free_port, get, patch, post, wait_until
from refresh_samples import refresh, refresh_settings, rows, write_inbox_file

from storage.release_pointer import latest
from storage.releases import open_release
from tasks.catalog import verify_store
from tasks.config import PipelineConfig

ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PATIENCE = 240
"""Seconds to wait for a run: on a busy machine its imports alone may take a minute."""
BLOCK_ROWS = 8
SLOW_BLOCKS = """
import os, sys, time

slow = os.environ["SLOW"]

def wait(event, arguments):
    if event == "os.rename" and "/blocks/0" in str(arguments[1]) and os.path.exists(slow):
        with open(slow, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(1)

if os.path.exists(slow):
    sys.addaudithook(wait)
"""
"""Blocks take long while a file is there, into which their process writes its id."""


@dataclass(frozen=True)
class Day:
    """What the day happens to: the command's process, its server, its folder."""

    up: subprocess.Popen
    here: dict[str, str]
    folder: Path
    config: PipelineConfig

    @property
    def slow(self) -> Path:
        return self.folder / "slow"

    def put(self, name: str, content: dict[str, str]) -> None:
        write_inbox_file(self.folder / "inbox" / name, content)

    def night(self) -> str:
        """Let the schedule be due now; return the id of the run that the server makes of it."""
        deployed = self.deployment()
        (schedule,) = deployed["schedules"]
        due = datetime.now(UTC)
        daily = {"interval": 86400, "anchor_date": due.isoformat(), "timezone": "UTC"}
        before = {run["id"] for run in self.runs()}
        path = f"/deployments/{deployed['id']}"
        patch(self.here, f"{path}/schedules/{schedule['id']}", {"schedule": daily})
        # what the server does every few seconds; asked for, it looks at the moment just gone too
        since = (due - timedelta(seconds=1)).isoformat()
        post(self.here, f"{path}/schedule", {"start_time": since, "min_runs": 1})
        made = [run for run in self.runs() if run["id"] not in before]
        run = min(made, key=lambda one: one["expected_start_time"])
        assert run["auto_scheduled"]
        assert datetime.fromisoformat(run["expected_start_time"]) < due + timedelta(minutes=1)
        return str(run["id"])

    def by_hand(self) -> str:
        """Start a run as the button in the UI does; return its id."""
        made = post(self.here, f"/deployments/{self.deployment()['id']}/create_flow_run", {})
        return str(made["id"])

    def deployment(self) -> dict[str, Any]:
        found = get(self.here, "/deployments/name/refresh/inbox")
        assert isinstance(found, dict)
        return found

    def runs(self) -> list[dict[str, Any]]:
        found = post(self.here, "/flow_runs/filter", {"flows": {"name": {"any_": ["refresh"]}}})
        assert isinstance(found, list)
        return found

    def end_of(self, run: str) -> str:
        """Wait for the end of a run; return the name of its state."""

        def state() -> dict[str, Any]:
            found = get(self.here, f"/flow_runs/{run}")
            return found["state"] if isinstance(found, dict) else {"type": ""}

        self.wait(lambda: state()["type"] in ENDED)
        return str(state()["name"])

    def wait(self, holds: Callable[[], bool]) -> None:
        wait_until(holds, self.up, self.folder / "up.log", seconds=PATIENCE)

    def blocks(self) -> dict[str, int]:
        """The records of the blocks that are done, and when each was written."""
        folder = Path(self.config.store) / "indexes" / "main" / "blocks"
        return {path.name: path.stat().st_mtime_ns for path in folder.glob("0*.json")}

    def process_at_block(self, number: int) -> psutil.Process:
        """Wait until so many blocks are done; return the process that makes the next one."""
        self.wait(lambda: len(self.blocks()) >= number and bool(self.slow.read_text()))
        return psutil.Process(int(self.slow.read_text()))

    def released(self) -> str:
        return latest(self.config.store, "main").release_id


@pytest.fixture(name="day")
def day_of_up(tmp_path: Path, tiny_llama: Path) -> Iterator[Day]:
    config = refresh_settings(tmp_path, tiny_llama, **{"indexing.block_rows": BLOCK_ROWS})
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (tmp_path / "sitecustomize.py").write_text(SLOW_BLOCKS)
    port = free_port()
    command = [sys.executable, "-c", "from flows.cli import main; main()", "up", "settings.yaml"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path.cwd())]),
        "SLOW": str(tmp_path / "slow"),
    }
    log = tmp_path / "up.log"
    with log.open("wb") as file:
        up = subprocess.Popen(
            [*command, "--cron", "0 2 * * *", "--port", str(port)],
            env=environment,
            cwd=tmp_path,
            stdout=file,
            stderr=file,
        )
    day = Day(up, {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}, tmp_path, config)
    try:
        day.wait(lambda: "Stop      Ctrl-C" in log.read_text())
        yield day
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(PATIENCE)


@contextmanager
def slow_blocks(day: Day) -> Iterator[None]:
    day.slow.touch()
    try:
        yield
    finally:
        day.slow.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.timeout(1200)
def test_nothing_is_lost_and_the_end_is_that_of_one_clean_run(day: Day, tmp_path: Path) -> None:
    day.put("a.jsonl", rows(0, 20))
    assert day.end_of(day.night()) == "Completed"
    first = day.released()
    assert len(day.blocks()) == 3

    # the next night's run is killed within its fifth block
    day.put("b.jsonl", rows(20, 60))
    with slow_blocks(day):
        killed = day.night()
        day.process_at_block(4).kill()
    assert day.end_of(killed) == "Crashed"
    done = day.blocks()
    assert 4 <= len(done) < 8
    assert day.released() == first

    # the night after it takes up what was left, and a file that nobody can read stops nothing
    (tmp_path / "inbox" / "bad.jsonl").write_text('{"id": "x", "body": "of other fields"}\n')
    day.put("c.jsonl", rows(60, 68))
    assert day.end_of(day.night()) == "CompletedWithWarnings"
    assert len(day.blocks()) == 9
    assert done.items() <= day.blocks().items(), "a finished block was made again"
    (refused,) = (Path(day.config.store) / "corpora" / "main" / "refused").iterdir()
    assert (refused / "rejected.parquet").is_file()
    second = day.released()
    assert second != first

    # a run by hand is cancelled: it stops within the block that it is at
    day.put("d.jsonl", rows(68, 120))
    with slow_blocks(day):
        cancelled = day.by_hand()
        process = day.process_at_block(11)
        post(day.here, f"/flow_runs/{cancelled}/set_state", {"state": {"type": "CANCELLING"}})
        assert day.end_of(cancelled) == "Cancelled"
        day.wait(lambda: not process.is_running())
    done = day.blocks()
    assert 11 <= len(done) < 15
    assert day.released() == second
    assert day.end_of(day.night()) == "CompletedWithWarnings"
    assert done.items() <= day.blocks().items(), "a finished block was made again"

    clean = refresh(day.config.model_copy(update={"store": str(tmp_path / "clean")}))
    assert clean.release is not None
    whole = open_release(clean.release.ref)
    last = open_release(latest(day.config.store, "main"))
    for part in ("data", "attributes"):
        assert contents(last.folder / part) == contents(whole.folder / part)
    assert verify_store(day.config.store) == []
    assert "Traceback" not in (tmp_path / "rise-prefect" / "worker.log").read_text()
