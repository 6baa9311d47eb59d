import pytest

from rise_ops.chunking import window_spans


@pytest.mark.parametrize(
    ("n_tokens", "expected"),
    [
        (0, []),
        (1, [(0, 1)]),
        (256, [(0, 256)]),
        (257, [(0, 256), (206, 257)]),
        (462, [(0, 256), (206, 462)]),
        (463, [(0, 256), (206, 462), (412, 463)]),
    ],
)
def test_windows_of_the_paper(n_tokens, expected):
    assert window_spans(n_tokens, window=256, overlap=50) == expected


@pytest.mark.parametrize(
    ("n_tokens", "window", "overlap"), [(-1, 4, 0), (5, 0, 0), (5, 4, 4), (5, 4, -1)]
)
def test_values_outside_their_range_are_refused_by_value(n_tokens, window, overlap):
    with pytest.raises(ValueError, match="got"):
        window_spans(n_tokens, window=window, overlap=overlap)
