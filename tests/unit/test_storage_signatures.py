from pathlib import Path

import numpy as np
import pytest
import zarr
from store_samples import build, fill_block, make_index, positions_of, signatures_of, tree_bytes

from storage.arrays import INNER_CHUNK_BYTES, WHOLE_BLOCK_CHUNKS, choose_chunk_rows
from storage.errors import IncompleteError, MismatchError, flat_differences
from storage.files import short_id
from storage.refs import IndexRef
from storage.signatures import SignatureIndex


@pytest.fixture(name="ref")
def index_ref(tmp_path: Path) -> IndexRef:
    return IndexRef(str(tmp_path / "store"), "main")


def test_what_was_written_is_read(ref: IndexRef) -> None:
    build(ref, 10, ["b1"])
    index = SignatureIndex.open(ref)
    assert (index.n_rows, index.n_blocks, index.batches) == (10, 3, ["b1"])
    assert index.index_id == short_id(index.identity)
    for block, (start, stop) in enumerate([(0, 4), (4, 8), (8, 10)]):
        signatures, n_positions = index.read_block(block)
        assert signatures.dtype == np.float16
        assert n_positions.dtype == np.int32
        np.testing.assert_array_equal(signatures, signatures_of(start, stop))
        np.testing.assert_array_equal(n_positions, positions_of(start, stop))
    np.testing.assert_array_equal(index.n_positions(), positions_of(0, 10))
    assert index.verify() == []
    for block in (-1, 3):
        with pytest.raises(ValueError, match="has blocks 0 to 2"):
            index.read_block(block)


def test_tables_come_back_by_value(ref: IndexRef) -> None:
    make_index(ref)
    tables = SignatureIndex.open(ref).tables()
    np.testing.assert_array_equal(tables["buckets"], np.arange(10, dtype=np.int32))
    assert tables["signs"].dtype == np.int8
    assert not tables["signs"].any()


def test_the_record_counts_what_the_block_holds(ref: IndexRef) -> None:
    index = build(ref, 6, ["b1"])
    record = index.block_record(1)
    assert record is not None
    assert (record["block"], record["n_rows"], record["n_tokens"]) == (1, 2, 2)
    assert record["rows_digest"] == "4-6"
    assert index.block_record(0)["n_empty"] == 1  # type: ignore[index]
    assert record["n_empty"] == int(np.sum(positions_of(4, 6) == 0))
    assert index.block_record(2) is None


def test_an_empty_row_is_zeros_and_not_damage(ref: IndexRef) -> None:
    index = make_index(ref)
    index.reserve(3)
    zeros = np.zeros((3, 8), np.float16)
    index.write_block(0, zeros, np.zeros(3, np.int32), rows_digest="x", n_tokens=0)
    index.commit(["b1"], 3)
    np.testing.assert_array_equal(index.read_block(0)[0], zeros)


def test_nothing_committed_is_incomplete(ref: IndexRef) -> None:
    index = make_index(ref)
    assert index.committed_rows == 0
    for look in (lambda: index.n_rows, lambda: index.batches, index.n_positions, index.verify):
        with pytest.raises(IncompleteError, match="never finished"):
            look()
    index.reserve(4)
    with pytest.raises(IncompleteError, match="1 of 1 blocks"):
        index.commit(["b1"], 4)
    index.commit([], 0)
    assert SignatureIndex.open(ref).n_rows == 0
    assert len(SignatureIndex.open(ref).n_positions()) == 0


def test_only_equal_identities_share_a_name(ref: IndexRef) -> None:
    make_index(ref)
    make_index(ref)
    other = {"format": 1, "corpus": "main", "space": {"model": "m", "seed": 1}, "extra": True}
    with pytest.raises(MismatchError, match="index 'main' exists with other settings") as caught:
        SignatureIndex.create(ref, identity=other, tables={}, n_numbers=8, block_rows=5)
    found = {name: (want, got) for name, want, got in caught.value.differences}
    assert found["identity.space.seed"] == (1, 0)
    assert found["identity.extra"] == (True, None)
    assert found["block_rows"] == (5, 4)
    assert "Use the settings of the existing index" in str(caught.value)


def test_identities_may_hold_tuples(ref: IndexRef) -> None:
    for _ in range(2):
        identity = {"files": ("a", "b"), "deep": [("c",)]}
        SignatureIndex.create(ref, identity=identity, tables={}, n_numbers=8, block_rows=4)


def test_appending_replaces_the_last_block_only(ref: IndexRef) -> None:
    index = build(ref, 6, ["b1"])
    first = index.block_record(0)
    assert index.is_done(1, "4-6")
    assert not index.is_done(1, "4-8")
    assert not index.is_done(2, "8-11")
    build(ref, 11, ["b1", "b2"])
    index = SignatureIndex.open(ref)
    assert index.n_rows == 11
    assert index.block_record(0) == first
    read = np.concatenate([index.read_block(block)[0] for block in range(3)])
    np.testing.assert_array_equal(read, signatures_of(0, 11))


def test_a_state_only_grows(ref: IndexRef) -> None:
    index = build(ref, 6, ["b1", "b2"])
    for batches, n_rows in [(["b2", "b1"], 6), (["b1"], 6), (["b1", "b2"], 5), (["b3"], 9)]:
        with pytest.raises(MismatchError, match="does not continue"):
            index.commit(batches, n_rows)
    index.commit(["b1", "b2"], 6)
    assert index.n_rows == 6


def test_commit_wants_every_row_of_the_last_block(ref: IndexRef) -> None:
    index = build(ref, 6, ["b1"])
    with pytest.raises(IncompleteError, match=r"first: \[1\]"):
        index.commit(["b1", "b2"], 7)


def test_wrong_blocks_are_refused(ref: IndexRef) -> None:
    index = make_index(ref)
    index.reserve(8)
    good, counts = signatures_of(0, 4), positions_of(0, 4)
    broken = good.copy()
    broken[2, 3] = np.inf
    wrong = [
        ((0, good.astype(np.float32), counts), "expected float16"),
        ((0, good[:, :7].copy(), counts), r"signatures \[n, 8\]"),
        ((0, good, counts[:3]), r"n_positions \[4\]"),
        ((0, good, counts.astype(np.int64)), "expected int32"),
        ((0, good, counts - 1), "negative"),
        ((0, broken, counts), "the first is row 2"),
        ((0, signatures_of(0, 5), positions_of(0, 5)), "1 to 4 rows, got 5"),
        ((0, good[:0], counts[:0]), "1 to 4 rows, got 0"),
        ((2, good, counts), "call reserve first"),
        ((-1, good, counts), "call reserve first"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            index.write_block(*arguments, rows_digest="x", n_tokens=1)
    assert index.block_record(0) is None


def test_room_never_shrinks_and_is_whole_blocks(ref: IndexRef) -> None:
    index = make_index(ref)
    for n_rows, expected in [(5, 8), (3, 8), (9, 12)]:
        index.reserve(n_rows)
        assert zarr.open_array(index.array_path, mode="r").shape == (expected, 8)


def test_any_zarr_reader_can_read_the_array(ref: IndexRef) -> None:
    index = build(ref, 6, ["b1"])
    array = zarr.open_group(index.array_path.parent, mode="r")["signatures"]
    assert isinstance(array, zarr.Array)
    assert array.shards == (4, 8)
    np.testing.assert_array_equal(np.asarray(array[:6]), signatures_of(0, 6))
    assert np.isnan(np.asarray(array[6:])).all()
    assert (index.array_path / "c" / "1" / "0").is_file()


def test_equal_builds_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(IndexRef(str(tmp_path / name), "main"), 11, ["b1"])
    assert tree_bytes(tmp_path / "one") == tree_bytes(tmp_path / "two")


def test_litter_of_killed_writers_goes_with_the_next_build(ref: IndexRef) -> None:
    index = build(ref, 6, ["b1"])
    before = tree_bytes(index.folder)
    for place in (
        index.folder,
        index.folder / "blocks",
        index.array_path,
        index.array_path / "c/0",
    ):
        (place / ".x.12345678.partial").write_text("half")
        (place / "0.12345678.partial").write_text("half")
    index.reserve(6)
    assert tree_bytes(index.folder) == before


@pytest.mark.parametrize(
    ("block_rows", "row_bytes", "expected"),
    [
        (1024, 49_152, 32),
        (1024, 704, 1024),
        (1000, 49_152, 40),
        (1009, 2048, 1009),
        (1009, 49_152, 1009),
        (8, 10_000_000, 1),
        (1, 49_152, 1),
    ],
)
def test_inner_chunks_are_near_two_megabytes(
    block_rows: int, row_bytes: int, expected: int
) -> None:
    chunk_rows = choose_chunk_rows(block_rows, row_bytes=row_bytes)
    assert chunk_rows == expected
    assert block_rows % chunk_rows == 0
    if block_rows * row_bytes <= WHOLE_BLOCK_CHUNKS * INNER_CHUNK_BYTES:
        assert chunk_rows == block_rows


def test_blocks_may_be_written_in_any_order(ref: IndexRef) -> None:
    index = make_index(ref)
    index.reserve(11)
    for block in (2, 0, 1):
        fill_block(index, block, 11)
    index.commit(["b1"], 11)
    assert index.verify() == []


def test_differences_name_the_leaf() -> None:
    expected = {"a": 1, "b": {"c": [1], "d": 2}, "e": {"f": 1}}
    found = {"a": 1, "b": {"c": [2], "d": 2}, "e": 3}
    assert flat_differences(expected, found) == [("b.c", [1], [2]), ("e", {"f": 1}, 3)]
    assert flat_differences(expected, expected) == []


def test_where_the_model_was_is_a_hint_only(ref: IndexRef) -> None:
    index = make_index(ref)
    assert index.remembered_model() is None
    for name in ("first", "second"):
        index.remember_model({"name": name})
        assert SignatureIndex.open(ref).remembered_model() == {"name": name}
    (index.folder / "model.json").write_text("{")
    assert index.remembered_model() is None
    index.remember_model({"name": "second"})
    assert index.remembered_model() == {"name": "second"}
