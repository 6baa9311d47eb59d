"""The objects below one URL: listed, fetched, put, replaced on a condition, deleted.

fsspec does the transfers. What it leaves open is decided here: an object's *tag*, which tells one
state of it from every other, and whether a put with a condition is one step of the store's own.
"""

import errno
import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from storage.errors import NotFoundError, StorageError
from storage.urls import folder_url, protocol_of, without_secrets

_TAGS = ("ETag", "etag", "generation")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_NOT_SO = ("PreconditionFailed", "412")
_CONFLICT = ("ConditionalRequestConflict", "409")
_PASSING = (errno.EREMOTEIO, errno.EBUSY)
"""What s3fs makes of answers 500 and 503."""
_UNREACHABLE = ("botocore", "aiobotocore", "aiohttp", "google", "gcsfs", "requests", "urllib3")
"""Libraries below fsspec, whose errors are not operating-system errors."""

ONE_REQUEST_BYTES = 32 * 1024 * 1024
"""Files up to this size are put in one request."""

PART_BYTES = 16 * 1024 * 1024
MOST_PARTS = 10_000
"""What is larger is put in parts, a few of which are in memory; one such file at a time."""

CONFLICTS = 5
"""Tries to put what the store could not decide on, because another put was on its way."""

_checking = Lock()
_large = Lock()


@dataclass(frozen=True)
class StoredObject:
    """An object as it is now: its size, its tag, and when it was put there."""

    n_bytes: int
    tag: str
    mtime_ns: int


class Objects:
    """What lies below one URL; keys are relative to it, with ``/`` between their parts."""

    def __init__(self, url: str) -> None:
        """Open the store that the URL names; nothing is asked of it yet.

        Raises:
            StorageError: The URL's scheme is unknown, its library is not installed, or it is none
                that a folder of objects can have.
        """
        self.url = folder_url(url)
        self.filesystem, self._root = open_filesystem(self.url)

    def listing(self, folder: str = "") -> dict[str, StoredObject]:
        """Return every object below a folder; one request for each thousand."""
        with explained(self.url):
            found = self.filesystem.find(self._path(folder), detail=True)
        return {
            self._key(path): as_object(info)
            for path, info in found.items()
            if info.get("type") == "file" and not path.endswith("/")
        }

    def find(self, key: str) -> StoredObject | None:
        """Return an object; None when there is none."""
        with explained(self.url):
            try:
                info = self.filesystem.info(self._path(key))
            except FileNotFoundError:
                return None
        return as_object(info) if info["type"] == "file" else None

    def read(self, key: str) -> bytes | None:
        """Return an object's bytes; None when there is none."""
        with explained(self.url):
            try:
                return bytes(self.filesystem.cat_file(self._path(key)))
            except FileNotFoundError:
                return None

    def get(self, key: str, path: Path) -> bool:
        """Write an object into a file; tell whether there was one."""
        with explained(self.url):
            try:
                # one stream: parts at once would lie in memory, and may be of two objects
                alone = {"max_concurrency": 1} if self._is_s3 else {}
                self.filesystem.get_file(self._path(key), str(path), **alone)
            except FileNotFoundError:
                return False
        return True

    def put(self, path: Path, key: str) -> StoredObject:
        """Put a file there, in place of what is there."""
        with explained(self.url):
            if path.stat().st_size <= ONE_REQUEST_BYTES and self._is_s3:
                tag = _s3_put(self.filesystem, self._path(key), path.read_bytes())
                return StoredObject(path.stat().st_size, tag, time.time_ns())
            parts = _parts(path.stat().st_size) if self._is_s3 else {}
            with _large:
                self.filesystem.put_file(str(path), self._path(key), **parts)
            return as_object(self.filesystem.info(self._path(key)))

    def put_if(self, key: str, data: bytes, *, tag: str | None) -> StoredObject | None:
        """Put bytes there if the object has a tag, or, with None, if there is none.

        Returns:
            The object; None when the condition did not hold, and nothing was done.
        """
        with explained(self.url):
            put = _CONDITIONS.get(protocol_of(self.url), _check_and_put)
            mine = put(self.filesystem, self._path(key), data, tag)
            if mine is None:
                return None
            found = as_object(self.filesystem.info(self._path(key)))
            # else somebody has replaced it since: what is theirs was never seen here
            return found if mine in ("", found.tag) else replace(found, n_bytes=len(data), tag=mine)

    @property
    def _is_s3(self) -> bool:
        return protocol_of(self.url) in ("s3", "s3a")

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        with explained(self.url):
            try:
                self.filesystem.rm_file(self._path(key))
            except FileNotFoundError:
                return

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    def _key(self, path: str) -> str:
        return path.lstrip("/").removeprefix(self._root.lstrip("/")).lstrip("/")


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, without its cache of listings, and the path in it.

    Raises:
        StorageError: The scheme is unknown, or its library is not installed.
    """
    import fsspec

    url = without_secrets(url)
    try:
        filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        extra = _EXTRAS.get(protocol_of(url))
        package = f"'rise-pipeline[{extra}]'" if extra else f"what it needs ({error})"
        raise StorageError(
            f"{url}: its library is missing. Run `pip install {package}`."
        ) from error
    except ValueError as error:
        raise StorageError(
            f"{url}: expected a path, or a URL that fsspec opens, such as s3://bucket/folder; got "
            f"{error}. Correct the URL."
        ) from error
    return filesystem, path.rstrip("/")


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn the errors of the libraries below fsspec into such that say what to do.

    Raises:
        NotFoundError: There is no such bucket.
        StorageError: Credentials are missing or do not suffice.
        ConnectionError: The store cannot be reached; another try may help.
    """
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{url}: {error}. Check bucket and path, or make the bucket."
        ) from error
    except PermissionError as error:
        raise StorageError(
            f"{url}: permission is denied ({error}). Check the credentials and what they may do."
        ) from error
    except Exception as error:
        if type(error) is OSError and error.errno in _PASSING:
            raise ConnectionError(
                f"{url}: the store could not answer ({error}). Run again; finished work is kept "
                "and not repeated."
            ) from error
        library = type(error).__module__.partition(".")[0]
        if library not in _UNREACHABLE:
            raise
        if "Credential" in type(error).__name__:
            raise StorageError(
                f"{url}: {error}. Give credentials, see docs/object_stores.md."
            ) from error
        raise ConnectionError(
            f"{url} cannot be reached ({error}). Check the network and the endpoint, and run "
            "again; finished work is kept and not repeated."
        ) from error


def as_object(info: Mapping[str, Any]) -> StoredObject:
    """Return what fsspec tells of a file."""
    mtime_ns = next((_nanoseconds(info[name]) for name in _TIMES if info.get(name)), 0)
    n_bytes = int(info["size"])
    tag = next((str(info[name]) for name in _TAGS if info.get(name)), f"{n_bytes}-{mtime_ns}")
    return StoredObject(n_bytes, tag.strip('"'), mtime_ns)


def is_md5_of(tag: str, path: Path) -> bool:
    """Tell whether a tag is the MD5 of a file, as it is in S3 for objects put in one part."""
    if not re.fullmatch(r"[0-9a-f]{32}", tag):
        return False
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == tag
        )


def _nanoseconds(moment: datetime | float | str) -> int:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    seconds = moment.timestamp() if isinstance(moment, datetime) else moment
    return round(seconds * 1_000_000) * 1000


def _parts(n_bytes: int) -> dict[str, int]:
    return {"chunksize": max(PART_BYTES, -(-n_bytes // MOST_PARTS)), "max_concurrency": 4}


def _s3_put(filesystem: Any, path: str, data: bytes, **condition: str) -> str:
    """Put bytes in one request; its answer has the tag, which saves another request."""
    bucket, key, _ = filesystem.split_path(path)
    answer = filesystem.call_s3("put_object", Bucket=bucket, Key=key, Body=data, **condition)
    return str(answer["ETag"]).strip('"')


def _s3_put_if(filesystem: Any, path: str, data: bytes, tag: str | None) -> str | None:
    condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": f'"{tag}"'}
    for tries_left in reversed(range(CONFLICTS)):
        try:
            return _s3_put(filesystem, path, data, **condition)
        except FileExistsError:
            return None
        except FileNotFoundError:
            if tag is None:  # the bucket
                raise
            return None
        except OSError as error:
            code = _code_of(error)
            if code in _NOT_SO:
                return None
            if code not in _CONFLICT or not tries_left:
                raise
            time.sleep(0.1)
    return None


def _code_of(error: OSError) -> str:
    """Return what S3 calls an error; empty where it does not say."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _gcs_put_if(filesystem: Any, path: str, data: bytes, tag: str | None) -> str | None:
    if tag is not None:
        return _check_and_put(filesystem, path, data, tag)
    try:
        filesystem.pipe_file(path, data, mode="create")
    except FileExistsError:
        return None
    return ""


def _check_and_put(filesystem: Any, path: str, data: bytes, tag: str | None) -> str | None:
    """Look, then put: one step for the threads of this process alone; its tag is not known."""
    with _checking:
        try:
            found = as_object(filesystem.info(path)).tag
        except FileNotFoundError:
            found = None
        if found != tag:
            return None
        filesystem.pipe_file(path, data)
    return ""


_CONDITIONS = {"s3": _s3_put_if, "s3a": _s3_put_if, "gs": _gcs_put_if, "gcs": _gcs_put_if}
