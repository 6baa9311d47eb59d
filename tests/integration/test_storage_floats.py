"""Float rows beside codes: read a few at a time, and as safe as the codes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from store_samples import add_batch, positions_of, signatures_of

from storage import arrays
from storage.errors import CorruptionError, MismatchError
from storage.guards import index_guard
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex

N_CODED, N_FLOATS = 16, 12


def create(root: str, *, float_numbers: int | None = N_FLOATS) -> SignatureIndex:
    return SignatureIndex.create(
        IndexRef(root, "main"),
        identity={"corpus": "main"},
        tables={},
        n_numbers=N_CODED,
        block_rows=4,
        code="sign",
        float_numbers=float_numbers,
    )


def write(index: SignatureIndex, block: int, stop: int, floats: np.ndarray | None) -> None:
    start = block * 4
    index.write_block(
        block,
        np.full((stop - start, 2), 7, np.uint8),
        positions_of(start, stop),
        scales=np.ones(stop - start, np.float32),
        floats=floats,
        rows_digest=f"{start}-{stop}",
        n_tokens=1,
    )


def build(root: str, n_rows: int, batches: list[str]) -> SignatureIndex:
    index = create(root)
    with index_guard(index.ref).hold():
        index.reserve(n_rows)
        for block in range(index.count_blocks(n_rows)):
            start, stop = block * 4, min(block * 4 + 4, n_rows)
            if not index.is_done(block, f"{start}-{stop}"):
                write(index, block, stop, signatures_of(start, stop, N_FLOATS))
        index.commit(batches, n_rows)
    return SignatureIndex.open(IndexRef(root, "main"))


@pytest.fixture(name="root", params=[None, 1])
def filled_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Ten rows in three blocks; a block is one inner chunk, or each row is."""
    if request.param:
        monkeypatch.setattr(arrays, "choose_chunk_rows", lambda *_, **__: 1)
    root = str(tmp_path / "store")
    add_batch(CorpusRef(root, "main"), "b1", 0, 10)
    build(root, 10, ["b1"])
    return root


def file_of(root: str, block: int) -> Path:
    return Path(root) / f"indexes/main/signatures.zarr/floats/c/{block}/0"


@pytest.mark.parametrize("rows", [[0], [3], [0, 2], [0, 1, 2, 3]])
def test_rows_come_back_as_they_were_written(root: str, rows: list[int]) -> None:
    index = SignatureIndex.open(IndexRef(root, "main"))
    assert (index.float_numbers, index.n_numbers, index.row_bytes) == (N_FLOATS, N_CODED, 2)
    found = index.read_floats(1, np.array(rows))
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, signatures_of(4, 8, N_FLOATS)[rows])
    assert index.verify() == []


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[content.index(signatures_of(6, 7, N_FLOATS).tobytes())] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip])
def test_a_damaged_file_is_found_named_and_repaired(
    root: str, damage: Callable[[Path], None]
) -> None:
    file = file_of(root, 1)
    sound = file.read_bytes()
    damage(file)
    index = SignatureIndex.open(IndexRef(root, "main"))
    with pytest.raises(CorruptionError, match=r"block 1: .*build the index again") as caught:
        index.read_floats(1, np.array([2]))
    assert str(file) in str(caught.value)
    (problem,) = index.verify()
    assert str(file) in problem
    if damage is flip:
        index.discard_block(1)
    build(root, 10, ["b1"])
    assert file.read_bytes() == sound


def test_a_file_from_before_the_append_is_not_taken_for_the_new_one(root: str) -> None:
    old = file_of(root, 2).read_bytes()
    index = build(root, 12, ["b1", "b2"])
    np.testing.assert_array_equal(
        index.read_floats(2, np.array([0, 3])), signatures_of(8, 12, N_FLOATS)[[0, 3]]
    )
    file_of(root, 2).write_bytes(old)
    with pytest.raises(CorruptionError, match=r"block 2: .*lacks rows"):
        index.read_floats(2, np.array([0, 3]))


def test_what_does_not_fit_is_refused(root: str, tmp_path: Path) -> None:
    index = SignatureIndex.open(IndexRef(root, "main"))
    for rows in ([], [2], [-1, 0]):  # the last block has two rows
        with pytest.raises(ValueError, match="expected rows 0 to 1 of block 2"):
            index.read_floats(2, np.array(rows, np.int64))
    with pytest.raises(ValueError, match=r"expected floats: float16 \[4, 12\], got none"):
        write(index, 0, 4, None)
    with pytest.raises(ValueError, match=r"float16 \[4, 12\], got float32 \[4, 12\]"):
        write(index, 0, 4, np.ones((4, N_FLOATS), np.float32))
    broken = np.ones((4, N_FLOATS), np.float16)
    broken[3, 1] = np.inf
    with pytest.raises(ValueError, match="not finite, the first is row 3"):
        write(index, 0, 4, broken)
    with pytest.raises(MismatchError) as caught:
        create(root, float_numbers=None)
    assert caught.value.differences == [("float_numbers", None, N_FLOATS)]
    bare = create(str(tmp_path / "bare"), float_numbers=None)
    assert "float" not in (bare.folder / "index.json").read_text()
    with pytest.raises(ValueError, match="beside codes, got code 'float16' and 8 numbers"):
        SignatureIndex.create(
            IndexRef(str(tmp_path / "twice"), "main"),
            identity={},
            tables={},
            n_numbers=8,
            block_rows=4,
            float_numbers=8,
        )


def test_an_index_without_floats_says_so(tmp_path: Path) -> None:
    index = create(str(tmp_path / "store"), float_numbers=None)
    index.reserve(4)
    write(index, 0, 4, None)
    index.commit(["b1"], 4)
    with pytest.raises(ValueError, match="index 'main' keeps no float rows"):
        index.read_floats(0, np.array([0]))
