"""Prefect's embedded server, out of reach of Ctrl-C.

Without PREFECT_API_URL Prefect starts a server beside a run, in a process of its own that ends with
this one. Ctrl-C would end both at the same moment, and the run would then try for more than a
minute to tell a server that is gone what became of it.
"""

from contextvars import copy_context
from threading import Thread

START_SECONDS = 60
"""How long it may take on a busy machine; Prefect's own limit is 20."""


def start_embedded_server() -> None:
    """Start the server that the next flow would start; nothing where one is set.

    Raises:
        ConnectionError: It does not start.
    """
    from prefect.client.base import ServerType, determine_server_type

    if determine_server_type() != ServerType.EPHEMERAL:
        return
    failures: list[Exception] = []

    def start() -> None:
        try:
            _start()
        except Exception as error:  # noqa: BLE001 - raised below, where it is awaited
            failures.append(error)

    # a thread, because Ctrl-C must end the wait for it; settings come with the context
    starting = Thread(target=copy_context().run, args=(start,), daemon=True)
    starting.start()
    starting.join()
    if failures:
        raise ConnectionError(
            f"Prefect's embedded server does not start ({failures[0]}). Is the machine very busy, "
            "or the disk full? Run again, or start a server (`rise up`) and set PREFECT_API_URL."
        ) from failures[0]


def _start() -> None:
    from prefect.server.api.server import SubprocessASGIServer

    from tasks.interrupts import children_unhurried

    with children_unhurried():
        SubprocessASGIServer().start(timeout=START_SECONDS)
