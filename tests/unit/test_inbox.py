"""What is news in an inbox: what is settled, grown, renamed, doubled or deleted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from inbox_samples import inbox_config, living, put_file, take

from storage.cursor import Cursor, CursorEntry
from storage.errors import BusyError, CorruptionError
from storage.refs import CorpusRef
from tasks.config import FilesSource, ModelConfig, PipelineConfig
from tasks.config_file import merged, validated
from tasks.inbox import find_news, list_inbox, reading_settings
from tasks.refresh import look, released_inputs, remember
from tasks.refresh_config import RefreshConfig

ROWS = {"r1": "one", "r2": "two"}


@pytest.fixture(name="inbox")
def inbox_folder(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


@pytest.fixture(name="config")
def config_of(tmp_path: Path, inbox: Path) -> PipelineConfig:
    return inbox_config(tmp_path / "store", inbox)


def changed(config: PipelineConfig, changes: dict) -> PipelineConfig:
    return validated(PipelineConfig, merged(config.model_dump(), changes), origin="test")


def entry_of(config: PipelineConfig, path: Path) -> CursorEntry:
    return Cursor(CorpusRef(config.store, "main")).entries[str(path)]


def test_files_come_in_the_order_of_names_without_what_is_unfinished(inbox):
    for name in ("b.jsonl", "a.jsonl", "c.jsonl.tmp", ".d.jsonl", "e.txt"):
        put_file(inbox / name, ROWS, tick=1)
    (inbox / "deep").mkdir()
    put_file(inbox / "deep" / "f.jsonl", ROWS, tick=1)
    by_folder = list_inbox(FilesSource(paths=(str(inbox),)))
    assert [Path(file.name).name for file in by_folder] == ["a.jsonl", "b.jsonl", "f.jsonl"]
    by_glob = list_inbox(FilesSource(paths=(str(inbox / "*"), str(inbox / "a.jsonl"))))
    assert [Path(file.name).name for file in by_glob] == ["a.jsonl", "b.jsonl", "e.txt"]
    assert list_inbox(FilesSource(paths=(str(inbox / "nothing*"),))) == []


def test_young_and_empty_files_wait_and_times_of_a_wrong_clock_do_not(inbox):
    put_file(inbox / "a.jsonl", ROWS, tick=100)
    put_file(inbox / "b.jsonl", {}, tick=1)
    put_file(inbox / "c.jsonl", ROWS, tick=10**6)
    files = list_inbox(FilesSource(paths=(str(inbox),)))
    news = find_news(files, {}, settings="s", refresh=RefreshConfig(settle_seconds=10), now=105.0)
    assert {Path(name).name: why for name, why in news.waiting.items()} == {
        "a.jsonl": "it changed less than 10 s ago",
        "b.jsonl": "it is empty",
    }
    assert [Path(one.file.name).name for one in news.readings] == ["c.jsonl"]
    later = find_news(files, {}, settings="s", refresh=RefreshConfig(settle_seconds=10), now=110.0)
    assert len(later.readings) == 1  # of two files with the same bytes one is read
    assert [entry.state for entry in later.duplicates] == ["duplicate"]


def test_a_file_that_grows_while_it_is_read_is_left_to_the_next_run(config, inbox, monkeypatch):
    path = inbox / "a.jsonl"
    put_file(path, ROWS, tick=1)

    from tasks import inbox_file

    real = inbox_file.still_there

    def grows(file) -> bool:
        put_file(path, {**ROWS, "r3": "three"}, tick=2)
        return real(file)

    monkeypatch.setattr(inbox_file, "still_there", grows)
    report = take(config)
    assert report.waiting == (f"{path}: it changed while it was read",)
    assert living(config) == {}
    monkeypatch.undo()
    assert [one.n_rows for one in take(config).taken] == [3]


def test_a_half_written_file_is_refused_until_it_is_whole(config, inbox):
    path = inbox / "a.jsonl"
    put_file(path, ROWS, tick=1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert [one.now for one in take(config).refused] == [True]
    assert [one.now for one in take(config).refused] == [False]
    path.write_bytes(whole)
    assert [one.why for one in take(config).taken] == ["changed"]
    assert set(living(config)) == {"r1", "r2"}


def test_bytes_under_another_name_come_in_once_and_live_on_without_the_first(config, inbox):
    put_file(inbox / "a.jsonl", ROWS, tick=1)
    put_file(inbox / "b.jsonl", ROWS, tick=2)
    report = take(config)
    assert [one.name for one in report.taken] == [str(inbox / "b.jsonl")]
    assert report.duplicates == (str(inbox / "a.jsonl"),)
    assert take(config).duplicates == ()
    put_file(inbox / "b.jsonl", {"r9": "nine"}, tick=3)
    assert [Path(one.name).name for one in take(config).taken] == ["a.jsonl", "b.jsonl"]
    assert set(living(config)) == {"r1", "r2", "r9"}


def test_without_an_id_field_rows_keep_their_ids_when_their_bytes_come_again(config, inbox):
    config = config.model_copy(update={"rows": config.rows.model_copy(update={"id_field": None})})
    put_file(inbox / "b.jsonl", ROWS, tick=1)
    take(config)
    put_file(inbox / "a.jsonl", ROWS, tick=2)
    put_file(inbox / "c.jsonl", ROWS, tick=3)
    report = take(config)
    assert report.taken == ()
    assert report.duplicates == (str(inbox / "a.jsonl"), str(inbox / "c.jsonl"))
    assert {source for _, source in living(config).values()} == {"b.jsonl"}


def test_a_renamed_file_keeps_its_rows(config, inbox):
    config = changed(config, {"refresh.withdraw_deleted": True})
    put_file(inbox / "a.jsonl", ROWS, tick=1)
    take(config)
    (inbox / "a.jsonl").rename(inbox / "z.jsonl")
    report = take(config)
    assert [(one.n_rows, one.n_known) for one in report.taken] == [(0, 2)]
    assert report.withdrawn == ((str(inbox / "a.jsonl"), 0),)
    assert set(living(config)) == {"r1", "r2"}


def test_deleted_files_keep_their_rows_unless_they_are_to_be_withdrawn(config, inbox):
    put_file(inbox / "a.jsonl", ROWS, tick=1)
    put_file(inbox / "b.jsonl", {"r2": "two", "r3": "three"}, tick=2)
    take(config)
    (inbox / "b.jsonl").unlink()
    take(config)
    assert entry_of(config, inbox / "b.jsonl").gone
    assert set(living(config)) == {"r1", "r2", "r3"}
    report = take(changed(config, {"refresh.withdraw_deleted": True}))
    assert report.withdrawn == ((str(inbox / "b.jsonl"), 1),)  # r2 is in the other file as well
    assert set(living(config)) == {"r1", "r2"}
    assert list(Cursor(CorpusRef(config.store, "main")).entries) == [str(inbox / "a.jsonl")]


def test_a_version_that_returns_lives_again(config, inbox):
    one, two = {"r1": "one"}, {"r1": "uno"}
    for tick, content in enumerate([one, two, one, two, one], start=1):
        put_file(inbox / "a.jsonl", content, tick=tick)
        take(config)
        assert [row for row in living(config)] == ["r1"]
    assert len(entry_of(config, inbox / "a.jsonl").batches) == 5


def test_a_file_that_turns_bad_keeps_what_was_in_use(config, inbox):
    path = inbox / "a.jsonl"
    put_file(path, ROWS, tick=1)
    take(config)
    path.write_text("{broken\n")
    take(config)
    assert set(living(config)) == {"r1", "r2"}
    put_file(path, {"r2": "two"}, tick=3)
    (taken,) = take(config).taken
    assert (taken.n_known, taken.n_withdrawn) == (1, 1)


def test_other_settings_read_files_again_and_find_their_rows_known(config, inbox):
    put_file(inbox / "a.jsonl", ROWS, tick=1)
    take(config)
    looser = changed(config, {"rows.limits.max_chars": 500})
    (taken,) = take(looser).taken
    assert (taken.why, taken.n_rows, taken.n_known) == ("other settings", 0, 2)
    assert take(looser).taken == ()
    rows, model = config.rows, ModelConfig()
    known = reading_settings(rows, model, suite="x")
    assert known != reading_settings(rows, ModelConfig(name="other"), suite="x")
    assert known != reading_settings(rows, model, suite="y")


def test_no_news_is_told_from_what_was_released(config, inbox):
    put_file(inbox / "a.jsonl", ROWS, tick=1)
    assert not look(config).nothing
    take(config)
    assert look(config).summary == "no new files, but releases are to be made again"
    remember(config, released_inputs(config), {})
    assert look(config).nothing
    assert not look(changed(config, {"scoring.top_k": 3})).nothing
    assert look(changed(config, {"runtime.batch_tokens": 3})).nothing
    queries = Path(config.queries.source.paths[0])
    queries.write_text('{"text": "another one"}\n')
    assert not look(config).nothing
    remember(config, released_inputs(config), {"main": "0123456789abcdef"})
    assert not look(config).nothing  # that release was deleted


def test_rows_of_other_ways_into_the_corpus_are_left_alone(config, inbox, tmp_path):
    outside = tmp_path / "outside"
    put_file(outside / "x.jsonl", ROWS, tick=1)
    take(inbox_config(tmp_path / "store", outside))
    Cursor(CorpusRef(config.store, "main")).forget(str(outside / "x.jsonl"), outlived=False)
    put_file(inbox / "a.jsonl", {"r1": "one", "r2": "zwei"}, tick=2)
    take(config)
    put_file(inbox / "a.jsonl", {"r5": "five"}, tick=3)
    take(config)
    # r2 was changed by the inbox and dropped by it; r1 was never the inbox's
    assert set(living(config)) == {"r1", "r5"}


def test_the_cursor_is_locked_checked_and_cleared(config, inbox):
    put_file(inbox / "a.jsonl", ROWS, tick=1)
    take(config)
    ref = CorpusRef(config.store, "main")
    cursor = Cursor(ref)
    with cursor.taking(), pytest.raises(BusyError), Cursor(ref).taking():
        pass
    with pytest.raises(ValueError, match=r"a state is one of"):
        cursor.put(CursorEntry("x", "odd", "", 0, 0, ""))  # type: ignore[arg-type]
    folder = Path(config.store) / "corpora" / "main" / "inbox"
    stray = folder / "listings" / "0123456789abcdef-0123456789abcdef.parquet"
    stray.write_bytes(b"")
    take(config)
    assert not stray.exists()
    (path,) = (folder / "files").glob("*.json")
    path.write_text(path.read_text().replace('"taken"', '"refused"'))
    with pytest.raises(CorruptionError):
        Cursor(ref)


def test_no_news_loads_no_model_library_and_no_orchestrator(config, inbox, tmp_path):
    put_file(inbox / "a.jsonl", ROWS, tick=1)
    take(config)
    remember(config, released_inputs(config), {})
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    program = (
        "import sys; from flows.cli import app; "
        f"app(['refresh', {str(settings)!r}], standalone_mode=False); "
        "print(*sorted({'torch', 'transformers', 'prefect', 'pandas'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    expected = "nothing new: 1 files looked at, 0 of them refused before"
    assert done.stdout.splitlines() == [expected, ""]
