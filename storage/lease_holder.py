"""What a lease says of its holder: who it is, since when, and its last sign of life."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from storage.lease_owner import Owner, owner_of

LEASE_FORMAT = "rise-lease"


@dataclass(frozen=True)
class Pulse:
    """How often a holder shows that it lives, and for how long it may not; seconds."""

    beat_seconds: float = 5.0
    expires_seconds: float = 30.0


STEADY = Pulse()


@dataclass(frozen=True)
class Holder:
    """What a lease says of who holds it.

    Attributes:
        what: What is guarded, for people.
        token: Tells this holding from every other; empty in a lease that cannot be read.
        owner: The process; None in a lease that cannot be read.
        since: When it began; seconds since the epoch by its own clock, as is the next.
        heartbeat: Its last sign of life.
        pulse: What it promised.
        n_beats: Signs of life so far.
        place: Path of the lease, as the holder names it; empty where that is not known.
    """

    what: str
    token: str
    owner: Owner | None
    since: float
    heartbeat: float
    pulse: Pulse
    n_beats: int = 0
    place: str = ""

    @property
    def silent_seconds(self) -> float:
        """Seconds since its last sign of life, by the clocks of both machines."""
        return max(0.0, time.time() - self.heartbeat)

    def __str__(self) -> str:
        if self.owner is None:
            return "by somebody whose lease cannot be read"
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"by {self.owner} since {since}, last sign of life {self.silent_seconds:.0f} s ago"


def bytes_of(holder: Holder) -> bytes:
    """Return what is written in a lease; JSON that people can read."""
    value = {
        "format": LEASE_FORMAT,
        "version": 1,
        "what": holder.what,
        "place": holder.place,
        "token": holder.token,
        "owner": None if holder.owner is None else holder.owner.as_dict(),
        "since": _text_of(holder.since),
        "heartbeat": _text_of(holder.heartbeat),
        "n_beats": holder.n_beats,
        "beat_seconds": holder.pulse.beat_seconds,
        "expires_seconds": holder.pulse.expires_seconds,
    }
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def read_holder(data: bytes) -> Holder:
    """Return what a lease says; of one that cannot be read, that nothing is known of its holder."""
    try:
        value: dict[str, Any] = json.loads(data)
        return Holder(
            what=str(value["what"]),
            token=str(value["token"]),
            owner=owner_of(value["owner"]),
            since=datetime.fromisoformat(value["since"]).timestamp(),
            heartbeat=datetime.fromisoformat(value["heartbeat"]).timestamp(),
            pulse=Pulse(float(value["beat_seconds"]), float(value["expires_seconds"])),
            n_beats=int(value["n_beats"]),
            place=str(value.get("place", "")),
        )
    except (ValueError, KeyError, TypeError):  # cut off by a loss of power, or somebody else's
        return Holder("", "", None, 0.0, 0.0, STEADY)


def _text_of(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
