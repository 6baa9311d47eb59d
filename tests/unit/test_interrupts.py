"""Ctrl-C, which a terminal sends to every process of a run, ends only the one that was started."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.embedded_server import start_embedded_server
from tasks.interrupts import children_unhurried

ASLEEP = "import time; print('up', flush=True); time.sleep(60)"


def hears_ctrl_c(status: str) -> bool:
    """Read the mask of blocked signals from a text like /proc/<pid>/status."""
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")]
    return not int(mask, 16) >> (signal.SIGINT - 1) & 1


def status_of(pid: int | str) -> str:
    return Path(f"/proc/{pid}/status").read_text()


@pytest.fixture(name="no_server_set")
def prefect_without_server() -> Iterator[None]:
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        temporary_settings,
    )

    with temporary_settings(
        {PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True}, restore_defaults={PREFECT_API_URL}
    ):
        yield


def test_a_child_lives_on_and_this_process_hears_it() -> None:
    with children_unhurried():
        child = subprocess.Popen([sys.executable, "-c", ASLEEP], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        child.terminate()
    assert child.returncode == -signal.SIGTERM
    assert hears_ctrl_c(status_of("thread-self"))


def test_the_embedded_server_is_started_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, no_server_set: None
) -> None:
    from prefect.server.api.server import SubprocessASGIServer

    heard = []

    def start(*_: object, **__: object) -> None:
        heard.append(hears_ctrl_c(status_of("thread-self")))

    monkeypatch.setattr(SubprocessASGIServer, "start", start)
    start_embedded_server()
    assert heard == [False]
    assert hears_ctrl_c(status_of("thread-self"))

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("timed out")

    monkeypatch.setattr(SubprocessASGIServer, "start", fail)
    with pytest.raises(ConnectionError, match=r"timed out.*PREFECT_API_URL"):
        start_embedded_server()


def test_no_server_is_started_where_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(SubprocessASGIServer, "start", None)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        start_embedded_server()


def test_worker_processes_are_out_of_reach_and_their_parent_is_not() -> None:
    from tasks.dask_client import local_client

    with local_client(1) as client:
        own = client.submit(Path.read_text, Path("/proc/self/status")).result()
        assert not hears_ctrl_c(own)
        assert hears_ctrl_c(status_of("thread-self"))
