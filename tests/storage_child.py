"""A process to be killed: forks once a command, and the fork kills itself at a chosen moment.

Commands come as JSON lines on standard input; each answer is the fork's exit code (-9 when it was
killed) and how many file operations under the store it had begun. A moment is the k-th operation
that changes the file system, seen through an audit hook just before it happens: nothing of the
code under test is replaced.
"""

import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import inbox_samples
import store_samples

from storage.catalog import open_store
from storage.corpus import BatchWriter
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks import takedown

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.link"}


def build_index(root: str) -> None:
    store_samples.build(IndexRef(root, "main"), 6, ["b1"])


def append_to_index(root: str) -> None:
    store_samples.build(IndexRef(root, "main"), 11, ["b1", "b2"])


def add_batch(root: str) -> None:
    store_samples.add_batch(CorpusRef(root, "main"), "b2", 6, 11, part_rows=3)


def refuse_batch(root: str) -> None:
    with BatchWriter(CorpusRef(root, "main"), "bad") as writer:
        writer.reject(store_samples.make_rejected(3))
        writer.refuse({"why": "too many"})


def add_query_set(root: str) -> None:
    store_samples.add_query_set(root, "v2")


def add_scores(root: str) -> None:
    store_samples.add_scores(root, SignatureIndex.open(IndexRef(root, "main")))


def add_release(root: str) -> None:
    store_samples.add_release(root, "r2", n_rows=3)


def take_down(root: str) -> None:
    takedown.take_down(
        CorpusRef(root, "main"),
        row_ids=["row-000001", "row-000004"],
        reason="asked for",
        now=datetime(2026, 1, 2, tzinfo=UTC),
    )


def take_files(root: str) -> None:
    inbox_samples.take(inbox_samples.inbox_config(Path(root), Path(root).parent / "inbox"))


def create_store(root: str) -> None:
    open_store(root, create=True)


ACTIONS = {
    action.__name__: action
    for action in (
        build_index,
        append_to_index,
        add_batch,
        refuse_batch,
        add_query_set,
        add_scores,
        add_release,
        take_down,
        take_files,
        create_store,
    )
}


def install_kill(root: str, kill_at: int | None, counter: Path) -> None:
    """Count changes under ``root`` and die, by SIGKILL, just before number ``kill_at``."""
    begun = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal begun
        writes = (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if not (event in CHANGES or writes) or not str(args[0]).startswith(root):
            return
        if begun == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        begun += 1
        os.pwrite(descriptor, f"{begun:8d}".encode(), 0)

    descriptor = os.open(counter, os.O_CREAT | os.O_WRONLY)
    sys.addaudithook(hook)


def serve() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            install_kill(command["root"], command["kill_at"], Path(command["counter"]))
            ACTIONS[command["action"]](command["root"])
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
