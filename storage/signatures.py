"""The signature index: rows' signatures in blocks, resumable after a kill at any moment.

``rows.json`` is written when every block is complete and is the only thing that readers trust;
see FORMAT.md. An opened index stays at the state that it was opened at.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from storage import arrays
from storage.blocks import GROUP, PLAIN_CODE, check_code
from storage.catalog import open_store
from storage.errors import (
    CorruptionError,
    IncompleteError,
    MismatchError,
    NotFoundError,
    flat_differences,
)
from storage.files import (
    publish,
    remove_partials,
    staging_folder,
)
from storage.index_header import TABLES, index_blocks, index_header, write_empty_index
from storage.index_names import index_place
from storage.layout import (
    INDEX_FILE,
    INDEX_FORMAT,
    MODEL_FILE,
    MODEL_FORMAT,
    ROWS_FILE,
    ROWS_FORMAT,
    STATISTICS_FOLDER,
)
from storage.manifests import read_manifest, write_manifest
from storage.refs import IndexRef
from storage.roots import fetched


class SignatureIndex:
    """One index, opened at the state that was committed last; open it again to see more.

    Attributes:
        identity: Everything that decides the signatures' values.
        index_id: Short id of the identity.
        n_numbers: Length of a signature.
        block_rows: Rows a block.
        code: How rows are stored: ``float16``, ``int8`` or ``sign``.
        float_numbers: Length of the float16 rows that are kept beside codes; None without.
    """

    def __init__(
        self, ref: IndexRef, header: Mapping[str, Any], state: Mapping[str, Any] | None
    ) -> None:
        """Use `create` or `open`."""
        self.ref = ref
        self.folder = index_place(ref)
        self.identity: dict[str, Any] = header["identity"]
        self.index_id: str = header["index_id"]
        self.n_numbers: int = header["n_numbers"]
        self.block_rows: int = header["block_rows"]
        self.code: str = header.get("code", PLAIN_CODE)
        self.float_numbers: int | None = header.get("float_numbers")
        self._state = state
        self._blocks = index_blocks(self.folder, header)

    # --------------------------------------------------------------------- making and opening

    @classmethod
    def create(  # noqa: PLR0913 - one argument a field of the header
        cls,
        ref: IndexRef,
        *,
        identity: Mapping[str, Any],
        tables: Mapping[str, np.ndarray],
        n_numbers: int,
        block_rows: int,
        code: str = PLAIN_CODE,
        float_numbers: int | None = None,
    ) -> "SignatureIndex":
        """Make an empty index, or open the one that is there if it has the same identity.

        Args:
            ref: Where; the store is made when there is none.
            identity: Everything that decides the signatures' values; JSON.
            tables: Arrays that belong to the identity, kept by value beside the signatures.
            n_numbers: Length of a signature.
            block_rows: Rows a block; one block is one shard and one unit of resume.
            code: How rows are stored: ``float16``, ``int8`` or ``sign``.
            float_numbers: Length of the float16 rows to keep beside codes; None for none.

        Raises:
            ValueError: The code is unknown or does not fit the length, or float16 rows are to be
                kept twice.
            MismatchError: An index of that name has another identity, or other sizes.
        """
        open_store(ref.root, create=True)
        check_code(code, n_numbers, float_numbers)
        header = index_header(
            identity,
            n_numbers=n_numbers,
            block_rows=block_rows,
            code=code,
            float_numbers=float_numbers,
        )
        folder = index_place(ref)
        remove_partials(folder.parent)
        if not folder.exists():
            with suppress(FileExistsError), staging_folder(folder) as staging:
                write_empty_index(staging, header, tables)
                # FileExistsError: another process was first; its identity is compared below.
                publish(staging, folder)
        index = cls.open(ref)
        optional = {"code": code, "float_numbers": float_numbers}
        differences = flat_differences(
            {**header, **optional}, {key: getattr(index, key) for key in (*header, *optional)}
        )
        if differences:
            raise MismatchError(
                f"index {ref.index!r} exists with other settings",
                differences,
                "Use the settings of the existing index, or give the new one another name.",
            )
        return index

    @classmethod
    def open(cls, ref: IndexRef) -> "SignatureIndex":
        """Open an index that exists.

        Raises:
            NotFoundError: There is none of that name.
            FormatVersionError: A newer version wrote it.
            CorruptionError: A manifest is damaged.
        """
        open_store(ref.root)
        folder = index_place(ref)
        if not folder.is_dir():
            raise NotFoundError(
                f"the store {ref.root} has no index {ref.index!r}. "
                "`rise ls` lists what it has; build the index first."
            )
        header = read_manifest(folder / INDEX_FILE, INDEX_FORMAT)
        fetched(folder)
        rows = folder / ROWS_FILE
        return cls(ref, header, read_manifest(rows, ROWS_FORMAT) if rows.exists() else None)

    def remember_model(self, model: Mapping[str, Any]) -> None:
        """Note where the index's model was found last; a hint for readers, not identity."""
        if self.remembered_model() != model:
            write_manifest(self.folder / MODEL_FILE, MODEL_FORMAT, {"model": dict(model)})

    def remembered_model(self) -> dict[str, Any] | None:
        """Return what `remember_model` noted last, None when that is absent or damaged."""
        try:
            return dict(read_manifest(self.folder / MODEL_FILE, MODEL_FORMAT)["model"])
        except (NotFoundError, CorruptionError):
            return None  # a hint: losing it must not cost the index

    # ------------------------------------------------------------------------ committed state

    @property
    def n_rows(self) -> int:
        """Rows of the committed state; `IncompleteError` when nothing was ever committed."""
        return int(self._committed()["n_rows"])

    @property
    def committed_rows(self) -> int:
        """Rows of the committed state, 0 when nothing was ever committed."""
        return 0 if self._state is None else int(self._state["n_rows"])

    @property
    def batches(self) -> list[str]:
        """Ids of the corpus batches that the committed state covers, in corpus order."""
        return list(self._committed()["batches"])

    @property
    def n_blocks(self) -> int:
        """Blocks of the committed state."""
        return self.count_blocks(self.n_rows)

    @property
    def array_path(self) -> Path:
        """The Zarr array of signatures; its length is rounded up to whole blocks."""
        return self._blocks.signatures.path

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's numbers, as stored and as read."""
        return self._blocks.row_bytes

    def count_blocks(self, n_rows: int) -> int:
        """Return how many blocks ``n_rows`` rows fill."""
        return -(-n_rows // self.block_rows)

    def tables(self) -> dict[str, np.ndarray]:
        """Return the arrays given to `create`; `CorruptionError` when they are damaged."""
        folder = self.folder / GROUP / TABLES
        remedy = f"Restore it from a copy, or delete {self.folder} and build the index again."
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        return {name: arrays.read_whole(folder / name, remedy=remedy) for name in names}

    # -------------------------------------------------------------------------------- writing

    def reserve(self, n_rows: int) -> None:
        """Make room for ``n_rows`` rows and clear what killed writers left; hold the lease.

        Readers are not disturbed: they trust ``rows.json``, not the arrays' length.
        """
        remove_partials(self.folder)
        remove_partials(self.folder / STATISTICS_FOLDER)
        self._blocks.reserve(n_rows)

    def write_block(  # noqa: PLR0913 - one argument an array
        self,
        block: int,
        signatures: np.ndarray,
        n_positions: np.ndarray,
        *,
        scales: np.ndarray | None = None,
        floats: np.ndarray | None = None,
        rows_digest: str,
        n_tokens: int,
    ) -> None:
        """Write a block whole; different blocks may be written by different processes at once.

        A block that exists (the last one, before rows were appended) is replaced; its first
        rows must be the same rows as before.

        Args:
            block: Number of the block, from 0.
            signatures: float16 [n, n_numbers], n from 1 to ``block_rows``, finite; of a coded
                index int8 [n, n_numbers], without -128, or uint8 [n, n_numbers / 8].
            n_positions: int32 [n], predicted positions of each row; 0 marks an empty row.
            scales: float32 [n], what each row's codes are multiplied with; None for float16.
            floats: float16 [n, float_numbers], the rows before coding; None where none are kept.
            rows_digest: Digest of the rows of the block, for `is_done`.
            n_tokens: Tokens read for the block, for the record.

        Raises:
            ValueError: Shapes, types or values are not as described.
            StorageError: The disk is full or not writable.
        """
        self._blocks.write(
            block,
            signatures,
            n_positions,
            scales=scales,
            floats=floats,
            rows_digest=rows_digest,
            n_tokens=n_tokens,
        )

    def discard_block(self, block: int) -> None:
        """Make a block count as not done, so that the next build writes it again."""
        self._blocks.discard(block)

    def block_record(self, block: int) -> dict[str, Any] | None:
        """Return the completion record of a block, None when it has none.

        Returns:
            ``block, n_rows, n_tokens, n_empty, rows_digest``, and ``_bytes`` and ``_sha256`` of
            ``shard``, ``positions`` and, where rows have them, ``floats`` and ``scales``.

        Raises:
            CorruptionError: The record is damaged.
        """
        return self._blocks.record(block)

    def is_done(self, block: int, rows_digest: str) -> bool:
        """Tell whether a block holds these rows, by its record and the sizes of its files.

        A damaged record counts as not done: the block is then written again.
        """
        return self._blocks.is_done(block, rows_digest)

    def commit(self, batches: Sequence[str], n_rows: int) -> None:
        """Make the first ``n_rows`` rows what readers see.

        Raises:
            IncompleteError: A block is missing, damaged in size, or holds too few rows.
            MismatchError: The new state does not continue the committed one.
        """
        self._check_continues(batches, n_rows)
        self.require_blocks(n_rows)
        state = {"batches": list(batches), "n_rows": n_rows}
        if state != self._state:
            write_manifest(self.folder / ROWS_FILE, ROWS_FORMAT, state)
            self._state = state

    def require_blocks(self, n_rows: int) -> None:
        """Raise `IncompleteError` unless every block of ``n_rows`` rows is recorded and there."""
        n_blocks = self.count_blocks(n_rows)
        missing = [block for block in range(n_blocks) if not self._blocks.covers(block, n_rows)]
        if missing:
            raise IncompleteError(
                f"index {self.ref.index!r}: {len(missing)} of {n_blocks} blocks are not finished "
                f"(first: {missing[:5]}). Run the build again; finished blocks are kept."
            )

    # -------------------------------------------------------------------------------- reading

    def read_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the committed rows of a block.

        Returns:
            Signatures as they were written, float16 [n, n_numbers] or codes, and predicted
            positions, int32 [n].

        Raises:
            ValueError: There is no such block.
            CorruptionError: A file is missing or its checksum does not hold.
        """
        start, stop = self._bounds(block)
        return self._blocks.signatures.read(start, stop), self._blocks.n_positions.read(start, stop)

    def read_scales(self, block: int) -> np.ndarray | None:
        """Return the scales of the committed rows of a block, float32 [n]; None for float16.

        Raises:
            ValueError: There is no such block.
            CorruptionError: The file is missing or its checksum does not hold.
        """
        start, stop = self._bounds(block)
        return None if self._blocks.scales is None else self._blocks.scales.read(start, stop)

    def read_floats(self, block: int, rows: np.ndarray) -> np.ndarray:
        """Return the float16 rows that are kept beside codes, float16 [n, float_numbers].

        Args:
            block: Number of the block.
            rows: int64 [n], ascending positions in the block; only what holds them is read.

        Raises:
            ValueError: There is no such block or row, or the index keeps no floats.
            CorruptionError: The file is missing or a checksum does not hold.
        """
        start, stop = self._bounds(block)
        if self._blocks.floats is None:
            raise ValueError(f"index {self.ref.index!r} keeps no float rows beside its codes.")
        if len(rows) == 0 or rows[0] < 0 or rows[-1] >= stop - start:
            raise ValueError(f"expected rows 0 to {stop - start - 1} of block {block}, got {rows}.")
        return self._blocks.floats.read_rows(block, rows)

    def n_positions(self) -> np.ndarray:
        """Return the predicted positions of every committed row, int32 [n_rows]."""
        return self._blocks.n_positions.read(0, self.n_rows)

    def verify(self, *, deep: bool = True) -> list[str]:
        """Compare every committed block with its record, and check the tables.

        Args:
            deep: Also hash every byte; else only presence and size.

        Returns:
            One text for each problem, with what to do; empty when all is sound.
        """
        problems = []
        try:
            self.tables()
        except CorruptionError as error:
            problems.append(str(error))
        for block in range(self.n_blocks):
            problems += self._blocks.problems(block, deep=deep)
        return problems

    # -------------------------------------------------------------------------------- private

    def _bounds(self, block: int) -> tuple[int, int]:
        if not 0 <= block < self.n_blocks:
            raise ValueError(
                f"index {self.ref.index!r} has blocks 0 to {self.n_blocks - 1}, got {block}."
            )
        start = block * self.block_rows
        return start, min(start + self.block_rows, self.n_rows)

    def _committed(self) -> Mapping[str, Any]:
        if self._state is None:
            raise IncompleteError(
                f"index {self.ref.index!r} was never finished. Run its build again."
            )
        return self._state

    def _check_continues(self, batches: Sequence[str], n_rows: int) -> None:
        if self._state is None:
            return
        old, old_rows = self.batches, self.n_rows
        if list(batches[: len(old)]) != old or n_rows < old_rows:
            raise MismatchError(
                f"index {self.ref.index!r}: the new state does not continue the committed one",
                [("batches", old, list(batches)), ("n_rows", old_rows, n_rows)],
                "Batches are only ever appended; build another index for another corpus.",
            )
