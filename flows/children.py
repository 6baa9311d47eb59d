"""Child processes of `rise up`: started with a log of their own, and gone when it is gone.

Each child leads a session of its own, so that Ctrl-C in the terminal reaches the parent alone,
which then stops the children in order and waits for them. What they have started in turn (a
worker's flow runs) is stopped with them. On Linux the kernel ends a child whose parent was killed.
"""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

TAIL_CHARS = 2000
"""Of a log that a message shows."""
STOP_SECONDS = 15.0
"""How long a child may take to end by itself; then it is killed."""


class ChildFailedError(RuntimeError):
    """A child process ended that should not have, or failed at what it was started for."""


@dataclass(frozen=True)
class Child:
    """A running child process.

    Attributes:
        name: What it is, for messages.
        process: The process.
        log: Where it writes.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def require_alive(self) -> None:
        """Raise `ChildFailedError` with the end of its log when it has ended."""
        status = self.process.poll()
        if status is not None:
            raise ChildFailedError(
                f"{self.name} ended (status {status}). The end of {self.log}:\n{self.tail()}"
            )

    def require_success(self, seconds: float) -> None:
        """Wait for its end; raise `ChildFailedError` unless it ended well and in time."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        if status != 0:
            how = f"is not done after {seconds:.0f} s" if status is None else "failed"
            raise ChildFailedError(f"{self.name} {how}. The end of {self.log}:\n{self.tail()}")

    def tail(self) -> str:
        """Return the last lines of its log."""
        return self.log.read_text(errors="replace")[-TAIL_CHARS:].strip()

    def stop(self, *, seconds: float = STOP_SECONDS) -> None:
        """End what it has started, then itself; return when all of it is gone.

        In this order a worker sees how its flow runs ended, and tells the server.
        """
        with suppress(psutil.NoSuchProcess):
            itself = psutil.Process(self.process.pid)
            _end(itself.children(recursive=True), seconds)
            family = itself.children(recursive=True)  # what was started meanwhile
            _end([itself], seconds)
            _end(family, seconds)
        self.process.wait()


def start_child(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
) -> Child:
    """Start ``python -m <command>`` in a folder, writing to a log."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    return Child(name, process, log)


def _end(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Ask processes to end; kill those that do not in time."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=seconds)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=seconds)


def _end_with_parent() -> None:
    """Ask the kernel to send SIGTERM when the parent dies; in the child, before it is replaced."""
    import ctypes

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
