"""Who holds a lease, as written in it, and whether that process still lives.

On one machine that is known at once and for certain: a process is its number and the moment of its
start. Of another machine only its heartbeat is seen. A machine is one boot of one kernel with one
table of processes, so that two containers, which have tables of their own, never judge each other.
"""

import getpass
import os
import socket
import sys
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

COMMAND_CHARS = 200
"""Of a command line that is written down."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PROCESS_TABLE = Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease.

    Attributes:
        user: Who started it.
        host: Name of the machine, for people.
        machine: What tells machines, boots and containers apart.
        pid: Number of the process.
        started: Moment of its start, in the units of the system.
        command: Its command line, cut.
        run: The run of an orchestrator that it acts for; may be empty.
    """

    user: str
    host: str
    machine: str
    pid: int
    started: str
    command: str
    run: str = ""

    @property
    def is_near(self) -> bool:
        """It is, or was, on this machine, so that its process can be looked for."""
        return self.machine == this_machine()

    @property
    def is_me(self) -> bool:
        """It is this very process."""
        return (self.machine, self.pid, self.started) == (
            this_machine(),
            os.getpid(),
            _started(os.getpid()),
        )

    def is_gone(self) -> bool:
        """Tell whether the process has ended for certain; never true of another machine's."""
        if not self.is_near:
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):  # or no process can have that number
            return True
        except PermissionError:
            pass  # somebody else's, so it is there
        started = _started(self.pid)
        return started is not None and started != self.started

    def __str__(self) -> str:
        run = f", flow run {self.run}" if self.run else ""
        return f"{self.user}@{self.host} (process {self.pid}: {self.command}{run})"

    def as_dict(self) -> dict[str, Any]:
        """Return what is written down."""
        return asdict(self)


def owner_of(value: Any) -> Owner | None:
    """Return the owner that was written down; None when it cannot be read."""
    names = {field.name for field in fields(Owner)}
    if not isinstance(value, dict) or not isinstance(value.get("pid"), int):
        return None
    try:
        return Owner(**{key: item for key, item in value.items() if key in names})
    except TypeError:
        return None


def this_process(run: str = "") -> Owner:
    """Return this process as an owner."""
    return Owner(
        user=_user(),
        host=socket.gethostname(),
        machine=this_machine(),
        pid=os.getpid(),
        started=_started(os.getpid()) or "",
        command=_command()[:COMMAND_CHARS],
        run=run,
    )


@cache
def this_machine() -> str:
    """Return what tells this machine, boot and table of processes from every other."""
    try:
        return f"{BOOT_ID.read_text().strip()}/{PROCESS_TABLE.stat().st_ino}"
    except OSError:  # not Linux
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """Return when a process started; None where that cannot be seen, ``ended`` for a zombie."""
    if sys.platform != "linux":
        return _started_elsewhere(pid)
    try:
        # the name, in brackets, may hold spaces; after it come the state and 18 more numbers
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return "ended" if after_name[0] in "ZX" else after_name[19]


def _started_elsewhere(pid: int) -> str | None:
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        return str(os.getuid())


def _command() -> str:
    script = Path(sys.argv[0] if sys.argv and sys.argv[0] else "python")
    name = script.parent.name if script.name == "__main__.py" else script.name
    return " ".join(" ".join([name, *sys.argv[1:]]).split())
