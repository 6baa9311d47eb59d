import itertools

from hypothesis import given
from hypothesis import strategies as st

from rise_ops.chunking import window_spans

WINDOWS = st.integers(1, 40).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, w - 1)))


@given(n_tokens=st.integers(1, 300), sizes=WINDOWS)
def test_windows_cover_every_token_and_each_brings_a_new_one(n_tokens, sizes):
    window, overlap = sizes
    spans = window_spans(n_tokens, window=window, overlap=overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == n_tokens
    assert all(0 < stop - start <= window for start, stop in spans)
    for (start, stop), (next_start, next_stop) in itertools.pairwise(spans):
        assert stop - next_start == overlap
        assert next_stop > stop
        assert stop - start == window
