"""Two-stage search: codes choose, float rows decide, and nothing else changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scored_store import ScoredStore, make_scored_store

from storage.errors import CorruptionError
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.scoring import Hit, attribute, score

THREADS = RuntimeConfig(scheduler="threads", workers=2)
SIZES = {"n_rows": 400, "n_queries": 5, "n_numbers": 96, "block_rows": 150, "exact": False}


def make(tmp_path: Path, name: str, code: str, *, keep_floats: bool) -> ScoredStore:
    return make_scored_store(str(tmp_path / name), code=code, keep_floats=keep_floats, **SIZES)


@pytest.fixture(scope="module", params=["int8", "sign"])
def store(request, tmp_path_factory) -> ScoredStore:
    """Do not change it."""
    return make(tmp_path_factory.mktemp("coded"), "store", request.param, keep_floats=True)


@pytest.fixture(scope="module")
def floats(tmp_path_factory) -> ScoredStore:
    """The same rows, as floats alone. Do not change it."""
    return make(tmp_path_factory.mktemp("floats"), "store", "float16", keep_floats=False)


def hits(
    store: ScoredStore,
    shortlist: int | None,
    *,
    top_k: int = 10,
    runtime: RuntimeConfig = THREADS,
) -> list[list[Hit]]:
    return attribute(
        store.index, store.query_signatures, top_k=top_k, runtime=runtime, shortlist=shortlist
    )


@pytest.mark.parametrize("shortlist", [398, 400, 5000])
def test_with_every_row_on_the_shortlist_it_is_the_float_search(store, floats, shortlist):
    # 398 rows have positions
    for top_k in (10, 398):
        assert hits(store, shortlist, top_k=top_k) == hits(floats, None, top_k=top_k)


@pytest.mark.parametrize("shortlist", [10, 40])
def test_the_best_of_what_codes_chose_by_their_float_scores(store, floats, shortlist):
    chosen = hits(store, None, top_k=shortlist)
    exact = hits(floats, None, top_k=398)
    found = hits(store, shortlist)
    for of_codes, of_floats, of_both in zip(chosen, exact, found, strict=True):
        allowed = {hit.row_id for hit in of_codes}
        best = [hit for hit in of_floats if hit.row_id in allowed][:10]
        assert [(hit.row_id, hit.score) for hit in of_both] == [
            (hit.row_id, hit.score) for hit in best
        ]
        assert [hit.rank for hit in of_both] == list(range(1, 11))


def test_a_longer_shortlist_finds_more(store, floats):
    exact = [{hit.row_id for hit in line} for line in hits(floats, None)]

    def found(shortlist: int | None) -> int:
        lines = hits(store, shortlist)
        return sum(
            len(best & {hit.row_id for hit in line})
            for best, line in zip(exact, lines, strict=True)
        )

    assert found(None) <= found(40) <= found(398) == 50
    assert found(40) >= 45


def test_stored_scores_are_those_of_the_shortlist_and_values_those_of_codes(tmp_path):
    store = make(tmp_path, "store", "sign", keep_floats=True)
    steps: list[int] = []

    class Counting:
        def start(self, *, total: int, unit: str) -> None:
            steps.append(-total)

        def advance(self, n_units: int) -> None:
            steps.append(n_units)

    plain = score(store.index, store.queries, ScoreConfig(top_k=10), THREADS)
    config = ScoreConfig(top_k=10, shortlist=40)
    report = score(store.index, store.queries, config, THREADS, progress=Counting())
    assert report.ref != plain.ref
    assert steps[0] == -6  # three blocks, twice
    assert sum(steps[1:]) == 6
    both, codes = Scores.open(report.ref), Scores.open(plain.ref)
    assert both.values().equals(codes.values())
    wanted = [hit for line in hits(store, 40) for hit in line]
    assert both.top_rows()["row_id"].to_pylist() == [hit.row_id for hit in wanted]
    assert both.top_rows()["score"].to_pylist() == [hit.score for hit in wanted]
    assert "shortlist" not in json.dumps(codes.manifest)
    assert score(store.index, store.queries, config, THREADS).already


def test_every_scheduler_finds_the_same(store):
    wanted = hits(store, 40)
    assert hits(store, 40, runtime=RuntimeConfig(scheduler="threads", workers=1)) == wanted
    if SignatureIndex.open(store.index).code == "sign":  # processes take seconds to start
        assert hits(store, 40, runtime=RuntimeConfig(scheduler="local", workers=1)) == wanted


def test_damaged_floats_are_named_where_a_shortlist_needs_them(tmp_path):
    store = make(tmp_path, "store", "int8", keep_floats=True)
    folder = Path(store.root) / "indexes/main/signatures.zarr/floats/c"
    file = folder / "1" / "0"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CorruptionError, match=r"block 1: .*build the index again") as caught:
        hits(store, 300)
    assert str(file) in str(caught.value)
    assert len(hits(store, None)) == 5  # codes alone do not need them
    with pytest.raises(CorruptionError, match="block 1"):
        score(store.index, store.queries, ScoreConfig(top_k=5, shortlist=300), THREADS)
    assert not list((Path(store.root) / "scores").glob("[!.]*"))


def test_what_cannot_be_done_is_said_before_any_block_is_read(store, floats, tmp_path):
    bare = make(tmp_path, "bare", "sign", keep_floats=False)
    with pytest.raises(ValueError, match=r"'main' keeps sign codes alone.*keep_floats: true"):
        score(bare.index, bare.queries, ScoreConfig(top_k=5, shortlist=20), THREADS)
    with pytest.raises(ValueError, match="keeps float16 rows alone"):
        hits(floats, 20)
    with pytest.raises(ValueError, match="shortlist is 4 but top_k 10; raise shortlist"):
        hits(store, 4)
    with pytest.raises(ValidationError, match="shortlist is 4 but top_k 10; raise shortlist"):
        ScoreConfig(top_k=10, shortlist=4)
    with pytest.raises(ValidationError, match="leave one of them out"):
        ScoreConfig(top_k=10, shortlist=40, full_matrix=True)


MEASURE = """
import json, sys, tracemalloc
import numpy as np
from storage.refs import IndexRef
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig
from tasks.scoring import attribute
from tasks.scoring_graph import predicted_bytes
index, queries = IndexRef(sys.argv[1], "main"), np.load(sys.argv[2])
runtime = RuntimeConfig(workers=2)
attribute(index, queries, top_k=5, runtime=runtime, shortlist=200)  # imports
tracemalloc.start()
attribute(index, queries, top_k=5, runtime=runtime, shortlist=200)
peak = tracemalloc.get_traced_memory()[1]
opened = SignatureIndex.open(index)
print(json.dumps([peak, predicted_bytes(opened, len(queries), runtime, shortlist=200)]))
"""


def test_memory_is_bounded_by_the_blocks_in_flight(tmp_path):
    sizes = {"n_rows": 4000, "n_queries": 8, "n_numbers": 1024, "block_rows": 64}
    store = make_scored_store(str(tmp_path / "store"), code="sign", keep_floats=True, **sizes)
    np.save(tmp_path / "queries.npy", store.query_signatures)
    command = [sys.executable, "-c", MEASURE, store.root, str(tmp_path / "queries.npy")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    peak, predicted = json.loads(done.stdout)
    bytes_a_row = 200  # ids, ranks, values and the graph, in the calling process
    assert peak < predicted + 4000 * bytes_a_row
    assert predicted < SignatureIndex.open(store.index).n_rows * 1024 * 2 / 2
