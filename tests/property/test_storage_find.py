"""Finding rows by value skips row groups by their statistics, and must still find every row."""

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.rows import find_values, read_positions, write_table

IDS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["a" * 5000, "a" * 5001])


@settings(deadline=None, max_examples=60)
@given(st.lists(IDS, min_size=1, max_size=40), st.lists(IDS, max_size=6), st.booleans())
def test_the_last_place_of_every_value_is_found(
    values: list[str], strangers: list[str], ascending: bool
) -> None:
    values = sorted(values) if ascending else values
    wanted = [*values[::3], *strangers]
    last = {value: place for place, value in enumerate(values)}
    expected = {value: last[value] for value in wanted if value in values}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.parquet"
        for without in ((), ("number",), ("name",)):
            table = pa.table({"name": values, "number": range(len(values))})
            write_table(path, table, row_group_rows=3, without_statistics=without)
            assert find_values(path, "name", wanted) == expected
        places = sorted(expected.values())
        found = read_positions(path, places, columns=["name"])
        assert found.to_pydict() == {"name": [values[place] for place in places]}
