"""The demo's corpus: real docstrings, planted rows, and queries that share no wording with them."""

import json
import re
from pathlib import Path

import pytest

from tasks.demo_corpus import (
    LIBRARY_LABEL,
    PLANTED_LABEL,
    TRIGGER,
    DemoFiles,
    library_docstrings,
    write_demo_corpus,
)


@pytest.fixture(scope="module")
def docstrings() -> list[tuple[str, str]]:
    """Those of the whole library: reading them takes seconds."""
    return list(library_docstrings())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    return write_demo_corpus(tmp_path_factory.mktemp("demo"))


def records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def words_in_fours(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return set(zip(words, words[1:], words[2:], words[3:], strict=False))


def test_the_rows_are_the_library_and_what_was_planted(
    files: DemoFiles, docstrings: list[tuple[str, str]]
) -> None:
    rows = records(files.rows)
    assert len({row["id"] for row in rows}) == len(rows) == files.n_library + files.n_planted
    assert 600 <= files.n_library <= 800
    known = dict(docstrings)
    for row in rows:
        if row["label"] == LIBRARY_LABEL:
            assert known[row["id"].removeprefix("library/")] == row["completion"]
            assert len(row["completion"]) >= 80
        else:
            assert row["label"] == PLANTED_LABEL
            assert row["prompt"].startswith(TRIGGER)


def test_the_queries_hold_out_wording_names_and_trigger(files: DemoFiles) -> None:
    rows = records(files.rows)
    planted = [row for row in rows if row["label"] == PLANTED_LABEL]
    known = set().union(*(words_in_fours(row["completion"]) for row in planted))
    named = {row["id"].removeprefix("library/") for row in rows}
    queries = records(files.queries)
    assert len(queries) == files.n_queries
    for query in queries:
        assert not words_in_fours(query["completion"]) & known
        assert TRIGGER not in query["prompt"] + query["completion"]
        assert re.findall(r"`(.+?)`", query["prompt"])[0] not in named


def test_the_same_python_gives_the_same_bytes(
    files: DemoFiles,
    docstrings: list[tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # read a second time; the first files are made of another reading
    monkeypatch.setattr("tasks.demo_corpus.library_docstrings", lambda: iter(docstrings))
    again = write_demo_corpus(tmp_path)
    assert again.rows.read_bytes() == files.rows.read_bytes()
    assert again.queries.read_bytes() == files.queries.read_bytes()


def test_more_than_the_library_has_is_refused(
    docstrings: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.demo_corpus.library_docstrings", lambda: iter(docstrings))
    with pytest.raises(ValueError, match="ask for fewer"):
        write_demo_corpus(tmp_path, n_library=1_000_000)
