"""How a release is written: shards as they come, tables beside them, the manifest last."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from storage import rows as tables
from storage.files import write_bytes, write_json
from storage.guards import release_guard
from storage.layout import (
    RELEASE_FILE,
    RELEASE_FORMAT,
    refused_release_folder,
    release_folder,
)
from storage.lease import Lease
from storage.manifests import describe_file, write_manifest
from storage.refs import ReleaseRef
from storage.release_pointer import mark_latest
from storage.releases import (
    ATTRIBUTES_SCHEMA,
    CARD_FILE,
    NOT_LISTED,
    RELEASE_SCHEMA,
    release_exists,
)
from storage.staged import StagedWriter

LINEAGE_KEYS = ("scores_id",)
"""Fields that the manifest must have, so that a row's way can be followed."""

TEXT_COLUMNS = ("text", "prompt", "completion")
"""Columns without statistics: the least and the greatest text would be copied into every footer."""

ATTRIBUTES_GROUP_ROWS = 4096
"""Rows a row group of attributes, about 150 KB: what is read to look one id up."""

JSONL_ROWS = 1024
"""Rows turned into JSON at once."""


class ReleaseWriter(StagedWriter):
    """Writes a release in a staging folder; without `commit` or `refuse` nothing stays.

    Put quality reports under ``staging / "quality"``.
    """

    def __init__(self, ref: ReleaseRef, *, jsonl: bool = False) -> None:
        """Name the release; `BusyError` and errors of the disk come on entering.

        Args:
            ref: What will be published.
            jsonl: Write the rows as JSON Lines too, in ``jsonl/``.
        """
        super().__init__(ref.root, release_folder(ref))
        self.ref = ref
        self._jsonl = jsonl
        self._shards: dict[str, list[Path]] = {}
        self._counts: dict[Path, dict[str, int]] = {}

    def add(self, table: pa.Table, *, more: Mapping[str, int] | None = None) -> Path:
        """Add rows (RELEASE_SCHEMA) as one Parquet file; return it, as named until `commit`.

        Args:
            table: The rows, following those that were added before.
            more: Counts that the manifest gives for this file beside its rows and tokens.

        Raises:
            ValueError: The table has other columns or types, or nulls where none may be.
        """
        what = f"release {self.ref.name}"
        table = tables.conform(table, RELEASE_SCHEMA, what=what)
        counts = {**_counts(table), **(more or {})}
        path = self._next_shard("data", "parquet", counts)
        tables.write_table(path, table, without_statistics=TEXT_COLUMNS)
        if self._jsonl:
            write_jsonl(self._next_shard("jsonl", "jsonl", counts), table)
        return path

    def add_attributes(self, table: pa.Table, *, rows_per_shard: int) -> None:
        """Add what is known of the rows (ATTRIBUTES_SCHEMA), in order of ``row_id``.

        Raises:
            ValueError: The table has other columns or types, or nulls where none may be.
        """
        what = f"release {self.ref.name}, attributes"
        table = tables.conform(table, ATTRIBUTES_SCHEMA, what=what).sort_by("row_id")
        for start in range(0, table.num_rows, rows_per_shard):
            part = table.slice(start, rows_per_shard)
            path = self._next_shard("attributes", "parquet", {"rows": part.num_rows})
            tables.write_table(path, part, row_group_rows=ATTRIBUTES_GROUP_ROWS)

    def add_table(self, name: str, table: pa.Table, schema: pa.Schema) -> None:
        """Add one Parquet file of its own, such as ``dropped.parquet``.

        Raises:
            ValueError: The table has other columns or types, or nulls where none may be.
        """
        path = self.staging / name
        what = f"release {self.ref.name}, {name}"
        tables.write_table(path, tables.conform(table, schema, what=what))
        self._counts[path] = {"rows": table.num_rows}

    def add_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Add a JSON file, such as ``statistics.json``."""
        write_json(self.staging / name, value)

    def commit(self, manifest: Mapping[str, Any], card: str, *, point: bool = True) -> ReleaseRef:
        """Publish the release and point ``latest`` to it; an id that exists is not written again.

        Args:
            manifest: What the caller wants to keep; must have LINEAGE_KEYS.
            card: The dataset card, Markdown with the YAML header of `datasets`.
            point: Move ``latest``; else the caller decides, and does it with `mark_latest`.

        Raises:
            ValueError: No rows were added, or the manifest lacks a needed field.
        """
        missing = [key for key in LINEAGE_KEYS if key not in manifest]
        if missing:
            raise ValueError(f"the release's manifest lacks {missing}, which lineage needs.")
        if not self._shards.get("data"):
            raise ValueError("a release needs at least one row, got none.")
        if not release_exists(self.ref):
            self._write(manifest, card)
            # FileExistsError: whoever took the lease for expired was first, with the same release
            with suppress(FileExistsError):
                self._publish(release_folder(self.ref))
        self._lease.check()
        if point:
            mark_latest(self.ref, why="published")
        return self.ref

    def _hold(self) -> AbstractContextManager[Lease]:
        return release_guard(self.ref.root, self.ref.name).hold()

    def refuse(self) -> Path:
        """Keep only the quality report, under ``refused/``; return its folder."""
        return self._keep_report(refused_release_folder(self.ref))

    def _next_shard(self, folder: str, ending: str, counts: dict[str, int]) -> Path:
        shards = self._shards.setdefault(folder, [])
        path = self.staging / folder / f"train-{len(shards):05d}.{ending}"
        path.parent.mkdir(exist_ok=True)
        shards.append(path)
        self._counts[path] = counts
        return path

    def _write(self, manifest: Mapping[str, Any], card: str) -> None:
        for shards in self._shards.values():
            for number, path in enumerate(shards):
                name = f"{path.stem}-of-{len(shards):05d}{path.suffix}"
                shards[number] = path.rename(path.with_name(name))
                self._counts[shards[number]] = self._counts.pop(path)
        write_bytes(self.staging / CARD_FILE, card.encode())
        files = [
            {**describe_file(path, folder=self.staging), **self._counts.get(path, {})}
            for path in sorted(self._listed())
        ]
        n_rows = sum(self._counts[path]["rows"] for path in self._shards["data"])
        body = {**manifest, "n_rows": n_rows, "files": files}
        write_manifest(self.staging / RELEASE_FILE, RELEASE_FORMAT, body)

    def _listed(self) -> Iterator[Path]:
        for path in self.staging.rglob("*"):
            if path.is_file() and path.relative_to(self.staging).parts[0] not in NOT_LISTED:
                yield path


def write_jsonl(path: Path, table: pa.Table) -> None:
    """Write a table as JSON Lines in UTF-8, a row a line, fields in the order of the columns."""
    with path.open("wb") as file:
        for batch in table.to_batches(max_chunksize=JSONL_ROWS):
            file.writelines(orjson.dumps(row) + b"\n" for row in batch.to_pylist())


def _counts(table: pa.Table) -> dict[str, int]:
    return {
        "rows": table.num_rows,
        "tokens": pc.sum(table.column("n_tokens"), min_count=0).as_py(),
    }
