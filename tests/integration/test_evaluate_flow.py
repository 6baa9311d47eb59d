"""`rise evaluate` on a real Prefect engine: a planted task, trained on, measured, run again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from evaluation_tables import CLEAR, leave_evaluation
from pipeline_samples import write_rows
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from typer.testing import CliRunner

from flows.cli import app
from flows.evaluate import evaluate
from tasks.config_file import read_settings, validated
from tasks.evaluate.settings import EvaluateConfig
from tasks.evaluate.tables import read_tables

pytestmark = pytest.mark.usefixtures("prefect_harness")

TRAINING = {"trained": {"kind": "blocks", "blocks": 1}, "max_tokens": 60}
SMALL = {"sketch": {"kind": "principal", "hidden_dim": 8, "projected_dim": 8}, "code": "sign"}
RISE = {"method": "rise", "settings": {"signature": SMALL}}
ARTIFACTS = [
    *("evaluate-planted-predict", "evaluate-planted-predict-lds", "evaluate-report"),
    *("evaluate-picture", "evaluate-picture-bytes", "evaluate-picture-lds"),
]
LDS = {"rows": 8, "queries": 3, "subsets": 3, "repeats": 2, "queries_from": "rows"}


@pytest.fixture
def settings(tmp_path: Path, tiny_llama: Path) -> dict[str, Any]:
    """What `rise evaluate plant` writes, with small measures."""
    write_rows(tmp_path / "rows.jsonl", 0, 60)
    options = ["--rows", str(tmp_path / "rows.jsonl"), "--share", "0.2", "--queries", "5"]
    made = CliRunner().invoke(
        app, ["evaluate", "plant", str(tmp_path / "task"), *options, "--model", str(tiny_llama)]
    )
    assert made.exit_code == 0, made.output
    assert "55; 11 planted" in made.output
    settings = read_settings(tmp_path / "task" / "evaluate.yaml")
    return settings | {
        "methods": ["bm25", "z0-inf", "random"],
        "measures": {"cuts": [5], "permutations": 2, "resamples": 20},
        "counterfactual": {
            "lds": LDS | {"training": TRAINING | {"epochs": 1}},
            "tail_patch": None,
            "closed_loop": None,
        },
    }


def run(settings: dict[str, Any]) -> Any:
    return evaluate(validated(EvaluateConfig, settings, origin="test"), command="rise evaluate x")


def test_a_planted_task_is_measured_and_resumed(
    settings: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    first = run(settings)
    assert (first.n_results, first.n_refused, first.n_failed) == (2, 1, 0)
    tables = read_tables(Path(first.folder))
    assert {line["method"] for line in tables.lds.to_pylist()} >= {"BM25", "random"}
    assert tables.refusals["reason"].to_pylist()[0].startswith("Z0-Inf needs 2 checkpoints")
    told = capfd.readouterr().err
    assert "1 of 3: BM25 on planted (predict): scored" in told
    assert "2 of 3: Z0-Inf on planted (predict): refused: Z0-Inf needs 2 checkpoints" in told

    again = run(settings | {"methods": ["bm25", RISE, "random"]})
    told = capfd.readouterr().err
    assert "1 of 3: BM25 on planted (predict): kept" in told
    assert "2 of 3: RISE, own settings on planted (predict): scored" in told
    assert again.n_results == 3
    page = Path(again.page).read_text("utf-8")
    assert re.search('<mark class="[pn][1-6]" title="[^"]+ of the score">', page)
    old, new = (
        [line for line in found.metrics.to_pylist() if line["method"] == "BM25"]
        for found in (tables, read_tables(Path(again.folder)))
    )
    assert old == new

    with get_client(sync_client=True) as client:
        left = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=ARTIFACTS))
        )
    assert {one.key for one in left} == set(ARTIFACTS)
    table = next(json.loads(one.data) for one in left if one.key == "evaluate-planted-predict")
    assert {line["method"] for line in table} >= {"BM25", "random"}
    trained = next(
        json.loads(one.data) for one in left if one.key == "evaluate-planted-predict-lds"
    )
    assert {line["kind"] for line in trained} > {"method", "shuffled"}
    assert set(trained[0]) >= {"method", "value", "low", "high"}


@pytest.mark.parametrize("paradigms", [["recall", "predict"], ["recall"]])
def test_a_training_that_fails_stops_no_other_task(
    settings: dict[str, Any], paradigms: list[str], tmp_path: Path
) -> None:
    failing = {"training": TRAINING | {"epochs": 1, "learning_rate": 1e30, "batch_rows": 1}}
    own = {"methods": ["bm25", "random"], "paradigms": paradigms, "counterfactual": None}
    file = tmp_path / "failing.yaml"
    file.write_text(json.dumps(settings | failing | own).replace("1e+30", "1.0e+30"))
    done = CliRunner().invoke(app, ["evaluate", "run", str(file)])
    assert done.exit_code == 1, done.output
    tables = read_tables(Path(settings["work"]) / "tables")
    lost = tables.refusals.to_pylist()
    assert {(one["method"], one["paradigm"], one["kind"]) for one in lost} == {
        ("BM25", "recall", "failed"),
        ("random", "recall", "failed"),
    }
    assert re.search("could not be made ready: DivergedError: the loss of", lost[0]["reason"])
    others = [one for one in paradigms if one != "recall"]
    assert tables.tasks["paradigm"].to_pylist() == others
    assert tables.costs["paradigm"].to_pylist() == [one for one in others for _ in range(2)]
    page = (Path(settings["work"]) / "tables" / "report.html").read_text("utf-8")
    assert "could not be made ready" in page


def test_a_page_is_drawn_again_with_tables_and_pictures(tmp_path: Path) -> None:
    work = leave_evaluation(tmp_path / "work", {"clear": CLEAR})
    options = ["--markdown", str(tmp_path / "r.md"), "--pictures", str(tmp_path / "pictures")]
    made = CliRunner().invoke(app, ["evaluate", "report", str(work), "--no-highlights", *options])
    assert made.exit_code == 0, made.output
    assert "On clear, RISE" in made.output
    assert (work / "tables" / "report.html").is_file()
    assert "### clear" in (tmp_path / "r.md").read_text("utf-8")
    assert (tmp_path / "pictures" / "methods.svg").is_file()


def test_settings_that_cannot_be_run_are_refused_before_any_work(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="there is no 'bm52'"):
        run(settings | {"methods": ["bm25", "bm52"]})
    assert not Path(settings["work"]).exists()
