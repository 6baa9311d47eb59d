"""What can go wrong with stored bytes; the last sentence of every message says what to do.

StorageError
├── NotFoundError        (also FileNotFoundError)  nothing of that name in the store
├── FormatVersionError                             written by a newer or foreign program
├── CorruptionError                                checksum, size or shape does not hold
├── IncompleteError                                started, not finished: run it again
├── MismatchError        (also ValueError)         two artifacts that do not belong together
├── BusyError                                      another process holds the lease
└── LeaseLostError                                 this process held it, and holds it no more
"""

from collections.abc import Mapping
from typing import Any


class StorageError(Exception):
    """Base of every error about stored bytes."""


class NotFoundError(StorageError, FileNotFoundError):
    """No artifact of that name."""


class FormatVersionError(StorageError):
    """The artifact was written in a format that this program does not read."""


class CorruptionError(StorageError):
    """Stored bytes are not what was written: a checksum, size or shape does not hold."""


class IncompleteError(StorageError):
    """Work on the artifact was begun and not finished."""


class MismatchError(StorageError, ValueError):
    """Two artifacts differ in fields that must agree.

    Args:
        what: What was compared, for the message.
        differences: ``(field, expected, found)`` for each differing field.
        remedy: What the user should do.
    """

    def __init__(
        self, what: str, differences: list[tuple[str, object, object]], remedy: str
    ) -> None:
        self.differences = differences
        self._parts = (what, differences, remedy)
        lines = [f"  {name}: expected {want!r}, found {got!r}" for name, want, got in differences]
        super().__init__("\n".join([f"{what}:", *lines, remedy]))

    def __reduce__(self) -> tuple[type["MismatchError"], tuple[Any, ...]]:
        """Make it again from its parts where a worker process raised it."""
        return type(self), self._parts


class BusyError(StorageError):
    """Another process is writing the same artifact."""


class LeaseLostError(StorageError):
    """A lease passed on to another process while this one gave no sign of life."""


def flat_differences(
    expected: Mapping[str, Any], found: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, object, object]]:
    """Return ``(dotted field, expected, found)`` for every leaf that differs; absent is None."""
    differences: list[tuple[str, object, object]] = []
    for key in sorted({*expected, *found}):
        want, got, name = expected.get(key), found.get(key), f"{prefix}{key}"
        if isinstance(want, Mapping) and isinstance(got, Mapping):
            differences += flat_differences(want, got, f"{name}.")
        elif want != got:
            differences.append((name, want, got))
    return differences
