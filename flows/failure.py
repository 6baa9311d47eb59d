"""What a failed run leaves in Prefect: what went wrong, what to do, and what is kept.

Messages of the stages end with what to do. Their page in Prefect begins with a traceback, so the
message gets an artifact of its own, which the run's page and the list of artifacts show.
"""

from typing import Any

from flows.run_rules import OutOfTimeError
from storage.errors import BusyError, LeaseLostError
from tasks.worker_errors import WorkersLostError

KEPT = (
    "What was finished is kept: blocks of an index, committed batches, earlier releases. Start the "
    "run again once the cause is gone (Retry in the menu above, or a new run); it goes on there."
)
CAUSES = (
    (BusyError, "Another run writes the same: nothing is wrong with either of them."),
    (LeaseLostError, "Another run took over, because this one seemed to be dead."),
    (OutOfTimeError, "The time limit of the settings is over."),
    (MemoryError, "The machine has too little memory for these settings."),
    (OSError, "The disk, the network or a file is the cause; two retries did not help."),
    (WorkersLostError, "Worker processes are the cause; trying again here did not help."),
    (ValueError, "The settings or the data are the cause: nothing will change by itself."),
)


def explain_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Leave a Markdown artifact with the error's message; a hook of every flow."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import ArtifactCreate

    error = state.result(raise_on_failure=False)
    artifact = ArtifactCreate(
        key=f"{flow.name}-failed",
        type="markdown",
        description=f"{flow.name} failed",
        data=failure_story(flow.name, error),
        flow_run_id=flow_run.id,
    )
    with get_client(sync_client=True) as client:
        client.create_artifact(artifact)


def failure_story(name: str, error: object) -> str:
    """Return the story of a failure as Markdown; the message as it is, in a code block."""
    kind = next((text for cause, text in CAUSES if isinstance(error, cause)), None)
    message = str(error).replace("```", "'''")
    parts = [f"## {name} failed", f"```text\n{type(error).__name__}: {message}\n```"]
    parts += [kind] if kind else []
    return "\n\n".join([*parts, KEPT])
