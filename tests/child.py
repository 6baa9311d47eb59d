"""A script of the tests in a process of its own, asked line by line."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).resolve().parent

Ask = Callable[[str], str]


@contextmanager
def child(script: str) -> Iterator[Ask]:
    """Run ``tests/<script>``; yield what sends it a line and returns the line that it answers."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    with subprocess.Popen(
        [sys.executable, str(TESTS / script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(line: str) -> str:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline()

        yield ask
        process.stdin.close()
