"""Ctrl-C goes to every process of a terminal: those that serve this one must not end before it.

A terminal sends the signal to all of them at once. A server that ends first leaves its client to
call again and again; a worker that ends first is taken for one that crashed. They are told to end
by whoever started them.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def children_unhurried() -> Iterator[None]:
    """Let processes and threads that this thread starts within the block not get Ctrl-C.

    They inherit the mask, for as long as they live. One that comes meanwhile is delivered after the
    block, or at once by another thread.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
