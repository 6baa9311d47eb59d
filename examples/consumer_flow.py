"""A flow of somebody who trains on releases: read one safely while the next is being published.

Three rules make it safe:
1. Ask once what ``latest`` is, and open by id from then on. A release never changes, the pointer
   does: whoever opens ``latest/data/a.parquet`` and then ``latest/data/b.parquet`` may get halves
   of two releases.
2. Check before use: every file against the manifest's checksums, and the manifest against the
   event that announced it.
3. Remember what was done. Events come at least once, and a schedule beside the trigger makes up
   for one that is lost; a release that was used already is not used again.

Deployed with the others: ``consume/on-release`` in deployments/prefect.yaml.
"""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from storage.files import file_sha256, read_json, write_json
from storage.layout import RELEASE_FILE
from storage.refs import ReleaseRef
from storage.release_pointer import latest
from storage.releases import Release, open_release


def choose_release(store: str, name: str, release_id: str | None = None) -> ReleaseRef:
    """Return the release to work on: the one that was asked for, or what ``latest`` is now."""
    return ReleaseRef(store, name, release_id) if release_id else latest(store, name)


def open_verified(ref: ReleaseRef, manifest_sha256: str | None = None) -> Release:
    """Open a release after reading every byte of it once.

    Raises:
        ValueError: It is not the release that the event was about.
        CorruptionError: A file does not match the manifest.
    """
    opened = open_release(ref)
    found = file_sha256(opened.folder / RELEASE_FILE)
    if manifest_sha256 and found != manifest_sha256:
        raise ValueError(
            f"the manifest of {opened.folder} has sha256 {found}, but the event said "
            f"{manifest_sha256}. Somebody replaced the release; ask who, and release again."
        )
    opened.require_sound(deep=True)
    return opened


def done_before(state: Path, ref: ReleaseRef) -> bool:
    """Tell whether this release was used already."""
    path = state / f"{ref.name}.json"
    return path.exists() and read_json(path).get("release_id") == ref.release_id


@task(cache_policy=NO_CACHE)
def train(ref: ReleaseRef, manifest_sha256: str | None) -> dict[str, Any]:
    """Stand in for the real work: count what a training job would read."""
    rows = open_verified(ref, manifest_sha256).rows()
    return {
        "release": ref.release_id,
        "rows": rows.num_rows,
        "tokens": sum(rows.column("n_tokens").to_pylist()),
        "best score": max(rows.column("score").to_pylist()),
    }


@flow(name="consume", flow_run_name="consume-{release}-{release_id}")
def consume(
    store: str = "rise-store",
    release: str = "main",
    release_id: str | None = None,
    manifest_sha256: str | None = None,
    state: str = "consumed",
) -> dict[str, Any] | None:
    """Use a release once.

    Args:
        store: Folder of the store.
        release: Name of the release.
        release_id: Id of the release; empty: the latest.
        manifest_sha256: What the manifest's sha256 must be; the event says it.
        state: Folder in which the consumer remembers what it has used.
    """
    ref = choose_release(store, release, release_id or None)
    if done_before(Path(state), ref):
        get_run_logger().info("release %s was used before: nothing to do", ref.release_id)
        return None
    facts = train(ref, manifest_sha256 or None)
    write_json(Path(state) / f"{ref.name}.json", {"release_id": ref.release_id})
    lines = [f"## Trained on {ref.name} {ref.release_id}", "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    create_markdown_artifact(key="consumed-release", markdown="\n".join(lines))
    return facts


if __name__ == "__main__":
    consume()
