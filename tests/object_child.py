"""Machines of the tests: processes with mirrors of their own that write a store at a URL.

Reads one JSON command a line. ``start`` forks a process that does something and answers with its
number; ``wait`` answers with the exit code of a process. A process may kill itself, uploads and
all, at the k-th time that it writes to the object store.
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import store_samples

from storage.lease import Patience, with_patience
from storage.objects import Objects
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex

N_BATCHES = 2


def make_everything(root: str, _name: str) -> None:
    """Two batches, their index in two steps, a query set, scores, two releases."""
    corpus, index = CorpusRef(root, "main"), IndexRef(root, "main")
    store_samples.add_batch(corpus, "b1", 0, 6)
    if store_samples.make_index(index).committed_rows < 6:
        store_samples.build(index, 6, ["b1"])
    store_samples.add_batch(corpus, "b2", 6, 11, part_rows=3)
    store_samples.build(index, 11, ["b1", "b2"])
    store_samples.add_query_set(root)
    store_samples.add_scores(root, SignatureIndex.open(index))
    store_samples.add_release(root, "r1")
    store_samples.add_release(root, "r2", n_rows=3)


def add_batches(root: str, name: str) -> None:
    for number in range(N_BATCHES):
        store_samples.add_batch(CorpusRef(root, "main"), f"{name}-{number}", 0, 6)


ACTIONS = {"make_everything": make_everything, "add_batches": add_batches}


def kill_at_write(kill_at: int) -> None:
    """Die at the k-th write to an object store; heartbeats, which come when they come, apart."""
    begun, lock = [0], threading.Lock()

    def step(key: str) -> None:
        if key.endswith("lease.json"):
            return
        with lock:
            if begun[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            begun[0] += 1

    for name, key_place in (("put", 1), ("put_if", 0), ("delete", 0)):
        setattr(Objects, name, _counted(getattr(Objects, name), key_place, step))


def _counted(
    write: Callable[..., Any], key_place: int, step: Callable[[str], None]
) -> Callable[..., Any]:
    def counted(objects: Objects, *arguments: Any, **named: Any) -> Any:
        step(str(arguments[key_place]))
        return write(objects, *arguments, **named)

    return counted


def start(command: dict[str, Any]) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.environ.update(command["environment"])
        if command["kill_at"] is not None:
            kill_at_write(command["kill_at"])
        with with_patience(Patience(command["wait_seconds"])):
            ACTIONS[command["action"]](command["root"], command["name"])
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "start":
            answer = start(command)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(command["process"], 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
