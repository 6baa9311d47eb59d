"""Cells are scored once, kept by what they depend on, and one that fails stops no other."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_samples import labelled_texts

from storage.errors import CorruptionError
from storage.files import waiting_lock
from tasks.config_file import validated
from tasks.evaluate import registry
from tasks.evaluate.gather import gather
from tasks.evaluate.method import Cost, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.ready import ready_task
from tasks.evaluate.registry import Registered
from tasks.evaluate.run import Outcome, cells, check_evaluation, run_method
from tasks.evaluate.settings import EvaluateConfig
from tasks.evaluate.tables import read_tables
from tasks.progress import NO_PROGRESS, Progress

CALLS: list[str] = []


@dataclass(frozen=True)
class Fake:
    """Knows the answer, or behaves badly."""

    manner: str = "good"
    name: str = "fake"

    @property
    def settings(self) -> dict[str, object]:
        return {"manner": self.manner}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        CALLS.append(task.name)
        if self.manner == "refuses":
            raise MethodRefused("weights of 9 GB do not fit into 8 GB.\nUse another.")
        if self.manner == "breaks":
            raise RuntimeError("out of luck")
        if self.manner == "is killed":
            raise KeyboardInterrupt
        scores = task.positives.astype(np.float32)
        if self.manner == "gives NaN":
            scores[0, 0] = np.nan
        return MethodScores(scores[:1] if self.manner == "forgets" else scores, Cost(1.0, 0.5, 40))


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    monkeypatch.setitem(registry.REGISTRY, "fake", Registered("fakes", "Fake.", Fake, {}))


@pytest.fixture
def settings(tmp_path: Path, tiny_llama: Path) -> dict[str, Any]:
    (tmp_path / "howdy").mkdir()
    for name, start, stop in (("train", 0, 24), ("queries_completion", 50, 54)):
        lines = [
            json.dumps({"prompt": "", "text": f"{one.text} {n}", "label": one.label})
            for n, one in enumerate(labelled_texts(stop - start, start=start))
        ]
        (tmp_path / "howdy" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return {
        "work": str(tmp_path / "work"),
        "data": str(tmp_path),
        "model": {"name": str(tiny_llama), "dtype": "float32"},
        "tasks": ["howdy-completion"],
        "methods": ["bm25", "fake"],
        "measures": {"cuts": [3], "permutations": 2, "resamples": 20},
    }


def run(settings: dict[str, Any], **changes: Any) -> list[Outcome]:
    config = validated(EvaluateConfig, {**settings, **changes}, origin="test")
    check_evaluation(config)
    names = [one.name for one in registry.choose_methods(config.methods)]
    found = [run_method(config, *cell, name) for cell in cells(config) for name in names]
    gather(config, found, command="test")
    return found


def fake(manner: str) -> dict[str, Any]:
    return {"method": "fake", "settings": {"manner": manner}}


def test_what_is_kept_is_not_scored_again_and_a_new_method_costs_itself(
    settings: dict[str, Any],
) -> None:
    assert [one.kind for one in run(settings)] == ["scored", "scored"]
    assert [one.kind for one in run(settings, methods=["fake", "random", "bm25"])] == [
        "kept", "scored", "kept",
    ]  # fmt: skip
    assert len(CALLS) == 1
    # other cuts need no method, other rows, seeds and settings do
    assert run(settings, measures={"cuts": [4]})[1].kind == "kept"
    assert run(settings, limits={"rows": 20})[1].kind == "scored"
    assert run(settings, seed=1)[1].kind == "scored"
    assert (
        run(settings, methods=["bm25", {"method": "bm25", "name": "b", "settings": {"k1": 1.2}}])[
            1
        ].kind
        == "scored"
    )


def test_a_killed_run_goes_on_where_it_stopped(settings: dict[str, Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(settings, methods=["bm25", fake("is killed"), "random"])
    kinds = [one.kind for one in run(settings, methods=["bm25", "fake", "random"])]
    assert kinds == ["kept", "scored", "scored"]


def test_two_processes_score_a_cell_once(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads hold locks as two processes do: each has its own open file."""
    both_are_here = threading.Barrier(2, timeout=30)
    monkeypatch.setattr("tasks.evaluate.run.waiting_lock", _met(both_are_here))
    config = validated(EvaluateConfig, {**settings, "methods": ["fake"]}, origin="test")
    check_evaluation(config)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: run_method(config, *cells(config)[0], "fake"), range(2)))
    assert len(CALLS) == 1
    assert len({one.result for one in found}) == 1


def _met(barrier: threading.Barrier) -> Callable[[Path], AbstractContextManager[None]]:
    """Return `waiting_lock` behind a point where both have found that nothing is kept."""

    @contextmanager
    def lock(path: Path) -> Iterator[None]:
        barrier.wait()
        with waiting_lock(path):
            yield

    return lock


@pytest.mark.parametrize(
    ("manner", "kind", "reason"),
    [
        ("refuses", "refused", "weights of 9 GB do not fit"),
        ("breaks", "failed", "RuntimeError: out of luck"),
        ("gives NaN", "failed", "1 of the scores are not finite"),
        ("forgets", "failed", r"expected float32 scores of shape \(24, 4\), got float32 \(1, 4\)"),
    ],
)
def test_a_method_without_scores_is_a_line_and_the_others_go_on(
    settings: dict[str, Any], manner: str, kind: str, reason: str
) -> None:
    found = run(settings, methods=[fake(manner), "random"])
    assert [one.kind for one in found] == [kind, "scored"]
    lines = read_tables(Path(settings["work"]) / "tables").refusals.to_pylist()
    assert [(line["method"], line["kind"]) for line in lines] == [("fake", kind)]
    assert re.search(reason, lines[0]["reason"])
    # it is tried again: what was missing may be there
    assert run(settings, methods=[fake(manner)])[0].kind == kind


def test_tables_say_which_positions_of_rows_are_read(settings: dict[str, Any]) -> None:
    masked = {
        "method": "mean-hidden-state",
        "name": "masked",
        "settings": {"positions": "completion"},
    }
    run(settings, methods=["bm25", "mean-hidden-state", masked])
    lines = read_tables(Path(settings["work"]) / "tables").methods.to_pylist()
    assert [line["positions"] for line in lines] == [None, "all", "completion"]


def test_tables_say_what_was_measured(settings: dict[str, Any]) -> None:
    run(settings)
    tables = read_tables(Path(settings["work"]) / "tables")
    task = tables.tasks.to_pylist()[0]
    assert (task["n_rows"], task["n_queries"], task["n_positives"]) == (24, 4, 24)
    assert dict(task["labels"]) == {"a": 12, "b": 12}
    best = {
        (line["metric"], line["k"]): line["value"]
        for line in tables.metrics.to_pylist()
        if line["method"] == "fake"
    }
    assert best["precision", 3] == best["full_ap", None] == 1.0
    cost = next(line for line in tables.costs.to_pylist() if line["method"] == "fake")
    assert (cost["tokens_per_second"], cost["query_seconds"]) == (40.0, 0.5)
    assert cost["peak_bytes"] > 10**7
    assert cost["increase_bytes"] == cost["peak_bytes"] - cost["start_bytes"]
    assert cost["load_seconds"] is None  # it loads no model
    machine = json.loads(cost["machine"])
    assert {"processor", "cores", "threads", "device"} <= set(machine)
    assert tables.about["machine"] == machine
    assert tables.about["command"] == "test"
    assert tables.about["lineage"]["results"].keys() == {
        f"{method} on howdy-completion (predict)" for method in ("BM25", "fake")
    }
    results = json.loads((Path(settings["work"]) / "tables" / "results.json").read_text())
    assert results["metrics"] == tables.metrics.to_pylist()
    assert "some words" not in json.dumps(results)


def test_rows_under_other_labels_are_the_same_pool(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    rows = Path(settings["data"]) / "howdy" / "train.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    pools = []
    relabelled = [{**line, "label": {"a": "b", "b": "a"}[line["label"]]} for line in lines]
    other = [{**lines[0], "text": "other words"}, *lines[1:]]
    for number, told in enumerate((lines, relabelled, other)):
        rows.write_text("".join(f"{json.dumps(line)}\n" for line in told))
        work = tmp_path / f"work {number}"
        run(settings, methods=["fake"], work=str(work))
        tables = read_tables(work / "tables")
        pools.append(tables.tasks["pool"].to_pylist()[0])
    assert pools[0] == pools[1] != pools[2]


def test_damaged_scores_are_named(settings: dict[str, Any]) -> None:
    run(settings)
    path = next(Path(settings["work"]).glob("results/*/scores.npy"))
    path.write_bytes(b"")
    with pytest.raises(CorruptionError, match=r"scores.npy cannot be read") as caught:
        run(settings, measures={"cuts": [5]})
    assert "Delete" in str(caught.value)


def test_recall_attributes_the_model_that_was_trained_on_the_pool(
    settings: dict[str, Any],
) -> None:
    settings["model"]["trust_remote_code"] = True
    training = {"trained": {"kind": "blocks", "blocks": 1}, "epochs": 1, "checkpoints": 2}
    asked = {"paradigms": ["predict", "recall"], "methods": ["mean-hidden-state"]}
    found = run(settings, **asked, training=training)
    assert [(one.paradigm, one.kind) for one in found] == [
        ("predict", "scored"), ("recall", "scored"),
    ]  # fmt: skip
    tables = read_tables(Path(settings["work"]) / "tables")
    about = [json.loads(one) if one else None for one in tables.tasks["training"].to_pylist()]
    assert about[0] is None
    assert about[1]["settings"]["checkpoints"] == 2
    assert about[1]["n_tokens"] > 0
    config = validated(EvaluateConfig, {**settings, **asked, "training": training}, origin="test")
    trained = ready_task(config, "howdy-completion", "recall").model
    assert trained == config.model.model_copy(update={"name": trained.name})
    assert trained.name != config.model.name
