"""Releases: selected rows as Parquet that `datasets.load_dataset` reads, published whole.

A release is immutable; ``latest`` is a link to the one that was published or asked for last.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import rows as tables
from storage.catalog import open_store, published_folders
from storage.errors import NotFoundError
from storage.files import point_to, publish, write_bytes
from storage.layout import LATEST, RELEASE_FILE, RELEASE_FORMAT, release_folder, releases_folder
from storage.manifests import describe_file, file_problems, read_manifest, write_manifest
from storage.refs import ReleaseRef
from storage.staged import StagedWriter

CARD_FILE = "README.md"
LINEAGE_KEYS = ("scores_id",)
"""Fields that the manifest must have, so that a row's way can be followed."""

RELEASE_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("completion", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("lineage_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_line", pa.int64(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("n_tokens", pa.int32(), nullable=False),
    ]
)
"""A released row. ``rank`` from 1; ``lineage_id`` is ``<batch_id>:<position_in_batch>``."""


class Release:
    """One published release.

    Attributes:
        manifest: What the writer was given, with ``n_rows`` and ``files``.
        data_files: Its Parquet files, in order.
    """

    def __init__(self, ref: ReleaseRef, manifest: dict[str, Any]) -> None:
        """Use `open_release`."""
        self.ref = ref
        self.folder = release_folder(ref)
        self.manifest = manifest
        names = [entry["name"] for entry in manifest["files"]]
        self.data_files = [self.folder / name for name in names if name.startswith("data/")]

    def rows(self) -> pa.Table:
        """Return all rows (RELEASE_SCHEMA); `CorruptionError` when a file is damaged."""
        return pa.concat_tables([tables.read_table(path) for path in self.data_files])

    def find(self, row_id: str) -> dict[str, Any] | None:
        """Return one released row, reading little; None when it is not in the release."""
        for path in self.data_files:
            places = tables.find_values(path, "row_id", [row_id])
            if places:
                found: dict[str, Any] = tables.read_positions(
                    path, list(places.values())
                ).to_pylist()[0]
                return found
        return None

    def verify(self, *, deep: bool = True) -> list[str]:
        """Compare the files with the manifest; one text for each problem."""
        return file_problems(self.folder, self.manifest["files"], deep=deep)


class ReleaseWriter(StagedWriter):
    """Writes a release in a staging folder; without `commit` nothing stays.

    Put quality reports under ``staging / "quality"``.
    """

    def __init__(self, ref: ReleaseRef) -> None:
        """Name the release; errors of the disk come on entering the ``with`` block."""
        super().__init__(ref.root, release_folder(ref))
        self.ref = ref
        self._parts: list[tuple[Path, dict[str, int]]] = []

    def add(self, table: pa.Table) -> Path:
        """Add rows (RELEASE_SCHEMA) as one Parquet file; return it, as named until `commit`.

        Raises:
            ValueError: The table has other columns or types, or nulls where none may be.
        """
        path = self.staging / "data" / f"train-{len(self._parts):05d}.parquet"
        what = f"release {self.ref.name}"
        tables.write_table(path, tables.conform(table, RELEASE_SCHEMA, what=what))
        n_tokens = pc.sum(table.column("n_tokens"), min_count=0).as_py()
        self._parts.append((path, {"rows": table.num_rows, "tokens": n_tokens}))
        return path

    def commit(self, manifest: Mapping[str, Any], card: str) -> ReleaseRef:
        """Publish the release and point ``latest`` to it; an id that exists is not written again.

        Args:
            manifest: What the caller wants to keep; must have LINEAGE_KEYS.
            card: The dataset card, Markdown with the YAML header of `datasets`.

        Raises:
            ValueError: No rows were added, or the manifest lacks a needed field.
        """
        missing = [key for key in LINEAGE_KEYS if key not in manifest]
        if missing:
            raise ValueError(f"the release's manifest lacks {missing}, which lineage needs.")
        if not self._parts:
            raise ValueError("a release needs at least one row, got none.")
        if not release_exists(self.ref):
            self._write(manifest, card)
            with suppress(FileExistsError):  # another process was first with the same release
                publish(self.staging, release_folder(self.ref))
        mark_latest(self.ref)
        return self.ref

    def _write(self, manifest: Mapping[str, Any], card: str) -> None:
        files = []
        for number, (path, counts) in enumerate(self._parts):
            name = f"train-{number:05d}-of-{len(self._parts):05d}.parquet"
            named = path.rename(path.with_name(name))
            files.append({**describe_file(named, folder=self.staging), **counts})
        write_bytes(self.staging / CARD_FILE, card.encode())
        files.append(describe_file(self.staging / CARD_FILE, folder=self.staging))
        n_rows = sum(counts["rows"] for _, counts in self._parts)
        body = {**manifest, "n_rows": n_rows, "files": files}
        write_manifest(self.staging / RELEASE_FILE, RELEASE_FORMAT, body)


def open_release(ref: ReleaseRef) -> Release:
    """Open a published release.

    Raises:
        NotFoundError: There is none of that id.
        FormatVersionError: A newer version of the program wrote it.
        CorruptionError: The manifest is damaged.
    """
    open_store(ref.root)
    return Release(ref, read_manifest(release_folder(ref) / RELEASE_FILE, RELEASE_FORMAT))


def release_exists(ref: ReleaseRef) -> bool:
    """Tell whether the release is published."""
    return (release_folder(ref) / RELEASE_FILE).is_file()


def mark_latest(ref: ReleaseRef) -> None:
    """Point ``latest`` to a published release; also repairs a kill just before that step."""
    link = releases_folder(ref.root, ref.name) / LATEST
    if not link.is_symlink() or link.readlink().name != ref.release_id:
        point_to(link, ref.release_id)


def latest(root: str, name: str) -> ReleaseRef:
    """Return the release of that name that was published, or asked for again, last.

    Raises:
        NotFoundError: There is none.
    """
    link = releases_folder(root, name) / LATEST
    if not link.is_symlink():
        raise NotFoundError(
            f"the store {root} has no release {name!r}. "
            "`rise ls` lists what it has; publish the release first."
        )
    return ReleaseRef(root, name, link.readlink().name)


def all_releases(root: str) -> list[ReleaseRef]:
    """Return every release of the store, by name and id."""
    named = published_folders(Path(root) / "releases")
    return [
        ReleaseRef(root, folder.name, release.name)
        for folder in named
        for release in published_folders(folder)
    ]
