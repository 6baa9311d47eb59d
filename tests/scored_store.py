"""A small store up to the query set, with contents whose scores are known in advance.

Unless asked otherwise, signatures are small multiples of 1/8, so that float32 sums of their
products are exact: ties are real ties, and any block size or NumPy must give the same numbers.
"""

from dataclasses import dataclass

import numpy as np
from store_samples import add_batch, make_rows

from rise_ops.codes import draw_rotation, encode
from storage.corpus import Corpus
from storage.guards import index_guard
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef
from storage.signatures import SignatureIndex
from tasks.space import tables_digest

SPACE = {"model": "model-a", "dtype": "float32", "signature": {"seed": 0, "residual_dim": 4}}


@dataclass(frozen=True)
class ScoredStore:
    index: IndexRef
    queries: QuerySetRef
    signatures: np.ndarray
    n_positions: np.ndarray
    query_signatures: np.ndarray

    @property
    def root(self) -> str:
        return self.index.root

    @property
    def row_ids(self) -> list[str]:
        return Corpus(CorpusRef(self.root, "main")).row_ids()["row_id"].to_pylist()

    def scores(self) -> np.ndarray:
        """Return the exact scores, float64 [n_rows, n_queries]."""
        rows = self.signatures.astype(np.float64)
        return rows @ self.query_signatures.astype(np.float64).T

    def values(self) -> np.ndarray:
        """Return the exact values, float64 [n_rows]."""
        mean = self.query_signatures.astype(np.float64).mean(axis=0).astype(np.float32)
        return self.signatures.astype(np.float64) @ mean.astype(np.float64)

    def best(self, scores: np.ndarray, n_best: int) -> list[str]:
        """Return the ids of the best rows in plain Python: score, then row id, no empty rows."""
        rows = zip(scores, self.row_ids, self.n_positions, strict=True)
        return [i for _, i in sorted((-s, i) for s, i, n in rows if n > 0)][:n_best]


def make_scored_store(
    root: str,
    *,
    n_rows: int = 70,
    n_queries: int = 4,
    n_numbers: int = 24,
    block_rows: int = 16,
    space: dict | None = None,
    exact: bool = True,
    code: str = "float16",
    keep_floats: bool = False,
) -> ScoredStore:
    rng = np.random.default_rng(7)
    corpus = CorpusRef(root, "main")
    first = n_rows // 3
    add_batch(corpus, "b1", 0, first)
    add_batch(corpus, "b2", first, n_rows)
    signatures = _numbers(rng, (n_rows, n_numbers), exact=exact).astype(np.float16)
    signatures[5] = signatures[n_rows - 2]  # a tie between two batches and two blocks
    n_positions = rng.integers(1, 9, n_rows).astype(np.int32)
    empty = [3, n_rows - 1]
    signatures[empty], n_positions[empty] = 0, 0
    index = write_index(
        IndexRef(root, "main"),
        signatures,
        n_positions,
        block_rows=block_rows,
        batches=["b1", "b2"],
        code=code,
        keep_floats=keep_floats,
    )
    # a power of two of queries: their mean, and so every value, is exact as well
    query_signatures = _numbers(rng, (n_queries, n_numbers), exact=exact).astype(np.float32)
    queries = QuerySet.write(
        QuerySetRef(root, "main", "v1"),
        queries=make_rows(1000, 1000 + n_queries, source="queries.jsonl"),
        signatures=query_signatures,
        n_positions=np.ones(n_queries, np.int32),
        manifest={"space": SPACE if space is None else space},
    )
    return ScoredStore(index.ref, queries, signatures, n_positions, query_signatures)


def _numbers(rng: np.random.Generator, shape: tuple[int, int], *, exact: bool) -> np.ndarray:
    return rng.integers(-3, 4, shape) / 8 if exact else rng.standard_normal(shape)


def write_index(
    ref: IndexRef,
    signatures: np.ndarray,
    n_positions: np.ndarray,
    *,
    block_rows: int,
    batches: list[str],
    commit: bool = True,
    code: str = "float16",
    keep_floats: bool = False,
) -> SignatureIndex:
    identity = {"format": 1, "corpus": "main", "space": SPACE, "block_rows": block_rows}
    tables = {"buckets": np.arange(4, dtype=np.int32)}
    codes = encode(signatures.astype(np.float32), "float16")
    if code != "float16":
        rotation = draw_rotation(signatures.shape[1], seed=0)
        turn = rotation.to_arrays()
        identity["code"] = {"name": code, "rotation_sha256": tables_digest(turn)}
        tables |= turn
        codes = encode(rotation.apply(signatures.astype(np.float32)), code)
    index = SignatureIndex.create(
        ref,
        identity=identity,
        tables=tables,
        n_numbers=codes.n_numbers,
        block_rows=block_rows,
        code=code,
        float_numbers=signatures.shape[1] if keep_floats else None,
    )
    with index_guard(index.ref).hold():
        index.reserve(len(signatures))
        for start in range(0, len(signatures), block_rows):
            stop = min(start + block_rows, len(signatures))
            index.write_block(
                start // block_rows,
                codes.values[start:stop],
                n_positions[start:stop],
                scales=None if codes.scales is None else codes.scales[start:stop],
                floats=signatures[start:stop] if keep_floats else None,
                rows_digest=f"{start}-{stop}",
                n_tokens=stop - start,
            )
        if commit:
            index.commit(batches, len(signatures))
    return index
