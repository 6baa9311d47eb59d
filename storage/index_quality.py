"""What the quality gate notes beside an index: hints that any reader may ignore and anyone delete.

Numbers that were measured of each block, tied to the bytes of its shard, and the last verdict with
the numbers that the next run is compared with.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from storage.blocks import SignatureBlocks
from storage.errors import CorruptionError, IncompleteError, NotFoundError
from storage.files import publish, remove_folder, staging_folder
from storage.layout import (
    QUALITY_FILE,
    QUALITY_FOLDER,
    QUALITY_FORMAT,
    STATISTICS_FOLDER,
    STATISTICS_FORMAT,
)
from storage.manifests import read_manifest, write_manifest
from storage.signatures import SignatureIndex


class IndexQuality:
    """The notes beside one index; write them under its lease.

    Attributes:
        docs: Folder of the quality report of the last verdict.
    """

    def __init__(self, index: SignatureIndex) -> None:
        self._index = index
        self.docs = index.folder / QUALITY_FOLDER

    def recorded_rows(self, block: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Return every row that a block's record counts, committed or not.

        Returns:
            Signatures as they were written, float16 [n, n_numbers] or codes; scales, float32 [n],
            None for float16; and predicted positions, int32 [n].

        Raises:
            IncompleteError: The block has no record.
            CorruptionError: A file is missing or its checksum does not hold.
        """
        index = self._index
        record = index.block_record(block)
        if record is None:
            raise IncompleteError(
                f"index {index.ref.index!r}: block {block} is not finished. Run the build again."
            )
        blocks = SignatureBlocks(index.folder, index.n_numbers, index.block_rows, index.code)
        start = block * index.block_rows
        stop = start + record["n_rows"]
        return (
            blocks.signatures.read(start, stop),
            None if blocks.scales is None else blocks.scales.read(start, stop),
            blocks.n_positions.read(start, stop),
        )

    def remember_statistics(self, block: int, statistics: Mapping[str, Any]) -> None:
        """Note what was measured of a block as it is recorded now."""
        record = self._index.block_record(block) or {}
        body = {**statistics, "shard_sha256": record.get("shard_sha256")}
        write_manifest(self._statistics(block), STATISTICS_FORMAT, body)

    def statistics(self, block: int) -> dict[str, Any] | None:
        """Return what was measured of a block; None when absent, damaged or of other bytes."""
        record = self._index.block_record(block) or {}
        found = _read_hint(self._statistics(block), STATISTICS_FORMAT)
        if found is None or found.pop("shard_sha256") != record.get("shard_sha256"):
            return None
        return found

    def remember_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Note what the gate said last."""
        write_manifest(self._index.folder / QUALITY_FILE, QUALITY_FORMAT, verdict)

    def verdict(self) -> dict[str, Any] | None:
        """Return what the gate said last; None when that is absent or damaged."""
        return _read_hint(self._index.folder / QUALITY_FILE, QUALITY_FORMAT)

    @contextmanager
    def new_report(self) -> Iterator[Path]:
        """Yield a folder that becomes the quality report, in place of the last one."""
        with staging_folder(self.docs) as staging:
            yield staging
            if self.docs.exists():
                remove_folder(self.docs)  # a kill between the two steps loses a report, never more
            publish(staging, self.docs)

    def _statistics(self, block: int) -> Path:
        return self._index.folder / STATISTICS_FOLDER / f"{block:08d}.json"


def _read_hint(path: Path, kind: str) -> dict[str, Any] | None:
    try:
        return read_manifest(path, kind)
    except (NotFoundError, CorruptionError):
        return None
