"""Scoring a store: the same bits from every scheduler, exact top rows, named faults."""

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scored_store import SPACE, ScoredStore, make_scored_store, write_index
from threadpoolctl import threadpool_info

from storage.corpus import Corpus
from storage.errors import CorruptionError, IncompleteError, MismatchError, NotFoundError
from storage.refs import CorpusRef, IndexRef
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.scoring import attribute, score
from tasks.scoring_graph import predicted_bytes

TOP_10 = ScoreConfig(top_k=10)
THREADS = RuntimeConfig(scheduler="threads", workers=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ScoredStore:
    """Do not change it."""
    return make_scored_store(str(tmp_path_factory.mktemp("scored") / "store"))


@pytest.fixture(scope="session")
def dask_address():
    """A Dask cluster that exists before any scoring: one worker that runs two tasks at once."""
    import dask
    from distributed import LocalCluster

    # as a worker without a nanny has it: products take several threads unless told otherwise
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), 2)
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": threads}),
        LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,
    ):
        yield cluster.scheduler_address


def stored_bytes(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def score_afresh(store: ScoredStore, folder: Path, runtime: RuntimeConfig, config: ScoreConfig):
    shutil.copytree(store.root, folder)
    index, queries = IndexRef(str(folder), "main"), store.queries
    queries = type(queries)(str(folder), queries.name, queries.version)
    return score(index, queries, config, runtime)


def test_every_scheduler_stores_the_same_bytes(tmp_path, dask_address):
    # numbers that round, in sizes where two BLAS threads would share the work
    store = make_scored_store(
        str(tmp_path / "store"),
        n_rows=900,
        n_queries=33,
        n_numbers=300,
        block_rows=300,
        exact=False,
    )
    config = ScoreConfig(top_k=10, full_matrix=True)
    runtimes = [
        RuntimeConfig(scheduler="threads", workers=2),
        RuntimeConfig(scheduler="threads", workers=1),
        RuntimeConfig(scheduler="local", workers=2),
        RuntimeConfig(scheduler=dask_address),
    ]
    found = []
    for number, runtime in enumerate(runtimes):
        report = score_afresh(store, tmp_path / str(number), runtime, config)
        found.append({"id": report.ref.scores_id, **stored_bytes(Path(report.path))})
    assert found[0] == found[1] == found[2] == found[3]
    assert "values.parquet" in found[0]
    assert any(name.startswith("matrix.zarr/") for name in found[0])


def test_a_search_on_threads_gives_the_blas_threads_back(store):
    before = [pool["num_threads"] for pool in threadpool_info()]
    attribute(store.index, store.query_signatures, top_k=3, runtime=THREADS)
    assert [pool["num_threads"] for pool in threadpool_info()] == before


def test_scores_equal_exact_arithmetic(store, tmp_path):
    report = score_afresh(
        store, tmp_path / "store", THREADS, ScoreConfig(top_k=10, full_matrix=True)
    )
    scores, exact = Scores.open(report.ref), store.scores()
    values = scores.values()
    assert values["row_id"].to_pylist() == store.row_ids
    assert np.array_equal(values["value"].to_numpy(), store.values().astype(np.float32))
    assert np.array_equal(values["n_positions"].to_numpy(), store.n_positions)
    n_blocks = SignatureIndex.open(store.index).n_blocks
    matrix = np.concatenate([scores.matrix_block(block) for block in range(n_blocks)])
    assert np.array_equal(matrix, exact.astype(np.float32))
    top = scores.top_rows().to_pandas()
    for number, (_, lines) in enumerate(top.groupby("query_id", sort=False)):
        assert lines["row_id"].tolist() == store.best(exact[:, number], 10)
        assert lines["rank"].tolist() == list(range(1, 11))
        by_id = dict(zip(store.row_ids, exact[:, number], strict=True))
        assert lines["score"].tolist() == [by_id[row_id] for row_id in lines["row_id"]]
    assert (report.n_rows, report.n_empty, report.n_queries, report.already) == (70, 2, 4, False)


@pytest.mark.parametrize("block_rows", [1, 7, 128])
def test_block_size_changes_no_score(store, tmp_path, block_rows):
    write_index(
        IndexRef(str(tmp_path / "store"), "main"),
        store.signatures,
        store.n_positions,
        block_rows=block_rows,
        batches=["b1", "b2"],
    )
    shutil.copytree(Path(store.root) / "corpora", tmp_path / "store" / "corpora")
    ours = attribute(
        IndexRef(str(tmp_path / "store"), "main"),
        store.query_signatures,
        top_k=68,
        runtime=THREADS,
    )
    assert ours == attribute(store.index, store.query_signatures, top_k=68, runtime=THREADS)


def test_memory_is_bounded_by_the_blocks_in_flight(tmp_path):
    store = make_scored_store(
        str(tmp_path / "store"), n_rows=6000, n_queries=8, n_numbers=1024, block_rows=128
    )
    runtime = RuntimeConfig(workers=2)
    attribute(store.index, store.query_signatures, top_k=5, runtime=runtime)  # imports
    tracemalloc.start()
    attribute(store.index, store.query_signatures, top_k=5, runtime=runtime)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    index = SignatureIndex.open(store.index)
    predicted = predicted_bytes(index, 8, runtime)
    bytes_a_row = 200  # ids, ranks, values and the graph, in the calling process
    assert peak < predicted + 6000 * bytes_a_row
    assert predicted < 6000 * 1024 * 2 / 4, "the index must be much larger than the prediction"


def test_asking_again_is_answered_from_the_store(store, tmp_path):
    class Counting:
        def __init__(self):
            self.calls = []

        def start(self, *, total, unit):
            self.calls.append((total, unit))

        def advance(self, n_units):
            self.calls.append(n_units)

    first = score_afresh(store, tmp_path / "store", THREADS, TOP_10)
    written = stored_bytes(Path(first.path))
    progress = Counting()
    queries = type(store.queries)(first.ref.root, "main", "v1")
    again = score(IndexRef(first.ref.root, "main"), queries, TOP_10, THREADS, progress=progress)
    assert (again.already, again.ref, progress.calls) == (True, first.ref, [])
    assert stored_bytes(Path(first.path)) == written
    other = score(
        IndexRef(first.ref.root, "main"), queries, ScoreConfig(top_k=9), THREADS, progress=progress
    )
    assert other.ref != first.ref
    assert progress.calls == [(5, "blocks"), 1, 1, 1, 1, 1]


@pytest.mark.parametrize("scheduler", ["threads", "existing"])
def test_a_damaged_block_is_named(store, tmp_path, scheduler, dask_address):
    address = dask_address if scheduler == "existing" else scheduler
    root = tmp_path / "store"
    shutil.copytree(store.root, root)
    shard = root / "indexes/main/signatures.zarr/signatures/c/2/0"
    damaged = bytearray(shard.read_bytes())
    damaged[40] ^= 1
    shard.write_bytes(damaged)
    queries = type(store.queries)(str(root), "main", "v1")
    runtime = RuntimeConfig(scheduler=address, workers=2)
    with pytest.raises(CorruptionError, match="block 2"):
        score(IndexRef(str(root), "main"), queries, TOP_10, runtime)
    shard.unlink()
    with pytest.raises(CorruptionError, match="block 2"):
        score(IndexRef(str(root), "main"), queries, TOP_10, runtime)
    scores = root / "scores"
    assert not scores.exists() or list(scores.iterdir()) == []


def test_more_rows_than_there_are_is_an_error_with_both_numbers(store):
    with pytest.raises(ValueError, match=r"top_k is 69 but .* has 68 rows with positions \(70"):
        score(store.index, store.queries, ScoreConfig(top_k=69), THREADS)
    with pytest.raises(ValueError, match=r"top_k is 500 .* 68 rows"):
        attribute(store.index, store.query_signatures, top_k=500, runtime=THREADS)


def test_queries_of_another_space_are_refused_with_the_differing_fields(tmp_path):
    other = {**SPACE, "model": "model-b", "signature": {"seed": 1, "residual_dim": 4}}
    store = make_scored_store(str(tmp_path / "store"), space=other)
    with pytest.raises(MismatchError) as caught:
        score(store.index, store.queries, TOP_10, THREADS)
    assert sorted(caught.value.differences) == [
        ("model", "model-a", "model-b"),
        ("signature.seed", 0, 1),
    ]


def test_an_index_that_was_never_finished_is_refused(store, tmp_path):
    ref = IndexRef(store.root, "unfinished")
    write_index(
        ref, store.signatures, store.n_positions, block_rows=16, batches=["b1"], commit=False
    )
    with pytest.raises(IncompleteError):
        score(ref, store.queries, TOP_10, THREADS)
    with pytest.raises(NotFoundError):
        score(IndexRef(store.root, "none"), store.queries, TOP_10, THREADS)


def test_no_scheduler_at_the_address_says_what_to_do(store, monkeypatch):
    monkeypatch.setattr("tasks.scoring_graph.CONNECT_SECONDS", 1)
    runtime = RuntimeConfig(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"tcp://127\.0\.0\.1:9.*use scheduler: threads"):
        attribute(store.index, store.query_signatures, top_k=3, runtime=runtime)


def test_attribution_returns_rows_with_their_origin(store):
    hits = attribute(store.index, store.query_signatures[:2], top_k=5, runtime=THREADS)
    exact = store.scores()
    rows = Corpus(CorpusRef(store.root, "main")).rows_by_id(store.row_ids)
    for number, found in enumerate(hits):
        assert [hit.row_id for hit in found] == store.best(exact[:, number], 5)
        assert [hit.rank for hit in found] == [1, 2, 3, 4, 5]
        for hit in found:
            row = rows[hit.row_id]
            assert (hit.text, hit.source, hit.source_line) == (
                row.text,
                row.source,
                row.source_line,
            )


def test_signatures_of_another_length_are_refused(store):
    with pytest.raises(ValueError, match=r"\[n_queries, 24\].*got \[1, 23\]"):
        attribute(store.index, np.ones((1, 23), np.float32), top_k=3, runtime=THREADS)
