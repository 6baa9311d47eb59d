"""A store in S3: written, read from another machine, killed in the middle, fought over."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from child import Ask, child
from refresh_samples import refresh, refresh_settings, rows, write_inbox_file

from storage.objects import Objects
from storage.refs import IndexRef, ReleaseRef
from storage.release_pointer import latest, moves
from storage.releases import open_release
from tasks.attribution import attribute_text
from tasks.catalog import list_store, verify_store
from tasks.config import PipelineConfig, RuntimeConfig
from tasks.config_file import merged, read_settings, validated
from tasks.release_export import export
from tasks.suite_files import load_suite, write_suites

DIFFERS = (
    "quality/",
    "report.html",
    "environment.json",
    "cost.json",
    "moves.jsonl",
    ".lock",
    "lease.json",
)
"""What may differ between two runs that make the same: reports, times, who wrote."""


def objects(url: str) -> dict[str, bytes]:
    """Return the objects of a store that equal inputs make equal."""
    found = Objects(url)
    keys = [key for key in found.listing() if not any(part in key for part in DIFFERS)]
    return {key: found.read(key) or b"" for key in keys}


def files(store: Path) -> dict[str, bytes]:
    """Return the same of a store on disk."""
    paths = {path.relative_to(store).as_posix(): path for path in store.rglob("*")}
    return {
        name: path.read_bytes()
        for name, path in paths.items()
        if path.is_file() and not any(part in name for part in DIFFERS)
    }


def listed(root: str) -> list[dict[str, Any]]:
    return [{**line, "created": ""} for line in list_store(root)]


@dataclass
class Machine:
    """A process with a mirror of its own."""

    ask: Ask
    folder: Path

    def start(
        self, config: PipelineConfig, *, kill_at: int | None = None, wait_seconds: float = 0.0
    ) -> Callable[[], int]:
        """Begin a refresh; return what waits for its end and returns its exit code."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS")}
        command = {
            "do": "start",
            "config": config.model_dump_json(),
            "environment": {**environment, "RISE_MIRROR": str(self.folder)},
            "kill_at": kill_at,
            "counter": str(self.counter),
            "wait_seconds": wait_seconds,
        }
        process = int(self.ask(json.dumps(command)))
        return lambda: int(self.ask(json.dumps({"do": "wait", "process": process})))

    @property
    def counter(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.count")


def test_store_in_s3_is_the_store_on_disk(
    s3_bucket: str, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inbox_file(tmp_path / "inbox" / "a.jsonl", rows(0, 20))
    local = refresh_settings(tmp_path, tiny_llama)
    url = f"{s3_bucket}/team/store"
    remote = local.model_copy(update={"store": url})
    on_disk, in_s3 = refresh(local), refresh(remote)
    assert on_disk.release is not None
    assert in_s3.release is not None
    assert in_s3.release.ref.release_id == on_disk.release.ref.release_id
    assert in_s3.release.path == f"{url}/releases/main/{in_s3.release.ref.release_id}"

    monkeypatch.setenv("RISE_MIRROR", str(tmp_path / "another-machine"))
    assert verify_store(url) == []
    assert listed(url) == listed(local.store)
    there, here = open_release(latest(url, "main")), open_release(latest(local.store, "main"))
    assert there.manifest == here.manifest
    assert there.rows() == here.rows()
    assert refresh(remote).outlook.nothing

    write_inbox_file(tmp_path / "inbox" / "b.jsonl", rows(20, 30))
    on_disk, in_s3 = refresh(local), refresh(remote)
    assert in_s3.index is not None
    assert in_s3.index.n_sketched < 20, "what the first machine has sketched is kept"
    monkeypatch.setenv("RISE_MIRROR", str(tmp_path / "mirrors"))
    assert listed(url) == listed(local.store)
    assert [move.to for move in moves(url, "main")] == [
        move.to for move in moves(local.store, "main")
    ]


def test_everything_may_be_a_url(
    s3_bucket: str, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = fsspec.filesystem("s3")
    write_inbox_file(tmp_path / "inbox" / "a.jsonl", rows(0, 20))
    settings = refresh_settings(tmp_path, tiny_llama).model_dump(mode="json")
    s3.put(str(tmp_path / "inbox" / "a.jsonl"), f"{s3_bucket}/in/a.jsonl")
    s3.put(str(tmp_path / "queries.jsonl"), f"{s3_bucket}/queries.jsonl")
    s3.pipe_file(f"{s3_bucket}/held-out.jsonl", b'{"text": "Number 7 is about boats."}\n')
    written, _ = write_suites(f"{s3_bucket}/suites")
    assert len(written) == len(s3.ls(f"{s3_bucket}/suites"))
    changes = {
        "store": f"{s3_bucket}/store",
        "rows.source.paths": [f"{s3_bucket}/in/*.jsonl"],
        "queries.source.paths": [f"{s3_bucket}/queries.jsonl"],
        "releasing.leakage.evaluation_sets": {"held-out": [f"{s3_bucket}/held-out.jsonl"]},
        "quality.folder": f"{s3_bucket}/suites",
    }
    text = json.dumps(merged(settings, changes)).encode()
    s3.pipe_file(f"{s3_bucket}/settings.yaml", text)
    read = read_settings(f"{s3_bucket}/settings.yaml")
    config = validated(PipelineConfig, read, origin="settings.yaml")
    assert load_suite("ingest", config.quality).origin == f"{s3_bucket}/suites/ingest.yaml"
    first = refresh(config)
    assert first.release is not None

    # the same second, the same size, other bytes: another file
    put = s3.info(f"{s3_bucket}/in/a.jsonl")["LastModified"]
    while s3.info(f"{s3_bucket}/in/a.jsonl")["LastModified"] == put:
        other = (tmp_path / "inbox" / "a.jsonl").read_bytes().replace(b"Number 3 ", b"Number 5 ")
        s3.pipe_file(f"{s3_bucket}/in/a.jsonl", other)
        time.sleep(0.3)
    second = refresh(config)
    assert second.intake is not None
    assert [(one.name, one.n_changed) for one in second.intake.taken] == [
        (f"{s3_bucket}/in/a.jsonl", 1)
    ]

    monkeypatch.setenv("RISE_MIRROR", str(tmp_path / "another-machine"))
    hits = attribute_text(
        IndexRef(config.store, "main"),
        prompt="",
        completion="Number 5 is about ferns.",
        top_k=3,
        runtime=RuntimeConfig(device="cpu"),
    )
    assert len(hits) == 3
    released = latest(config.store, "main")
    assert export(released, f"{s3_bucket}/out/", "hf") == f"{s3_bucket}/out"
    from datasets import load_from_disk

    assert load_from_disk(f"{s3_bucket}/out").num_rows == open_release(released).manifest["n_rows"]
    assert export(released, f"{s3_bucket}/view", "viewer") == f"{s3_bucket}/view/queries.jsonl"
    with pytest.raises(FileExistsError, match=r"s3://.*/out exists"):
        export(ReleaseRef(config.store, "main", released.release_id), f"{s3_bucket}/out", "hf")


def test_killed_in_the_middle_of_uploads_then_two_machines_at_once(
    s3_bucket: str, tmp_path: Path, tiny_llama: Path
) -> None:
    for name, start in (("a", 0), ("b", 10)):
        write_inbox_file(tmp_path / "inbox" / f"{name}.jsonl", rows(start, start + 10))
    on_disk = refresh_settings(tmp_path, tiny_llama)
    refresh(on_disk)
    in_s3 = on_disk.model_copy(update={"store": f"{s3_bucket}/store"})
    with child("object_child.py") as ask:
        for turn, kill_at in enumerate((30, 60, 90)):
            # every machine begins with an empty mirror, and gets further than the one before
            assert Machine(ask, tmp_path / f"killed-{turn}").start(in_s3, kill_at=kill_at)() == -9
            assert all("never finished" in problem for problem in problems(in_s3.store))
        machines = [Machine(ask, tmp_path / name) for name in ("one", "another")]
        waits = [machine.start(in_s3, wait_seconds=120.0) for machine in machines]
        assert [wait() for wait in waits] == [0, 0]
    assert problems(in_s3.store) == []
    expected, found = files(Path(on_disk.store)), objects(in_s3.store)
    assert {name: found.get(name) for name in expected} == expected
    # what killed uploads have left, nobody sees, or it was taken up again
    assert {name.split("/")[0] for name in found} == {name.split("/")[0] for name in expected}


def problems(url: str) -> list[str]:
    """Return what is not whole of all that is there; nothing before there is a store."""
    try:
        return verify_store(url)
    except FileNotFoundError:
        return []
