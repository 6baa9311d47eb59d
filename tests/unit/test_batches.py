import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.backbone import TokenRow
from tasks.batches import (
    MAX_BATCH_WINDOWS,
    Window,
    check_token_ids,
    cut_windows,
    make_batch,
    plan_batches,
)
from tasks.signature_config import WindowConfig


def _row(n_tokens: int, first_target: int = 0) -> TokenRow:
    return TokenRow(np.arange(100, 100 + n_tokens, dtype=np.int32), first_target)


def _predicted(rows: list[TokenRow], window: WindowConfig) -> list[tuple[int, int, int]]:
    """Every (row, context token, predicted token) that the batches hold."""
    windows, _ = cut_windows(rows, window)
    found = []
    for chosen in plan_batches(windows, batch_tokens=64):
        batch = make_batch(rows, chosen)
        contexts = batch.ids.reshape(-1)[batch.positions]
        numbers = batch.row_index[batch.window_index]
        assert (np.diff(batch.window_index) >= 0).all()
        assert batch.max_positions == np.bincount(batch.window_index).max()
        found += list(zip(numbers.tolist(), contexts.tolist(), batch.targets.tolist(), strict=True))
    return sorted(found)


def test_position_predicts_the_next_token():
    rows = [_row(4), _row(1), _row(0), _row(3, first_target=2)]
    assert _predicted(rows, WindowConfig(tokens=8, overlap=2)) == [
        (0, 100, 101),
        (0, 101, 102),
        (0, 102, 103),
        (3, 101, 102),
    ]


def test_counts_of_predicted_tokens():
    rows = [_row(4), _row(1), _row(0), _row(3, first_target=2), _row(5, first_target=5)]
    _, counts = cut_windows(rows, WindowConfig(tokens=8, overlap=2))
    assert counts.dtype == np.int32
    assert counts.tolist() == [3, 0, 0, 1, 0]


def test_windows_of_prompt_alone_are_not_read():
    windows, counts = cut_windows([_row(20, first_target=15)], WindowConfig(tokens=8, overlap=2))
    assert windows == [Window(0, 12, 20, 15, 8)]
    assert counts.tolist() == [5]


@given(
    n_tokens=st.integers(0, 60),
    first_target=st.integers(0, 60),
    tokens=st.integers(2, 20),
    share=st.floats(0, 0.99),
)
def test_every_target_with_context_is_predicted(
    n_tokens: int, first_target: int, tokens: int, share: float
):
    overlap = int(share * tokens)
    rows = [_row(n_tokens, first_target)]
    _, counts = cut_windows(rows, WindowConfig(tokens=tokens, overlap=overlap))
    found = _predicted(rows, WindowConfig(tokens=tokens, overlap=overlap))
    assert all(context + 1 == target for _, context, target in found)
    targets = {target - 100 for _, _, target in found}
    assert counts[0] == len(targets)
    assert all(target >= max(first_target, 1) for target in targets)
    if overlap:
        assert targets == set(range(max(first_target, 1), n_tokens))


@given(lengths=st.lists(st.integers(2, 40), max_size=60), batch_tokens=st.integers(1, 200))
def test_batches_hold_every_window_once_within_the_budget(lengths: list[int], batch_tokens: int):
    windows = [Window(number, 0, length, 1) for number, length in enumerate(lengths)]
    batches = plan_batches(windows, batch_tokens=batch_tokens)
    assert sorted(window.row for batch in batches for window in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = {window.padded_tokens for window in batch}
        assert len(padded) == 1  # whatever else is in the batch
        assert len(batch) == 1 or len(batch) * padded.pop() <= batch_tokens
    longest = [batch[0].n_tokens for batch in batches]
    assert longest == sorted(longest, reverse=True)


def test_number_of_windows_a_batch_is_bounded():
    windows = [Window(number, 0, 2, 1) for number in range(3 * MAX_BATCH_WINDOWS)]
    assert [len(b) for b in plan_batches(windows, batch_tokens=10**6)] == [MAX_BATCH_WINDOWS] * 3


def test_like_lengths_waste_little_padding():
    lengths = np.random.default_rng(0).integers(5, 256, 500)
    windows = [Window(number, 0, int(length), 1) for number, length in enumerate(lengths)]
    batches = plan_batches(windows, batch_tokens=4096)
    padded = sum(len(batch) * batch[0].padded_tokens for batch in batches)
    assert padded < 1.05 * lengths.sum()


def test_padding_goes_up_to_a_sixteenth_and_never_beyond_the_window():
    lengths = [1, 17, 32, 33, 64, 65, 129, 200, 250]
    padded = [Window(0, 0, length, 1, 250).padded_tokens for length in lengths]
    assert padded == [1, 17, 32, 34, 64, 68, 136, 200, 250]
    assert Window(0, 5, 255, 6).padded_tokens == 256


def test_unknown_token_names_row_and_id():
    rows = [_row(0), _row(3), TokenRow(np.array([5, 320, 7], np.int32), 0)]
    check_token_ids(rows, ["a", "b", "c"], vocabulary=321)
    with pytest.raises(ValueError, match=r"'c' has token id 320.*0 to 319"):
        check_token_ids(rows, ["a", "b", "c"], vocabulary=320)
