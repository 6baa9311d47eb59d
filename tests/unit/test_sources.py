"""Sources stream every record with its place, and a bad line costs one record."""

import gzip
import os
import socket
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_samples import read, texts, write_jsonl

from tasks.config import DatasetSource, FilesSource, RowLimits
from tasks.sources import expand, pinned, read_records, source_identity

PACK = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("ending", PACK)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=8))
def test_json_lines_come_back_as_they_were(
    tmp_path: Path, ending: str, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(PACK[ending](b"\n".join(orjson.dumps(row) for row in rows)))
    records = read(path)
    assert [record.value for record in records] == rows
    assert [record.location for record in records] == [
        f"{path}:{number}" for number in range(1, len(rows) + 1)
    ]


@pytest.mark.parametrize("ending", PACK)
def test_a_bad_line_is_reported_and_the_next_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    lines = [b'{"text": "a"}', b"", b'{"text": ', b"[1]", b'{"text": "\xff"}', b'{"text": "b"}\r']
    path.write_bytes(PACK[ending](b"\xef\xbb\xbf" + b"\n".join(lines)))
    records = read(path)
    assert [(record.line, record.value) for record in records if record.error is None] == [
        (1, {"text": "a"}),
        (6, {"text": "b"}),
    ]
    errors = {record.line: record for record in records if record.error is not None}
    assert sorted(errors) == [3, 4, 5]
    assert errors[3].error.startswith("malformed JSON: ")
    assert errors[3].raw == '{"text": '
    assert "expected {...} with named fields, got a list" in errors[4].error
    before = len(b"\xef\xbb\xbf" + b"\n".join(lines[:4]) + b"\n")
    assert f"byte 0xff at byte 10 of the line (byte {before + 10} of the text)" in errors[5].error


def test_streams_of_several_members_are_one_file(tmp_path: Path) -> None:
    one, two = b'{"text": "a"}\n', b'{"text": "b"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(one) + gzip.compress(two))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(one) + zstandard.compress(two))
    for path in sorted(tmp_path.iterdir()):
        assert [record.value for record in read(path)] == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst"])
def test_a_cut_stream_names_the_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    packed = PACK[ending](os.urandom(3000).hex().encode() + b"\n")
    path.write_bytes(packed[:-10])
    with pytest.raises(ValueError, match=r"damaged or cut off .* again") as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_the_limit_of_a_line_counts_its_bytes_alone(tmp_path: Path) -> None:
    limits = RowLimits(max_line_bytes=1024)
    fits = b'{"text": "' + b"x" * (1024 - 12) + b'"}'
    path = write_jsonl(tmp_path / "rows.jsonl", [fits + b"\r", fits + b" ", fits])
    records = read(path, limits=limits)
    assert [record.error is None for record in records] == [True, False, True]
    assert records[1].error.startswith("line too long: 1,025 bytes, at most 1,024")


def test_progress_counts_the_bytes_on_the_disk(tmp_path: Path) -> None:
    rows = b"".join(orjson.dumps(row) + b"\n" for row in texts(5000))
    paths = []
    for ending, pack in PACK.items():
        paths.append(tmp_path / f"rows.{ending}")
        paths[-1].write_bytes(pack(rows))
    paths.append(tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(texts(5000)), paths[-1])
    for path in paths:
        seen: list[int] = []
        source = FilesSource(paths=(str(path),))
        assert len(list(read_records(source, RowLimits(), advance=seen.append))) == 5000
        assert sum(seen) == pytest.approx(path.stat().st_size, abs=len(seen))


def test_parquet_records_are_numbered_through_batches(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"text": f"t{i}", "n": i, "tags": ["a"]} for i in range(2500)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=700)
    records = read(path)
    assert [record.value for record in records] == rows
    assert [record.line for record in records] == list(range(1, 2501))


def test_parquet_text_that_is_no_utf8_costs_one_record(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"bad \xff", b"fine"], pa.binary())
    table = pa.table({"text": pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])})
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    records = read(path)
    assert [record.value for record in records] == [{"text": "good"}, None, {"text": "fine"}]
    assert records[1].error.startswith("not UTF-8: byte 0xff at byte 4")
    assert records[1].line == 2


def test_damaged_parquet_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(texts(100)), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="expected a whole Parquet file") as raised:
        read(path)
    assert str(path) in str(raised.value)


def test_csv_values_are_strings_and_lines_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,text\r\n"
        b'007,"two\r\nlines"\r\n'
        b"\r\n"
        b"8,one,too many\r\n"
        b"9,bad \xff\r\n"
        b'10,"quoted, ""text"""\r\n'
    )
    records = read(path)
    assert [(record.line, record.value) for record in records] == [
        (2, {"id": "007", "text": "two\nlines"}),
        (5, None),
        (6, None),
        (7, {"id": "10", "text": 'quoted, "text"'}),
    ]
    assert records[1].error == "malformed CSV: expected 2 values (id, text), got 3"
    assert records[2].error.startswith("not UTF-8: byte 0xff at byte 6")


def test_an_unclosed_quote_is_an_error_and_not_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text\ngood\n"never closed\nand so on\n')
    records = read(path)
    assert records[0].value == {"text": "good"}
    assert records[-1].error.startswith("malformed CSV: ")
    assert records[-1].line == 3


def test_a_csv_header_with_a_repeated_column_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,text\na,b\n")
    with pytest.raises(ValueError, match="expected column names, each once"):
        read(path)


def test_paths_expand_sorted_and_without_repeats(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "deep/c.parquet", ".hidden.jsonl", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    pattern, one, folder = f"{tmp_path}/*.jsonl", f"{tmp_path}/a.jsonl", str(tmp_path)
    names = [name for _, name in expand(FilesSource(paths=(pattern, one, folder)))]
    assert names == [f"{tmp_path}/{name}" for name in ("a.jsonl", "b.jsonl", "deep/c.parquet")]


def test_a_file_whose_name_looks_like_a_pattern_is_found(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows[1].jsonl", texts(1))
    assert [record.value for record in read(path)] == texts(1)


def test_the_format_can_be_named_where_the_ending_does_not_tell(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.txt", texts(2))
    with pytest.raises(ValueError, match=r"set source\.format to jsonl, parquet or csv"):
        read(path)
    assert len(read(path, format="jsonl")) == 2


@pytest.mark.parametrize("given_path", ["nothing.jsonl", "no*.jsonl", "empty-folder"])
def test_a_path_that_matches_nothing_is_named(tmp_path: Path, given_path: str) -> None:
    (tmp_path / "empty-folder").mkdir()
    with pytest.raises(ValueError, match="expected a ") as raised:
        read(tmp_path / given_path)
    assert str(tmp_path / given_path) in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", r"the file is empty \(0 bytes\)"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "expected at least one record, found none"),
        ("a.jsonl", b"\n\n", "expected at least one record, found none"),
        ("a.csv", b"text\n", "expected at least one record, found none"),
    ],
)
def test_a_file_without_records_is_an_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def test_identity_is_the_path_as_given_and_the_bytes(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(3))
    source = FilesSource(paths=(str(path),))
    first = source_identity(source)
    assert first == source_identity(source)
    assert first[0]["path"] == str(path)
    assert first[0]["bytes"] == path.stat().st_size
    write_jsonl(path, texts(3, start=1))
    assert source_identity(source)[0]["sha256"] != first[0]["sha256"]


# ------------------------------------------------------------------------------------ datasets


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to look up a host name fails the test."""

    def refuse(host: str, *_: Any, **__: Any) -> None:
        raise AssertionError(f"tried to reach {host}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def _read_dataset(path: Path, **settings: Any) -> list[tuple[str, Any]]:
    source = DatasetSource(path=str(path), **settings)
    return [(record.location, record.value) for record in read_records(source, RowLimits())]


@pytest.mark.usefixtures("no_network")
def test_datasets_on_disk_are_read_however_they_were_saved(tmp_path: Path) -> None:
    from tasks.offline import forbid_network

    forbid_network(online=False)
    import datasets

    rows = texts(5)
    dataset = datasets.Dataset.from_list(rows)
    dataset.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": dataset}).save_to_disk(tmp_path / "dict")
    (tmp_path / "folder").mkdir()
    write_jsonl(tmp_path / "folder" / "train.jsonl", rows)
    for name in ("saved", "dict", "folder"):
        path = tmp_path / name
        assert _read_dataset(path) == [
            (f"{path}[train]:{number}", row) for number, row in enumerate(rows, start=1)
        ]
    with pytest.raises(ValueError, match="it has the splits train"):
        _read_dataset(tmp_path / "dict", split="test")
    with pytest.raises(ValueError, match="with split 'nope'; loading failed"):
        _read_dataset(tmp_path / "folder", split="nope")


@pytest.mark.usefixtures("no_network")
def test_a_malformed_file_in_a_dataset_folder_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [*texts(3), "{broken"])
    with pytest.raises(ValueError, match=r"reading failed after record .*kind: files"):
        _read_dataset(tmp_path)


@pytest.mark.usefixtures("no_network")
def test_a_hub_dataset_needs_leave_to_use_the_network() -> None:
    source = DatasetSource(path="nobody/no-such-set")
    with pytest.raises(ValueError, match=r"set source\.online to true"):
        list(read_records(source, RowLimits()))
    with pytest.raises(ValueError, match=r"set source\.online to true"):
        source_identity(source)


def test_a_dataset_folder_is_identified_by_its_files(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", texts(3))
    source = DatasetSource(path=str(tmp_path))
    first = source_identity(source)
    assert first == source_identity(source)
    write_jsonl(tmp_path / "train.jsonl", texts(4))
    assert source_identity(source) != first


def test_a_hub_dataset_is_read_at_the_commit_that_identified_it() -> None:
    source = DatasetSource(path="someone/rows", revision="main", online=True)
    assert pinned(source, [{"dataset": "someone/rows", "revision": "0abc"}]) == (
        source.model_copy(update={"revision": "0abc"})
    )
    folder = DatasetSource(path="rows")
    assert pinned(folder, [{"dataset": "rows", "sha256": "1f"}]) == folder
