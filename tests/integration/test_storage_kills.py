"""SIGKILL before the file operations of every writer, one by one; then the work is run again.

After a kill readers see the old state or the new one, and the second run ends with the very
bytes of a run that nobody disturbed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from storage_victim import Run, storage_victim
from store_samples import (
    add_batch,
    add_query_set,
    add_release,
    build,
    positions_of,
    signatures_of,
    tree_bytes,
)

from storage.catalog import list_artifacts
from storage.corpus import Corpus
from storage.errors import IncompleteError, NotFoundError
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef
from storage.release_pointer import latest
from storage.releases import open_release
from storage.signatures import SignatureIndex
from storage.tombstones import Tombstones

TESTS = Path(__file__).parents[1]


@pytest.fixture(name="run", scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with storage_victim(tmp_path_factory.mktemp("victim") / "begun") as run:
        yield run


@pytest.fixture(name="before", scope="module")
def store_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One batch, its index (the last block half full), a query set and a release."""
    root = tmp_path_factory.mktemp("before") / "store"
    add_batch(CorpusRef(str(root), "main"), "b1", 0, 6)
    build(IndexRef(str(root), "main"), 6, ["b1"])
    add_query_set(str(root))
    add_release(str(root))
    return root


def assert_readers_are_right(root: Path) -> None:
    """Whatever was killed: what the store offers is whole and has the right values."""
    corpus = Corpus(CorpusRef(str(root), "main"))
    assert [row.source_line for row in corpus.rows(0, corpus.n_rows)] == [
        *range(1, corpus.n_rows + 1)
    ]
    assert corpus.n_rows in (6, 11)
    assert corpus.verify() == []
    index = SignatureIndex.open(IndexRef(str(root), "main"))
    assert index.n_rows in (6, 11)
    read = [index.read_block(block) for block in range(index.n_blocks)]
    signatures = np.concatenate([block[0] for block in read])
    np.testing.assert_array_equal(signatures, signatures_of(0, index.n_rows))
    np.testing.assert_array_equal(index.n_positions(), positions_of(0, index.n_rows))
    # A block that is being replaced has no record; no record may ever describe other bytes.
    assert [text for text in index.verify() if "no completion record" not in text] == []
    query_set = QuerySet.open(QuerySet.latest(str(root), "facts"))
    assert query_set.verify() == []
    release = open_release(latest(str(root), "picked"))
    assert release.verify() == []
    tombstones = Tombstones(corpus.ref)
    assert [record.n_rows for record in tombstones.records] in ([], [2])
    assert tombstones.verify() == []
    assert all("problem" not in artifact.detail for artifact in list_artifacts(root))


@pytest.mark.parametrize(
    ("action", "step"),
    [
        ("append_to_index", 1),
        ("add_batch", 1),
        ("add_release", 1),
        ("refuse_batch", 2),
        ("add_query_set", 2),
        ("add_scores", 2),
        ("take_down", 1),
    ],
)
def test_a_kill_before_any_file_operation_changes_nothing(
    action: str, step: int, run: Run, before: Path, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(before, undisturbed, symlinks=True)
    code, n_operations = run(action, undisturbed, None)
    assert code == 0
    assert n_operations >= 4
    expected = tree_bytes(undisturbed)
    for kill_at in range(0, n_operations, step):
        root = tmp_path / f"killed-{kill_at}"
        shutil.copytree(before, root, symlinks=True)
        code, _ = run(action, root, kill_at)
        assert code == -9, f"operation {kill_at} was never reached"
        assert_readers_are_right(root)
        code, _ = run(action, root, None)
        assert code == 0
        assert tree_bytes(root) == expected, f"differs after a kill at operation {kill_at}"
        shutil.rmtree(root)


@pytest.mark.parametrize(("action", "step"), [("create_store", 1), ("build_index", 5)])
def test_a_kill_while_the_store_is_made_changes_nothing(
    action: str, step: int, run: Run, tmp_path: Path
) -> None:
    undisturbed = tmp_path / "undisturbed"
    code, n_operations = run(action, undisturbed, None)
    assert code == 0
    expected = tree_bytes(undisturbed)
    for kill_at in range(0, n_operations, step):
        root = tmp_path / f"killed-{kill_at}"
        assert run(action, root, kill_at)[0] == -9
        if action == "build_index":
            assert_no_half_index(root)
        assert run(action, root, None)[0] == 0
        assert tree_bytes(root) == expected, f"differs after a kill at operation {kill_at}"


def assert_no_half_index(root: Path) -> None:
    try:
        index = SignatureIndex.open(IndexRef(str(root), "main"))
    except NotFoundError:
        return
    assert index.committed_rows in (0, 6)
    assert set(index.tables()) == {"buckets", "signs"}


def test_kills_at_random_moments_of_large_blocks_lose_no_finished_block(tmp_path: Path) -> None:
    """Here the kill comes from outside, while the bytes of a shard are on their way."""
    builder = (
        "import sys; from store_samples import build; from storage.refs import IndexRef;"
        "build(IndexRef(sys.argv[1], 'main'), 4000, ['b1'], block_rows=200, n_numbers=2000)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [sys.executable, "-c", builder]
    expected = tmp_path / "undisturbed"
    subprocess.run([*command, str(expected)], env=environment, check=True)
    root = tmp_path / "killed"
    records = root / "indexes" / "main" / "blocks"
    finished: dict[str, bytes] = {}
    for target in (1, 6, 11, 16):
        with subprocess.Popen([*command, str(root)], env=environment) as process:
            deadline = time.monotonic() + 60
            while len(list(records.glob("0*.json"))) < target and time.monotonic() < deadline:
                time.sleep(0.001)
            process.kill()
        now = tree_bytes(records)
        assert len(now) < 20, "the build ended before the kill"
        assert finished.items() <= now.items(), "a finished block was lost or written again"
        finished = {name: data for name, data in now.items() if name.startswith("0")}
    index = SignatureIndex.open(IndexRef(str(root), "main"))
    with pytest.raises(IncompleteError, match="never finished"):
        _ = index.n_rows
    subprocess.run([*command, str(root)], env=environment, check=True)
    assert tree_bytes(root) == tree_bytes(expected)
