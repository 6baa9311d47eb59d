"""Which release of a name is ``latest``: a link, moved atomically, and a log of its moves.

The link is the truth. The log says when it moved, from where, and why, so that a rollback knows
where to go; it is written just before the link, and a line that the link did not follow (a kill
between the two) does no harm, because the next line begins from the link.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from storage.errors import CorruptionError, NotFoundError
from storage.files import (
    folder_guard,
    point_to,
    read_json,
    waiting_lock,
    write_bytes,
    write_json,
)
from storage.layout import ANNOUNCED_FILE, LATEST, LOCK_FILE, MOVES_FILE, releases_folder
from storage.refs import ReleaseRef
from storage.releases import open_release, require_release

Why = Literal["published", "asked again", "rolled back", "accepted"]


@dataclass(frozen=True)
class Move:
    """One move of ``latest``: ISO 8601 time in UTC, release ids, and why."""

    time: str
    left: str | None
    to: str
    why: str


def latest(root: str, name: str) -> ReleaseRef:
    """Return the release of that name that was published, asked for, or rolled back to, last.

    Raises:
        NotFoundError: There is none.
    """
    release_id = _target(releases_folder(root, name) / LATEST)
    if release_id is None:
        raise NotFoundError(
            f"the store {root} has no release {name!r}. "
            "`rise ls` lists what it has; publish the release first."
        )
    return ReleaseRef(root, name, release_id)


def is_latest(ref: ReleaseRef) -> bool:
    """Tell whether ``latest`` names this release."""
    return _target(releases_folder(ref.root, ref.name) / LATEST) == ref.release_id


def mark_latest(ref: ReleaseRef, *, why: Why = "asked again") -> None:
    """Point ``latest`` to a published release; also repairs a kill just before that step."""
    folder = releases_folder(ref.root, ref.name)
    with waiting_lock(folder / LOCK_FILE):
        now = _target(folder / LATEST)
        if now != ref.release_id:
            _log(folder, Move(_now(), now, ref.release_id, why))
            point_to(folder / LATEST, ref.release_id)


def moves(root: str, name: str) -> list[Move]:
    """Return the moves of ``latest``, oldest first; lines that cannot be read are left out."""
    try:
        lines = (releases_folder(root, name) / MOVES_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = [_move(line) for line in lines]
    return [move for move in found if move is not None]


def announced(root: str, name: str) -> str | None:
    """Return the id of the release of that name that others were told of last; None: of none."""
    path = releases_folder(root, name) / ANNOUNCED_FILE
    return str(read_json(path).get("release_id")) if path.exists() else None


def mark_announced(ref: ReleaseRef) -> None:
    """Note that others were told of a release, once they were."""
    folder = releases_folder(ref.root, ref.name)
    write_json(folder / ANNOUNCED_FILE, {"release_id": ref.release_id})


def came_before(root: str, name: str) -> ReleaseRef:
    """Return the release that was the latest before the present one was published.

    Raises:
        NotFoundError: There is none.
    """
    now = latest(root, name)
    return ReleaseRef(root, name, _before(now, moves(root, name)))


def roll_back(
    root: str,
    name: str,
    *,
    to: str | None = None,
    check: Callable[[ReleaseRef], None] | None = None,
) -> ReleaseRef:
    """Point ``latest`` back, after reading every byte of the release that it will name.

    Args:
        root: The store.
        name: The release.
        to: Id of the release to go to; None is the one that was the latest before the present
            one, and again the one before that when asked again.
        check: Raises where `latest` must not go.

    Raises:
        NotFoundError: There is no such release, or none before the present one.
        CorruptionError: The release to go to is damaged; ``latest`` stays.
    """
    target = came_before(root, name) if to is None else ReleaseRef(root, name, to)
    require_release(target)
    problems = open_release(target).verify()
    if problems:
        raise CorruptionError(
            " ".join([*problems, "`latest` was not moved; choose another release with --to."])
        )
    if check is not None:
        check(target)
    mark_latest(target, why="rolled back")
    return target


def _before(now: ReleaseRef, log: Sequence[Move]) -> str:
    """Return the id that ``latest`` had before the present one was published."""
    line: list[str] = []
    earlier = line
    for move in log:
        if line[-1:] != [move.left]:  # the last move was logged, but the link did not follow
            line = earlier
        if line[-1:] != [move.left]:
            line = [] if move.left is None else [move.left]
        earlier, line = line, _after(line, move)
    if line[-1:] != [now.release_id]:
        line = earlier
    if len(line) < 2 or line[-1] != now.release_id:
        raise NotFoundError(
            f"no release of {now.name!r} came before {now.release_id} as the latest. "
            "`rise release ls` lists them; name one with --to."
        )
    return line[-2]


def _after(line: list[str], move: Move) -> list[str]:
    if move.why == "rolled back" and move.to in line:
        return line[: line.index(move.to) + 1]
    return [*line, move.to]


def _log(folder: Path, move: Move) -> None:
    path = folder / MOVES_FILE
    written = path.read_bytes() if path.exists() else b""
    with folder_guard(folder):  # a writer that starts now must not clear the file away half-made
        write_bytes(path, written + json.dumps(asdict(move)).encode() + b"\n")


def _move(line: bytes) -> Move | None:
    try:
        return Move(**json.loads(line))
    except (ValueError, TypeError):
        return None


def _target(link: Path) -> str | None:
    return link.readlink().name if link.is_symlink() else None


def _now() -> str:
    return datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
