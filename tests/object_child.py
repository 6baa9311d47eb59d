"""A machine of the tests: refreshes stores at URLs in processes of their own, which it can kill.

Reads one JSON command a line. ``start`` forks a process that refreshes and answers with its number;
``wait`` answers with the exit code of a process.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from refresh_samples import refresh

from storage.objects import Objects
from tasks.backbone import load_backbone
from tasks.config import PipelineConfig
from tasks.patience import Patience, with_patience

WRITES = ("put", "put_if", "delete")


class Countdown:
    """Counts what is written to object stores; at one of them the process dies, uploads and all."""

    def __init__(self, kill_at: int | None, counter: Path) -> None:
        self._kill_at, self._counter = kill_at, counter
        self._n_begun = 0
        self._lock = threading.Lock()

    def step(self, key: str) -> None:
        if key.endswith(".lease.json"):
            return  # heartbeats come when they come
        with self._lock:
            if self._n_begun == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self._n_begun += 1
            self._counter.write_text(str(self._n_begun))

    def watch(self, name: str, key_place: int) -> None:
        write: Callable[..., Any] = getattr(Objects, name)

        def counted(objects: Objects, *arguments: Any, **named: Any) -> Any:
            self.step(str(arguments[key_place]))
            return write(objects, *arguments, **named)

        setattr(Objects, name, counted)


def start(command: dict[str, Any]) -> int:
    config = PipelineConfig.model_validate_json(command["config"])
    load_backbone(config.indexing.model, device="cpu")  # the forks share it
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(command["environment"])
        countdown = Countdown(command["kill_at"], Path(command["counter"]))
        for name, key_place in zip(WRITES, (1, 0, 0), strict=True):
            countdown.watch(name, key_place)
        with with_patience(Patience(command["wait_seconds"])):
            refresh(config)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "start":
            answer = start(command)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(command["process"], 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
