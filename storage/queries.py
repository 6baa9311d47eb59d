"""Query sets: the rows that are asked about, with their signatures, under a name and a version.

A version is published whole and never changes; ``latest`` is a link to the one made last.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storage import rows as tables
from storage.catalog import open_store
from storage.errors import NotFoundError
from storage.files import point_to, published_folder, remove_partials, write_bytes
from storage.layout import (
    LATEST,
    QUERY_SET_FILE,
    QUERY_SET_FORMAT,
    query_set_folder,
    query_sets_folder,
)
from storage.manifests import (
    describe_file,
    file_problems,
    read_manifest,
    require_sound_files,
    write_manifest,
)
from storage.refs import QuerySetRef
from storage.roots import fetched

QUERIES_FILE = "queries.parquet"
SIGNATURES_FILE = "signatures.npy"
POSITIONS_FILE = "n_positions.npy"


class QuerySet:
    """One version of a query set.

    Attributes:
        manifest: What `write` was given, with ``n_queries``, ``n_numbers`` and ``files``.
    """

    def __init__(self, ref: QuerySetRef, manifest: dict[str, Any]) -> None:
        """Use `open`."""
        self.ref = ref
        self.manifest = manifest

    @cached_property
    def folder(self) -> Path:
        """Where its files are; of a store at a URL they are fetched when this is first asked."""
        return fetched(query_set_folder(self.ref))

    @staticmethod
    def write(
        ref: QuerySetRef,
        *,
        queries: pa.Table,
        signatures: np.ndarray,
        n_positions: np.ndarray,
        manifest: Mapping[str, Any],
    ) -> QuerySetRef:
        """Publish a version, unless it exists, and point ``latest`` to it.

        Args:
            ref: Where; the store is made when there is none.
            queries: Q rows, ROW_SCHEMA.
            signatures: float32 [Q, n_numbers].
            n_positions: int32 [Q], predicted positions of each query.
            manifest: What the caller wants to keep, the space of the signatures above all.

        Raises:
            ValueError: Shapes, types or values are not as described.
        """
        table = tables.conform(queries, tables.ROW_SCHEMA, what=f"query set {ref.name}")
        _check_arrays(table.num_rows, signatures, n_positions)
        open_store(ref.root, create=True)
        folder = query_set_folder(ref)
        remove_partials(folder.parent)
        # FileExistsError: the same version is there, and versions never change.
        with suppress(FileExistsError), published_folder(folder) as staging:
            tables.write_table(staging / QUERIES_FILE, table)
            write_bytes(staging / SIGNATURES_FILE, _npy_bytes(signatures))
            write_bytes(staging / POSITIONS_FILE, _npy_bytes(n_positions))
            names = (QUERIES_FILE, SIGNATURES_FILE, POSITIONS_FILE)
            body = {
                **manifest,
                "n_queries": table.num_rows,
                "n_numbers": signatures.shape[1],
                "files": [describe_file(staging / name, folder=staging) for name in names],
            }
            write_manifest(staging / QUERY_SET_FILE, QUERY_SET_FORMAT, body)
        QuerySet.mark_latest(ref)
        return ref

    @staticmethod
    def exists(ref: QuerySetRef) -> bool:
        """Tell whether the version is published."""
        return (query_set_folder(ref) / QUERY_SET_FILE).is_file()

    @staticmethod
    def mark_latest(ref: QuerySetRef) -> None:
        """Point ``latest`` to a published version; also repairs a kill just before that step."""
        link = query_sets_folder(ref.root, ref.name) / LATEST
        if _link_target(link) != ref.version:
            point_to(link, ref.version)

    @staticmethod
    def latest(root: str, name: str) -> QuerySetRef:
        """Return the version that was made, or asked for again, last.

        Raises:
            NotFoundError: There is no query set of that name.
        """
        version = _link_target(query_sets_folder(root, name) / LATEST)
        if version is None:
            raise NotFoundError(
                f"the store {root} has no query set {name!r}. "
                "`rise ls` lists what it has; make the query set first."
            )
        return QuerySetRef(root, name, version)

    @classmethod
    def open(cls, ref: QuerySetRef) -> "QuerySet":
        """Open a version.

        Raises:
            NotFoundError: It does not exist.
            FormatVersionError: A newer version of the program wrote it.
            CorruptionError: The manifest is damaged.
        """
        open_store(ref.root)
        return cls(ref, read_manifest(query_set_folder(ref) / QUERY_SET_FILE, QUERY_SET_FORMAT))

    def queries(self) -> pa.Table:
        """Return the queries (ROW_SCHEMA); `CorruptionError` when the file is damaged."""
        return tables.read_table(self._sound(QUERIES_FILE))

    def signatures(self) -> np.ndarray:
        """Return float32 [Q, n_numbers]; `CorruptionError` when the file is damaged."""
        return np.asarray(np.load(self._sound(SIGNATURES_FILE), allow_pickle=False))

    def n_positions(self) -> np.ndarray:
        """Return int32 [Q], predicted positions of each query."""
        return np.asarray(np.load(self._sound(POSITIONS_FILE), allow_pickle=False))

    def verify(self, *, deep: bool = True) -> list[str]:
        """Compare the files with the manifest; one text for each problem."""
        return file_problems(self.folder, self.manifest["files"], deep=deep)

    def _sound(self, name: str) -> Path:
        entries = [entry for entry in self.manifest["files"] if entry["name"] == name]
        require_sound_files(self.folder, entries, deep=True)
        return self.folder / name


def _check_arrays(n_queries: int, signatures: np.ndarray, n_positions: np.ndarray) -> None:
    if n_queries == 0:
        raise ValueError("a query set needs at least one query, got none.")
    shape = signatures.shape
    if signatures.dtype != np.float32 or len(shape) != 2 or shape[0] != n_queries:
        raise ValueError(
            f"expected float32 signatures [{n_queries}, n_numbers], got "
            f"{signatures.dtype} {list(shape)}."
        )
    if n_positions.dtype != np.int32 or n_positions.shape != (n_queries,):
        raise ValueError(
            f"expected int32 n_positions [{n_queries}], got "
            f"{n_positions.dtype} {list(n_positions.shape)}."
        )
    if not np.isfinite(signatures).all():
        raise ValueError("query signatures are not finite. Check the model's number format.")


def _npy_bytes(values: np.ndarray) -> bytes:
    # Not np.save to the file: on a full disk that raises an error without a reason.
    buffer = BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _link_target(link: Path) -> str | None:
    return link.readlink().name if link.is_symlink() else None
