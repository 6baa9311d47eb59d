"""Work that is kept block by block."""

import time

import numpy as np
import pytest

from tasks.evaluate.kept_lines import kept_lines


class Counting:
    def __init__(self) -> None:
        self.total, self.done = 0, 0

    def start(self, *, total: int, unit: str) -> None:
        self.total = total

    def advance(self, n_units: int) -> None:
        self.done += n_units


def _lines(places: range) -> np.ndarray:
    return np.array([[place, place**2] for place in places], dtype=np.float16)


def test_a_stopped_run_goes_on_at_the_block_it_was_in(tmp_path):
    made: list[int] = []

    def stops(places: range) -> np.ndarray:
        made.extend(places)
        if 6 in places:
            raise KeyboardInterrupt
        return _lines(places)

    def goes_on(places: range) -> np.ndarray:
        made.extend(places)
        return _lines(places)

    with pytest.raises(KeyboardInterrupt):
        kept_lines(tmp_path / "w", 8, stops, block=3)
    progress = Counting()
    kept = kept_lines(tmp_path / "w", 8, goes_on, progress, block=3)
    assert made == [*range(8), 6, 7]  # only the block that was not finished is made again
    np.testing.assert_array_equal(kept.values, _lines(range(8)))
    assert kept.values.dtype == np.float16
    assert (progress.total, progress.done) == (8, 8)


def test_seconds_are_those_of_all_runs(tmp_path):
    def slow(places: range) -> np.ndarray:
        time.sleep(0.02)
        return _lines(places)

    first = kept_lines(tmp_path, 4, slow, block=2)
    again = kept_lines(tmp_path, 4, _lines, block=2)
    assert again.seconds == first.seconds >= 0.04


def test_nothing_to_do_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 0"):
        kept_lines(tmp_path, 0, _lines)
