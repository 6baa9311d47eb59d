"""Releases: what one holds, table by table, and how it is read.

A release is immutable. `release_writer` makes one, `release_pointer` says which one is ``latest``.
"""

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage import rows as tables
from storage.catalog import open_store, published_folders, version_folders
from storage.errors import CorruptionError, NotFoundError
from storage.files import read_json
from storage.hits import LEAKAGE_SCHEMA, PRIVACY_SCHEMA
from storage.layout import QUALITY_FOLDER, RELEASE_FILE, RELEASE_FORMAT, release_folder
from storage.manifests import file_problems, read_manifest
from storage.refs import ReleaseRef
from storage.roots import fetched, store_folder

CARD_FILE = "README.md"
DROPPED_FILE = "dropped.parquet"
LEAKAGE_FILE = "leakage.parquet"
PRIVACY_FILE = "privacy.parquet"
SELECTION_FILE = "selection.json"
STATISTICS_FILE = "statistics.json"
REPORT_FILE = "report.html"
ENVIRONMENT_FILE = "environment.json"
COST_FILE = "cost.json"
DRIFT_FILE = "drift.json"

NOT_LISTED = (REPORT_FILE, ENVIRONMENT_FILE, COST_FILE, DRIFT_FILE, QUALITY_FOLDER)
"""What may differ between two machines that make the same release; no manifest lists it."""

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
"""A released row, in order of rank. ``rank`` from 1; ``lineage_id`` is
``<batch_id>:<position_in_batch>``."""

ATTRIBUTES_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("percentile", pa.float32()),
        pa.field("z", pa.float32()),
        pa.field("false_discovery", pa.float32()),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("target_tokens", pa.int32()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_line", pa.int64(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("lineage_id", pa.string(), nullable=False),
    ]
)
"""All about a released row but its text, in order of ``row_id``: the table to look ids up in.
``target_tokens``: tokens of the tokenizer that the release is meant for, when one was named."""

DROPPED_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),
        pa.field("lineage_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_line", pa.int64(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),
    ]
)
"""A row that its score would have brought into the release and that something kept out; no text.
``place``: its place in the order of values, from 1."""


class Release:
    """One published release.

    Attributes:
        manifest: What the writer was given, with ``n_rows`` and ``files``.
    """

    def __init__(self, ref: ReleaseRef, manifest: dict[str, Any]) -> None:
        """Use `open_release`."""
        self.ref = ref
        self.manifest = manifest

    @cached_property
    def folder(self) -> Path:
        """Where its files are; of a store at a URL they are fetched when this is first asked."""
        return fetched(release_folder(self.ref))

    @cached_property
    def data_files(self) -> list[Path]:
        """Its Parquet files of rows, in order."""
        return self._files_in("data/")

    def rows(self) -> pa.Table:
        """Return all rows (RELEASE_SCHEMA); `CorruptionError` when a file is damaged."""
        return pa.concat_tables([tables.read_table(path) for path in self.data_files])

    def attributes(self) -> pa.Table:
        """Return everything but the texts (ATTRIBUTES_SCHEMA), in order of ``row_id``."""
        parts = [tables.read_table(path) for path in self._files_in("attributes/")]
        return pa.concat_tables([ATTRIBUTES_SCHEMA.empty_table(), *parts])

    def dropped(self) -> pa.Table:
        """Return the rows that were kept out, with reasons (DROPPED_SCHEMA)."""
        return self._table(DROPPED_FILE, DROPPED_SCHEMA)

    def leakage(self) -> pa.Table:
        """Return what was found to overlap with queries and evaluation sets (LEAKAGE_SCHEMA)."""
        return self._table(LEAKAGE_FILE, LEAKAGE_SCHEMA)

    def privacy(self) -> pa.Table:
        """Return the strings that look private, by their shape alone (PRIVACY_SCHEMA)."""
        return self._table(PRIVACY_FILE, PRIVACY_SCHEMA)

    def selection(self) -> dict[str, Any]:
        """Return the selection's report; `NotFoundError` in releases of before there was one."""
        return read_json(self.folder / SELECTION_FILE)

    def statistics(self) -> dict[str, Any]:
        """Return the histograms; `NotFoundError` in releases of before there were any."""
        return read_json(self.folder / STATISTICS_FILE)

    def find(self, row_id: str) -> dict[str, Any] | None:
        """Return one released row, reading little; None when it is not in the release."""
        for path in self._files_in("attributes/"):
            places = tables.find_values(path, "row_id", [row_id])
            if places:
                line = tables.read_positions(path, list(places.values()))
                return self._ranked(line.column("rank")[0].as_py())
        return None if self._files_in("attributes/") else self._search(row_id)

    def find_dropped(self, row_id: str) -> dict[str, Any] | None:
        """Return the line of a row that was kept out (DROPPED_SCHEMA); None when it was not."""
        for path in self._files_in(DROPPED_FILE):
            places = tables.find_values(path, "row_id", [row_id])
            if places:
                line: dict[str, Any] = tables.read_positions(
                    path, list(places.values())
                ).to_pylist()[0]
                return line
        return None

    def verify(self, *, deep: bool = True) -> list[str]:
        """Compare the files with the manifest; one text for each problem."""
        return file_problems(self.folder, self.manifest["files"], deep=deep)

    def require_sound(self, *, deep: bool) -> None:
        """Raise `CorruptionError` when `verify` finds anything."""
        problems = self.verify(deep=deep)
        if problems:
            remedy = f"Restore {self.folder} from a copy, or delete it and release again."
            raise CorruptionError(" ".join([*problems, remedy]))

    def _files_in(self, prefix: str) -> list[Path]:
        names = [entry["name"] for entry in self.manifest["files"]]
        return [self.folder / name for name in names if name.startswith(prefix)]

    def _table(self, name: str, schema: pa.Schema) -> pa.Table:
        paths = self._files_in(name)
        return tables.read_table(paths[0]) if paths else schema.empty_table()

    def _ranked(self, rank: int) -> dict[str, Any]:
        """Return the row of a rank: rows lie in its order, from 1."""
        counts = {entry["name"]: entry.get("rows", 0) for entry in self.manifest["files"]}
        sizes = [counts[path.relative_to(self.folder).as_posix()] for path in self.data_files]
        starts = [0, *accumulate(sizes)]
        part = bisect_right(starts, rank - 1) - 1
        found = tables.read_positions(self.data_files[part], [rank - 1 - starts[part]])
        row: dict[str, Any] = found.to_pylist()[0]
        return row

    def _search(self, row_id: str) -> dict[str, Any] | None:
        """Look through the rows themselves: releases of before there were attributes."""
        for path in self.data_files:
            places = tables.find_values(path, "row_id", [row_id])
            if places:
                found = tables.read_positions(path, list(places.values()))
                row: dict[str, Any] = found.to_pylist()[0]
                return row
        return None


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


def require_release(ref: ReleaseRef) -> None:
    """Raise `NotFoundError` unless the release is published."""
    if not release_exists(ref):
        raise NotFoundError(
            f"there is no release {ref.release_id!r} of {ref.name!r} in {ref.root}. "
            "`rise release ls` lists them."
        )


def all_releases(root: str) -> list[ReleaseRef]:
    """Return every release of the store, by name and id."""
    named = published_folders(store_folder(root) / "releases")
    return [
        ReleaseRef(root, folder.name, release.name)
        for folder in named
        for release in version_folders(folder)
    ]
