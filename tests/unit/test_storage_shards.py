"""Blocks read by hand are what Zarr reads; what is not known to be sound is left to it."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from storage import arrays
from storage.errors import CorruptionError
from storage.shards import block_layout, read_first_rows, read_some_rows

BLOCK_ROWS = 6


def numbers(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 100, shape).astype(dtype)


@pytest.fixture(params=["f2", "f4", "i1", "u1", "counts", "scales"])
def array(request, tmp_path, monkeypatch) -> tuple[arrays.BlockArray, np.ndarray]:
    """Two blocks of six rows; matrices in three inner chunks a block; the last row is missing."""
    group = arrays.create_group(tmp_path / "group")
    if request.param == "counts":
        arrays.create_counts(group, "a", block_rows=BLOCK_ROWS)
        values = numbers("i4", (2 * BLOCK_ROWS - 1,))
    elif request.param == "scales":
        arrays.create_scales(group, "a", block_rows=BLOCK_ROWS)
        values = numbers("f4", (2 * BLOCK_ROWS - 1,))
    else:
        monkeypatch.setattr(arrays, "choose_chunk_rows", lambda block_rows, **_: 2)
        arrays.create_matrix(group, "a", dtype=request.param, n_columns=5, block_rows=BLOCK_ROWS)
        values = numbers(request.param, (2 * BLOCK_ROWS - 1, 5))
    opened = arrays.BlockArray(tmp_path / "group" / "a", BLOCK_ROWS, "Do it again.")
    opened.grow(len(values))
    opened.write(0, values[:BLOCK_ROWS])
    opened.write(1, values[BLOCK_ROWS:])
    return opened, values


def layout_of(array: arrays.BlockArray):
    return block_layout(json.loads((array.path / "zarr.json").read_bytes()))


def test_the_first_rows_of_a_block_are_those_that_zarr_reads(array):
    opened, values = array
    layout = layout_of(opened)
    assert layout.n_chunks == (3 if values.ndim == 2 else 1)
    whole = zarr.open_array(opened.path, mode="r")
    for n_rows in range(1, BLOCK_ROWS):
        found = read_first_rows(opened.file(1), layout, n_rows)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values[BLOCK_ROWS : BLOCK_ROWS + n_rows])
        np.testing.assert_array_equal(found, whole[BLOCK_ROWS : BLOCK_ROWS + n_rows])


@pytest.mark.parametrize("rows", [[0], [5], [1, 2], [0, 3, 5], [0, 1, 2, 3, 4, 5]])
def test_chosen_rows_are_those_rows(array, rows):
    opened, values = array
    found = read_some_rows(opened.file(0), layout_of(opened), np.array(rows))
    np.testing.assert_array_equal(found, values[rows])
    np.testing.assert_array_equal(opened.read_rows(0, np.array(rows)), values[rows])


def test_only_chunks_that_are_asked_for_are_read(array):
    opened, values = array
    layout = layout_of(opened)
    if not layout.is_sharded:
        pytest.skip("one chunk a block")
    content = bytearray(opened.file(0).read_bytes())
    row = values[4].tobytes()
    content[content.index(row)] ^= 1  # in the last of three chunks
    opened.file(0).write_bytes(content)
    np.testing.assert_array_equal(opened.read_rows(0, np.array([0, 3])), values[[0, 3]])
    with pytest.raises(CorruptionError, match=r"block 0: .*checksum.*Do it again"):
        opened.read_rows(0, np.array([0, 5]))


def test_any_flipped_bit_and_any_cut_is_left_to_zarr(array):
    opened, _ = array
    layout = layout_of(opened)
    sound = opened.file(0).read_bytes()
    for offset in range(len(sound)):
        broken = bytearray(sound)
        broken[offset] ^= 4
        opened.file(0).write_bytes(broken)
        assert read_first_rows(opened.file(0), layout, BLOCK_ROWS) is None
        opened.file(0).write_bytes(sound[:offset])
        assert read_first_rows(opened.file(0), layout, BLOCK_ROWS) is None
    opened.file(0).unlink()
    assert read_first_rows(opened.file(0), layout, BLOCK_ROWS) is None


def test_rows_that_were_never_written_are_named(array):
    opened, _ = array
    with pytest.raises(CorruptionError, match=r"block 1: .*lacks rows.*Do it again"):
        opened.read_rows(1, np.array([0, 5]))
    with pytest.raises(CorruptionError, match=r"block 1: .*lacks rows.*Do it again"):
        opened.read(BLOCK_ROWS, 2 * BLOCK_ROWS)


def test_other_codecs_are_left_to_zarr(tmp_path: Path):
    values = numbers("f4", (8, 3))
    for name, settings in {
        "zstd": {"compressors": zarr.codecs.ZstdCodec()},
        "index first": {
            "compressors": zarr.codecs.Crc32cCodec(),
            "shards": {"shape": (4, 3), "index_location": "start"},
        },
        "big-endian": {
            "compressors": zarr.codecs.Crc32cCodec(),
            "serializer": zarr.codecs.BytesCodec(endian="big"),
        },
        "two columns of chunks": {"chunks": (2, 1), "shards": (4, 3)},
    }.items():
        zarr.create_array(
            tmp_path / name, data=values, **{"chunks": (2, 3), "shards": (4, 3), **settings}
        )
        opened = arrays.BlockArray(tmp_path / name, 4, "")
        assert layout_of(opened) is None, name
        np.testing.assert_array_equal(opened.read(0, 4), values[:4])


@pytest.mark.parametrize("metadata", [{}, {"codecs": []}, {"chunk_grid": 3}])
def test_metadata_that_zarr_does_not_write_have_no_layout(metadata):
    assert block_layout(metadata) is None
