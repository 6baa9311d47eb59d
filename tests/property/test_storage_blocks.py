"""However rows are split into appends and blocks, readers see the same rows."""

import tempfile
from itertools import accumulate
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import add_batch, build, make_rows, positions_of, signatures_of, tree_bytes

from storage.corpus import Corpus
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex

SLOW = settings(max_examples=8, deadline=None)


@SLOW
@given(appends=st.lists(st.integers(1, 9), min_size=1, max_size=3), block_rows=st.integers(1, 12))
def test_appending_equals_one_build(appends: list[int], block_rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        grown = IndexRef(f"{folder}/grown", "main")
        for number, n_rows in enumerate(accumulate(appends), 1):
            build(grown, n_rows, [f"b{batch}" for batch in range(number)], block_rows=block_rows)
        whole = IndexRef(f"{folder}/whole", "main")
        batches = [f"b{batch}" for batch in range(len(appends))]
        build(whole, sum(appends), batches, block_rows=block_rows)
        assert tree_bytes(Path(grown.root)) == tree_bytes(Path(whole.root))
        index = SignatureIndex.open(grown)
        read = np.concatenate([index.read_block(block)[0] for block in range(index.n_blocks)])
        np.testing.assert_array_equal(read, signatures_of(0, sum(appends)))
        np.testing.assert_array_equal(index.n_positions(), positions_of(0, sum(appends)))
        assert index.verify() == []


@SLOW
@given(data=st.data(), batches=st.lists(st.integers(0, 7), min_size=1, max_size=3))
def test_any_range_of_any_batches_is_that_slice(data: st.DataObject, batches: list[int]) -> None:
    n_rows = sum(batches)
    start = data.draw(st.integers(0, n_rows))
    stop = data.draw(st.integers(start, n_rows))
    part_rows = data.draw(st.integers(1, 8))
    with tempfile.TemporaryDirectory() as folder:
        ref = CorpusRef(folder, "main")
        first = 0
        for number, size in enumerate(batches):
            add_batch(ref, f"b{number}", first, first + size, part_rows=part_rows)
            first += size
        corpus = Corpus(ref)
        found = [vars(row) for row in corpus.rows(start, stop)]
        assert found == make_rows(start, stop).to_pylist()
        ids = [row["row_id"] for row in found][::-1]
        assert list(corpus.rows_by_id(ids)) == ids
