"""The ``rise`` command as a user runs it: processes of its own, no network, damage noticed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pipeline_samples import pipeline_settings

WATCH_LOOKUPS = """
import os, socket
_real = socket.getaddrinfo
def _watched(host, *rest, **named):
    if host not in (None, "localhost", "127.0.0.1", "::1", b"localhost", socket.gethostname()):
        with open(os.environ["LOOKUPS"], "a") as file:
            file.write(f"{host}\\n")
    return _real(host, *rest, **named)
socket.getaddrinfo = _watched
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("command")
    (folder / "sitecustomize.py").write_text(WATCH_LOOKUPS)
    settings = pipeline_settings(folder, tiny_llama)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    return folder


def rise(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(folder / "prefect"),
        "HOME": str(folder),
        "LOOKUPS": str(folder / "lookups"),
        "PYTHONPATH": os.pathsep.join([str(folder), str(Path.cwd())]),
        "NO_COLOR": "1",
    }
    program = "from flows.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_user_goes_the_whole_path_offline(workplace: Path) -> None:
    done = rise(workplace, "run", "pipeline.yaml")
    assert done.returncode == 0, done.stderr
    assert "rows released   7" in done.stdout
    assert "Traceback" not in done.stderr

    listed = json.loads(rise(workplace, "ls", "--store", "store", "--json").stdout)
    assert [item["kind"] for item in listed] == [
        "batch",
        "index",
        "query set",
        "scores",
        "release",
    ]
    asked = rise(
        workplace,
        "attribute",
        "Number 3 is about drums.",
        "--prompt",
        "Say something. ",
        "--store",
        "store",
        "--top",
        "3",
        "--json",
    )
    hits = json.loads(asked.stdout)
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert hits[0]["score"] >= hits[1]["score"] >= hits[2]["score"]

    taken_apart = rise(
        workplace, "attribute", "Number 3 is about drums.", "--store", "store", "--top", "1",
        "--tokens",
    )  # fmt: skip
    assert taken_apart.returncode == 0, taken_apart.stderr
    assert "Tokens of row row-" in taken_apart.stdout
    assert "Tokens of the answer that made the score" in taken_apart.stdout

    walked = rise(workplace, "lineage", hits[0]["row_id"], "--store", "store")
    assert "rows-0.jsonl:" in walked.stdout
    assert rise(workplace, "verify", "--store", "store").returncode == 0
    lookups = workplace / "lookups"
    assert not lookups.exists(), lookups.read_text()


def test_a_flipped_bit_is_found_and_named(workplace: Path) -> None:
    index = workplace / "store" / "indexes" / "main" / "signatures.zarr" / "signatures"
    shard = max(index.rglob("c/*/*"), key=lambda path: path.as_posix())
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 4
    shard.write_bytes(data)

    checked = rise(workplace, "verify", "--store", "store")
    assert checked.returncode == 1
    assert "block 3" in checked.stdout
    asked = rise(workplace, "attribute", "Number 3 is about drums.", "--store", "store")
    assert asked.returncode == 1
    assert "block 3" in asked.stderr
    assert "Traceback" not in asked.stderr
