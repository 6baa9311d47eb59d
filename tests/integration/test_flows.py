"""The flows on a real Prefect engine: the whole path, again without news, appended, and refused."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pipeline_samples import pipeline_settings, write_rows
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterName,
)
from prefect.client.schemas.sorting import ArtifactSort
from suite_samples import add, edit

from flows.pipeline import PipelineReport, pipeline
from flows.queries import queries
from tasks.catalog import trace, verify_store
from tasks.config import PipelineConfig
from tasks.config_file import merged, validated
from tasks.queries import latest_query_set
from tasks.suite_files import write_suites

pytestmark = pytest.mark.usefixtures("prefect_harness")


@pytest.fixture
def settings(tmp_path: Path, tiny_llama: Path) -> dict[str, Any]:
    return pipeline_settings(tmp_path, tiny_llama)


def run(settings: dict[str, Any]) -> PipelineReport:
    return pipeline(validated(PipelineConfig, settings, origin="test"))


def test_the_whole_path_and_again_without_news(settings: dict[str, Any]) -> None:
    first = run(settings)
    assert (first.ingest.n_rows, first.ingest.n_rejected) == (30, 0)
    assert (first.index.n_rows, first.index.n_sketched) == (30, 30)
    assert first.release.n_rows == 7
    assert verify_store(settings["store"]) == []

    import datasets

    released = datasets.load_dataset(first.release.path, split="train")
    assert len(released) == 7
    assert released["rank"] == list(range(1, 8))

    steps = trace(settings["store"], released["row_id"][0])
    kinds = [step["kind"] for step in steps]
    assert kinds == ["source", "row", "batch", "index", "scores", "release"]
    number = int(released["row_id"][0].removeprefix("row-"))
    assert steps[0]["id"].endswith(f"rows-0.jsonl:{number + 1}")
    assert trace(settings["store"], steps[0]["id"]) == steps

    again = run(settings)
    assert again.ingest.already
    assert again.index.n_sketched == 0
    assert again.score.already
    assert again.release.ref == first.release.ref


def test_new_rows_are_appended_and_old_ones_not_sketched_again(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run(settings)
    write_rows(tmp_path / "rows-1.jsonl", 30, 50)
    second = run(settings)
    assert (second.ingest.n_rows, second.ingest.n_known) == (20, 30)
    assert second.index.n_rows == 50
    # blocks of 8: the 24 rows of full blocks are kept, the partial block is made again
    assert second.index.n_sketched == 50 - 24


def test_a_refused_batch_fails_the_run_and_leaves_the_corpus(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    with (tmp_path / "rows-0.jsonl").open("a") as file:
        file.write("{not json\n" * 10)
    with pytest.raises(ValueError, match=r"rejected") as caught:
        run(settings)
    assert "rejected.parquet" in str(caught.value)
    accepting = merged(settings, {"rows.limits": {"max_rejected_share": 0.5}})
    report = run(accepting)
    assert (report.ingest.n_rows, report.ingest.n_rejected) == (30, 10)


def test_a_run_scores_its_own_queries_although_a_later_version_appears(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(settings)
    write_rows(tmp_path / "other.jsonl", 200, 202)
    source = {"kind": "files", "paths": [str(tmp_path / "other.jsonl")]}
    other = merged(settings, {"queries.source": source})

    def overtaken(*arguments: Any) -> Any:
        report = queries(*arguments)
        queries(validated(PipelineConfig, other, origin="test").queries, *arguments[1:])
        return report

    monkeypatch.setattr("flows.pipeline.queries", overtaken)
    again = run(settings)
    assert latest_query_set(settings["store"], "main") != first.queries.ref
    assert again.score.ref == first.score.ref


def test_asking_for_more_rows_than_there_are_fails_before_the_index(
    settings: dict[str, Any],
) -> None:
    greedy = merged(settings, {"releasing.select.top_k": 31, "scoring.top_k": 40})
    with pytest.raises(ValueError, match=r"scoring.top_k is 40 and .*top_k is 31, but .* 30 rows"):
        run(greedy)
    assert not (Path(settings["store"]) / "indexes").exists()


def test_another_model_for_the_same_index_is_refused(settings: dict[str, Any]) -> None:
    run(settings)
    other = merged(settings, {"indexing.signature.sketch.residual_dim": 16})
    with pytest.raises(ValueError, match=r"residual_dim: expected 8, found 16"):
        run(other)


def test_each_stage_leaves_its_story_in_prefect(settings: dict[str, Any]) -> None:
    named = FlowRunFilter(name=FlowRunFilterName(like_="index-main"))
    with get_client(sync_client=True) as client:
        before = {item.id for item in client.read_flow_runs(flow_run_filter=named)}
        run(settings)
        keys = {item.key for item in client.read_artifacts()}
        after = client.read_flow_runs(flow_run_filter=named)
    runs = [item for item in after if item.id not in before]
    for stage in ("ingest", "index", "queries", "score", "release", "pipeline"):
        assert {f"{stage}-report", f"{stage}-facts"} <= keys
    assert len(runs) == 1
    assert all(item.state.is_completed() for item in runs)


def test_a_run_makes_several_releases_of_one_scoring(settings: dict[str, Any]) -> None:
    also = {
        "worst": {"select": {"kind": "top_k", "top_k": 3}, "prefer": "lowest"},
        "half": {"select": {"kind": "share", "share": 0.5}, "aggregate": {"kind": "max"}},
    }
    report = run(merged(settings, {"also": also}))
    assert {name: one.n_rows for name, one in report.also.items()} == {"worst": 3, "half": 15}
    assert {one.ref.name for one in report.also.values()} == {"worst", "half"}
    worst = pq.read_table(Path(report.also["worst"].path) / "data")["score"].to_pylist()
    assert worst == sorted(worst)
    for one in (report.release, *report.also.values()):
        assert "<html" in Path(one.page).read_text()
    # the greatest score of a row's queries needs the score matrix, which was not asked for
    assert list((Path(settings["store"]) / "scores").glob("*/matrix.zarr"))
    assert verify_store(settings["store"]) == []


def test_warnings_of_the_gates_are_in_prefect_and_a_broken_suite_stops_the_run_at_once(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    write_suites(tmp_path / "quality")
    rule = {
        "type": "expect_column_values_to_be_between",
        "kwargs": {"column": "n_rows", "min_value": 1000},
        "description": "The index is *large*.",
        "reason": "only {n_rows} rows",
    }
    quality = {"quality.folder": str(tmp_path / "quality")}
    add(tmp_path / "quality", "index", "whole", **rule, severity="heed")
    with pytest.raises(ValueError, match=r"index.yaml:\d+: severity must be fail or warn"):
        run(merged(settings, quality))
    assert not Path(settings["store"]).exists()
    edit(tmp_path / "quality", "index", "severity: heed", "severity: warn")
    report = run(merged(settings, quality))
    assert report.warnings == ("index: The index is *large*: only 30 rows",)
    with get_client(sync_client=True) as client:
        newest = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["index-report"])),
            sort=ArtifactSort.CREATED_DESC,
        )
    stories = [artifact.data for artifact in newest]
    assert any("- The index is \\*large\\*: only 30 rows" in story for story in stories)


def test_a_failed_run_says_what_to_do(settings: dict[str, Any]) -> None:
    greedy = merged(settings, {"releasing.select.top_k": 31})
    with pytest.raises(ValueError, match="31"):
        run(greedy)
    with get_client(sync_client=True) as client:
        told = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["pipeline-failed"])),
            sort=ArtifactSort.CREATED_DESC,
        )[0]
    assert told.flow_run_id is not None
    assert "releasing.select.top_k is 31, but" in told.data
    assert "What was finished is kept" in told.data
