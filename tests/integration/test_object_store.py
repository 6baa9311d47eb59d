"""A store in S3: written, read from another machine, killed in the middle, fought over."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest
from child import Ask, child
from object_child import N_BATCHES, make_everything
from refresh_samples import refresh, refresh_settings, rows, write_inbox_file

from storage.catalog import batch_folders
from storage.layout import batches_folder
from storage.objects import Objects
from storage.refs import CorpusRef, IndexRef
from storage.release_pointer import latest, moves
from storage.releases import open_release
from tasks.attribution import attribute_text
from tasks.catalog import list_store, verify_store
from tasks.config import PipelineConfig, RuntimeConfig
from tasks.config_file import merged, read_settings, validated
from tasks.refresh import take_inbox
from tasks.release_export import export
from tasks.suite_files import load_suite, write_suites

DIFFERS = ("quality/", "report.html", "environment.json", "cost.json", "moves.jsonl", "lease.json")
"""What may differ between two runs that make the same: reports, times, who wrote."""


def objects(url: str) -> dict[str, bytes]:
    """Return the objects of a store that equal inputs make equal."""
    found = Objects(url)
    keys = [key for key in found.listing() if not any(part in key for part in DIFFERS)]
    return {key: found.read(key) or b"" for key in keys}


def files(store: Path) -> dict[str, bytes]:
    """Return the same of a store on disk; where a link leads is an object."""
    paths = {path.relative_to(store).as_posix(): path for path in store.rglob("*")}
    return {
        name: str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for name, path in paths.items()
        if (path.is_symlink() or path.is_file())
        and not any(part in name for part in (*DIFFERS, ".lock"))
    }


def listed(root: str) -> list[dict[str, Any]]:
    return [{**line, "created": ""} for line in list_store(root)]


@dataclass
class Machine:
    """A process with a mirror of its own."""

    ask: Ask
    mirrors: Path

    def start(
        self,
        action: str,
        root: str,
        *,
        name: str = "",
        kill_at: int | None = None,
        wait_seconds: float = 0.0,
    ) -> Callable[[], int]:
        """Begin an action; return what waits for its end and returns its exit code."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS")}
        command = {
            "do": "start",
            "action": action,
            "root": root,
            "name": name,
            "environment": {**environment, "RISE_MIRROR": str(self.mirrors)},
            "kill_at": kill_at,
            "wait_seconds": wait_seconds,
        }
        process = int(self.ask(json.dumps(command)))
        return lambda: int(self.ask(json.dumps({"do": "wait", "process": process})))


def test_store_in_s3_is_the_store_on_disk(
    s3_bucket: str, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inbox_file(tmp_path / "inbox" / "a.jsonl", rows(0, 12))
    local = refresh_settings(tmp_path, tiny_llama)
    url = f"{s3_bucket}/team/store"
    remote = local.model_copy(update={"store": url})
    refresh(local)
    in_s3 = refresh(remote)
    assert in_s3.release is not None
    assert in_s3.release.path == f"{url}/releases/main/{in_s3.release.ref.release_id}"
    assert objects(url) == files(Path(local.store))

    monkeypatch.setenv("RISE_MIRROR", str(tmp_path / "another-machine"))
    assert verify_store(url) == []
    assert listed(url) == listed(local.store)
    there, here = open_release(latest(url, "main")), open_release(latest(local.store, "main"))
    assert there.manifest == here.manifest
    assert there.rows() == here.rows()
    assert [move.to for move in moves(url, "main")] == [there.ref.release_id]
    assert refresh(remote).outlook.nothing


def test_everything_may_be_a_url(
    s3_bucket: str, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = fsspec.filesystem("s3")
    write_inbox_file(tmp_path / "inbox" / "a.jsonl", rows(0, 12))
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
    assert refresh(config).release is not None

    # on another machine, which has nothing yet
    shutil.rmtree(tmp_path / "inbox")
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
        export(released, f"{s3_bucket}/out", "hf")

    # other bytes of the same size are another file, whatever the clock says
    before = s3.cat_file(f"{s3_bucket}/in/a.jsonl")
    s3.pipe_file(f"{s3_bucket}/in/a.jsonl", before.replace(b"Number 3 ", b"Number 5 "))
    intake = take_inbox(config)
    assert [(one.name, one.n_changed) for one in intake.taken] == [(f"{s3_bucket}/in/a.jsonl", 1)]
    assert [len(intake.refused), len(intake.waiting)] == [0, 0]


def test_killed_every_few_uploads_each_machine_goes_on_where_the_last_one_died(
    s3_bucket: str, tmp_path: Path
) -> None:
    make_everything(str(tmp_path / "store"), "")
    expected, url = files(tmp_path / "store"), f"{s3_bucket}/store"
    codes = []
    with child("object_child.py") as ask:
        while codes[-1:] != [0] and len(codes) < 12:
            machine = Machine(ask, tmp_path / f"machine-{len(codes)}")
            codes.append(machine.start("make_everything", url, kill_at=12)())
            # what others may see of an index that is being built, on disk as well
            seen = ("never finished", "no completion record")
            assert all(any(text in one for text in seen) for one in problems(url)), problems(url)
    assert codes == [-9] * (len(codes) - 1) + [0]
    assert len(codes) >= 4
    assert objects(url) == expected


def test_machines_that_write_at_once_take_turns(s3_bucket: str, tmp_path: Path) -> None:
    url = f"{s3_bucket}/store"
    with child("object_child.py") as ask:
        # the last two are processes of one machine: they share a mirror
        machines = [Machine(ask, tmp_path / mirrors) for mirrors in ("one", "two", "two")]
        waits = [
            machine.start("add_batches", url, name=f"writer-{number}", wait_seconds=120.0)
            for number, machine in enumerate(machines)
        ]
        assert [wait() for wait in waits] == [0, 0, 0]
    found = batch_folders(batches_folder(CorpusRef(url, "main")))
    n_batches = len(machines) * N_BATCHES
    assert [sequence for sequence, _, _ in found] == [*range(1, n_batches + 1)]
    assert len({batch_id for _, batch_id, _ in found}) == n_batches


def problems(url: str) -> list[str]:
    """Return what is not whole of all that is there; nothing before there is a store."""
    try:
        return verify_store(url)
    except FileNotFoundError:
        return []
