"""What `rise status` says of a store: counted by plain means, stale for a reason, never hiding."""

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from inbox_samples import inbox_config, put_file, take
from store_samples import add_batch, add_query_set, add_release, add_scores, build, make_index
from typer.testing import CliRunner

from flows.cli import app
from flows.watch_words import (
    age,
    newest_scores,
    status_rows,
    things_to_look_at,
    version_words,
)
from storage.guards import corpus_guard, index_guard
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef
from storage.release_pointer import roll_back
from tasks.refresh_outlook import next_refresh
from tasks.store_status import store_status
from tasks.takedown import take_down


@pytest.fixture(name="root")
def scored_store(tmp_path: Path) -> str:
    root = str(tmp_path / "store")
    corpus = CorpusRef(root, "main")
    add_batch(corpus, "b1", 0, 10)
    index = build(IndexRef(root, "main"), 10, ["b1"])
    add_query_set(root)
    add_scores(root, index)
    add_release(root)
    return root


def one(status: dict, part: str) -> dict:
    (found,) = status[part]
    return found


def test_sizes_are_those_of_the_files(root):
    status = store_status(root)
    files = [path for path in Path(root).rglob("*") if path.is_file() and not path.is_symlink()]
    inside = [path for path in files if "latest" not in path.parts]
    assert status["files"] == len(inside)
    assert status["bytes"] == sum(path.stat().st_size for path in inside)
    index = Path(root, "indexes", "main")
    assert one(status, "indexes")["bytes"] == sum(
        path.stat().st_size for path in index.rglob("*") if path.is_file()
    )
    assert status["partial_bytes"] == 0
    litter = index / "x.partial"
    litter.mkdir()
    (litter / "half").write_bytes(b"1234567")
    assert store_status(root)["partial_bytes"] == 7
    assert any("7 B are in files that are not finished" in text
               for text in things_to_look_at(store_status(root)))  # fmt: skip


def test_what_came_after_the_index_is_missing_and_makes_scores_stale(root):
    before = store_status(root)
    assert one(before, "indexes")["state"] == "complete"
    assert one(before, "scores")["state"] == "current"
    assert one(before, "releases")["state"] == "current"
    add_batch(CorpusRef(root, "main"), "b2", 10, 17)
    status = store_status(root)
    assert one(status, "corpora")["rows"] == 17
    index = one(status, "indexes")
    assert index["batches"] == {"covered": 1, "missing": [{"id": "b2", "rows": 7}]}
    assert index["state"] == "7 rows of 1 batch are not indexed"
    assert one(status, "scores")["stale"] == ["7 rows came since"]
    assert one(status, "releases")["stale"] == ["7 rows came since"]
    assert any("index main lacks b2 (7 rows)" in text for text in things_to_look_at(status))


def test_rows_that_died_are_counted_once_and_make_scores_stale(root):
    take_down(CorpusRef(root, "main"), row_ids=["row-000002", "row-000004"], reason="asked for")
    status = store_status(root)
    corpus = one(status, "corpora")
    assert (corpus["rows"], corpus["alive"], corpus["dead"]) == (10, 8, {"takedown": 2})
    assert corpus["state"] == "2 rows taken down"
    release = one(status, "releases")
    # rows 0 to 4 are released
    assert release["stale"][0] == "2 of its rows were taken down"


def test_only_the_newest_scores_of_an_index_and_query_set_are_shown(root):
    add_batch(CorpusRef(root, "main"), "b2", 10, 17)
    index = build(IndexRef(root, "main"), 17, ["b1", "b2"])
    add_scores(root, index, "s2")
    status = store_status(root)
    assert [(one["id"], one["newest"]) for one in status["scores"]] == [("s2", True), ("s1", False)]
    (shown,) = newest_scores(status["scores"])
    assert (shown["id"], shown["older"], shown["state"]) == ("s2", 1, "current")
    # the release is of the older ones
    assert one(status, "releases")["stale"] == ["7 rows came since"]


def test_what_cannot_be_read_hides_nothing_else(root):
    make_index(IndexRef(root, "half"))
    (Path(root, "scores/s1/scores.json")).write_bytes(b"")
    QuerySet.write(
        QuerySetRef(root, "other", "v1"),
        queries=QuerySet.open(QuerySetRef(root, "facts", "v1")).queries(),
        signatures=QuerySet.open(QuerySetRef(root, "facts", "v1")).signatures(),
        n_positions=QuerySet.open(QuerySetRef(root, "facts", "v1")).n_positions(),
        manifest={"space": {"model": "another"}},
    )
    status = store_status(root)
    states = {(line[0], line[1]): line[3] for line in status_rows(status)}
    assert states["index", "half"].endswith("never finished")
    assert states["scores", "s1"] == "cannot be read"
    assert states["query set", "other"] == "made for no index that is in use"
    assert states["release", "picked"] == "its scores cannot be read"
    assert any("s1: " in text and "not valid JSON" in text for text in things_to_look_at(status))


def test_a_rollback_is_told(root):
    add_release(root, "r2", n_rows=3)
    roll_back(root, "picked")
    release = one(store_status(root), "releases")
    assert release["latest"] == "r1"
    assert release["moved"]["why"] == "rolled back"
    assert release["state"] == "current; rolled back from r2"


def test_what_the_next_refresh_would_do(tmp_path):
    inbox, root = tmp_path / "inbox", tmp_path / "store"
    config = inbox_config(root, inbox)
    put_file(inbox / "a.jsonl", {"x": "one"}, tick=1)
    first = next_refresh(config)
    assert [Path(one["file"]).name for one in first["read"]] == ["a.jsonl"]
    assert first["changed"] is None
    take(config)
    put_file(inbox / "a.jsonl", {"x": "two"}, tick=2)
    put_file(inbox / "b.jsonl", {"y": "three"}, tick=2)
    put_file(inbox / "c.jsonl", {"y": "three"}, tick=2)
    found = next_refresh(config)
    assert [(Path(one["file"]).name, one["why"]) for one in found["read"]] == [
        ("a.jsonl", "changed"),
        ("c.jsonl", "new"),
    ]
    assert [Path(name).name for name in found["duplicates"]] == ["b.jsonl"]
    assert not found["nothing"]


def test_the_command_takes_a_store_or_settings_and_says_when_there_is_none(root, tmp_path):
    runner = CliRunner()
    shown = runner.invoke(app, ["status", root])
    assert shown.exit_code == 0
    assert "10 rows in 1 batch" in shown.output
    assert "rise status SETTINGS" in shown.output
    found = json.loads(runner.invoke(app, ["status", "--store", root, "--json"]).output)
    assert found["indexes"][0]["rows"] == 10
    none = runner.invoke(app, ["status", str(tmp_path / "none")])
    assert none.exit_code == 1
    assert "is not a RISE store" in none.output
    config = inbox_config(tmp_path / "new", tmp_path / "inbox")
    put_file(tmp_path / "inbox" / "a.jsonl", {"x": "one"}, tick=1)
    settings = tmp_path / "settings.json"
    settings.write_text(config.model_dump_json())
    first = runner.invoke(app, ["status", str(settings)])
    assert first.exit_code == 0, first.output
    assert "there is none yet" in first.output
    assert "index, score and release for the first time" in first.output


def test_versions_of_a_row_are_counted_apart_from_other_rows_of_its_line():
    batch = {"kind": "batch", "id": "b", "detail": {"corpus": "main"}}
    rows = [{"kind": "row", "id": row, "detail": {}} for row in "xyx"]
    steps = [one for row in rows for one in ({"kind": "source"}, row, batch)]
    assert version_words(steps, [0, 3, 6]) == [", version 2 of 2", "", ", version 1 of 2"]


@pytest.mark.parametrize(
    ("created", "said"),
    [
        ("2026-05-01T11:59:31Z", "29 s"),
        ("2026-05-01T11:58:31Z", "1 min"),
        ("2026-05-01T02:00:00Z", "10 h"),
        ("2026-04-01T12:00:00Z", "30 d"),
        ("2026-05-01T12:00:01Z", "0 s"),
        ("", ""),
    ],
)
def test_ages_are_in_the_largest_unit(created, said):
    assert age(created, now=datetime(2026, 5, 1, 12, tzinfo=UTC)) == said


def test_who_writes_is_told_and_who_was_killed_while_writing(root, tmp_path):
    assert store_status(root)["leases"] == []
    with index_guard(IndexRef(root, "main")).hold(), corpus_guard(CorpusRef(root, "main")).hold():
        status = store_status(root)
        assert [one["what"] for one in status["leases"]] == ["corpus 'main'", "index 'main'"]
        assert all("is being written by" in one["state"] for one in status["leases"])
        lines = things_to_look_at(status)
        assert sum(f"process {os.getpid()}" in line for line in lines) == 2
        copy = str(tmp_path / "copy")
        shutil.copytree(root, copy, symlinks=True)
    assert store_status(root)["leases"] == []
    found = store_status(copy)["leases"]
    assert len(found) == 2
    assert all("it is a copy" in one["gone"] for one in found)
    Path(found[0]["path"]).write_bytes(b"")
    assert "nothing is known of its holder" in store_status(copy)["leases"][0]["state"]
