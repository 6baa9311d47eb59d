"""A refresh whose release drifts too far: the run fails, until somebody accepts the release."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from refresh_samples import refresh_settings, rows, write_inbox_file
from typer.testing import CliRunner

from flows.cli import app
from flows.refresh import refresh
from storage.refs import ReleaseRef
from storage.release_pointer import latest
from storage.releases import open_release
from tasks.config import PipelineConfig
from tasks.drift_config import MEASURES
from tasks.refresh import look
from tasks.release_drift import ReleaseHeld
from tasks.release_history import list_releases

pytestmark = pytest.mark.usefixtures("prefect_harness")

FIRST = ArtifactSort.CREATED_DESC


def newest(key: str) -> Any:
    chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=chosen, sort=FIRST)[0]


def events(name: str, release_id: str) -> list[dict[str, Any]]:
    """Return the events of a release; the server shows them a moment after it has them."""
    body = {"filter": {"event": {"name": [name]}}, "limit": 50}
    with get_client(sync_client=True) as client:
        for _ in range(100):
            every = client.request("POST", "/events/filter", json=body).json()["events"]
            found = [one for one in every if one["payload"]["release_id"] == release_id]
            if found:
                return found
            time.sleep(0.2)
    return []


def rise(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


@pytest.fixture(name="config")
def limited(tmp_path: Path, tiny_llama: Path) -> PipelineConfig:
    changes = {
        "drift": {"replaced": {"warn": 0.1, "fail": 0.4}},
        "also": {"worst": {"select": {"kind": "top_k", "top_k": 3}, "prefer": "lowest"}},
    }
    return refresh_settings(tmp_path, tiny_llama, **changes)


def test_a_release_that_drifted_fails_the_run_and_waits_to_be_accepted(
    config: PipelineConfig, tmp_path: Path
) -> None:
    store, inbox = config.store, tmp_path / "inbox" / "a.jsonl"
    write_inbox_file(inbox, rows(0, 16))
    first = refresh(config)
    assert first.warnings == ()  # nothing to compare with
    ref = first.made.release.ref
    gone = set(open_release(ref).rows().column("row_id").to_pylist()[:5])
    write_inbox_file(inbox, {name: text for name, text in rows(0, 16).items() if name not in gone})
    with pytest.raises(ReleaseHeld, match=r"drift.replaced.fail") as held:
        refresh(config)
    assert latest(store, "main") == ref
    assert [one["held"] for one in list_releases(store, "main")] == [False, True]
    # one that is held stops no other; of the worst, all rows were kept
    assert latest(store, "worst") != first.made.also["worst"].ref
    (lines,) = [json.loads(newest("release-drift").data)]
    assert [line["measure"] for line in lines] == list(MEASURES)
    told = newest("refresh-failed").data
    assert "rise release accept main --id" in told
    assert str(held.value).splitlines()[1] in told
    assert not look(config).nothing  # the next run tells it again: nobody has decided yet

    code, output = rise("release", "accept", "main", "--store", store)
    assert code == 0, output
    assert "told  flows that wait for rise.release.published" in output
    now = latest(store, "main")
    ids = [one["payload"]["release_id"] for one in events("rise.release.published", now.release_id)]
    assert now != ref
    assert now.release_id in ids
    assert refresh(config).made.release.ref == now
    assert refresh(config).nothing_new
    _roll_back_and_compare(config, ref, now, tmp_path / "settings.yaml")


def _roll_back_and_compare(
    config: PipelineConfig, before: ReleaseRef, after: ReleaseRef, settings: Path
) -> None:
    code, output = rise("release", "rollback", "main", "--store", config.store)
    assert code == 0, output
    assert latest(config.store, "main") == before
    (event,) = events("rise.release.rolled_back", before.release_id)
    assert event["payload"]["left"] == after.release_id
    assert event["resource"]["prefect.resource.id"] == f"rise://{config.store}/releases/main"

    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    pair = ["diff", before.release_id, after.release_id, "--store", config.store]
    assert rise(*pair)[0] == 0
    code, output = rise(*pair, "--limits", str(settings))
    assert code == 1
    assert "fails" in output
    found = json.loads(rise(*pair, "--limits", str(settings), "--json")[1])
    assert found["went"]["withdrawn"] == 5
    assert found["verdicts"][0]["outcome"] == "fails"
