"""`rise verify` looks at everything: what is damaged is named, and what is only lost is a note."""

import shutil
from pathlib import Path

import pytest
from inbox_samples import inbox_config, put_file, take
from store_samples import add_batch, add_query_set, add_release, add_scores, build

from storage.cursor import Cursor
from storage.refs import CorpusRef, IndexRef
from tasks.integrity import check_store


@pytest.fixture(name="whole", scope="module")
def whole_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    tmp_path = tmp_path_factory.mktemp("whole")
    root = str(tmp_path / "store")
    config = inbox_config(Path(root), tmp_path / "inbox")
    put_file(tmp_path / "inbox" / "a.jsonl", {"x": "one", "y": "two"}, tick=1)
    take(config)
    put_file(tmp_path / "inbox" / "a.jsonl", {"x": "other"}, tick=2)
    put_file(tmp_path / "inbox" / "b.jsonl", {"z": "three"}, tick=2)
    take(config)
    add_batch(CorpusRef(root, "main"), "b1", 0, 10)
    batches = [one.name.partition("-")[2] for one in
               sorted(Path(root, "corpora/main/batches").iterdir())]  # fmt: skip
    index = build(IndexRef(root, "main"), 14, batches)
    add_query_set(root)
    add_scores(root, index)
    add_release(root)
    return root


@pytest.fixture(name="root")
def copied_store(whole: str, tmp_path: Path) -> str:
    return str(shutil.copytree(whole, tmp_path / "store", symlinks=True))


def problems(root: str, *, deep: bool = True) -> list[tuple[str, str]]:
    return [(one.kind, text) for one in check_store(root, deep=deep) for text in one.problems]


def test_a_sound_store_has_every_kind_and_no_problem(root):
    checked = check_store(root)
    assert [one.kind for one in checked] == [
        "batches", "tombstones", "inbox", "index", "query set", "pointer", "scores", "release",
        "pointer",
    ]  # fmt: skip
    assert not any(one.problems or one.notes for one in checked)


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("corpora/main/batches/*-b1/rows-00000.parquet", "batches"),
        ("corpora/main/tombstones/*/rows.parquet", "tombstones"),
        ("corpora/main/inbox/files/*.json", "inbox"),
        ("corpora/main/inbox/listings/*.parquet", "inbox"),
        ("indexes/main/signatures.zarr/signatures/c/0/0", "index"),
        ("indexes/main/index.json", "index"),
        ("queries/facts/v1/signatures.npy", "query set"),
        ("scores/s1/values.parquet", "scores"),
        ("releases/picked/r1/data/*.parquet", "release"),
        ("releases/picked/r1/manifest.json", "release"),
    ],
)
def test_a_flipped_bit_is_found_wherever_it_is_and_only_there(root, pattern, kind):
    path = sorted(Path(root).glob(pattern))[0]
    data = bytearray(path.read_bytes())
    # of a listing the ids: its footer has bytes that nobody reads
    data[30 if "listings" in pattern else len(data) // 2] ^= 1
    path.write_bytes(data)
    assert {found for found, _ in problems(root)} == {kind}
    if path.suffix != ".json" and kind != "inbox":  # sizes alone do not show it
        assert problems(root, deep=False) == []


def test_a_listing_that_is_gone_says_how_to_go_on(root):
    cursor = Cursor(CorpusRef(root, "main"))
    name = next(iter(cursor.entries))
    Path(root, "corpora/main/inbox/listings", cursor.entries[name].listing).unlink()
    ((kind, text),) = problems(root, deep=False)
    assert kind == "inbox"
    assert f"file {name}" in text
    assert "makes the next refresh read the file again" in text


def test_pointers_lead_somewhere(root):
    for link in (Path(root, "releases/picked/latest"), Path(root, "queries/facts/latest")):
        link.unlink()
        link.symlink_to("nobody")
    found = problems(root)
    assert [kind for kind, _ in found] == ["pointer", "pointer"]
    assert "leads to nobody, which is not there" in found[0][1]
    Path(root, "releases/picked/latest").unlink()
    assert "latest is missing" in problems(root)[1][1]


def test_what_was_deleted_on_purpose_is_a_note(root):
    shutil.rmtree(Path(root, "scores/s1"))
    assert problems(root) == []
    (note,) = [text for one in check_store(root) for text in one.notes]
    assert "scores s1 are no longer in the store" in note
