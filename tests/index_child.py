"""A process to be killed while it builds an index: forks once a command, after the slow imports.

Commands come as JSON lines on standard input; the answer is the fork's exit code (-9 when it was
killed) and, when it lived, its report. The fork kills itself with SIGKILL at a chosen moment:
``batch:K`` before the model reads its K-th batch, ``done:K`` when K blocks are done,
``rename:TEXT`` before the first rename onto a path that holds TEXT.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import great_expectations.expectations  # noqa: F401 - for the gate; the forks share it
import torch

from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks.backbone import Backbone, load_backbone
from tasks.config import IndexConfig, RuntimeConfig
from tasks.signatures import build_index

Command = Callable[[dict[str, str]], None]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    def __init__(self, until: int) -> None:
        self.left = until

    def step(self) -> None:
        if self.left == 0:
            die()
        self.left -= 1


def arm(moment: str) -> None:
    """Prepare the death of this process; "" lets it live."""
    kind, _, value = moment.partition(":")
    if kind == "batch":
        countdown, read = Countdown(int(value)), Backbone.hidden_states

        def counted(backbone: Backbone, ids: torch.Tensor) -> torch.Tensor:
            countdown.step()
            return read(backbone, ids)

        Backbone.hidden_states = counted
    if kind == "rename":

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            if event == "os.rename" and value in str(arguments[1]):
                die()

        sys.addaudithook(watch)
    if kind == "done":
        left, write = Countdown(int(value) - 1), SignatureIndex.write_block

        def counted_block(index: SignatureIndex, *arguments: Any, **named: Any) -> None:
            write(index, *arguments, **named)
            left.step()

        SignatureIndex.write_block = counted_block


def build(command: dict[str, str]) -> None:
    config = IndexConfig.model_validate_json(command["config"])
    arm(command["moment"])
    report = build_index(
        IndexRef(command["root"], command["index"]),
        CorpusRef(command["root"], "main"),
        config,
        RuntimeConfig(device="cpu", batch_tokens=64),
    )
    Path(command["report"]).write_text(str(report.n_sketched))


def main() -> None:
    def share(command: dict[str, str]) -> None:
        load_backbone(IndexConfig.model_validate_json(command["config"]).model, device="cpu")

    fork_for_each_command(share, build)


def fork_for_each_command(share: Command, work: Command) -> None:
    """Do ``share`` here, which every fork would do again, and ``work`` in a fork."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        command = json.loads(line)
        share(command)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(command)
                code = 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
