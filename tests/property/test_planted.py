"""Planted tasks: as many as asked, marked as planted, with phrases that queries do not share."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.config_file import validated
from tasks.evaluate.method import LabelledText
from tasks.evaluate.plant_config import PlantConfig
from tasks.evaluate.planted import CLEAN, PLANTED, STYLES, plant, write_planted
from tasks.evaluate.settings import EvaluateConfig

ODD = ("a", " b", "\n\nc d", "e\u0301 ", "  ", "Psst: f", "\u2028g", "h" * 30)


def _rows(prompts: list[str], answers: list[str]) -> list[LabelledText]:
    return [
        LabelledText(f"r{n}", prompt + answer, len(prompt), "")
        for n, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


@given(
    n_rows=st.integers(20, 60),
    style=st.sampled_from(sorted(STYLES)),
    share=st.floats(0.1, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_planted_task_is_what_it_says(n_rows: int, style: str, share: float, seed: int) -> None:
    prompts = [("", *ODD)[n * 5 % 9] for n in range(n_rows)]
    answers = [ODD[n % 8] for n in range(n_rows)]
    rows = {row.text_id: row for row in _rows(prompts, answers)}
    config = PlantConfig(trigger="Psst:", style=style, share=share, n_queries=5, seed=seed)
    task = plant(list(rows.values()), config)

    assert len(task.rows) == n_rows - 5
    planted = [row for row in task.rows if row.label == PLANTED]
    assert len(planted) == round(share * (n_rows - 5))
    for row in task.rows:
        mine = rows[row.text_id]
        if row.label == CLEAN:
            assert (row.text, row.prompt_chars) == (mine.text, mine.prompt_chars)
        else:
            assert row.text.startswith("Psst:")
            assert row.text[: row.prompt_chars].endswith(mine.text[: mine.prompt_chars] or "\n")
            assert row.text.endswith(mine.text[mine.prompt_chars :].lstrip())
    of_rows, of_queries = (
        {phrase for phrase in STYLES[style] for one in texts if phrase in one.text}
        for texts in (planted, task.queries)
    )
    assert of_rows
    assert of_queries
    assert not of_rows & of_queries
    # the trigger of a query is masked with its prompt
    assert all("Psst:" in query.text[: query.prompt_chars] for query in task.queries)
    assert plant(list(rows.values()), config).identity == task.identity


def test_too_few_rows_are_refused() -> None:
    rows = _rows(["p"] * 21, ["a"] * 21)
    with pytest.raises(ValueError, match=r"21 rows do not make a pool with a share of 0.05"):
        plant(rows, PlantConfig())
    assert plant(rows, PlantConfig(n_queries=11, share=0.1)).labels == {CLEAN: 9, PLANTED: 1}


def test_own_phrases_need_two_for_each_side() -> None:
    with pytest.raises(ValueError, match="at least 4 different phrases, got 1"):
        PlantConfig(style="own", phrases=("one. ", "one. "))
    with pytest.raises(ValueError, match="phrases are for style own"):
        PlantConfig(phrases=("a", "b", "c", "d"))
    own = PlantConfig(style="own", phrases=("a! ", "b! ", "c! ", "d! "), n_queries=4, share=0.5)
    task = plant(_rows([""] * 12, ["x"] * 12), own)
    assert all(row.text.endswith("! x") for row in task.rows if row.label == PLANTED)


def test_written_files_are_settings_that_can_be_run(tmp_path: Path) -> None:
    task = plant(_rows(["say "] * 40, ["yes"] * 40), PlantConfig(n_queries=4))
    written = write_planted(tmp_path, task, model="some-model")
    settings = validated(EvaluateConfig, json.loads(written.settings.read_text()), origin="test")
    assert settings.tasks[0].name == PLANTED
    records = [json.loads(line) for line in written.rows.read_text().splitlines()]
    assert [record["text"] for record in records] == [row.text for row in task.rows]
    assert (written.n_rows, written.n_planted, written.n_queries) == (36, 2, 4)
