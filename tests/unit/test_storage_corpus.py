from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_samples import add_batch, make_rejected, make_rows, tree_bytes

from storage.corpus import BatchWriter, Corpus, find_batch
from storage.errors import NotFoundError
from storage.refs import BatchRef, CorpusRef
from storage.rows import REJECTED_SCHEMA, ROW_GROUP_ROWS, ROW_SCHEMA, conform


@pytest.fixture(name="ref")
def corpus_ref(tmp_path: Path) -> CorpusRef:
    return CorpusRef(str(tmp_path / "store"), "main")


@pytest.fixture(name="corpus")
def two_batches(ref: CorpusRef) -> Corpus:
    add_batch(ref, "first", 0, 7, part_rows=3)
    add_batch(ref, "a-second", 7, 12, part_rows=4)
    return Corpus(ref)


def test_batches_stay_in_the_order_of_their_commit(corpus: Corpus, ref: CorpusRef) -> None:
    expected = [BatchRef(ref.root, "main", name) for name in ("first", "a-second")]
    assert Corpus.batches(ref) == expected
    assert corpus.n_rows == 12
    assert corpus.row_ids()["row_id"].to_pylist() == [f"row-{number:06d}" for number in range(12)]
    assert corpus.row_ids().column_names == ["row_id", "content_hash"]
    assert corpus.manifest("a-second")["sequence"] == 2
    assert corpus.manifest("first")["note"] == "sample"
    assert corpus.verify() == []


@pytest.mark.parametrize(("start", "stop"), [(0, 12), (0, 0), (2, 3), (2, 9), (6, 8), (11, 12)])
def test_rows_by_position_cross_parts_and_batches(corpus: Corpus, start: int, stop: int) -> None:
    assert [row.source_line for row in corpus.rows(start, stop)] == list(range(start + 1, stop + 1))


def test_rows_keep_every_field(corpus: Corpus) -> None:
    (row,) = corpus.rows(5, 6)
    assert vars(row) == make_rows(5, 6).to_pylist()[0]
    assert row.label is None


def test_some_batches_are_a_corpus_of_their_own(corpus: Corpus) -> None:
    assert corpus.rows(0, 1, batches=["a-second"])[0].row_id == "row-000007"
    assert corpus.row_ids(["a-second", "first"])["row_id"][0].as_py() == "row-000007"
    tables = corpus.iter_tables(batches=["a-second"], columns=["n_tokens"])
    assert [table.num_rows for table in tables] == [4, 1]
    with pytest.raises(NotFoundError, match="no batch 'third'"):
        corpus.row_ids(["third"])


def test_a_range_outside_of_the_corpus_is_refused(corpus: Corpus) -> None:
    for start, stop in [(-1, 2), (0, 13), (5, 4)]:
        with pytest.raises(ValueError, match="has rows 0 to 11"):
            corpus.rows(start, stop)


def test_rows_by_id_come_in_the_order_asked_for(corpus: Corpus) -> None:
    wanted = ["row-000009", "row-000000", "row-000006"]
    found = corpus.rows_by_id(wanted)
    assert list(found) == wanted
    assert [row.source_line for row in found.values()] == [10, 1, 7]
    with pytest.raises(NotFoundError, match=r"no row 'x' \(1 of 2 ids are missing\)"):
        corpus.rows_by_id(["row-000001", "x"])


def test_a_row_is_located_in_its_batch_and_in_the_corpus(corpus: Corpus) -> None:
    place = corpus.locate("row-000011")
    assert (place.batch_id, place.position_in_batch, place.position) == ("a-second", 4, 11)
    assert place.row.row_id == "row-000011"
    (same,) = corpus.find_source("data/train.jsonl", 12)
    assert same == place
    assert corpus.find_source("data/train.jsonl", 13) == []
    assert corpus.find_source("other.jsonl", 12) == []


def test_finding_a_row_reads_only_the_row_group_that_it_is_in(
    ref: CorpusRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_batch(ref, "big", 0, 3 * ROW_GROUP_ROWS, part_rows=10_000)
    read: list[tuple[int, list[str] | None]] = []
    whole = pq.ParquetFile.read_row_group

    def spy(file: pq.ParquetFile, group: int, **options: list[str]) -> pa.Table:
        read.append((group, options.get("columns")))
        return whole(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    corpus = Corpus(ref)
    assert corpus.locate(f"row-{2 * ROW_GROUP_ROWS:06d}").position == 2 * ROW_GROUP_ROWS
    assert [group for group, columns in read if columns is None] == [2]
    assert {tuple(columns) for _, columns in read if columns} == {("row_id",)}
    read.clear()
    corpus.rows(ROW_GROUP_ROWS + 1, ROW_GROUP_ROWS + 3)
    assert read == [(1, None)]


def test_an_open_corpus_does_not_change(corpus: Corpus, ref: CorpusRef) -> None:
    add_batch(ref, "third", 12, 13)
    assert corpus.n_rows == 12
    assert Corpus(ref).n_rows == 13


def test_a_batch_is_committed_once(corpus: Corpus, ref: CorpusRef) -> None:
    before = tree_bytes(Path(ref.root))
    assert add_batch(ref, "first", 50, 60) == BatchRef(ref.root, "main", "first")
    assert tree_bytes(Path(ref.root)) == before
    assert find_batch(ref, "first") is not None


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        add_batch(CorpusRef(str(tmp_path / name), "main"), "b", 0, 3000, part_rows=1100)
    assert tree_bytes(tmp_path / "one") == tree_bytes(tmp_path / "two")


def test_without_commit_nothing_stays(ref: CorpusRef) -> None:
    with BatchWriter(ref, "b1") as writer:
        writer.add(make_rows(0, 3))
    with pytest.raises(ValueError, match="expected the columns"), BatchWriter(ref, "b1") as writer:
        writer.add(make_rows(0, 3).drop_columns(["text"]))
    assert sorted(tree_bytes(Path(ref.root))) == ["rise-store.json"]
    assert Corpus.batches(ref) == []


def test_rejected_records_are_kept_with_their_batch(ref: CorpusRef) -> None:
    with BatchWriter(ref, "b1") as writer:
        writer.add(make_rows(0, 3))
        writer.reject(make_rejected(4))
        writer.reject(make_rejected(9))
        (writer.staging / "quality").mkdir()
        (writer.staging / "quality" / "index.html").write_text("report")
        writer.commit({})
    corpus = Corpus(ref)
    assert corpus.rejected("b1")["location"].to_pylist() == [
        "data/train.jsonl:4",
        "data/train.jsonl:9",
    ]
    assert corpus.rejected("b1").schema.equals(REJECTED_SCHEMA)
    assert (corpus.manifest("b1")["n_rows"], corpus.manifest("b1")["n_rejected"]) == (3, 2)
    assert (corpus.folder("b1") / "quality" / "index.html").read_text() == "report"


def test_a_refused_batch_leaves_its_report_only(ref: CorpusRef) -> None:
    for line in (4, 9):
        with BatchWriter(ref, "bad") as writer:
            writer.add(make_rows(0, 3))
            writer.reject(make_rejected(line))
            folder = writer.refuse({"share": 0.5})
    assert Corpus.batches(ref) == []
    assert folder == Path(ref.root) / "corpora" / "main" / "refused" / "bad"
    assert sorted(path.name for path in folder.iterdir()) == ["refused.json", "rejected.parquet"]
    rejected = pq.read_table(folder / "rejected.parquet")
    assert rejected["location"].to_pylist() == ["data/train.jsonl:9"]


def test_tables_of_another_shape_are_refused_by_column() -> None:
    good = make_rows(0, 2)
    with pytest.raises(ValueError, match="expected the columns"):
        conform(good.drop_columns(["label"]), ROW_SCHEMA, what="rows")
    number = good.set_column(1, "text", pa.array([1, 2]))
    with pytest.raises(ValueError, match="text: expected string, got int64"):
        conform(number, ROW_SCHEMA, what="rows")
    null = good.set_column(1, "text", pa.array(["a", None]))
    with pytest.raises(ValueError, match="text: 1 values are null"):
        conform(null, ROW_SCHEMA, what="rows")
    wide = good.set_column(7, "n_tokens", pa.array([1, 2**40]))
    with pytest.raises(ValueError, match="does not fit"):
        conform(wide, ROW_SCHEMA, what="rows")


def test_tables_of_the_same_kind_are_converted() -> None:
    good = make_rows(0, 2)
    other = good.set_column(1, "text", good["text"].cast(pa.large_string()))
    other = other.set_column(7, "n_tokens", other["n_tokens"].cast(pa.int64()))
    assert conform(other, ROW_SCHEMA, what="rows").equals(good)
