"""Clients of Dask schedulers: of one that is there, or of one for new processes on this machine.

``distributed`` is imported here, late, so that its log is set up before: a task that fails raises
its error where its result is wanted, and is not worth a log entry beside it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING

from tasks.interrupts import children_unhurried

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 20
"""How long an existing Dask scheduler may take to answer."""

PACKAGE = "rise_ops"
"""What a worker that can do our tasks has."""

MOST_DEATHS = 3
"""Workers that may die with the same task before that is an error."""


@contextmanager
def remote_client(address: str, *, otherwise: str) -> Iterator["Client"]:
    """Yield a client of the scheduler at an address.

    Args:
        address: Like ``tcp://host:8786``.
        otherwise: What to do without one, for the message.

    Raises:
        ConnectionError: It does not answer, or a worker of it has not installed this project.
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
        _require_package(client, address)
        yield client


def _require_package(client: "Client", address: str) -> None:
    """Refuse workers that could not read their tasks: Dask may wait for these forever."""
    found: dict[str, object] = client.run(find_spec, PACKAGE, on_error="return")
    without = [worker for worker, spec in found.items() if not isinstance(spec, ModuleSpec)]
    if without:
        raise ConnectionError(
            f"{len(without)} of {len(found)} workers of the Dask scheduler at {address} do not "
            f"have this project's packages ({PACKAGE} was not found), for instance {without[0]}. "
            "Install the project there with the same constraints.txt, or start workers from an "
            "image that has it."
        )


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
