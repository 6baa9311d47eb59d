"""What other jobs are told of a release, published or gone back to: who is meant, what to open.

They are told at least once: a kill between the telling and the note of it brings the same event
again, so whoever listens remembers the id that it has worked on (examples/consumer_flow.py).
"""

from dataclasses import dataclass

from storage.files import file_sha256
from storage.layout import RELEASE_FILE
from storage.refs import ReleaseRef
from storage.release_pointer import announced, is_latest, mark_announced
from storage.releases import open_release
from storage.roots import absolute_root, shown

PUBLISHED = "rise.release.published"
"""Name of the event of a release that became the latest, also of one that was held and accepted."""

ROLLED_BACK = "rise.release.rolled_back"
"""Name of the event of an earlier release to which ``latest`` was pointed back."""


@dataclass(frozen=True)
class ReleaseEvent:
    """An event, as Prefect and other buses take it.

    Attributes:
        name: `PUBLISHED` or `ROLLED_BACK`.
        resource: ``rise://<folder of the store>/releases/<name>``: the same for every release of a
            name, so that a trigger can match it.
        payload: ``store``, ``release``, ``release_id``, ``scores_id``, ``path``, ``n_rows`` and
            the ``manifest_sha256``, by which a reader knows that it opened what was meant. After
            a rollback also ``left``: the id that ``latest`` named before.
    """

    name: str
    resource: str
    payload: dict[str, str | int]


def release_event(ref: ReleaseRef, *, left: ReleaseRef | None = None) -> ReleaseEvent:
    """Return the event of a release that is the latest now.

    Args:
        ref: The release.
        left: What ``latest`` named before it was rolled back; None: it was published.

    Raises:
        NotFoundError: There is none of that id.
        CorruptionError: Its manifest is damaged.
    """
    opened = open_release(ref)
    store = absolute_root(ref.root)
    payload: dict[str, str | int] = {
        "store": store,
        "release": ref.name,
        "release_id": ref.release_id,
        "scores_id": opened.manifest["scores_id"],
        "path": shown(opened.folder.absolute()),
        "n_rows": opened.manifest["n_rows"],
        "manifest_sha256": file_sha256(opened.folder / RELEASE_FILE),
    }
    if left is not None:
        payload["left"] = left.release_id
    name = PUBLISHED if left is None else ROLLED_BACK
    return ReleaseEvent(name, f"rise://{store}/releases/{ref.name}", payload)


def is_news(ref: ReleaseRef) -> bool:
    """Tell whether the release is the latest of its name and others were not told of it yet."""
    return is_latest(ref) and announced(ref.root, ref.name) != ref.release_id


def note_announced(ref: ReleaseRef) -> None:
    """Note that others were told of the release."""
    mark_announced(ref)
