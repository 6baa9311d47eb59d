"""The deployments: every flow is there, settings fit its parameters, schedules are checked."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline_samples import pipeline_settings
from pydantic import TypeAdapter

from flows.deployments import SHIPPED, deployments, served, stage_parameters
from tasks.config import PipelineConfig
from tasks.config_file import validated


@pytest.fixture
def settings(tmp_path: Path) -> PipelineConfig:
    given = pipeline_settings(tmp_path, tmp_path / "model")
    given |= {"store": "elsewhere", "corpus": "c", "index": "i", "query_set": "q", "release": "r"}
    return validated(PipelineConfig, given, origin="test")


def test_every_flow_of_the_package_is_deployed_and_limited_to_one_run() -> None:
    document = yaml.safe_load(SHIPPED.read_text())
    modules = {one["entrypoint"].rpartition(".")[0] for one in document["deployments"]}
    flows = {path.stem for path in Path("flows").glob("*.py") if "@flow(" in path.read_text()}
    assert modules == {f"flows.{name}" for name in flows} | {"examples.consumer_flow"}
    assert all(one["concurrency_limit"]["limit"] == 1 for one in document["deployments"])
    assert all(one["description"].endswith(".") for one in document["deployments"])


def test_settings_become_parameters_that_the_flows_take(settings: PipelineConfig) -> None:
    from prefect.flows import load_flow_from_entrypoint

    document = deployments(Path("/somewhere"), settings=settings)
    assert {"directory": "/somewhere"} in document["pull"][0].values()
    for one in document["deployments"]:
        flow = load_flow_from_entrypoint(one["entrypoint"], use_placeholder_flow=False)
        taken = inspect.signature(flow.fn, eval_str=True).parameters
        for name, value in one["parameters"].items():
            TypeAdapter(taken[name].annotation).validate_python(value)
        needed = {name for name, one in taken.items() if one.default is inspect.Parameter.empty}
        # which scores to release is chosen for each run
        assert needed - set(one["parameters"]) <= {"scores_id"}, one["name"]


def test_names_of_the_settings_reach_every_stage(settings: PipelineConfig) -> None:
    by_flow = stage_parameters(settings)
    assert {
        (flow, name, parameters[name])
        for flow, parameters in by_flow.items()
        for name in ("store", "corpus", "index", "query_set", "release")
        if name in parameters and parameters[name] != settings.model_dump()[name]
    } == set()
    assert {flow for flow, given in by_flow.items() if given.get("store") == "elsewhere"} == {
        "ingest", "index", "queries", "score", "release",
    }  # fmt: skip


def test_a_schedule_is_off_until_it_is_given(settings: PipelineConfig) -> None:
    def schedules(**options: Any) -> list[tuple[str, bool]]:
        document = deployments(Path.cwd(), settings=settings, **options)
        lines = [line for one in document["deployments"] for line in one.get("schedules", [])]
        return [(line["cron"], line["active"]) for line in lines]

    assert {active for _, active in schedules()} == {False}
    assert set(schedules(cron="*/5 * * * *")) == {("*/5 * * * *", True)}
    with pytest.raises(ValueError, match=r"'daily at 2' is not a cron schedule. It has five parts"):
        schedules(cron="daily at 2")


def test_one_process_serves_what_is_deployed(settings: PipelineConfig) -> None:
    document = deployments(Path.cwd(), settings=settings, cron="0 2 * * *")
    for one, made in zip(document["deployments"], served(document), strict=True):
        assert (made.name, made.entrypoint) == (one["name"], one["entrypoint"])
        assert made.parameters == one["parameters"]
        assert made.concurrency_limit == 1
        wanted = [line["cron"] for line in one.get("schedules", [])]
        assert [line.schedule.cron for line in made.schedules or []] == wanted


def test_forms_have_a_title_and_help_for_every_parameter(settings: PipelineConfig) -> None:
    """What the UI shows: a title for every field, and a text for every parameter of a flow."""
    for made in served(deployments(Path.cwd(), settings=settings)):
        schema = made._parameter_openapi_schema.model_dump()
        for name, field in schema["properties"].items():
            assert field.get("description"), f"{made.flow_name}.{name}"
        for model, part in schema["definitions"].items():
            for name, field in part.get("properties", {}).items():
                assert field.get("title"), f"{model}.{name}"
