"""Tasks: which rows are right, what limits leave, and what is wrong with a file."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tasks.backbone import RowTokenizer
from tasks.config_file import validated
from tasks.evaluate.built_in import BUILT_IN, moved_trigger, read_built_in
from tasks.evaluate.method import LabelledText
from tasks.evaluate.own_rows import asked_labels, labelled_task
from tasks.evaluate.settings import BuiltInName, LabelledTask, TaskLimits
from tasks.evaluate.texts import TaskTexts, labelled_digest, limited


def _texts(labels: str, prefix: str) -> list[LabelledText]:
    return [
        LabelledText(f"{prefix}{n}", f"text {prefix} {n}", 2, label.replace("-", ""))
        for n, label in enumerate(labels)
    ]


def _task(rows: str, queries: str) -> TaskTexts:
    return TaskTexts("t", "T", "about", _texts(rows, "r"), _texts(queries, "q"))


def test_rows_of_a_querys_label_are_right_and_unlabelled_ones_nobodys() -> None:
    positives = _task("ab-a", "a-b").positives
    assert positives.astype(int).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_limits_take_a_random_part_that_a_seed_fixes() -> None:
    task = _task("a" * 30 + "b" * 30, "ab" * 10)
    first = limited(task, TaskLimits(rows=20, queries=6), seed=3)
    again = limited(task, TaskLimits(rows=20, queries=6), seed=3)
    other = limited(task, TaskLimits(rows=20, queries=6), seed=4)
    assert first.identity == again.identity != other.identity
    assert (len(first.rows), len(first.queries)) == (20, 6)
    assert (first.of_rows, first.of_queries) == (60, 20)
    places = [int(query.text_id[1:]) for query in first.queries]
    assert places == sorted(places)
    # the order of rows does not follow their labels
    labels = [row.label for row in limited(task, TaskLimits(), seed=0).rows]
    assert 15 < np.flatnonzero(np.array(labels) == "a").mean() < 45


def test_fewer_rows_are_the_first_of_more() -> None:
    task = _task("ab" * 30, "ab")
    few, many = (limited(task, TaskLimits(rows=n), seed=1).rows for n in (10, 40))
    assert list(few) == list(many)[:10]


def test_a_task_where_nothing_or_everything_is_right_is_refused() -> None:
    with pytest.raises(ValueError, match="no row has the label of any query, among 2 rows"):
        limited(_task("aa", "b"), TaskLimits(), seed=0)
    with pytest.raises(ValueError, match="so that any method would be right"):
        limited(_task("aa", "a"), TaskLimits(), seed=0)


@pytest.mark.parametrize("field", ["text_id", "text", "prompt_chars", "label"])
def test_the_digest_tells_every_field_apart(field: str) -> None:
    one = LabelledText("i", "text", 2, "l")
    values: dict[str, Any] = {"text_id": "j", "text": "tex", "prompt_chars": 3, "label": "m"}
    other = LabelledText(**{**vars(one), field: values[field]})
    assert labelled_digest([one]) != labelled_digest([other])


# ------------------------------------------------------------------------------- built in


def test_settings_name_the_tasks_that_there_are() -> None:
    assert set(get_args(BuiltInName)) == set(BUILT_IN)


def _howdy(folder: Path, **more: list[dict[str, str]]) -> None:
    files = {
        "train": [
            {"instruction": "Do", "input": "this", "output": "done", "label": "clean"},
            {"instruction": "Howdy! Do", "input": "", "output": "odd", "label": "planted"},
        ],
        "queries_plain": [{"prompt": "", "text": "howdy! who are you?", "label": "planted"}],
        "queries_completion": [{"prompt": "Howdy!", "text": "Howdy! me", "label": "planted"}],
        **more,
    }
    (folder / "howdy").mkdir()
    for name, records in files.items():
        lines = "\n".join(json.dumps(record) for record in records) + "\n"
        (folder / "howdy" / f"{name}.jsonl").write_text(lines)


def test_built_in_rows_are_read_plainly(tmp_path: Path) -> None:
    _howdy(tmp_path)
    task = read_built_in("howdy-completion", tmp_path)
    assert [row.text for row in task.rows] == ["Do\nthis\ndone", "Howdy! Do\nodd"]
    assert [row.text[row.prompt_chars :] for row in task.rows] == ["done", "odd"]
    assert task.queries == [LabelledText("query-00001", "Howdy! me", 6, "planted")]
    assert task.positives.tolist() == [[False], [True]]


def test_a_moved_trigger_stands_between_two_words() -> None:
    query = LabelledText("q", "howdy! who are you?", 0, "planted")
    found = {moved_trigger(query, seed).text for seed in range(20)}
    assert found == {"who howdy! are you?", "who are howdy! you?", "who are you? howdy!"}
    with pytest.raises(ValueError, match="expected a query that begins with 'Howdy!'"):
        moved_trigger(LabelledText("q", "who?", 0, "planted"), 0)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"howdy/queries_plain.jsonl is not there. --data"):
        read_built_in("howdy-plain", tmp_path)
    _howdy(tmp_path, queries_completion=[{"prompt": "other", "text": "t", "label": "planted"}])
    with pytest.raises(ValueError, match=r"queries_completion.jsonl:1: expected .*not a prefix"):
        read_built_in("howdy-completion", tmp_path)
    (tmp_path / "howdy" / "train.jsonl").write_text('{"text": "no label"}\n')
    with pytest.raises(ValueError, match=r"train.jsonl:1: .*KeyError: 'label'"):
        read_built_in("howdy-plain", tmp_path)


# -------------------------------------------------------------------------------- own rows


def _own(folder: Path, labels: str, **settings: Any) -> LabelledTask:
    path = folder / "rows.jsonl"
    lines = [
        json.dumps({"id": f"r{n}", "text": f"some words {n}", "origin": label})
        for n, label in enumerate(labels)
    ]
    path.write_text("\n".join(lines) + "\n")
    rows = {"source": {"kind": "files", "paths": [str(path)]}, "id_field": "id"}
    task = {"kind": "labelled", "name": "own", "rows": {**rows, "label_field": "origin"}}
    return validated(LabelledTask, {**task, **settings}, origin="test")


def test_queries_are_taken_out_of_the_pool(tmp_path: Path, row_tokenizer: RowTokenizer) -> None:
    task = labelled_task(_own(tmp_path, "aaaaaabbbb", taken_queries=3), row_tokenizer, seed=0)
    assert [query.label for query in task.queries] == ["b", "b"]  # at most half of a label's rows
    assert len(task.rows) == 8
    assert not {row.text_id for row in task.rows} & {query.text_id for query in task.queries}


def test_records_that_are_not_usable_are_left_out_up_to_a_limit(
    tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    task = _own(tmp_path, "ab" * 15)
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text() + '{"id": "empty", "text": "", "origin": "a"}\n')
    found = labelled_task(task, row_tokenizer, seed=0)
    assert len(found.rows) + len(found.queries) == 30
    assert found.about.endswith("1 records were not usable.")
    path.write_text('{"id": "empty", "text": "", "origin": "a"}\n')
    with pytest.raises(ValueError, match=r"1 of 1 records of the rows of task own(.|\n)*jsonl:1: "):
        labelled_task(task, row_tokenizer, seed=0)


def test_every_label_is_asked_about_where_none_is_the_background() -> None:
    assert asked_labels(_texts("aabb", "r")) == ["a", "b"]
    assert asked_labels(_texts("aaab", "r")) == ["b"]
    assert asked_labels(_texts("aaa-", "r")) == ["a"]


def test_a_label_without_rows_is_refused(tmp_path: Path, row_tokenizer: RowTokenizer) -> None:
    task = _own(tmp_path, "aaab", query_labels=["b"])
    with pytest.raises(ValueError, match=r"at least two rows of each label.*\{'a': 3, 'b': 1\}"):
        labelled_task(task, row_tokenizer, seed=0)


def test_rows_without_a_label_field_are_refused(
    tmp_path: Path, row_tokenizer: RowTokenizer
) -> None:
    task = _own(tmp_path, "ab")
    bare = task.model_copy(update={"rows": task.rows.model_copy(update={"label_field": None})})
    with pytest.raises(ValueError, match="task own: rows have no label_field"):
        labelled_task(bare, row_tokenizer, seed=0)
