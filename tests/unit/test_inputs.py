"""Files at URLs are found and read as files on disk are, as streams."""

import gzip
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from source_samples import read, texts, write_jsonl

from storage.errors import NotFoundError
from storage.inputs import RemoteFile, ReplacedError, exported_folder, input_file, remote_files
from storage.objects import StoredObject
from tasks.config import DatasetSource, FilesSource, RowLimits
from tasks.inbox import list_inbox
from tasks.records import Record
from tasks.sources import read_records, source_identity


@pytest.fixture
def url() -> Iterator[str]:
    name = f"memory://{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    memory.mkdir(name)
    yield name
    memory.rm(name, recursive=True)


def _fill(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    plain = write_jsonl(folder / "a.jsonl", [*texts(3), "not json", *texts(2, start=3)])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (folder / "deep" / "c.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    pq.write_table(pa.table({"text": [f"row {n}" for n in range(2000)]}), folder / "d.parquet")
    (folder / "e.csv").write_text('id,text\n1,one\n2,"two\nlines"\n')
    (folder / "notes.txt").write_text("not rows")
    (folder / ".hidden.jsonl").write_text("not rows")


def _read(given: str) -> list[Record]:
    return list(read_records(FilesSource(paths=(given,)), RowLimits()))


@pytest.mark.parametrize("pattern", ["", "/a.jsonl", "/*.jsonl*", "/**/*.zst", "/[de].*"])
def test_rows_at_a_url_are_those_on_disk(url: str, tmp_path: Path, pattern: str) -> None:
    _fill(tmp_path / "in")
    fsspec.filesystem("memory").put(f"{tmp_path}/in/", f"{url}/in/", recursive=True)
    here, there = _read(f"{tmp_path}/in{pattern}"), _read(f"{url}/in{pattern}")
    renamed = [replace(record, source=record.source.replace(str(tmp_path), url)) for record in here]
    assert there == renamed
    assert len(there) > 1
    source = FilesSource(paths=(f"{url}/in{pattern}",))
    files = source_identity(FilesSource(paths=(f"{tmp_path}/in{pattern}",)))
    assert [one["sha256"] for one in source_identity(source)] == [one["sha256"] for one in files]
    assert [file.n_bytes for file in list_inbox(source)] == [one["bytes"] for one in files]


def test_what_is_wrong_with_a_url_is_said(url: str) -> None:
    with pytest.raises(ValueError, match=r"memory://.*nothing\*: expected a file, .* matches noth"):
        _read(f"{url}/nothing*")
    with pytest.raises(ValueError, match="matches nothing"):
        _read(f"{url}/nothing.jsonl")
    with pytest.raises(NotFoundError):
        input_file(f"{url}/nothing").open("rb")
    fsspec.filesystem("memory").pipe_file(f"{url}/in/notes.txt", b"text")
    with pytest.raises(ValueError, match="expected a folder with files ending in"):
        _read(f"{url}/in")
    fsspec.filesystem("memory").pipe_file(
        f"{url}/cut.jsonl.gz", gzip.compress(uuid.uuid4().bytes * 99)[:25]
    )
    with pytest.raises(ValueError, match=r"expected a whole \.gz stream"):
        _read(f"{url}/cut.jsonl.gz")
    with pytest.raises(ValueError, match="expected a dataset folder on disk or a hub id, got a UR"):
        source_identity(DatasetSource(path=f"{url}/in"))


def test_versions_of_one_second_and_size_differ() -> None:
    seen = StoredObject(10, "tag of one", 1_700_000_000 * 10**9)
    one = RemoteFile("s3://bucket/a", seen).stat()
    other = RemoteFile("s3://bucket/a", replace(seen, tag="tag of another")).stat()
    assert one.st_size == other.st_size
    assert one.st_mtime_ns != other.st_mtime_ns
    assert one.st_mtime_ns // 10**9 == other.st_mtime_ns // 10**9 == 1_700_000_000


def test_an_object_that_is_replaced_while_it_is_read_is_told_from_a_damaged_one(
    s3_bucket: str,
) -> None:
    s3, name = fsspec.filesystem("s3"), f"{s3_bucket}/a.jsonl"
    line = b'{"text": "%s"}\n' % (b"x" * 1000)
    s3.pipe_file(name, line * 40_000)
    records = read_records(FilesSource(paths=(name,)), RowLimits())
    assert next(records).error is None
    s3.pipe_file(name, line * 39_000)
    with pytest.raises(ReplacedError, match="was replaced while it was read"):
        list(records)


def test_an_export_is_there_whole_or_not_at_all(url: str) -> None:
    with pytest.raises(FileExistsError), exported_folder(f"{url}/out") as folder:
        _fail_half_way(folder)
    assert remote_files(f"{url}/out") == ([], True)
    with exported_folder(f"{url}/out") as folder:
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "data.bin").write_bytes(b"whole")
    assert [str(file) for file in remote_files(f"{url}/out")[0]] == [f"{url}/out/deep/data.bin"]
    with pytest.raises(FileExistsError, match="exists"), exported_folder(f"{url}/out"):
        pytest.fail("there is something already")


def _fail_half_way(folder: Path) -> None:
    folder.mkdir()
    (folder / "data.bin").write_bytes(b"half")
    folder.mkdir()


def test_reading_helpers_take_paths_as_before(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", texts(2))
    assert [record.value for record in read(path)] == texts(2)
    assert input_file(path.as_uri()) == path
