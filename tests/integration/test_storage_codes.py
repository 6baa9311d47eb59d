"""Indexes of codes keep what indexes of floats keep: missing, cut or old files never pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from store_samples import add_batch, positions_of

from storage.errors import CorruptionError, MismatchError
from storage.guards import index_guard
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex

CODES = ["int8", "sign"]
N_NUMBERS = 16


def codes_of(code: str, start: int, stop: int) -> np.ndarray:
    """Codes that depend on the row's position alone; the rows' first element is often 0."""
    rows = np.arange(start, stop)[:, None]
    if code == "int8":
        return ((rows * np.arange(N_NUMBERS)) % 255 - 127).astype(np.int8)
    return np.concatenate([rows % 2 * 0, rows % 255 + 1], axis=1).astype(np.uint8)


def scales_of(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.float32)


def create(root: str, code: str, *, n_numbers: int = N_NUMBERS) -> SignatureIndex:
    return SignatureIndex.create(
        IndexRef(root, "main"),
        identity={"corpus": "main"},
        tables={},
        n_numbers=n_numbers,
        block_rows=4,
        code=code,
    )


def build(root: str, code: str, n_rows: int, batches: list[str]) -> SignatureIndex:
    index = create(root, code)
    with index_guard(index.ref).hold():
        index.reserve(n_rows)
        for block in range(index.count_blocks(n_rows)):
            start, stop = block * 4, min(block * 4 + 4, n_rows)
            if not index.is_done(block, f"{start}-{stop}"):
                index.write_block(
                    block,
                    codes_of(code, start, stop),
                    positions_of(start, stop),
                    scales=scales_of(start, stop),
                    rows_digest=f"{start}-{stop}",
                    n_tokens=1,
                )
        index.commit(batches, n_rows)
    return SignatureIndex.open(IndexRef(root, "main"))


@pytest.fixture(name="root", params=CODES)
def filled_store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    root, code = str(tmp_path / "store"), request.param
    add_batch(CorpusRef(root, "main"), "b1", 0, 10)
    build(root, code, 10, ["b1"])
    return root, code


def file_of(root: str, array: str, block: int) -> Path:
    folder = Path(root) / "indexes/main/signatures.zarr" / array / "c" / str(block)
    return folder / "0" if array == "signatures" else folder


def test_codes_come_back_as_they_were_written(root: tuple[str, str]) -> None:
    index = SignatureIndex.open(IndexRef(root[0], "main"))
    assert (index.code, index.n_numbers) == (root[1], N_NUMBERS)
    assert index.row_bytes == {"int8": 16, "sign": 2}[root[1]]
    for block, (start, stop) in enumerate([(0, 4), (4, 8), (8, 10)]):
        codes, n_positions = index.read_block(block)
        np.testing.assert_array_equal(codes, codes_of(root[1], start, stop))
        np.testing.assert_array_equal(n_positions, positions_of(start, stop))
        np.testing.assert_array_equal(index.read_scales(block), scales_of(start, stop))
    assert index.verify() == []


def read(index: SignatureIndex, block: int) -> None:
    index.read_block(block)
    index.read_scales(block)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[1] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip])
@pytest.mark.parametrize("array", ["signatures", "scales", "n_positions"])
def test_a_damaged_file_is_found_named_and_repaired(
    root: tuple[str, str], array: str, damage: Callable[[Path], None]
) -> None:
    file = file_of(root[0], array, 1)
    sound = file.read_bytes()
    damage(file)
    index = SignatureIndex.open(IndexRef(root[0], "main"))
    with pytest.raises(CorruptionError, match="block 1: ") as caught:
        read(index, 1)
    assert str(file) in str(caught.value)
    (problem,) = index.verify()
    assert str(file) in problem
    if damage is flip:
        index.discard_block(1)
    build(*root, 10, ["b1"])
    assert file.read_bytes() == sound


@pytest.mark.parametrize("array", ["signatures", "scales"])
def test_a_file_from_before_the_append_is_not_taken_for_the_new_one(
    root: tuple[str, str], array: str
) -> None:
    old = file_of(root[0], array, 2).read_bytes()
    index = build(*root, 12, ["b1", "b2"])
    file_of(root[0], array, 2).write_bytes(old)
    with pytest.raises(CorruptionError, match=r"block 2: .*lacks rows"):
        read(index, 2)


def test_another_code_under_the_same_name_is_refused(root: tuple[str, str]) -> None:
    with pytest.raises(MismatchError) as caught:
        create(root[0], "float16")
    assert ("code", "float16", root[1]) in caught.value.differences


def test_an_index_of_floats_says_nothing_of_codes(tmp_path: Path) -> None:
    index = create(str(tmp_path / "store"), "float16")
    assert "code" not in (index.folder / "index.json").read_text()
    assert not (index.folder / "signatures.zarr" / "scales").exists()
    assert index.code == "float16"


def write_first(index: SignatureIndex, codes: np.ndarray, scales: np.ndarray | None) -> None:
    index.reserve(4)
    positions = np.ones(len(codes), np.int32)
    index.write_block(0, codes, positions, scales=scales, rows_digest="x", n_tokens=1)


def test_what_would_read_as_missing_is_not_written(tmp_path: Path) -> None:
    ones = np.ones(2, np.float32)
    signs = create(str(tmp_path / "a"), "sign")
    with pytest.raises(ValueError, match="row 1 is coded like a row that was never written"):
        write_first(signs, np.array([[0, 1], [0, 0]], np.uint8), ones)
    int8 = create(str(tmp_path / "b"), "int8")
    with pytest.raises(ValueError, match="row 0 is coded like"):
        write_first(int8, np.full((2, 16), -128, np.int8), ones)
    with pytest.raises(ValueError, match=r"float32 scales \[2\], got none"):
        write_first(int8, codes_of("int8", 0, 2), None)
    with pytest.raises(ValueError, match="scales must be finite"):
        write_first(int8, codes_of("int8", 0, 2), np.array([1, np.nan], np.float32))
    with pytest.raises(ValueError, match=r"expected int8 signatures \[n, 16\], got uint8"):
        write_first(int8, codes_of("sign", 0, 2), ones)
    floats = create(str(tmp_path / "c"), "float16")
    with pytest.raises(ValueError, match="float16 signatures have no scales"):
        write_first(floats, np.ones((2, 16), np.float16), ones)


def test_codes_that_do_not_exist_or_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a code of float16, int8, sign, got 'int4'"):
        create(str(tmp_path / "store"), "int4")
    with pytest.raises(ValueError, match="packs 8 numbers into one byte, but 20 is no multiple"):
        create(str(tmp_path / "store"), "sign", n_numbers=20)
