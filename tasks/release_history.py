"""Which releases there are, which one is the latest, how that came, and the way back."""

from dataclasses import asdict
from typing import Any

from storage.catalog import open_store
from storage.errors import NotFoundError
from storage.layout import RELEASE_FILE
from storage.manifests import created_at
from storage.refs import ReleaseRef
from storage.release_pointer import (
    came_before,
    is_latest,
    latest,
    mark_latest,
    moves,
    roll_back,
)
from storage.releases import all_releases, open_release, require_release
from tasks.release_drift import held_back, is_held
from tasks.takedown import require_none_taken_down

LEAST_DIGITS = 4
"""Digits of an id that are enough, if no other id begins with them."""


def list_releases(root: str, name: str | None = None) -> list[dict[str, Any]]:
    """Return one dictionary a release: name, id, latest, held, made, rows, tokens, dropped.

    Args:
        root: The store.
        name: Only releases of this name, which must have one; None: all.

    Raises:
        NotFoundError: There is no store, or no release of that name.
    """
    open_store(root)
    if name is not None:
        latest(root, name)
    found = [_about(ref) for ref in all_releases(root) if name in (None, ref.name)]
    return sorted(found, key=lambda release: (release["name"], release["made"], release["id"]))


def list_moves(root: str, name: str | None = None) -> list[dict[str, Any]]:
    """Return the moves of ``latest``, oldest first: time, name, left, to, why."""
    open_store(root)
    names = {name} if name is not None else {ref.name for ref in all_releases(root)}
    found = [{"name": one, **asdict(move)} for one in sorted(names) for move in moves(root, one)]
    return sorted(found, key=lambda move: str(move["time"]))


def find_release(root: str, name: str, release_id: str | None = None) -> ReleaseRef:
    """Return a release by name and id, the latest one without an id.

    Raises:
        NotFoundError: There is none.
    """
    open_store(root)
    if release_id is None:
        return latest(root, name)
    ref = ReleaseRef(root, name, release_id)
    require_release(ref)
    return ref


def named_release(root: str, text: str) -> ReleaseRef:
    """Return the release that a text means: a name (its latest), an id, or the id's beginning.

    Raises:
        NotFoundError: It means none, or more than one.
    """
    open_store(root)
    every = all_releases(root)
    if text in {ref.name for ref in every}:
        return latest(root, text)
    found = [ref for ref in every if ref.release_id == text]
    if not found and len(text) >= LEAST_DIGITS:
        found = [ref for ref in every if ref.release_id.startswith(text)]
    if len(found) != 1:
        which = ", ".join(f"{ref.name} {ref.release_id}" for ref in found) or "no release"
        raise NotFoundError(
            f"{text!r} means {which} in {root}. Give the name of a release (its latest), an id, or "
            f"at least {LEAST_DIGITS} digits that one id alone begins with; `rise release ls` "
            "lists them."
        )
    return found[0]


def two_releases(root: str, first: str, second: str | None) -> tuple[ReleaseRef, ReleaseRef]:
    """Return the two releases to compare, the earlier one first.

    Args:
        root: The store.
        first: What `named_release` takes.
        second: The same; None: if ``first`` is the latest, it is compared with the one that was the
            latest before, else the latest of its name with it.

    Raises:
        NotFoundError: One of them is not there, or nothing came before.
    """
    one = named_release(root, first)
    if second is not None:
        return one, named_release(root, second)
    now = latest(root, one.name)
    return (came_before(root, one.name), one) if one == now else (now, one)


def go_back(root: str, name: str, *, to: str | None = None) -> tuple[ReleaseRef, ReleaseRef]:
    """Roll a release back; return what ``latest`` named before and what it names now.

    Raises:
        NotFoundError: There is nothing to go back to.
        CorruptionError: The release to go to is damaged; ``latest`` stays.
        ValueError: It has rows that were taken down; ``latest`` stays.
    """
    open_store(root)
    left = latest(root, name)
    return left, roll_back(root, name, to=to, check=_may_be_latest)


def accept_release(
    root: str, name: str, release_id: str | None = None
) -> tuple[ReleaseRef, ReleaseRef]:
    """Point ``latest`` to a release that was held because of drift, after checking its files.

    Args:
        root: The store.
        name: The release.
        release_id: Its id; None: the one that is held back from the present latest, if it is one.

    Returns:
        What ``latest`` named before and what it names now.

    Raises:
        NotFoundError: There is no such release, or not one alone that is held.
        CorruptionError: It is damaged; ``latest`` stays.
        ValueError: It was not held, or has rows that were taken down; ``latest`` stays.
    """
    open_store(root)
    left = latest(root, name)
    chosen = _chosen(root, name, release_id)
    open_release(chosen).require_sound(deep=True)
    _may_be_latest(chosen)
    mark_latest(chosen, why="accepted")
    return left, chosen


def _chosen(root: str, name: str, release_id: str | None) -> ReleaseRef:
    if release_id is None:
        held = held_back(root, name)
        if len(held) != 1:
            which = ", ".join(ref.release_id for ref in held) or "none"
            raise NotFoundError(
                f"expected one release of {name!r} that is held, found {which}. "
                "Name one with --id; `rise release ls` lists them."
            )
        return held[0]
    ref = ReleaseRef(root, name, release_id)
    require_release(ref)
    if not is_held(ref):
        raise ValueError(
            f"release {release_id} of {name!r} is not held. To point `latest` to any release that "
            f"was published: rise release rollback {name} --to {release_id}"
        )
    return ref


def _may_be_latest(ref: ReleaseRef) -> None:
    remedy = "`latest` was not moved. Choose another release, or publish a new one."
    require_none_taken_down(ref, remedy=remedy)


def _about(ref: ReleaseRef) -> dict[str, Any]:
    release = open_release(ref)
    return {
        "name": ref.name,
        "id": ref.release_id,
        "latest": is_latest(ref),
        "held": is_held(ref),
        "made": created_at(release.folder / RELEASE_FILE),
        "rows": release.manifest["n_rows"],
        "tokens": release.manifest.get("n_tokens"),
        "dropped": release.manifest.get("n_dropped", {}),
    }
