"""A Prefect server, a work pool, the deployments and a worker on one machine: what `rise up` runs.

All of it are child processes that end with this one, and all that they keep (database, logs,
results) lies in one folder: delete it, and nothing was ever there. The stores lie elsewhere.
"""

import fcntl
import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from flows.children import Child, ChildFailedError, start_child

POOL = "local"
SERVER_SECONDS, DEPLOY_SECONDS = 180.0, 600.0
"""How long a first start may take on a busy machine."""
LOOK_SECONDS = 0.5
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
QUICK = {
    # seconds between a click and the start of a run; Prefect's defaults are 10 and 60
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    # a cancellation comes as an event, at once; where that is lost, it is asked for; default 120
    "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "10",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "15",
    # slots of a concurrency limit survive a restart of the server
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "DASK_LOGGING__DISTRIBUTED": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Place:
    """Where it runs: the folder of its state, and the address of its server."""

    state: Path
    host: str = "127.0.0.1"
    port: int = 4200

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://{self.host}:{self.port}"

    @property
    def ui(self) -> str:
        """Address that people open."""
        return f"{self.url}/v2/dashboard"

    def environment(self) -> dict[str, str]:
        """Return the environment of the children: nothing of another Prefect server's."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("PREFECT_") or name.startswith("PREFECT_LOGGING_")
        }
        return {
            **kept,
            **QUICK,
            "PREFECT_HOME": str(self.state),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_API_HOST": self.host,
            "PREFECT_SERVER_API_PORT": str(self.port),
        }


@dataclass(frozen=True)
class Running:
    """The children, in the order of their start, and the place they run at."""

    place: Place
    folder: Path
    environment: dict[str, str]
    children: list[Child]

    def start(self, name: str, *command: str) -> Child:
        """Start a child that is stopped at the end."""
        child = start_child(
            name,
            command,
            environment=self.environment,
            folder=self.folder,
            log=self.place.state / f"{name}.log",
        )
        self.children.append(child)
        return child

    def do(self, name: str, *command: str) -> None:
        """Run a child to its end; `ChildFailedError` when it fails."""
        self.start(name, *command).require_success(DEPLOY_SECONDS)
        self.children.pop()


@contextmanager
def everything_up(
    place: Place,
    folder: Path,
    document: dict[str, Any],
    *,
    runs: int,
    more: dict[str, str] | None = None,
    say: Callable[[str], None],
) -> Iterator[Running]:
    """Start server, pool, deployments and worker; stop them all when the block ends.

    Args:
        place: Where.
        folder: Where the children and the runs start.
        document: The deployments; see `flows.deployments.deployments`.
        runs: Flow runs at a time.
        more: Environment variables for the children.
        say: Receives a line for every step.

    Raises:
        ValueError: The port is taken.
        ChildFailedError: A child ended or failed; the message has the end of its log.
    """
    place.state.mkdir(parents=True, exist_ok=True)
    with _only_one(place.state):
        require_free_port(place)
        running = Running(place, folder, place.environment() | (more or {}), [])
        try:
            say("starting the Prefect server ...")
            _wait_for_server(running.start("server", "prefect", "server", "start"), place)
            say("deploying the flows ...")
            _deploy(running, document)
            say("starting the worker ...")
            worker = ["worker", "start", "--pool", POOL, "--limit", str(runs)]
            _wait_for_worker(running.start("worker", "prefect", *worker), place)
            yield running
        finally:
            say("stopping ...")
            with _unhurried():
                for child in reversed(running.children):
                    child.stop()


def watch(running: Running) -> NoReturn:
    """Wait for ever; `ChildFailedError` when a child ends."""
    while True:
        for child in running.children:
            child.require_alive()
        time.sleep(LOOK_SECONDS)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Make SIGTERM and a closed terminal end the block as Ctrl-C does, also in the background."""
    before = {one: signal.signal(one, _interrupt) for one in STOP_SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def require_free_port(place: Place) -> None:
    """Raise ValueError, saying by whom as far as can be known, when the port is taken."""
    with socket.socket(socket.AF_INET6 if ":" in place.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((place.host, place.port))
        except OSError as error:
            raise ValueError(
                f"port {place.port} of {place.host} cannot be used ({error.strerror}). "
                f"{_who_is_there(place)}"
            ) from error


def _who_is_there(place: Place) -> str:
    other = f"Take another port: rise up --port {place.port + 1}"
    if _get(f"{place.url}/api/health") is True:
        return (
            f"A Prefect server is there already: {place.ui}. To run the flows on that one: "
            f"PREFECT_API_URL={place.url}/api rise serve. {other}"
        )
    return other


def _deploy(running: Running, document: dict[str, Any]) -> None:
    file = running.place.state / "prefect.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    prefect = ("prefect", "--no-prompt")
    running.do("pool", *prefect, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    running.do("deploy", *prefect, "deploy", "--all", "--prefect-file", str(file.absolute()))


def _wait_for_server(server: Child, place: Place) -> None:
    def is_up() -> bool:
        return _get(f"{place.url}/api/health") is True

    _wait_until(is_up, server, SERVER_SECONDS)


def _wait_for_worker(worker: Child, place: Place) -> None:
    def is_up() -> bool:
        found = _get(f"{place.url}/api/work_pools/{POOL}/workers/filter", body={})
        return isinstance(found, list) and any(one.get("status") == "ONLINE" for one in found)

    _wait_until(is_up, worker, SERVER_SECONDS)


def _wait_until(holds: Callable[[], bool], child: Child, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        child.require_alive()
        if time.monotonic() > end:
            raise ChildFailedError(
                f"{child.name} does not answer after {seconds:.0f} s. The end of {child.log}:\n"
                f"{child.tail()}"
            )
        time.sleep(LOOK_SECONDS)


def _get(url: str, *, body: object = None) -> Any:
    """Return the JSON that an address answers; None when it does not."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)
    return None


@contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """Hold the folder for this process alone."""
    with (state / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError(
                f"`rise up` runs already with the state in {state} ({file.read().strip()}). Stop "
                "that one with Ctrl-C, or give this one another folder: --state."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


@contextmanager
def _unhurried() -> Iterator[None]:
    """Let a second Ctrl-C not tear the stop apart: it is bounded in time."""
    before = {one: signal.signal(one, signal.SIG_IGN) for one in STOP_SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
