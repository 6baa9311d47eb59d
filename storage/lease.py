"""Leases: one writer at a time, told who it is, freed when it dies, noticed when it was lost.

A lease is a small JSON file beside what it guards. Its holder renews it every few seconds. Whoever
comes second waits, or is refused with the holder's name. A lease passes on when its holder is dead:
at once where that process can be looked for, else when its heartbeat has stopped.

A holder that slept through its heartbeats may find that its lease has passed on. It therefore
checks before everything that counts (`Lease.check`, `Fence.check` in a process that works for it):
a check that holds renews the lease, so there is time until the next one is due.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from storage.errors import BusyError, LeaseLostError, StorageError
from storage.lease_backend import Backend, backend_of, place_of
from storage.lease_holder import STEADY, Holder, Pulse, bytes_of, read_holder
from storage.lease_owner import Owner, this_process
from storage.roots import caught_up

LOOK_SECONDS = 0.5
"""Time between two looks of whoever waits."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """Where somebody stands who waits for a lease."""

    what: str
    holder: Holder
    waited_seconds: float
    wait_seconds: float

    def __str__(self) -> str:
        return f"{self.what} is being written {self.holder}"


@dataclass(frozen=True)
class Patience:
    """How a process asks for leases.

    Attributes:
        wait_seconds: How long it waits for a living holder; 0 is refused at once.
        on_wait: Told every `LOOK_SECONDS` while it waits.
        say: Told when a lease is taken over from somebody who is gone.
        run: The run of an orchestrator that it acts for.
    """

    wait_seconds: float = 0.0
    on_wait: Callable[[Waiting], None] = lambda _: None
    say: Callable[[str], None] = _log.warning
    run: str = ""


NO_PATIENCE = Patience()
_patience: ContextVar[Patience] = ContextVar("patience", default=NO_PATIENCE)
_held: dict[str, "Lease"] = {}
_tokens: set[str] = set()
"""Leases of this process by path, and their tokens, from before they are asked for."""
os.register_at_fork(after_in_child=_held.clear)  # a fork holds nothing: it has a number of its own


@contextmanager
def with_patience(patience: Patience) -> Iterator[None]:
    """Ask for leases in this way within the ``with`` block; outside nobody waits."""
    before = _patience.set(patience)
    try:
        yield
    finally:
        _patience.reset(before)


@contextmanager
def hold(
    path: Path,
    *,
    what: str,
    wait_seconds: float | None = None,
    on_wait: Callable[[Waiting], None] | None = None,
    pulse: Pulse = STEADY,
) -> Iterator["Lease"]:
    """Hold a lease within the ``with`` block.

    Args:
        path: Of the lease, beside what it guards; `backend_of` says where it really is.
        what: What is guarded, for people: ``index 'main'``.
        wait_seconds: How long to wait for a living holder; None: as `with_patience` says, else 0.
        on_wait: Told every `LOOK_SECONDS` while it waits; None: likewise.
        pulse: How often the lease is renewed, and for how long it may not be.

    Raises:
        BusyError: Somebody holds it, and lives.
        StorageError: It cannot be written.
    """
    ambient = _patience.get()
    patience = replace(
        ambient,
        wait_seconds=ambient.wait_seconds if wait_seconds is None else wait_seconds,
        on_wait=on_wait or ambient.on_wait,
    )
    me = Holder(
        what, uuid.uuid4().hex, this_process(patience.run), 0.0, 0.0, pulse, place=place_of(path)
    )
    lease = Lease(path, backend_of(path), me)
    _tokens.add(me.token)
    try:
        lease.acquire(patience)
        caught_up(path)
        _held[lease.path] = lease
        yield lease
    finally:
        try:
            lease.release()
        finally:  # also of whoever is interrupted again
            if _held.get(lease.path) is lease:
                del _held[lease.path]
            _tokens.discard(me.token)


def held(path: Path, *, what: str) -> "Lease":
    """Return the lease that this process holds at a path.

    Raises:
        ValueError: It does not; whoever calls must.
    """
    lease = _held.get(_key(path))
    if lease is None:
        raise ValueError(f"{what} is written without its lease ({path}); hold it around the call.")
    return lease


def holder_of(path: Path) -> Holder | None:
    """Return who holds a lease now, or held it and was killed; None for nobody."""
    found = backend_of(path).read()
    return None if found is None else read_holder(found[0])


@dataclass(frozen=True)
class Fence:
    """What a process checks that writes for the holder of a lease; cheap to send to it."""

    path: str
    token: str
    what: str

    def check(self) -> None:
        """Raise `LeaseLostError` unless the lease is still that of this holder."""
        mine = _held.get(self.path)
        if mine is not None and mine.holder.token == self.token:
            mine.check()
            return
        holder = holder_of(Path(self.path))
        if holder is None or holder.token != self.token:
            raise LeaseLostError(_lost_text(self.what, holder))


class Lease:
    """A lease that this process holds.

    Attributes:
        path: Where it is.
        holder: What it says.
    """

    def __init__(self, path: Path, backend: Backend, holder: Holder) -> None:
        """Use `hold`."""
        self.path = _key(path)
        self.holder = holder
        self._backend = backend
        self._tag = ""
        self._renewed = 0.0
        self._lost: str | None = None
        self._thread = threading.get_ident()
        self._ended = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    @property
    def fence(self) -> Fence:
        """What processes check that write for this one."""
        return Fence(self.path, self.holder.token, self.holder.what)

    def check(self) -> None:
        """Make sure that the lease is still held, and stays so for a while; before every commit.

        Raises:
            LeaseLostError: It passed on to somebody else; nothing may be written any more.
            OSError: Where it is kept cannot be reached.
        """
        with self._one_at_a_time:
            # the one clock stands still while the machine sleeps, the other one may be put back
            age = max(time.monotonic() - self._renewed, time.time() - self.holder.heartbeat)
            if age >= self.holder.pulse.beat_seconds:
                self._renew()
            elif self._lost is None:
                self._require_mine()
            if self._lost is not None:
                raise LeaseLostError(self._lost)

    def acquire(self, patience: Patience) -> None:
        """Get the lease, after waiting for whoever has it; see `hold`."""
        began, watch = time.monotonic(), _Watch()
        while not self._backend.create_if_absent(self._first_bytes()):
            found = self._backend.read()
            if found is None:
                continue
            holder, tag = read_holder(found[0]), found[1]
            if holder.token == self.holder.token:
                break  # it was created, but the answer was lost on its way
            gone = why_copied(holder, self.path) or watch.why_gone(holder, tag)
            if gone and self._backend.replace_if(tag, self._first_bytes()):
                patience.say(f"{self.holder.what}: the lease held {holder} is taken over: {gone}.")
                break
            waiting = Waiting(
                self.holder.what, holder, time.monotonic() - began, patience.wait_seconds
            )
            if not gone:
                self._wait(waiting, patience, undecided=watch.undecided)
        self._require_mine()
        self._renewed = time.monotonic()
        self._heart.start()

    def release(self) -> None:
        """Give the lease back, if it is still held; errors of the disk leave it to expire."""
        self._ended.set()
        if self.holder.owner is not None and self.holder.owner.pid != os.getpid():
            return  # a fork of the holder
        if self._heart.is_alive():
            self._heart.join(self.holder.pulse.beat_seconds)
        with self._one_at_a_time:
            try:
                self._require_mine()
                if self._lost is None:
                    self._backend.delete_if(self._tag)
            except (OSError, StorageError) as error:
                _log.warning("%s: the lease could not be given back: %s", self.holder.what, error)

    def _first_bytes(self) -> bytes:
        now = time.time()
        self.holder = replace(self.holder, since=now, heartbeat=now)
        return bytes_of(self.holder)

    def _wait(self, waiting: Waiting, patience: Patience, *, undecided: bool) -> None:
        mine, owner = _held.get(self.path), waiting.holder.owner
        if mine and mine._thread == self._thread and owner and owner.is_me:
            raise BusyError(
                f"{self.holder.what} is being written by this very call, further up: nobody would "
                "end the wait. Ask for the lease once."
            )
        if waiting.waited_seconds >= waiting.wait_seconds and not undecided:
            raise BusyError(_busy_text(waiting, self.path))
        patience.on_wait(waiting)
        time.sleep(LOOK_SECONDS)

    def _beat(self) -> None:
        while not self._ended.wait(self.holder.pulse.beat_seconds) and self._lost is None:
            with self._one_at_a_time:
                try:
                    self._renew()
                except (OSError, StorageError) as error:
                    _log.warning("%s: no sign of life was given: %s", self.holder.what, error)

    def _renew(self) -> None:
        """Show that the holder lives; note where the lease was lost."""
        began = time.monotonic()
        self._require_mine()
        if self._lost is not None:
            return
        self.holder = replace(self.holder, heartbeat=time.time(), n_beats=self.holder.n_beats + 1)
        if self._backend.replace_if(self._tag, bytes_of(self.holder)):
            self._renewed = began
        self._require_mine()

    def _require_mine(self) -> None:
        """Look at the lease: take its tag, or note that it was lost."""
        found = self._backend.read()
        holder = None if found is None else read_holder(found[0])
        if found is None or holder is None or holder.token != self.holder.token:
            self._lost = self._lost or _lost_text(self.holder.what, holder)
        else:
            self._tag = found[1]


class _Watch:
    """Looks at one lease again and again, until it is known whether its holder lives.

    Attributes:
        undecided: The heartbeat looks too old, but clocks may differ: a few beats will tell.
    """

    def __init__(self) -> None:
        self.undecided = False
        self._tag = ""
        self._since = 0.0
        self._beats = False

    def why_gone(self, holder: Holder, tag: str) -> str:
        """Return why the holder is dead; empty while it lives or may live."""
        now = time.monotonic()
        if tag != self._tag:
            self._beats = bool(self._tag)
            self._tag, self._since = tag, now
        self.undecided = False
        if holder.owner is not None and holder.owner.is_near:
            return _why_gone_here(holder, holder.owner)
        unchanged, pulse = now - self._since, holder.pulse
        late = holder.silent_seconds > pulse.expires_seconds and not self._beats
        self.undecided = late and unchanged < min(pulse.expires_seconds, 2.5 * pulse.beat_seconds)
        if unchanged < pulse.expires_seconds and (not late or self.undecided):
            return ""
        return f"it gave no sign of life for more than {pulse.expires_seconds:g} s"


def why_copied(holder: Holder, path: str) -> str:
    """Return that a lease came here with a copy of its folder; empty where it did not.

    Its holder may well live, and write the original: it will never give a sign of life here. Only
    of a process of this machine it is known where it writes.
    """
    if holder.owner is None or not holder.owner.is_near or not holder.place:
        return ""
    try:
        same = Path(holder.place).parent.samefile(Path(path).parent)
    except OSError:  # it was moved, or that place is not seen from here
        return ""
    return "" if same else f"it is a copy, the lease that was given is {holder.place}"


def _why_gone_here(holder: Holder, owner: Owner) -> str:
    if owner.is_me:
        return "" if holder.token in _tokens else "this process left it behind"
    return "its process has ended" if owner.is_gone() else ""


def _key(path: Path) -> str:
    return str(path.absolute())


def _busy_text(waiting: Waiting, path: str) -> str:
    owner = waiting.holder.owner
    stop = f" (`kill {owner.pid}` on {owner.host})" if owner is not None else ""
    waited = f" Waited {waiting.waited_seconds:.0f} s for it." if waiting.wait_seconds else ""
    return (
        f"{waiting}.{waited} Wait for it to end, or stop it{stop}, and run again; "
        f"runtime.wait_seconds says how long a run waits for another. (Lease: {path})"
    )


def _lost_text(what: str, holder: Holder | None) -> str:
    now = "nobody holds it now" if holder is None else f"it is being written {holder}"
    return (
        f"{what}: this run has lost its lease, because it gave no sign of life for too long (did "
        f"the machine sleep, or lose its connection to the store?); {now}. What was finished "
        "before is kept, nothing was written after. Run again when the other one has ended."
    )
