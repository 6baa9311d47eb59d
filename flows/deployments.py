"""Which deployments there are: those of deployments/prefect.yaml, with a user's settings in them.

One file says it all. `prefect deploy` reads it as it is, `rise up` deploys it from a folder of the
user's, `rise serve` makes deployments of it that one process runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from tasks.config import PipelineConfig

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

SHIPPED = Path(__file__).parents[1] / "deployments" / "prefect.yaml"
SCHEDULED = "scheduled"
"""Tag of the deployments that a schedule is meant for."""
EXAMPLE = "example"
"""Tag of the deployments whose flow is no part of the package."""

Document = dict[str, Any]


def deployments(
    folder: Path, *, settings: PipelineConfig | None = None, cron: str | None = None
) -> Document:
    """Return the shipped deployments as a document for `prefect deploy`.

    Args:
        folder: Where runs start: what relative paths in parameters mean.
        settings: Parameters of every flow that they have something to say about.
        cron: Schedule of the deployments that are meant for one, and switches it on; None leaves
            it as it is in the file, which is off.

    Raises:
        ValueError: ``cron`` is not a schedule.
    """
    document: Document = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    found = [one for one in document["deployments"] if EXAMPLE not in one["tags"]]
    for one in found:
        if settings is not None:
            one["parameters"] = stage_parameters(settings).get(_flow_of(one), {})
        if cron is not None and SCHEDULED in one["tags"]:
            one["schedules"] = [{"cron": checked_cron(cron), "timezone": "UTC", "active": True}]
    where = {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
    return {"name": document["name"], "pull": [where], "deployments": found}


def stage_parameters(settings: PipelineConfig) -> Mapping[str, dict[str, Any]]:
    """Return the parameters of each flow by its name, as JSON values."""
    config = settings.model_dump(mode="json")
    store = {"store": config["store"]}
    speed = {"runtime": config["runtime"]}
    gates = {"quality": config["quality"]}
    names = {"corpus": config["corpus"], "index": config["index"]}
    asked = {"query_set": config["query_set"], "index": config["index"]}
    model = config["indexing"]["model"]
    return {
        "refresh": {"config": config},
        "pipeline": {"config": config},
        "ingest": store
        | gates
        | speed
        | {"corpus": config["corpus"], "rows": config["rows"], "model": model},
        "index": store | gates | speed | names | {"config": config["indexing"]},
        "queries": store | speed | asked | {"rows": config["queries"]},
        "score": store | gates | speed | asked | {"config": config["scoring"]},
        "release": store
        | gates
        | speed
        | {"release": config["release"], "config": config["releasing"], "drift": config["drift"]},
        # needs no labels: a behaviour is planted in the rows
        "evaluate": {
            "config": {
                "model": model,
                "tasks": [{"kind": "planted", "rows": config["rows"]}],
                **speed,
            }
        },
    }


def checked_cron(cron: str) -> str:
    """Return a cron line that is one.

    Raises:
        ValueError: It is not.
    """
    from prefect.client.schemas.schedules import CronSchedule

    try:
        return CronSchedule(cron=cron, timezone="UTC").cron
    except ValueError as error:
        raise ValueError(
            f"{cron!r} is not a cron schedule. It has five parts, minute hour day month weekday: "
            "'0 2 * * *' is every night at two, '*/15 * * * *' every quarter of an hour (UTC)."
        ) from error


def served(document: Document) -> "Sequence[RunnerDeployment]":
    """Return the deployments of a document as `prefect.serve` takes them; imports every flow."""
    return [_served(one) for one in document["deployments"]]


def _served(one: Document) -> "RunnerDeployment":
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.flows import Flow, load_flow_from_entrypoint
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    flow: Flow[..., Any] = load_flow_from_entrypoint(one["entrypoint"], use_placeholder_flow=False)
    limit = one.get("concurrency_limit")
    deployment = flow.to_deployment(
        one["name"],
        description=one["description"],
        tags=one["tags"],
        parameters=one.get("parameters", {}),
        schedules=[
            Cron(line["cron"], timezone=line["timezone"], active=line["active"])
            for line in one.get("schedules", [])
        ],
        concurrency_limit=ConcurrencyLimitConfig(**limit) if limit else None,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    return cast("RunnerDeployment", deployment)  # a coroutine only inside an event loop


def _flow_of(one: Document) -> str:
    return str(one["entrypoint"]).rpartition(".")[2]
