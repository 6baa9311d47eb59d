"""Small, deterministic contents for stores under test."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.corpus import BatchWriter, Corpus
from storage.guards import index_guard
from storage.queries import QuerySet
from storage.refs import BatchRef, CorpusRef, IndexRef, QuerySetRef, ReleaseRef, ScoresRef
from storage.release_writer import ReleaseWriter
from storage.releases import RELEASE_SCHEMA
from storage.rows import REJECTED_SCHEMA, ROW_SCHEMA
from storage.scores import TOP_ROWS_SCHEMA, VALUES_SCHEMA, Scores
from storage.signatures import SignatureIndex

N_NUMBERS = 8
SOURCE = "data/train.jsonl"


def make_rows(start: int, stop: int, *, source: str = SOURCE) -> pa.Table:
    rows = [
        {
            "row_id": f"row-{number:06d}",
            "text": f"question {number} answer {number * number}",
            "prompt_chars": len(f"question {number} "),
            "label": "even" if number % 2 == 0 else None,
            "source": source,
            "source_line": number + 1,
            "content_hash": hashlib.sha256(str(number).encode()).hexdigest(),
            "n_tokens": 4 + number % 3,
        }
        for number in range(start, stop)
    ]
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def make_rejected(line: int) -> pa.Table:
    record = {"location": f"{SOURCE}:{line}", "row_id": None, "reason": "not JSON", "raw": "{"}
    return pa.Table.from_pylist([record], schema=REJECTED_SCHEMA)


def add_batch(
    ref: CorpusRef, batch_id: str, start: int, stop: int, *, part_rows: int = 1000
) -> BatchRef:
    with BatchWriter(ref, batch_id) as writer:
        for first in range(start, stop, part_rows):
            writer.add(make_rows(first, min(first + part_rows, stop)))
        return writer.commit({"note": "sample"})


def signatures_of(start: int, stop: int, n_numbers: int = N_NUMBERS) -> np.ndarray:
    """Each row's numbers depend on its position alone, so any block size must give the same."""
    rows = np.arange(start, stop, dtype=np.float64)[:, None] + 1
    return np.sin(rows * np.arange(1, n_numbers + 1)).astype(np.float16)


def positions_of(start: int, stop: int) -> np.ndarray:
    return (np.arange(start, stop) % 5).astype(np.int32)


def make_index(ref: IndexRef, *, block_rows: int = 4, n_numbers: int = N_NUMBERS) -> SignatureIndex:
    return SignatureIndex.create(
        ref,
        identity={"format": 1, "corpus": "main", "space": {"model": "m", "seed": 0}},
        tables={"buckets": np.arange(10, dtype=np.int32), "signs": np.zeros(10, np.int8)},
        n_numbers=n_numbers,
        block_rows=block_rows,
    )


def fill_block(index: SignatureIndex, block: int, n_rows: int) -> None:
    """Write one block of an index of ``n_rows`` rows, as a build does."""
    start = block * index.block_rows
    stop = min(start + index.block_rows, n_rows)
    index.write_block(
        block,
        signatures_of(start, stop, index.n_numbers),
        positions_of(start, stop),
        rows_digest=f"{start}-{stop}",
        n_tokens=stop - start,
    )


def build(ref: IndexRef, n_rows: int, batches: list[str], **sizes: int) -> SignatureIndex:
    """What a build does: only blocks that are not done are written, then all is committed."""
    index = make_index(ref, **sizes)
    with index_guard(index.ref).hold():
        index.reserve(n_rows)
        for block in range(index.count_blocks(n_rows)):
            start = block * index.block_rows
            stop = min(start + index.block_rows, n_rows)
            if not index.is_done(block, f"{start}-{stop}"):
                fill_block(index, block, n_rows)
        index.commit(batches, n_rows)
    return index


def add_query_set(root: str, version: str = "v1", *, n_numbers: int = N_NUMBERS) -> QuerySetRef:
    return QuerySet.write(
        QuerySetRef(root, "facts", version),
        queries=make_rows(100, 103, source="data/queries.jsonl"),
        signatures=signatures_of(0, 3, n_numbers).astype(np.float32),
        n_positions=positions_of(1, 4),
        manifest={"space": {"model": "m"}},
    )


def add_scores(root: str, index: SignatureIndex, scores_id: str = "s1") -> ScoresRef:
    rows = Corpus(CorpusRef(root, "main")).row_ids(index.batches)
    values = [number / 100 for number in range(rows.num_rows)]
    table = pa.table(
        {"row_id": rows["row_id"], "value": values, "n_positions": index.n_positions()}
    )
    top = [{"query_id": "row-000100", "rank": 1, "row_id": "row-000003", "score": 0.5}]
    manifest = {
        "index": index.ref.index,
        "index_id": index.index_id,
        "query_set": "facts",
        "query_set_version": "v1",
        "batches": index.batches,
        "n_rows": index.n_rows,
    }
    return Scores.write(
        root,
        scores_id,
        values=table.cast(VALUES_SCHEMA),
        top_rows=pa.Table.from_pylist(top, schema=TOP_ROWS_SCHEMA),
        manifest=manifest,
    )


def release_rows(start: int, stop: int) -> pa.Table:
    rows = [
        {
            "row_id": f"row-{number:06d}",
            "text": f"text {number}",
            "prompt": "",
            "completion": f"text {number}",
            "score": 1.0 - number / 100,
            "rank": number + 1,
            "lineage_id": f"b1:{number}",
            "source": SOURCE,
            "source_line": number + 1,
            "label": None,
            "n_tokens": 4,
        }
        for number in range(start, stop)
    ]
    return pa.Table.from_pylist(rows, schema=RELEASE_SCHEMA)


def add_release(root: str, release_id: str = "r1", *, n_rows: int = 5) -> ReleaseRef:
    with ReleaseWriter(ReleaseRef(root, "picked", release_id)) as writer:
        for start in range(0, n_rows, 2):
            writer.add(release_rows(start, min(start + 2, n_rows)))
        return writer.commit({"scores_id": "s1"}, card="# Picked rows\n")


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file and link of a tree, for comparison; locks hold nothing, the log of moves times.

    An index's quality report has times in it, and its verdict knows the run before.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}".encode()
        elif path.name in (".lock", "moves.jsonl") or name.startswith("quality"):
            continue
        elif path.is_file():
            found[name] = path.read_bytes()
    return found
