"""Starts the process that tests kill (storage_child.py) and hands it its commands."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent

Run = Callable[[str, Path, int | None], tuple[int, int]]
"""Takes an action, a store and the operation to die before; gives exit code and operations."""


@contextmanager
def storage_victim(counter: Path) -> Iterator[Run]:
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    with subprocess.Popen(
        [sys.executable, str(TESTS / "storage_child.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(action: str, root: Path, kill_at: int | None) -> tuple[int, int]:
            command = {"action": action, "root": str(root), "kill_at": kill_at}
            process.stdin.write(json.dumps({**command, "counter": str(counter)}) + "\n")
            process.stdin.flush()
            code = json.loads(process.stdout.readline())
            return code, int(counter.read_text() or 0)

        yield run
        process.stdin.close()
