"""URLs of stores and files: what is one, how it is spelled, and what may not stand in one."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.errors import StorageError

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_LOGIN = re.compile(r"[^/@]*:[^/@]*@")
_PAGES = ("http", "https")
_NOT_IN_FOLDERS = re.compile(r"[?#*\[\]\x00-\x1f\x7f\\]")


def is_url(path: str) -> bool:
    """Tell whether a path names something in an object store; ``file://`` does not."""
    return bool(_URL.match(path)) and not path.lower().startswith("file://")


def local_path(path: str) -> Path:
    """Return a path without a scheme, or a ``file://`` URL, as a path."""
    return Path(unquote(urlsplit(path).path)) if path.lower().startswith("file://") else Path(path)


def protocol_of(url: str) -> str:
    """Return the scheme of a URL, such as ``s3``."""
    return url.partition("://")[0].lower()


def without_secrets(url: str) -> str:
    """Return a URL, its scheme in small letters; URLs are shown in logs and kept in manifests.

    Raises:
        StorageError: It holds a password, or a query, which may be a signature. Neither is shown.
    """
    protocol, rest = protocol_of(url), url.partition("://")[2]
    if login := _LOGIN.match(rest):
        raise StorageError(
            f"{protocol}://***@{rest[login.end() :].partition('?')[0]}: expected a URL without a "
            "password: URLs are kept in manifests and logs. Take it out, and give credentials as "
            "docs/object_stores.md says."
        )
    if protocol in _PAGES and "?" in rest and "=" in rest:
        raise StorageError(
            f"{protocol}://{rest.partition('?')[0]}?***: expected a URL without a query, which may "
            "be a signature: URLs are kept in manifests and logs. Name the object itself, such as "
            "s3://bucket/file.jsonl, and give credentials as docs/object_stores.md says."
        )
    return f"{protocol}://{rest}"


def folder_url(url: str) -> str:
    """Return the one spelling of the URL of a folder that is written to: a store, an export.

    Raises:
        StorageError: It names no bucket, cannot be written to, or is not a plain path.
    """
    protocol, _, rest = without_secrets(url).partition("://")
    rest = rest.rstrip("/")
    url = f"{protocol}://{rest}"
    if protocol in _PAGES:
        raise StorageError(
            f"{url}: expected an object store, such as s3://bucket/folder; {protocol}:// can only "
            "be read. Name the folder by the store's own scheme."
        )
    parts = rest.split("/")
    if not parts[0] or any(part in ("", ".", "..") for part in parts):
        raise StorageError(
            f"{url}: expected a bucket and plain folders, such as s3://bucket/folder; an empty "
            "part, '.' or '..' means another place to every program. Correct the URL."
        )
    if found := _NOT_IN_FOLDERS.search(rest):
        raise StorageError(
            f"{url!r}: expected a bucket and plain folders, such as s3://bucket/folder; it has "
            f"{found[0]!r}. Choose another folder."
        )
    return url
