"""Of several places of a row the newest counts."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tasks.row_places import gone_ids, newest_places


@given(st.lists(st.sampled_from("abcde")), st.integers(0, 5))
def test_newest_places_are_the_last_with_their_id(ids: list[str], cut: int) -> None:
    column = pa.chunked_array([ids[:cut], ids[cut:]], pa.string())
    expected = [name not in ids[place + 1 :] for place, name in enumerate(ids)]
    assert newest_places(column).tolist() == expected


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans())))
def test_ids_are_gone_when_their_newest_place_is_dead(rows: list[tuple[str, bool]]) -> None:
    column = pa.chunked_array([[name for name, _ in rows]], pa.string())
    dead = np.array([place for place, (_, is_dead) in enumerate(rows) if is_dead], np.int64)
    last = dict(rows)
    gone = gone_ids(column, dead).to_pylist()
    assert len(gone) == len(set(gone))
    assert set(gone) == {name for name, is_dead in last.items() if is_dead}
