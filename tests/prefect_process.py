"""A real Prefect server, and its command line, as processes of their own."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

PATIENCE_SECONDS = 90
FIRST_PORT, N_PORTS, MOST_WORKERS = 10_000, 2500, 8
"""Each test process has every eighth port from 10,000 to 30,000: the system gives higher ones to
connections, and to the server of `prefect_harness`."""

Environment = dict[str, str]


@contextmanager
def prefect_server(home: Path) -> Iterator[Environment]:
    """Run a real Prefect server in a process of its own; yield the environment of its clients."""
    port = str(free_port())
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
        wait_until(lambda: get(environment, "/health") is True, server, home / "server.log")
        yield environment
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def free_port() -> int:
    """Return a free port that no other test process and no connection takes meanwhile."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for _ in range(100):
        port = FIRST_PORT + MOST_WORKERS * secrets.randbelow(N_PORTS) + worker % MOST_WORKERS
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    return pytest.fail("none of 100 ports is free")


def get(environment: Environment, path: str) -> object:
    try:
        with urllib.request.urlopen(environment["PREFECT_API_URL"] + path, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def post(environment: Environment, path: str, body: dict[str, object]) -> Any:
    return send(environment, "POST", path, body)


def patch(environment: Environment, path: str, body: dict[str, object]) -> Any:
    return send(environment, "PATCH", path, body)


def send(environment: Environment, method: str, path: str, body: dict[str, object]) -> Any:
    request = urllib.request.Request(
        environment["PREFECT_API_URL"] + path,
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
        method=method,
    )
    for _ in range(30):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        time.sleep(1)  # SQLite was busy, and nothing was done
    return pytest.fail(f"{method} {path}: the server's database is busy")


def wait_until(
    holds: Callable[[], bool],
    server: subprocess.Popen,
    log: Path,
    *,
    seconds: float = PATIENCE_SECONDS,
) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if server.poll() is not None or time.monotonic() > end:
            pytest.fail(log.read_text()[-3000:])
        time.sleep(0.5)


def prefect(environment: Environment, folder: Path, command: str, *more: str) -> str:
    """Run a ``prefect`` command (split at spaces, then ``more``) in a folder; return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *command.split(), *more],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    if done.returncode != 0:
        pytest.fail(f"prefect {command}:\n{done.stdout}\n{done.stderr}"[-4000:])
    return done.stdout
