"""What trainings did is left in Prefect, a table a measure, with controls, intervals and arms."""

from pathlib import Path
from typing import Any

import pytest
from evaluation_tables import CLEAR, effects, leave_evaluation

from flows import evaluate_artifacts
from flows.evaluate_artifacts import artifact_key, leave_measured


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Keys of the artifacts that were left, with what they hold."""
    found: dict[str, Any] = {}

    def leave(key: str, what: Any, *, description: str) -> None:
        assert description
        found[key] = what

    monkeypatch.setattr(evaluate_artifacts, "leave_table", leave)
    monkeypatch.setattr(evaluate_artifacts, "leave_picture", leave)
    return found


def test_what_trainings_did_is_left_with_controls_and_every_arm(
    tmp_path: Path, left: dict[str, Any]
):
    lines = effects("clear")
    work = leave_evaluation(tmp_path, {"clear": CLEAR}, **lines)
    leave_measured(str(work / "tables"), headline="said")
    tables = [f"evaluate-clear-predict-{name}" for name in ("lds", "tail-patch", "closed-loop")]
    pictures = ["evaluate-picture", "evaluate-picture-bytes", "evaluate-picture-lds"]
    assert list(left) == [*tables, *pictures]
    for key, name in zip(tables, ("lds", "tail_patch", "closed_loop"), strict=True):
        place = {"task": "clear", "paradigm": "predict"}
        assert [{**place, **line} for line in left[key]] == lines[name]


def test_what_was_not_measured_is_not_left(tmp_path: Path, left: dict[str, Any]):
    leave_measured(str(leave_evaluation(tmp_path, {"clear": CLEAR})), headline="said")
    assert list(left) == ["evaluate-picture", "evaluate-picture-bytes"]


def test_keys_hold_what_prefect_takes():
    assert artifact_key("evaluate", "My task_2", "tail_patch") == "evaluate-my-task-2-tail-patch"
