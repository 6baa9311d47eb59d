"""Files that people name, on disk or at a URL, found and read the same way.

A file at a URL is read as a stream and never stored. What it needs of `pathlib.Path` is here under
the same names, so that readers need not know which of the two they have.
"""

import errno
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from storage.errors import NotFoundError
from storage.mirror import each
from storage.objects import (
    Objects,
    StoredObject,
    as_object,
    explained,
    open_filesystem,
)
from storage.urls import is_url, local_path, protocol_of, without_secrets

BLOCK_BYTES = 8 * 1024 * 1024
"""Read of a stream at once."""

MAGIC = frozenset("*?[")
"""Characters that make a path a pattern."""

SECOND_NS = 10**9

SEALS = ("state.json", "dataset_info.json", "dataset_dict.json")
"""Files of an exported folder that are put last: without them nobody opens it."""


class ReplacedError(OSError):
    """An object was replaced while it was read; nothing is wrong with the new one."""


@dataclass(frozen=True)
class FileStat:
    """Size and time of a file at a URL.

    Attributes:
        st_size: Bytes.
        st_mtime_ns: When it was put there, in whole seconds; in place of their fractions, which
            stores do not tell, digits of its tag, so that versions of one second differ.
    """

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True)
class RemoteFile:
    """A file at a URL.

    Args:
        url: Of the file; it is also its name.
        listed: What a listing said of it.
    """

    url: str
    listed: StoredObject | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        """Ending of the name, with its dot."""
        return PurePosixPath(self.url).suffix

    def resolve(self) -> "RemoteFile":
        """Return itself: there are no links."""
        return self

    def stat(self) -> FileStat:
        """Return size and time, as listed or as they are now; `FileNotFoundError` without it."""
        seen = self.listed or self._now()
        fraction = int(hashlib.sha256(seen.tag.encode()).hexdigest()[:8], 16) % SECOND_NS
        return FileStat(seen.n_bytes, seen.mtime_ns // SECOND_NS * SECOND_NS + fraction)

    def exists(self) -> bool:
        """Tell whether there is such an object now."""
        try:
            self._now()
        except NotFoundError:
            return False
        return True

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """Open it for reading bytes.

        Raises:
            NotFoundError: It is not there.
            ConnectionError: The store cannot be reached.
        """
        if mode != "rb":
            raise ValueError(f"{self.url} can only be read, as bytes; got mode {mode!r}.")
        return io.BufferedReader(_Stream(self.url), BLOCK_BYTES)

    def _now(self) -> StoredObject:
        filesystem, path = open_filesystem(self.url)
        with explained(self.url):
            info = filesystem.info(path)
        if info["type"] != "file":
            raise NotFoundError(f"{self.url} is a folder, not a file. Name a file in it.")
        return as_object(info)


InputFile = Path | RemoteFile


def input_file(name: str) -> InputFile:
    """Return the file of a path or URL; it need not be there."""
    return RemoteFile(name) if is_url(name) else local_path(name).expanduser()


def read_input(name: str) -> bytes:
    """Return the bytes of a file; `FileNotFoundError` when it is not there."""
    with input_file(name).open("rb") as file:
        return file.read()


def remote_files(given: str) -> tuple[list[RemoteFile], bool]:
    """Return the files that a URL names, and whether it names a folder.

    Args:
        given: A file; a folder, which stands for all files below it; or a pattern with ``*``,
            ``**``, ``?`` and ``[...]``. Hidden files are left out unless they are named.

    Raises:
        StorageError: The store cannot be opened.
        ConnectionError: It cannot be reached.
    """
    given = without_secrets(given)
    filesystem, path = open_filesystem(given)
    with explained(given):
        try:
            if MAGIC & set(path):
                found = filesystem.glob(path, detail=True)
            else:
                found = filesystem.find(path, detail=True)
        except FileNotFoundError:
            found = {}
    files = {name: info for name, info in found.items() if info["type"] == "file"}
    prefix = f"{protocol_of(given)}://"
    listed = [
        RemoteFile(name if "://" in name else prefix + name.lstrip("/"), as_object(info))
        for name, info in sorted(files.items())
    ]
    if list(files) == [path]:
        return listed, False
    if "/." in path:  # asked for
        return listed, not MAGIC & set(path)
    fixed = path[: min((path.find(sign) for sign in MAGIC & set(path)), default=len(path))]
    base = prefix + fixed.lstrip("/")
    return [file for file in listed if not _is_hidden(file, base)], fixed == path


def is_unreadable(error: OSError) -> bool:
    """Tell whether the disk or network failed, rather than a decoder of what was read."""
    return error.errno is not None or isinstance(error, ConnectionError | ReplacedError)


@contextmanager
def exported_folder(url: str) -> Iterator[Path]:
    """Yield a folder to make, whose files are put below a URL when the block ends without error.

    Raises:
        FileExistsError: There is something below the URL.
    """
    target = Objects(url)
    if target.listing() or target.find(""):
        raise FileExistsError(f"{url} exists. Choose a folder that does not, or delete it.")
    with TemporaryDirectory(prefix="rise-export-") as folder:
        made = Path(folder) / "export"
        yield made
        files = [path for path in sorted(made.rglob("*")) if path.is_file()]
        first = [path for path in files if path.name not in SEALS]
        for group in (first, [path for path in files if path.name in SEALS]):
            each(lambda path: target.put(path, path.relative_to(made).as_posix()), group)


class _Stream(io.RawIOBase):
    """The bytes of one version of an object, from its beginning or anywhere."""

    def __init__(self, url: str) -> None:
        self._url = url
        filesystem, path = open_filesystem(url)
        with explained(url):
            self._file: Any = filesystem.open(
                path, "rb", block_size=BLOCK_BYTES, cache_type="readahead"
            )

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any, /) -> int:
        try:
            with explained(self._url):
                data = self._file.read(len(buffer))
        except OSError as error:
            if error.errno != errno.EBUSY:  # what s3fs says of an object with another ETag
                raise
            raise ReplacedError(
                f"{self._url} was replaced while it was read. Run again, when it no longer changes."
            ) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _is_hidden(file: RemoteFile, folder: str) -> bool:
    return any(part.startswith(".") for part in file.url.removeprefix(folder).split("/"))
