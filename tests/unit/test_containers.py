"""The container files pass their linters; no engine builds them here.

Both linters are wheels: hadolint for the Dockerfile, and the official schema of compose files,
which check-jsonschema carries.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deployments" / "container"


def linted(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("there is no hadolint wheel for this system")
    linted(hadolint, str(FOLDER / "Dockerfile"))


def test_the_compose_file() -> None:
    file = FOLDER / "compose.yaml"
    schema = ("--builtin-schema", "vendor.compose-spec")
    linted(sys.executable, "-m", "check_jsonschema", *schema, str(file))


def test_what_the_files_name_is_there() -> None:
    root = FOLDER.parents[1]
    dockerfile = (FOLDER / "Dockerfile").read_text()
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    copied = [
        word
        for line in dockerfile.splitlines()
        if line.startswith("COPY ")
        for word in line.split()[1:-1]
    ]
    assert [name for name in copied if not (root / name).exists()] == []
    assert [name for name in copied if f"!{name}" not in ignored] == []
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    targets = {one["build"]["target"] for one in services.values() if "build" in one}
    assert all(f" AS {target}\n" in dockerfile for target in targets)
    for one in services.values():
        needed = one.get("depends_on", {})
        assert set(needed) <= set(services)
