"""What the writers of published folders share: a ``with`` block that leaves all or nothing."""

from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from storage.catalog import open_store
from storage.files import publish, remove_folder, remove_partials, staging_folder
from storage.layout import QUALITY_FOLDER
from storage.lease import Lease


class StagedWriter:
    """Base of the writers that fill a staging folder and publish it by renaming.

    Attributes:
        staging: The folder to fill, from entering the ``with`` block to publication.
    """

    staging: Path
    _lease: Lease

    def __init__(self, root: str, final: Path) -> None:
        """Say where the folder will be; errors of the disk come on entering."""
        self._root = root
        self._final = final
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        """Make the store if need be, clear what killed writers left, make the staging folder."""
        open_store(self._root, create=True)
        with ExitStack() as stack:
            self._lease = stack.enter_context(self._hold())
            self._begin()
            remove_partials(self._final.parent)
            self.staging = stack.enter_context(staging_folder(self._final))
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Remove the staging folder if it was not published."""
        return self._cleanup.__exit__(kind, error, trace)

    def _hold(self) -> AbstractContextManager[Lease]:
        """Return what keeps other writers out within the ``with`` block."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Do what must come before anything is written, under the lease."""

    def _publish(self, final: Path) -> None:
        """Publish the staging folder, if the lease is still held."""
        self._lease.check()
        publish(self.staging, final)

    def _keep_report(self, final: Path) -> Path:
        """Publish only the quality report, in place of an earlier one; return its folder."""
        remove_partials(final.parent)
        with staging_folder(final) as staging:
            (self.staging / QUALITY_FOLDER).rename(staging / QUALITY_FOLDER)
            self._lease.check()
            if final.exists():
                remove_folder(final)  # a kill between the two steps loses a report, never more
            publish(staging, final)
        return final / QUALITY_FOLDER
