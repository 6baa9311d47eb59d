"""Who writes what of a store right now, and what writers left that were killed."""

from pathlib import Path
from typing import Any

from storage.guards import lease_paths
from storage.lease import holder_of, why_copied
from storage.lease_holder import Holder


def lease_facts(root: str) -> list[dict[str, Any]]:
    """Return the leases of a store; nothing is written.

    Returns:
        A dictionary each: ``path``, ``what``, ``who``, ``since``, ``heartbeat`` (seconds since the
        epoch), ``silent_seconds``, ``gone`` (why its holder writes no more, as far as is known from
        here; empty while it does) and ``state``, a sentence for people.
    """
    found = []
    for path in lease_paths(root):
        holder = holder_of(path)
        if holder is not None:  # else it was given back meanwhile
            found.append(_facts(path, holder))
    return found


def _facts(path: Path, holder: Holder) -> dict[str, Any]:
    gone = _why_gone(path, holder)
    what = holder.what or str(path)
    ending = f"; {gone}: the next run takes over" if gone else ""
    return {
        "path": str(path),
        "what": what,
        "who": "" if holder.owner is None else str(holder.owner),
        "since": holder.since,
        "heartbeat": holder.heartbeat,
        "silent_seconds": holder.silent_seconds,
        "gone": gone,
        "state": f"{what} {'was' if gone else 'is'} being written {holder}{ending}",
    }


def _why_gone(path: Path, holder: Holder) -> str:
    owner = holder.owner
    if owner is None:
        return "nothing is known of its holder"
    if owner.is_near:
        return why_copied(holder, str(path)) or ("its process has ended" if owner.is_gone() else "")
    late = holder.silent_seconds > holder.pulse.expires_seconds
    return "it gives no sign of life, unless the clocks differ" if late else ""
