"""Clients of Dask schedulers: of one that is there, or of one for new processes on this machine.

``distributed`` is imported here, late, so that its log is set up before: a task that fails raises
its error where its result is wanted, and is not worth a log entry beside it.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, TypeVar

from tasks.interrupts import children_unhurried

if TYPE_CHECKING:
    from distributed import Client

_Answer = TypeVar("_Answer")

CONNECT_SECONDS = 20
"""How long an existing Dask scheduler, or its workers, may take to answer."""

IMPORTS = "import rise_ops.scoring, tasks.block_graph, tasks.worker_process"
"""What a process that reads our tasks imports."""

MOST_DEATHS = 3
"""Workers that may die with the same task before that is an error."""


@contextmanager
def remote_client(address: str, *, otherwise: str) -> Iterator["Client"]:
    """Yield a client of the scheduler at an address.

    Args:
        address: Like ``tcp://host:8786``.
        otherwise: What to do without one, for the message.

    Raises:
        ConnectionError: It does not answer, or it or a worker that it has lacks this project.
    """
    _quiet()
    from distributed import Client

    try:
        client = Client(address, set_as_default=False, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:  # ValueError: a protocol that Dask does not know
        raise ConnectionError(
            f"no Dask scheduler answers at {address} within {CONNECT_SECONDS} s "
            f"({error}). Start one, or {otherwise}."
        ) from error
    with client:
        _require_project(client, address)
        yield client


def _require_project(client: "Client", address: str) -> None:
    """Refuse a scheduler or workers that could not read tasks: Dask may wait for these forever.

    What does not answer in time is not refused: Dask looks after workers that hang.
    """
    lacking: dict[str, ImportError] = {}
    with suppress(TimeoutError):
        try:
            _in_time(lambda: client.run_on_scheduler(exec, IMPORTS))
        except ImportError as error:
            lacking["its own process"] = error
    with suppress(TimeoutError):
        answers = _in_time(lambda: client.run(exec, IMPORTS, on_error="return"))
        lacking |= {own: one for own, one in answers.items() if isinstance(one, ImportError)}
    if lacking:
        where, reason = next(iter(lacking.items()))
        raise ConnectionError(
            f"{len(lacking)} of the processes of the Dask scheduler at {address} cannot import "
            f"this project, for instance {where}: {reason}. Install it there with the same "
            "constraints.txt, or start scheduler and workers from an image that has it."
        )


def _in_time(ask: Callable[[], _Answer]) -> _Answer:
    """Return an answer; a thread waits for it, as Dask's own calls have no limit.

    Raises:
        TimeoutError: There was none within ``CONNECT_SECONDS``.
    """
    answer: Future[_Answer] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # noqa: BLE001 - raised where the answer is wanted
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(timeout=CONNECT_SECONDS)


@contextmanager
def local_client(n_workers: int) -> Iterator["Client"]:
    """Yield a client of new processes on this machine, one task at a time each.

    They live as long as the ``with`` block, end with this process, and start again when they die.

    Args:
        n_workers: How many.
    """
    _quiet()
    import dask
    from distributed import Client, LocalCluster

    def start() -> LocalCluster:
        resource_tracker.ensure_running()  # who starts it gets Ctrl-C afterwards
        with children_unhurried():
            return LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                memory_limit=None,  # whoever starts work has predicted what it takes
                dashboard_address=None,
                scheduler_kwargs={
                    # without a dashboard it still serves HTTP: on a free port, not the usual one
                    "dashboard_address": "127.0.0.1:0",
                    "allowed_failures": MOST_DEATHS - 1,
                },
            )

    with (
        _own_environment(),
        # a worker gets its next task when it is free, not before: tasks are long, and a worker
        # that dies takes no other task with it
        dask.config.set({"distributed.scheduler.worker-saturation": 1.0}),
        start() as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@contextmanager
def _own_environment() -> Iterator[None]:
    """Take back what starting workers does to this process: its libraries get one thread each."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in {*os.environ} - {*before}:
            del os.environ[name]
        os.environ.update(before)


def _quiet() -> None:
    # read once, when distributed is imported, here and in workers
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
