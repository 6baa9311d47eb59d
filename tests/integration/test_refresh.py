"""An inbox over several refreshes: only news is read, and the end is that of one clean run."""

from pathlib import Path

import pyarrow as pa
import pytest
from refresh_samples import refresh, refresh_settings, rows, touch_later, write_inbox_file

from storage.cursor import Cursor
from storage.refs import CorpusRef
from storage.releases import open_release
from storage.tombstones import Tombstones
from tasks.catalog import trace, verify_store
from tasks.config import PipelineConfig
from tasks.refresh import look, take_inbox


@pytest.fixture(name="config")
def inbox_config(tmp_path: Path, tiny_llama: Path) -> PipelineConfig:
    return refresh_settings(tmp_path, tiny_llama)


@pytest.fixture(name="inbox")
def inbox_folder(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


def released(config: PipelineConfig, report) -> pa.Table:
    return open_release(report.release.ref).rows()


def kinds(config: PipelineConfig) -> list[tuple[str, int]]:
    records = Tombstones(CorpusRef(config.store, "main")).records
    return [(record.kind, record.n_rows) for record in records]


def test_only_news_is_read_and_sketched_and_no_news_is_nothing(config, inbox):
    write_inbox_file(inbox / "a.jsonl", rows(0, 16))
    first = refresh(config)
    assert first.index.n_rows == 16
    assert refresh(config).outlook.nothing
    touch_later(inbox / "a.jsonl", 5)
    assert not look(config).nothing
    assert refresh(config).intake.taken == ()
    assert refresh(config).outlook.nothing

    write_inbox_file(inbox / "b.jsonl", rows(16, 30))
    second = refresh(config)
    assert [one.name for one in second.intake.taken] == [str(inbox / "b.jsonl")]
    assert (second.index.n_rows, second.index.n_sketched) == (30, 14)
    assert second.release.ref != first.release.ref
    assert refresh(config).outlook.nothing
    assert verify_store(config.store) == []


def test_changed_and_dropped_rows_are_never_released_again(config, inbox):
    write_inbox_file(inbox / "a.jsonl", rows(0, 20))
    write_inbox_file(inbox / "b.jsonl", rows(20, 30))
    first = released(config, refresh(config))
    gone, changed = first["row_id"].to_pylist()[:2]
    content = rows(0, 30)
    newer = {**content, changed: content[changed] + " Or so."}
    del newer[gone]
    ids = list(content)
    write_inbox_file(inbox / "a.jsonl", {k: newer[k] for k in ids[:20] if k in newer})
    write_inbox_file(inbox / "b.jsonl", {k: newer[k] for k in ids[20:] if k in newer})
    again = refresh(config)
    assert sorted(kinds(config)) == [("changed", 1), ("withdrawn", 1)]
    assert again.index.n_rows == 31
    table = released(config, again)
    assert gone not in table["row_id"].to_pylist()
    assert not set(table["text"].to_pylist()) & {content[gone], content[changed]}
    steps = trace(config.store, changed)
    assert [step["kind"] for step in steps][:3] == ["source", "row", "batch"]
    assert steps[2]["detail"]["position"] == 30
    assert verify_store(config.store) == []


def test_the_end_is_that_of_one_clean_run(tmp_path, tiny_llama):
    config = refresh_settings(tmp_path, tiny_llama)
    inbox = tmp_path / "inbox"
    write_inbox_file(inbox / "b.jsonl", rows(10, 22))
    refresh(config)
    write_inbox_file(inbox / "a.jsonl", rows(0, 10) | rows(12, 14, version=1))  # late, older
    write_inbox_file(inbox / "c.jsonl", rows(22, 30) | rows(20, 21, version=2))
    refresh(config)
    write_inbox_file(inbox / "b.jsonl", rows(10, 12) | rows(15, 22) | rows(30, 33))
    (inbox / "d.jsonl").write_bytes((inbox / "c.jsonl").read_bytes())
    last = refresh(config)

    clean = config.model_copy(update={"store": str(tmp_path / "clean")})
    whole = refresh(clean)
    same = ["row_id", "text", "prompt", "completion", "score", "rank", "label", "n_tokens"]
    assert released(config, last).select(same).equals(released(clean, whole).select(same))
    attributes = ["row_id", "percentile", "z", "false_discovery"]
    found = [open_release(one.release.ref).attributes() for one in (last, whole)]
    assert found[0].select(attributes).equals(found[1].select(attributes))


def test_a_refused_file_stops_nothing_and_is_read_again_when_it_changes(config, inbox):
    write_inbox_file(inbox / "a.jsonl", rows(0, 16))
    refresh(config)
    (inbox / "b.jsonl").write_text('{"id": "x", "body": "of other fields"}\n' * 3)
    write_inbox_file(inbox / "c.jsonl", rows(16, 24))
    report = refresh(config)
    (one,) = report.intake.refused
    assert one.name.endswith("b.jsonl")
    assert "missing field" in one.reason
    assert one.now
    assert Path(one.report).is_file()
    assert report.index.n_rows == 24
    assert any("b.jsonl is refused" in text for text in report.intake.warnings)
    later = refresh(config).outlook
    assert later.nothing
    assert [one.now for one in later.refused] == [False]
    write_inbox_file(inbox / "b.jsonl", rows(30, 34))
    mended = refresh(config)
    assert mended.intake.refused == ()
    assert mended.index.n_rows == 28


def test_a_file_that_turns_bad_keeps_what_was_in_use(config, inbox):
    write_inbox_file(inbox / "a.jsonl", rows(0, 16))
    refresh(config)
    (inbox / "a.jsonl").write_text("{broken\n" * 16)
    assert refresh(config).index.n_rows == 16
    assert kinds(config) == []
    write_inbox_file(inbox / "a.jsonl", rows(1, 16))
    refresh(config)
    assert kinds(config) == [("withdrawn", 1)]


def test_a_version_that_returns_lives_again(config, inbox):
    first, second = rows(0, 12), rows(0, 12, version=1)
    for content in (first, second, first, second):
        write_inbox_file(inbox / "a.jsonl", content)
        table = released(config, refresh(config))
        assert set(table["text"].to_pylist()) <= set(content.values())
    assert kinds(config) == [("changed", 12)] * 3
    assert len(Cursor(CorpusRef(config.store, "main")).entries) == 1


def test_deleted_files_keep_their_rows_unless_they_are_to_be_withdrawn(config, inbox):
    write_inbox_file(inbox / "a.jsonl", rows(0, 16))
    write_inbox_file(inbox / "b.jsonl", rows(10, 24))
    refresh(config)
    (inbox / "b.jsonl").unlink()
    assert refresh(config).index.n_rows == 24
    assert refresh(config).outlook.nothing
    settings = config.refresh.model_copy(update={"withdraw_deleted": True})
    strict = config.model_copy(update={"refresh": settings})
    report = refresh(strict)
    # rows 10 to 15 are in the other file as well, with the same content
    assert report.intake.withdrawn == ((str(inbox / "b.jsonl"), 8),)
    assert refresh(strict).outlook.nothing


def test_an_empty_inbox_and_a_folder_without_rows(config, inbox):
    inbox.mkdir()
    report = refresh(config)
    assert report.intake.n_batches == 0
    assert "matches nothing" in report.intake.warnings[0]
    (inbox / "a.jsonl").write_text("")
    assert take_inbox(config).waiting == (f"{inbox / 'a.jsonl'}: it is empty",)
