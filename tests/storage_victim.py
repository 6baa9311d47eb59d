"""Starts the process that tests kill (storage_child.py) and hands it its commands."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from child import child

Run = Callable[[str, Path, int | None], tuple[int, int]]
"""Takes an action, a store and the operation to die before; gives exit code and operations."""


@contextmanager
def storage_victim(counter: Path) -> Iterator[Run]:
    with child("storage_child.py") as ask:

        def run(action: str, root: Path, kill_at: int | None) -> tuple[int, int]:
            command = {"action": action, "root": str(root), "kill_at": kill_at}
            code = json.loads(ask(json.dumps({**command, "counter": str(counter)})))
            return code, int(counter.read_text() or 0)

        yield run
