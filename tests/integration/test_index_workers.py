"""Blocks of an index on several processes: the bytes of one, also when workers die on the way."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import dask_cluster
from store_samples import tree_bytes
from tiny_rows import tiny_texts, write_texts
from worker_tasks import FOLDER, double, dying_block, fail, mismatch, not_found

from storage.errors import LeaseLostError, MismatchError, NotFoundError
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks import block_work, dask_client, worker_process, workers
from tasks.block_work import sketch_blocks
from tasks.config import IndexConfig, ModelConfig, RuntimeConfig
from tasks.signature_config import (
    PrincipalProjection,
    ResidualConfig,
    SignatureConfig,
    WindowConfig,
)
from tasks.signatures import build_index, calibrate_index, plan_index, writing_index
from tasks.worker_errors import WorkersLostError
from tasks.workers import ManyWorkers, Work

ONE = RuntimeConfig(device="cpu")
TWO = RuntimeConfig(device="cpu", index_workers=2)
N_ROWS = 27


class Counted:
    """Progress that adds up."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, *, total: int, unit: str) -> None:
        assert unit == "rows"
        self.total = total

    def advance(self, n_units: int) -> None:
        self.done += n_units


@pytest.fixture(name="config", scope="module")
def tiny_settings(tiny_llama: Path) -> IndexConfig:
    return IndexConfig(
        model=ModelConfig(name=str(tiny_llama), dtype="float32"),
        signature=SignatureConfig(
            residual=ResidualConfig(temperature=1.0, top_k=64),
            window=WindowConfig(tokens=24, overlap=6),
            # calibrated before its first block, coded, with floats beside the codes
            sketch=PrincipalProjection(hidden_dim=8, projected_dim=4, calibration_tokens=300),
            code="sign",
            keep_floats=True,
        ),
        block_rows=6,
    )


@pytest.fixture(name="root", scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("workers") / "store")
    write_texts(CorpusRef(root, "main"), "b1", tiny_texts(N_ROWS))
    return root


@pytest.fixture(name="one", scope="module")
def by_one_process(root: str, config: IndexConfig) -> dict[str, bytes]:
    build_index(IndexRef(root, "one"), CorpusRef(root, "main"), config, ONE)
    return tree_bytes(Path(root) / "indexes/one")


def test_two_processes_of_which_one_dies_leave_the_bytes_of_one(
    root: str,
    config: IndexConfig,
    one: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "4.0").touch()
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(block_work, "sketch_block_elsewhere", dying_block)
    monkeypatch.setenv("DASK_LOGGING__DISTRIBUTED", "critical")  # set once, and meant to stay
    environment, progress = dict(os.environ), Counted()
    ref, corpus = IndexRef(root, "two"), CorpusRef(root, "main")
    report = build_index(ref, corpus, config, TWO, progress=progress)
    assert tree_bytes(Path(root) / "indexes/two") == one
    assert (report.n_sketched, report.device) == (N_ROWS, "cpu")
    assert report.n_processes in (2, 3)  # the one that died may have finished a block before
    assert report.warnings == (
        "block 4 was begun 2 times: the workers that had begun it were lost",
    )
    assert (progress.total, progress.done) == (N_ROWS, N_ROWS), "what is done again counts once"
    assert dict(os.environ) == environment
    assert build_index(ref, corpus, config, TWO).n_sketched == 0


# -------------------------------------------------------------------------- a cluster elsewhere


@pytest.fixture(name="cluster", scope="module")
def one_cluster() -> Iterator[RuntimeConfig]:
    """A Dask cluster that was there before: one worker, which has two threads."""
    with dask_cluster(n_workers=1, threads_per_worker=2) as cluster:
        yield RuntimeConfig(device="cpu", index_cluster=cluster.scheduler_address)


def test_a_cluster_leaves_the_bytes_of_one_process_wherever_the_store_is_named_from(
    root: str,
    config: IndexConfig,
    one: dict[str, bytes],
    cluster: RuntimeConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(root)  # its workers are in another folder
    progress = Counted()
    report = build_index(
        IndexRef(".", "far"), CorpusRef(".", "main"), config, cluster, progress=progress
    )
    assert tree_bytes(Path(root) / "indexes/far") == one
    assert (report.n_sketched, progress.done, report.n_processes) == (N_ROWS, N_ROWS, 1)


@pytest.mark.usefixtures("prefect_harness")
def test_the_flow_sends_blocks_to_a_cluster(
    root: str, config: IndexConfig, one: dict[str, bytes], cluster: RuntimeConfig
) -> None:
    from flows.index import index

    report = index(root, "main", "flown", config, cluster)
    assert (report.n_sketched, report.n_processes) == (N_ROWS, 1)
    assert tree_bytes(Path(root) / "indexes/flown") == one


def test_a_worker_of_a_run_that_has_ended_stores_nothing(
    root: str, config: IndexConfig, cluster: RuntimeConfig
) -> None:
    ref, corpus = IndexRef(root, "stale"), CorpusRef(root, "main")
    with writing_index(ref):
        calibrate_index(ref, corpus, config, ONE)
        plan = plan_index(ref, corpus, config, ONE)
    far = ManyWorkers(cluster)
    with pytest.raises(LeaseLostError):
        sketch_blocks(plan, far)
    far.close()
    assert SignatureIndex.open(ref).block_record(0) is None


def test_what_a_worker_raises_arrives_as_it_is(cluster: RuntimeConfig) -> None:
    far = ManyWorkers(cluster)
    with pytest.raises(ValueError, match="item 2 is wrong"):
        far.spread(Work(fail, None, range(4), "item"), Counted())
    with pytest.raises(MismatchError, match="expected 1, found 2") as caught:
        far.call(mismatch)
    assert caught.value.differences == [("seed", 1, 2)]
    with pytest.raises(NotFoundError, match=r"worker \S+:\d+ does not see .* no such store"):
        far.call(not_found)
    far.close()


def test_work_that_takes_every_worker_with_it_is_named_and_the_rest_is_kept(
    tmp_path: Path,
) -> None:
    for number in range(3):
        (tmp_path / f"2.{number}").touch()
    work, progress = Work(double, str(tmp_path), range(4), "index 'main', block"), Counted()
    with dask_client.local_client(1) as client:
        far = ManyWorkers(RuntimeConfig(device="cpu", index_cluster=client.scheduler.address))
        with pytest.raises(WorkersLostError, match=r"3 workers died .* index 'main', block 2 "):
            far.spread(work, progress)
        assert not list(tmp_path.iterdir()), "it died three times"
        spread = far.spread(work, progress)
        far.close()
    assert spread.results == [0, 2, 4, 6]
    assert spread.again == {2: 4}, "what was done before is not done again"
    assert progress.done == 2


def test_workers_with_other_libraries_are_refused(
    cluster: RuntimeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = worker_process.versions()
    assert {"torch", "transformers"} <= set(there)
    monkeypatch.setattr(workers, "versions", lambda: {**there, "torch": "0.1"})
    far = ManyWorkers(cluster)
    with pytest.raises(ValueError, match=r"has torch \S+ instead of 0\.1.*same versions"):
        far.call(not_found)
    far.close()


def test_a_cluster_that_is_not_there_or_empty_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_client, "CONNECT_SECONDS", 1)
    far = ManyWorkers(RuntimeConfig(index_cluster="tcp://127.0.0.1:9"))
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9.*set runtime.index_workers instead"):
        far.call(not_found)
    monkeypatch.setattr(workers, "PATIENCE_SECONDS", 0.5)
    with dask_cluster(n_workers=0, threads_per_worker=1) as empty:
        far = ManyWorkers(RuntimeConfig(index_cluster=empty.scheduler_address))
        with pytest.raises(WorkersLostError, match=r"no worker for .* Start workers"):
            far.call(not_found)
        far.close()
