"""Damaged, missing, foreign and half-written bytes; full and unwritable disks; two writers."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from store_samples import (
    add_batch,
    add_query_set,
    add_release,
    add_scores,
    build,
    fill_block,
    make_index,
    make_rows,
    signatures_of,
)

from storage.catalog import list_artifacts, open_store
from storage.corpus import BatchWriter, Corpus
from storage.errors import (
    BusyError,
    CorruptionError,
    FormatVersionError,
    IncompleteError,
    StorageError,
)
from storage.guards import index_guard
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef
from storage.release_pointer import latest
from storage.releases import open_release
from storage.scores import Scores
from storage.signatures import SignatureIndex

TESTS = Path(__file__).parents[1]


@pytest.fixture(name="root")
def filled_store(tmp_path: Path) -> str:
    root = str(tmp_path / "store")
    add_batch(CorpusRef(root, "main"), "b1", 0, 10)
    index = build(IndexRef(root, "main"), 10, ["b1"])
    add_query_set(root)
    add_scores(root, index)
    add_release(root)
    return root


def opened(root: str) -> SignatureIndex:
    return SignatureIndex.open(IndexRef(root, "main"))


def shard(root: str, block: int) -> Path:
    return opened(root).array_path / "c" / str(block) / "0"


def counts(root: str, block: int) -> Path:
    return opened(root).array_path.parent / "n_positions" / "c" / str(block)


def flip_bit(path: Path, offset: int = 20) -> None:
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [flip_bit, truncate, empty, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file_of", [shard, counts])
def test_a_damaged_block_names_itself_its_file_and_the_remedy(
    root: str, damage: Callable[[Path], None], file_of: Callable[[str, int], Path]
) -> None:
    file = file_of(root, 1)
    damage(file)
    index = opened(root)
    with pytest.raises(CorruptionError, match=r"block 1: .*build the index again") as caught:
        index.read_block(1)
    assert str(file) in str(caught.value)
    assert len(index.read_block(0)[0]) == 4
    assert len(index.read_block(2)[0]) == 2


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file_of", [shard, counts])
def test_the_next_build_repairs_what_a_look_at_the_sizes_shows(
    root: str, damage: Callable[[Path], None], file_of: Callable[[str, int], Path]
) -> None:
    sound = file_of(root, 1).read_bytes()
    damage(file_of(root, 1))
    index = opened(root)
    (problem,) = index.verify()
    assert problem.startswith("block 1: ")
    if damage is flip_bit:  # the size is the same: only the checksum shows it
        assert index.is_done(1, "4-8")
        assert index.verify(deep=False) == []
        index.discard_block(1)
    assert not opened(root).is_done(1, "4-8")
    build(IndexRef(root, "main"), 10, ["b1"])
    assert file_of(root, 1).read_bytes() == sound
    assert opened(root).verify() == []


def test_every_single_flipped_bit_of_a_shard_is_found(root: str) -> None:
    file = shard(root, 1)
    sound = file.read_bytes()
    for offset in range(0, len(sound), 3):
        flip_bit(file, offset)
        with pytest.raises(CorruptionError):
            opened(root).read_block(1)
        file.write_bytes(sound)
    np.testing.assert_array_equal(opened(root).read_block(1)[0], signatures_of(4, 8))


def test_damaged_counts_are_found_among_all_blocks(root: str) -> None:
    flip_bit(counts(root, 2), 3)
    with pytest.raises(CorruptionError, match="block 2"):
        opened(root).n_positions()


def test_a_shard_from_before_the_append_is_not_taken_for_the_new_one(root: str) -> None:
    old = shard(root, 2).read_bytes()
    build(IndexRef(root, "main"), 12, ["b1", "b2"])
    shard(root, 2).write_bytes(old)
    with pytest.raises(CorruptionError, match=r"block 2: .*lacks rows"):
        opened(root).read_block(2)


def test_a_garbage_record_is_a_problem_for_verify_and_work_for_the_build(root: str) -> None:
    record = Path(root) / "indexes" / "main" / "blocks" / "00000001.json"
    sound = record.read_bytes()
    record.write_text("{not json")
    assert "not valid JSON" in opened(root).verify()[0]
    with pytest.raises(CorruptionError, match="not valid JSON"):
        opened(root).block_record(1)
    assert not opened(root).is_done(1, "4-8")
    build(IndexRef(root, "main"), 10, ["b1"])
    assert record.read_bytes() == sound


@pytest.mark.parametrize(
    "name",
    [
        "indexes/main/index.json",
        "indexes/main/rows.json",
        "corpora/main/batches/0001-b1/batch.json",
        "queries/facts/v1/query_set.json",
        "scores/s1/scores.json",
        "releases/picked/r1/manifest.json",
    ],
)
def test_changed_and_newer_manifests_are_refused(root: str, name: str) -> None:
    path = Path(root) / name
    sound = json.loads(path.read_text())
    readers = {
        "indexes": lambda: opened(root),
        "corpora": lambda: Corpus(CorpusRef(root, "main")).rows(0, 1),
        "queries": lambda: QuerySet.open(QuerySet.latest(root, "facts")),
        "scores": lambda: Scores.open(scores_ref(root)),
        "releases": lambda: open_release(latest(root, "picked")),
    }
    read = readers[name.partition("/")[0]]
    path.write_text(json.dumps({**sound, "n_rows": 9999}))
    with pytest.raises(CorruptionError, match="checksum"):
        read()
    path.write_text("]")
    with pytest.raises(CorruptionError, match="not valid JSON"):
        read()
    path.write_text(json.dumps({**sound, "version": 2}))
    with pytest.raises(FormatVersionError, match=r"reads version 1 .* has version 2. Upgrade"):
        read()
    path.write_text(json.dumps({**sound, "format": "someone-elses"}))
    with pytest.raises(FormatVersionError, match="someone-elses"):
        read()
    assert any("problem" in item.detail for item in list_artifacts(root))


def scores_ref(root: str):
    from storage.refs import ScoresRef

    return ScoresRef(root, "s1")


def test_a_newer_store_is_refused(root: str) -> None:
    marker = Path(root) / "rise-store.json"
    marker.write_text('{"format": "rise-store", "version": 2}')
    for read in (open_store, list_artifacts):
        with pytest.raises(FormatVersionError, match="has version 2"):
            read(root)
    with pytest.raises(FormatVersionError):
        add_batch(CorpusRef(root, "main"), "b9", 20, 21)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tables_of_every_kind_are_found(root: str, damage: Callable[[Path], None]) -> None:
    corpus = Corpus(CorpusRef(root, "main"))
    query_set = QuerySet.open(QuerySet.latest(root, "facts"))
    scores = Scores.open(scores_ref(root))
    release = open_release(latest(root, "picked"))
    cases = [
        (corpus.folder("b1") / "rows-00000.parquet", lambda: corpus.rows(0, 10), corpus.verify),
        (query_set.folder / "queries.parquet", query_set.queries, query_set.verify),
        (query_set.folder / "signatures.npy", query_set.signatures, query_set.verify),
        (scores.folder / "values.parquet", scores.values, scores.verify),
        (release.data_files[0], release.rows, release.verify),
    ]
    for path, read, verify in cases:
        assert verify() == []
        sound = path.read_bytes()
        damage(path)
        assert len(verify()) == 1
        with pytest.raises(CorruptionError, match="again"):
            read()
        path.write_bytes(sound)


def test_damaged_and_lost_index_tables_are_found(root: str) -> None:
    data = opened(root).array_path.parent / "tables" / "signs" / "c" / "0"
    flip_bit(data, 3)
    with pytest.raises(CorruptionError, match="tables/signs"):
        opened(root).tables()
    data.unlink()  # all zeros: Zarr would read zeros from nothing
    with pytest.raises(CorruptionError, match="lost"):
        opened(root).tables()
    assert "tables/signs" in opened(root).verify()[0]


def test_a_full_disk_is_named_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """A real limit on the size of files, in a child process; the kernel refuses the write."""
    root = tmp_path / "store"
    build(IndexRef(str(root), "main"), 6, ["b1"], block_rows=4, n_numbers=20_000)
    code = (
        "import sys; from store_samples import build; from storage.refs import IndexRef;"
        "build(IndexRef(sys.argv[1], 'main'), 11, ['b1'], block_rows=4, n_numbers=20_000)"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("storage.errors.StorageError: Cannot write")
    assert "run again; finished work is kept" in last
    index = opened(str(root))
    assert index.n_rows == 6
    np.testing.assert_array_equal(index.read_block(1)[0], signatures_of(4, 6, 20_000))
    build(IndexRef(str(root), "main"), 11, ["b1"], block_rows=4, n_numbers=20_000)
    assert opened(str(root)).verify() == []
    assert list(root.rglob("*.partial")) == []


@pytest.mark.parametrize(
    "write",
    [
        "add_batch(CorpusRef(root, 'main'), 'b1', 0, 20_000, part_rows=20_000)",
        "add_query_set(root, 'v2', n_numbers=50_000)",
        "add_release(root, 'r2', n_rows=2)",
    ],
)
def test_a_full_disk_leaves_no_half_folder(tmp_path: Path, write: str) -> None:
    root = tmp_path / "store"
    code = f"""
import sys, resource
from store_samples import *
root = sys.argv[1]
open_store(root, create=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
{write}
"""
    done = subprocess.run(
        [sys.executable, "-c", f"from storage.catalog import open_store{code}", str(root)],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("storage.errors.StorageError: Cannot write"), done.stderr
    assert list_artifacts(root) == []
    assert list(root.rglob("*.partial")) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission is denied"):
        open_store(tmp_path / "store", create=True)


@pytest.mark.parametrize("below", ["", "deeper/store"])
def test_a_file_in_the_way_of_the_store_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match=r"[Cc]hoose another folder"):
        open_store(tmp_path / "taken" / below, create=True)
    with pytest.raises(StorageError, match="not a RISE store"):
        open_store(tmp_path / "taken" / below)


def test_the_second_writer_is_told_to_wait(root: str) -> None:
    index = index_guard(IndexRef(root, "main"))
    with (
        index.hold(),
        pytest.raises(BusyError, match="index 'main' is being written"),
        index.hold(),
    ):
        pass
    with index.hold():
        pass
    corpus = CorpusRef(root, "main")
    with (
        BatchWriter(corpus, "b2") as first,
        pytest.raises(BusyError, match="corpus 'main' is being written"),
        BatchWriter(corpus, "b3"),
    ):
        pass
    assert not first.staging.exists()
    add_batch(corpus, "b2", 10, 11)


def test_the_lease_is_held_against_other_processes_and_dies_with_its_holder(root: str) -> None:
    code = (
        "import sys, time; from storage.guards import *;"
        "lease = index_guard(IndexRef(sys.argv[1], 'main')).hold(); lease.__enter__();"
        "print('held', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True, env=environment
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        index = index_guard(IndexRef(root, "main"))
        with pytest.raises(BusyError, match=f"process {holder.pid}: -c"), index.hold():
            pass
        holder.kill()
    with index.hold():
        pass


def test_a_reader_keeps_its_state_while_rows_are_appended(root: str) -> None:
    reader = opened(root)
    before = [reader.read_block(block) for block in range(reader.n_blocks)]
    index = make_index(IndexRef(root, "main"))
    index.reserve(15)
    fill_block(index, 2, 15)
    fill_block(index, 3, 15)
    for block, (signatures, n_positions) in enumerate(before):
        np.testing.assert_array_equal(reader.read_block(block)[0], signatures)
        np.testing.assert_array_equal(reader.read_block(block)[1], n_positions)
    index.commit(["b1", "b2"], 15)
    assert reader.n_rows == 10
    assert len(reader.read_block(2)[0]) == 2
    assert len(opened(root).read_block(2)[0]) == 4


def test_an_interrupted_append_is_shown_and_commit_refuses_it(root: str) -> None:
    index = make_index(IndexRef(root, "main"))
    index.reserve(15)
    index.discard_block(2)
    fill_block(index, 3, 15)
    with pytest.raises(IncompleteError, match=r"1 of 4 blocks are not finished \(first: \[2\]\)"):
        index.commit(["b1", "b2"], 15)
    assert "no completion record" in index.verify()[0]
    assert len(index.read_block(2)[0]) == 2


def test_a_copied_store_is_the_same_store(root: str, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved, symlinks=True)
    assert latest(str(moved), "picked").release_id == "r1"
    assert opened(str(moved)).verify() == []
    with BatchWriter(CorpusRef(str(moved), "main"), "b2") as writer:
        writer.add(make_rows(10, 11))
        writer.commit({})
    assert Corpus(CorpusRef(str(moved), "main")).n_rows == 11
