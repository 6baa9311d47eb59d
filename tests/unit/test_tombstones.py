"""Records of dead rows: added in order, read back as they were, of three kinds."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from store_samples import add_batch

from storage.errors import BusyError, FormatVersionError
from storage.refs import CorpusRef
from storage.tombstones import TOMBSTONE_SCHEMA, BarredRows, Bars, Tombstones, TombstoneWriter

TIME = "2026-01-02T03:04:05Z"


@pytest.fixture
def ref(tmp_path: Path) -> CorpusRef:
    ref = CorpusRef(str(tmp_path / "store"), "main")
    add_batch(ref, "b1", 0, 6)
    add_batch(ref, "b2", 6, 10)
    return ref


def table(*lines):
    names = TOMBSTONE_SCHEMA.names
    return pa.Table.from_pylist(
        [dict(zip(names, line, strict=True)) for line in lines], schema=TOMBSTONE_SCHEMA
    )


def add(ref, *lines, kind="takedown", bars=Bars(row_ids=True)):  # noqa: B008 - frozen
    with TombstoneWriter(ref) as writer:
        return writer.commit(table(*lines), kind=kind, reason="why", time=TIME, bars=bars)


def test_records_come_back_in_order(ref):
    assert Tombstones(ref).records == []
    first = add(ref, ("row-000001", "h1", "b1", 1))
    second = add(ref, ("row-000007", "h7", "b2", 1), ("later", None, None, None), kind="changed")
    found = Tombstones(ref)
    assert found.records == [first, second]
    assert [record.sequence for record in found.records] == [1, 2]
    assert [record.kind for record in found.records] == ["takedown", "changed"]
    assert [record.n_rows for record in found.records] == [1, 1]
    assert found.records[0].time == TIME
    lines = table(("row-000007", "h7", "b2", 1), ("later", None, None, None))
    assert found.records[1].rows().equals(lines)
    assert found.find("row-000001") == [first]
    assert found.find("later") == [second]
    assert found.find("row-000002") == []
    assert found.verify() == []


def test_positions_follow_the_order_of_batches(ref):
    add(ref, ("row-000001", "h", "b1", 1), ("row-000008", "h", "b2", 2))
    add(ref, ("row-000001", "h", "b1", 1), ("absent", None, None, None))
    found = Tombstones(ref)
    np.testing.assert_array_equal(found.positions({"b1": 0, "b2": 6}), [1, 8])
    np.testing.assert_array_equal(found.positions({"b2": 0, "b1": 4}), [2, 5])
    np.testing.assert_array_equal(found.positions({"b2": 0}), [2])
    assert found.positions({}).tolist() == []
    assert Tombstones(CorpusRef(ref.root, "other")).positions({"b1": 0}).tolist() == []


def test_bars(ref):
    add(ref, ("a", "hash-a", "b1", 0), bars=Bars(row_ids=True, content=True))
    add(ref, ("b", "hash-b", "b1", 1), bars=Bars(row_ids=True, sources=("data/*.csv", "web/[x]")))
    add(ref, ("c", "hash-c", "b1", 2), kind="withdrawn", bars=Bars())
    barred = BarredRows(Tombstones(ref))
    assert barred.bars("a", "other")
    assert barred.bars("other", "hash-a")
    assert barred.bars("b", "other")
    assert not barred.bars("other", "hash-b")
    assert not barred.bars("c", "hash-c")
    assert barred.bars_source("data/deep/x.csv")
    assert barred.bars_source("web/x")
    assert barred.bars_source("web/[x]")  # a name with brackets, not only the pattern
    assert not barred.bars_source("data/x.csv.gz")
    assert not barred.bars_source("DATA/x.csv")


def test_the_time_does_not_enter_the_id(ref, tmp_path):
    other = CorpusRef(str(tmp_path / "other"), "main")
    add_batch(other, "b1", 0, 6)
    one = add(ref, ("row-000001", "h1", "b1", 1))
    with TombstoneWriter(other) as writer:
        two = writer.commit(
            table(("row-000001", "h1", "b1", 1)),
            kind="takedown",
            reason="why",
            time="2030-01-01T00:00:00Z",
            bars=Bars(row_ids=True),
        )
    assert one.record_id == two.record_id


def test_faults(ref):
    with pytest.raises(ValueError, match="a tombstone is one of"):
        add(ref, ("a", "h", "b1", 0), kind="forgotten")
    assert Tombstones(ref).records == []
    record = add(ref, ("a", "h", "b1", 0))
    with TombstoneWriter(ref), pytest.raises(BusyError), TombstoneWriter(ref):
        pass
    (record.folder / "rows.parquet").write_bytes(b"nothing")
    assert len(Tombstones(ref).verify()) == 1
    (record.folder / "tombstone.json").write_text("{}")
    with pytest.raises(FormatVersionError):
        Tombstones(ref)
