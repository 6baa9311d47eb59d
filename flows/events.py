"""Tells other flows about a release, by an event that Prefect's automations can be triggered by.

The event is posted and answered before it is noted as sent. Prefect's own `emit_event` puts it
into a queue and says nothing when it is lost on the way, and a lost event is a training run that
never starts.
"""

from datetime import UTC, datetime
from uuid import uuid4

from storage.refs import ReleaseRef
from tasks.release_event import ReleaseEvent, is_news, note_announced, release_event


def announce_release(ref: ReleaseRef) -> bool:
    """Emit ``rise.release.published``, if this is the latest release and nobody was told yet.

    A server that cannot be reached does not undo a release: it is logged, and the next run that
    finds the release published tells of it then.

    Returns:
        Whether the event was sent now.
    """
    import httpx
    from prefect.logging import get_run_logger

    if not is_news(ref):
        return False
    try:
        _post(release_event(ref))
    except httpx.HTTPError as error:
        get_run_logger().warning(
            "release %s is published, but its event could not be sent (%s). Flows that wait for "
            "it start when this flow has run again.",
            ref.release_id,
            error,
        )
        return False
    note_announced(ref)
    return True


def announce_by_command(ref: ReleaseRef, *, left: ReleaseRef | None = None) -> str:
    """Emit the event of a release to which a command has moved ``latest``; no flow runs.

    Args:
        ref: The release.
        left: What ``latest`` named before it was rolled back; None: a held release was accepted.

    Returns:
        For people: who was told, or why nobody was.
    """
    import httpx
    from prefect.settings import PREFECT_API_URL

    if not PREFECT_API_URL.value():
        return "nobody: no Prefect server is set (PREFECT_API_URL)"
    event = release_event(ref, left=left)
    try:
        _post(event)
    except httpx.HTTPError as error:
        return f"nobody: {PREFECT_API_URL.value()} cannot be reached ({error})"
    note_announced(ref)
    return f"flows that wait for {event.name}"


def _post(event: ReleaseEvent) -> None:
    from prefect.client.orchestration import get_client

    body = {
        "id": str(uuid4()),
        "occurred": datetime.now(tz=UTC).isoformat(),
        "event": event.name,
        "resource": {
            "prefect.resource.id": event.resource,
            "prefect.resource.name": str(event.payload["release"]),
        },
        "related": _this_run(),
        "payload": event.payload,
    }
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[body]).raise_for_status()


def _this_run() -> list[dict[str, str]]:
    """Return the flow run that this happens in, so that the event links to it."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return []
    return [
        {
            "prefect.resource.id": f"prefect.flow-run.{context.flow_run.id}",
            "prefect.resource.role": "flow-run",
            "prefect.resource.name": context.flow_run.name,
        }
    ]
