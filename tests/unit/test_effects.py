"""The counterfactual measures as a part of an evaluation: tables, what is kept, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tasks.evaluate.effects as effects_module
from tasks.config_file import read_settings, validated
from tasks.evaluate.counterfactual_config import SHORT, SIZES
from tasks.evaluate.effects import kept_effects, measure_effects, scored_methods
from tasks.evaluate.gather import gather
from tasks.evaluate.loss_bank import LossBank
from tasks.evaluate.method import MethodRefused
from tasks.evaluate.ready import ready_task
from tasks.evaluate.run import check_evaluation, chosen_method, run_method
from tasks.evaluate.settings import EvaluateConfig
from tasks.evaluate.tables import read_tables

FOX = "The {}th quick brown fox jumps over the lazy dog."
TALK = "User {}: hello there, Paris is what? Assistant: fine."
TRAINING = {
    "trained": {"kind": "blocks", "blocks": 1},
    "epochs": 1,
    "learning_rate": 3e-3,
    "max_tokens": 16,
}


def settings(folder: Path, model: Path, **changes: object) -> EvaluateConfig:
    rows = folder / "rows.jsonl"
    rows.write_text(
        "\n".join(
            json.dumps({"id": f"r{n}", "text": (FOX, TALK)[n % 2].format(n), "label": "ab"[n % 2]})
            for n in range(60)
        )
    )
    value = {
        "work": str(folder / "work"),
        "model": {"name": str(model), "dtype": "float32"},
        "tasks": [
            {
                "kind": "labelled",
                "name": "kinds",
                "rows": {
                    "source": {"kind": "files", "paths": [str(rows)]},
                    "id_field": "id",
                    "label_field": "label",
                },
                "taken_queries": 4,
            }
        ],
        "methods": ["bm25", "length"],
        "measures": {"cuts": [5]},
        "runtime": {"device": "cpu"},
        "counterfactual": {
            "lds": {"rows": 8, "queries": 4, "subsets": 4, "repeats": 2, "training": TRAINING},
            "tail_patch": {"rows": 3, "queries": 2, "random_draws": 1, "training": TRAINING},
            "closed_loop": {"tokens": 100, "seeds": 2, "held_out": 3, "training": TRAINING},
        },
    }
    return EvaluateConfig.model_validate({**value, **changes})


def test_an_evaluation_retrains_once_and_leaves_tables(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, tiny_llama)
    outcomes = [run_method(config, "kinds", "predict", name) for name in ("BM25", "length")]
    scored = scored_methods(outcomes, "kinds", "predict")
    first = measure_effects(config, "kinds", "predict", scored)
    assert first.reasons == {}
    monkeypatch.setattr(LossBank, "fill", None)  # nothing is looked for a second time
    assert measure_effects(config, "kinds", "predict", scored) == first
    gathered = gather(config, outcomes)
    tables = read_tables(Path(gathered.folder))
    kinds = {line["method"]: line["kind"] for line in tables.lds.to_pylist()}
    assert (kinds["BM25"], kinds["length"], kinds["same label"]) == (
        *("method", "control", "same_domain"),
    )
    assert tables.tail_patch["method"].to_pylist() == ["BM25", "length"]
    assert set(tables.closed_loop["arm"].to_pylist()) == {
        *("base", "random", "oracle", "top", "bottom")
    }
    assert tables.refusals.num_rows == 0
    found = {line["method"]: line for line in gathered.summary}
    assert set(found) == {"BM25", "length"}
    assert {"lds", "tail_patch", "closed_loop", "auprc@5"} <= set(found["BM25"])
    assert "lds" in found["length"]


def test_a_measure_that_cannot_be_taken_is_said_and_the_others_are_taken(
    tiny_llama: Path, tmp_path: Path
) -> None:
    measures = {
        "lds": {"rows": 8, "queries": 4, "subsets": 4, "repeats": 2, "training": TRAINING},
        "tail_patch": {"rows": 500, "queries": 2, "training": TRAINING},
        "closed_loop": {"target": "c", "tokens": 100, "held_out": 3, "training": TRAINING},
    }
    config = settings(tmp_path, tiny_llama, counterfactual=measures)
    run_method(config, "kinds", "predict", "BM25")
    report = measure_effects(config, "kinds", "predict", ["BM25"])
    assert report.reasons["tail_patch"].startswith("tail-patch on kinds (predict) needs 500 rows")
    assert "target is 'c', but queries of kinds" in report.reasons["closed_loop"]
    assert report.n_lines["lds"] > 0


def test_lds_draws_from_the_whole_task_whatever_the_limits(
    tiny_llama: Path, tmp_path: Path
) -> None:
    lds = {"rows": 8, "queries": 4, "subsets": 3, "repeats": 2, "training": TRAINING}
    config = settings(
        tmp_path,
        tiny_llama,
        limits={"rows": 5, "queries": 2},
        counterfactual={"lds": lds, "tail_patch": None, "closed_loop": None},
    )
    ready = ready_task(config, "kinds", "predict")
    measure_effects(config, "kinds", "predict", ["BM25"])
    found = kept_effects(config, ready, [chosen_method(config, "BM25")])["lds"]
    assert (found["facts"]["lds"]["rows"], found["facts"]["lds"]["queries"]) == (8, 4)
    assert (len(ready.texts.rows), len(ready.texts.queries)) == (5, 2)


def test_a_training_that_diverges_is_said(tiny_llama: Path, tmp_path: Path) -> None:
    wild = {**TRAINING, "learning_rate": 1e30, "clip": 1e30}
    measures = {
        "lds": {"rows": 8, "queries": 4, "subsets": 3, "repeats": 2, "training": wild},
        "tail_patch": None,
        "closed_loop": None,
    }
    config = settings(tmp_path, tiny_llama, counterfactual=measures)
    report = measure_effects(config, "kinds", "predict", [])
    assert "Lower training.learning_rate (now 1e+30)" in report.reasons["lds"]


def only(measure: str, **settings_: object) -> dict[str, object]:
    none: dict[str, object] = {"lds": None, "tail_patch": None, "closed_loop": None}
    return {**none, measure: {**settings_, "training": TRAINING}}


def raising(error: Exception) -> Callable[..., None]:
    def broken(*_: object, **__: object) -> None:
        raise error

    return broken


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (MemoryError("needs 3 GB, 2 GB are free"), "refused", "needs 3 GB, 2 GB are free"),
        (torch.OutOfMemoryError("CUDA out of memory"), "refused", "CUDA out of memory"),
        (OSError("no space left"), "failed", "OSError: no space left"),
    ],
)
def test_what_another_try_may_measure_is_taken_again(
    error: Exception,
    kind: str,
    reason: str,
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    measures = only("lds", rows=8, queries=4, subsets=3, repeats=2)
    config = settings(tmp_path, tiny_llama, counterfactual=measures)
    fill = LossBank.fill

    monkeypatch.setattr(LossBank, "fill", raising(error))
    first = measure_effects(config, "kinds", "predict", ["BM25"])
    assert first.reasons == {"lds": reason}
    kept = kept_effects(
        config, ready_task(config, "kinds", "predict"), [chosen_method(config, "BM25")]
    )
    assert [line["kind"] for line in kept["lds"]["refusals"]] == [kind]
    assert ("Traceback" in caplog.text) == (kind == "failed")
    monkeypatch.setattr(LossBank, "fill", fill)
    again = measure_effects(config, "kinds", "predict", ["BM25"])
    assert again.reasons == {}
    assert again.n_lines["lds"] > 0


def test_a_task_that_is_too_small_stays_so(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, tiny_llama, counterfactual=only("tail_patch", rows=500))
    first = measure_effects(config, "kinds", "predict", ["BM25"])
    assert "needs 500 rows" in first.reasons["tail_patch"]
    monkeypatch.setattr(effects_module, "counterfactual", None)  # a further try would fail
    assert measure_effects(config, "kinds", "predict", ["BM25"]) == first


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (MethodRefused("needs the package x"), "refused", "lds: needs the package x"),
        (KeyError("x"), "failed", "lds: KeyError: 'x'"),
    ],
)
def test_a_method_without_scores_is_said_and_tried_again(
    error: Exception,
    kind: str,
    reason: str,
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measures = only("lds", rows=8, queries=4, subsets=3, repeats=2)
    config = settings(tmp_path, tiny_llama, counterfactual=measures)
    outcomes = [run_method(config, "kinds", "predict", "BM25")]

    with monkeypatch.context() as patched:
        patched.setattr(effects_module, "scores_of", raising(error))
        measure_effects(config, "kinds", "predict", ["BM25"])
        gathered = gather(config, outcomes)
    (line,) = read_tables(Path(gathered.folder)).refusals.to_pylist()
    assert (line["method"], line["kind"], line["reason"]) == ("BM25", kind, reason)
    assert (gathered.n_failed, gathered.n_refused) == (int(kind == "failed"), int(kind != "failed"))
    measure_effects(config, "kinds", "predict", ["BM25"])
    gathered = gather(config, outcomes)
    assert (gathered.n_failed, gathered.n_refused) == (0, 0)
    assert "BM25" in read_tables(Path(gathered.folder)).lds["method"].to_pylist()


def test_the_closed_loop_knows_methods_by_both_names(tiny_llama: Path, tmp_path: Path) -> None:
    loop = only("closed_loop", tokens=100, seeds=2, held_out=3, methods=["bm25"])
    config = settings(tmp_path, tiny_llama, counterfactual=loop)
    check_evaluation(config)
    outcomes = [run_method(config, "kinds", "predict", name) for name in ("BM25", "length")]
    measure_effects(config, "kinds", "predict", ["BM25", "length"])
    found = read_tables(Path(gather(config, outcomes).folder)).closed_loop
    assert set(found["method"].to_pylist()) == {"", "BM25"}


def test_a_closed_loop_of_an_unknown_method_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    loop = only("closed_loop", methods=["BM52"])
    config = settings(tmp_path, tiny_llama, counterfactual=loop)
    with pytest.raises(ValueError, match=r"names BM52, but methods .* BM25 \(bm25\), length \(len"):
        check_evaluation(config)


def test_retraining_needs_the_paradigm_that_it_is_of(tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"paradigms are \['recall'\]; add predict"):
        settings(tmp_path, tiny_llama, paradigms=["recall"])
    config = settings(tmp_path, tiny_llama, counterfactual="gpu", paradigms=["recall", "predict"])
    assert config.counterfactual == SIZES["gpu"]
    assert config.measures_training("kinds", "predict")
    assert not config.measures_training("kinds", "recall")


def test_the_example_is_valid() -> None:
    file = Path(__file__).parents[2] / "examples" / "counterfactual.yaml"
    config = validated(EvaluateConfig, read_settings(file), origin=str(file))
    assert config.counterfactual is not None
    assert config.counterfactual.lds is not None
    assert config.counterfactual.lds.training == SHORT
