"""Scoring a store: the same bits from every scheduler, exact top rows, named faults."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from processes import dask_cluster, environment
from scored_store import SPACE, ScoredStore, make_scored_store, write_index
from threadpoolctl import threadpool_info, threadpool_limits

from rise_ops.codes import RowCodes, decode
from rise_ops.scoring import query_panel, split_keys
from storage.corpus import Corpus
from storage.errors import CorruptionError, IncompleteError, MismatchError, NotFoundError
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks.codes import stored_rotation
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.progress import NO_PROGRESS
from tasks.scoring import attribute, score
from tasks.scoring_graph import Search, search
from tasks.selection import row_id_ranks

TOP_10 = ScoreConfig(top_k=10)
THREADS = RuntimeConfig(scheduler="threads", workers=2)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ScoredStore:
    """Do not change it."""
    return make_scored_store(str(tmp_path_factory.mktemp("scored") / "store"))


@pytest.fixture(scope="module")
def dask_address():
    """A Dask cluster that exists before any scoring: one worker that runs two tasks at once."""
    # as a worker without a nanny has it: products take several threads unless told otherwise
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    with environment(threads), dask_cluster(n_workers=1, threads_per_worker=2) as cluster:
        yield cluster.scheduler_address


def stored_bytes(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "quality" not in path.parts  # a report has times in it
    }


def score_afresh(store: ScoredStore, folder: Path, runtime: RuntimeConfig, config: ScoreConfig):
    shutil.copytree(store.root, folder)
    index, queries = IndexRef(str(folder), "main"), store.queries
    queries = type(queries)(str(folder), queries.name, queries.version)
    return score(index, queries, config, runtime)


@pytest.mark.parametrize("code", ["float16", "int8", "sign"])
def test_every_scheduler_stores_the_same_bytes(tmp_path, dask_address, code):
    # numbers that round, in sizes where two BLAS threads would share the work
    store = make_scored_store(
        str(tmp_path / "store"),
        n_rows=900,
        n_queries=33,
        n_numbers=300,
        block_rows=300,
        exact=False,
        code=code,
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
    with threadpool_limits(2):
        before = [pool["num_threads"] for pool in threadpool_info()]
        assert 2 in before
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


@pytest.mark.parametrize("code", ["int8", "sign"])
def test_codes_find_the_best_rows_by_their_own_scores(tmp_path, code):
    store = make_scored_store(str(tmp_path / "store"), n_numbers=100, exact=False, code=code)
    index = SignatureIndex.open(store.index)
    rotation = stored_rotation(index)
    blocks = [
        decode(RowCodes(index.read_block(block)[0], index.read_scales(block)))
        for block in range(index.n_blocks)
    ]
    queries = rotation.apply(store.query_signatures).astype(np.float64)
    exact = np.concatenate(blocks).astype(np.float64) @ queries.T
    config = ScoreConfig(top_k=10, full_matrix=True)
    scores = Scores.open(score(store.index, store.queries, config, THREADS).ref)
    matrix = np.concatenate([scores.matrix_block(block) for block in range(index.n_blocks)])
    np.testing.assert_allclose(matrix, exact, atol=1e-4)
    values = scores.values()["value"].to_numpy()
    np.testing.assert_allclose(values, exact.mean(axis=1), atol=1e-4)
    assert not matrix[store.n_positions == 0].any()
    top = scores.top_rows().to_pandas()
    for number, (_, lines) in enumerate(top.groupby("query_id", sort=False)):
        assert lines["row_id"].tolist() == store.best(matrix[:, number], 10)
    # the two equal rows of two blocks tie, and the row id decides
    assert np.array_equal(matrix[5], matrix[68])
    # and the codes stand for the rows
    assert (
        np.corrcoef(matrix.ravel(), store.scores().ravel())[0, 1]
        > {"int8": 0.9999, "sign": 0.7}[code]
    )


@pytest.mark.parametrize("code", ["int8", "sign"])
@pytest.mark.parametrize("block_rows", [1, 7, 128])
def test_block_size_changes_no_bit_of_coded_scores(tmp_path, code, block_rows):
    found = []
    for name, rows in (("a", 16), ("b", block_rows)):
        store = make_scored_store(
            str(tmp_path / name), n_numbers=100, exact=False, code=code, block_rows=rows
        )
        hits = attribute(store.index, store.query_signatures, top_k=68, runtime=THREADS)
        found.append([[(hit.row_id, hit.score) for hit in line] for line in hits])
    assert found[0] == found[1]


def test_queries_for_an_index_with_a_rotation_have_the_length_from_before(tmp_path):
    store = make_scored_store(str(tmp_path / "store"), n_numbers=100, exact=False, code="sign")
    with pytest.raises(ValueError, match=r"\[n_queries, 100\].*got \[1, 128\]"):
        attribute(store.index, np.ones((1, 128), np.float32), top_k=3, runtime=THREADS)


def test_another_rotation_than_the_index_was_built_with_is_found(tmp_path):
    store = make_scored_store(str(tmp_path / "store"), n_numbers=100, exact=False, code="sign")
    other = make_scored_store(str(tmp_path / "other"), n_numbers=90, exact=False, code="sign")
    place = "indexes/main/signatures.zarr/tables/rotation_n"
    shutil.rmtree(Path(store.root) / place)
    shutil.copytree(Path(other.root) / place, Path(store.root) / place)
    with pytest.raises(CorruptionError, match="other rotation tables"):
        attribute(store.index, store.query_signatures, top_k=3, runtime=THREADS)


MEASURE_A_SEARCH = """
import json, sys, tracemalloc
from pathlib import Path
import numpy as np
from storage.refs import IndexRef
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig
from tasks.scoring import attribute
from tasks.scoring_graph import predicted_bytes

index, queries = IndexRef(sys.argv[1], "main"), np.load(sys.argv[2])
runtime = RuntimeConfig(workers=2)
attribute(index, queries, top_k=5, runtime=runtime)  # imports
tracemalloc.start()
attribute(index, queries, top_k=5, runtime=runtime)
peak = tracemalloc.get_traced_memory()[1]
print(json.dumps([peak, predicted_bytes(SignatureIndex.open(index), len(queries), runtime)]))
"""


def test_memory_is_bounded_by_the_blocks_in_flight(tmp_path):
    store = make_scored_store(
        str(tmp_path / "store"), n_rows=6000, n_queries=8, n_numbers=1024, block_rows=128
    )
    np.save(tmp_path / "queries.npy", store.query_signatures)
    # in a process of its own: memory is counted over all threads, and other tests have left some
    command = [sys.executable, "-c", MEASURE_A_SEARCH, store.root, str(tmp_path / "queries.npy")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    peak, predicted = json.loads(done.stdout)
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


def test_scores_name_the_index_and_query_set_that_were_asked_for(store, tmp_path):
    root = str(tmp_path / "store")
    shutil.copytree(store.root, root)
    main = score(IndexRef(root, "main"), QuerySetRef(root, "main", "v1"), TOP_10, THREADS)
    twin = write_index(
        IndexRef(root, "twin"),
        store.signatures,
        store.n_positions,
        block_rows=16,
        batches=["b1", "b2"],
    )
    assert twin.index_id == SignatureIndex.open(IndexRef(root, "main")).index_id
    queries = QuerySet.open(QuerySetRef(root, "main", "v1"))
    same = QuerySet.write(
        QuerySetRef(root, "other", "v1"),
        queries=queries.queries(),
        signatures=queries.signatures(),
        n_positions=queries.n_positions(),
        manifest={"space": SPACE},
    )
    found = score(twin.ref, same, TOP_10, THREADS)
    manifest = Scores.open(found.ref).manifest
    assert (manifest["index"], manifest["query_set"]) == ("twin", "other")
    assert found.ref != main.ref
    assert Scores.open(found.ref).values().equals(Scores.open(main.ref).values())


def test_rows_committed_during_a_search_are_left_out(store):
    """The caller's row ids are those of the state it opened; another process may append."""
    panel = query_panel(store.query_signatures)
    ranks = row_id_ranks(pa.array(store.row_ids[:37]))  # ends within a block
    found = search(Search(store.index, 5), panel, ranks, THREADS, NO_PROGRESS)
    assert np.array_equal(found.values, store.values()[:37].astype(np.float32))
    assert np.array_equal(found.n_positions, store.n_positions[:37])
    best = np.sort(store.scores()[:37][store.n_positions[:37] > 0], axis=0)[::-1][:5]
    assert np.array_equal(split_keys(found.keys)[1], best.T.astype(np.float32))


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
    monkeypatch.setattr("tasks.dask_client.CONNECT_SECONDS", 1)
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
