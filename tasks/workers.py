"""Work spread over processes: here, on this machine, or on a Dask cluster.

Processes of this machine and of a cluster are the same to the code: workers of a Dask scheduler,
which looks after them. It sends a piece of work again when its worker is lost; this file counts
how often that happened to which piece, says so, and gives up on one that takes its workers with it.
"""

import os
import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from tasks.config import RuntimeConfig
from tasks.dask_client import MOST_DEATHS, local_client, remote_client
from tasks.progress import NO_PROGRESS, Progress
from tasks.worker_errors import WorkersLostError
from tasks.worker_process import Done, Terms, versions, work, worker_name

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE_SECONDS = 600.0
"""How long a cluster may be without any worker: queues of batch systems take their time."""

MOST_SENT = 1000
"""Pieces of work that the scheduler has at a time; each comes with what is shared by all."""

LOOK_SECONDS = 1.0
"""Time between two looks at whether the cluster is still there."""


@dataclass(frozen=True)
class Work:
    """What is done with each of some items.

    Attributes:
        task: ``task(shared, item, progress=...)``, a function of a module: it is sent by name.
        shared: The same for all; small.
        items: Small and each another.
        what: What an item is, for messages: ``index 'main', block``.
    """

    task: Callable[..., Any]
    shared: Any
    items: Sequence[Any]
    what: str


@dataclass(frozen=True)
class Spread:
    """What came of spread work.

    Attributes:
        results: One an item, in their order.
        places: Worker and device of each, likewise.
        again: Items that were begun more than once, because a worker was lost, and how often.
    """

    results: list[Any]
    places: list[tuple[str, str]]
    again: dict[Any, int] = field(default_factory=dict)


class Workers(Protocol):
    """Whoever does the work.

    Attributes:
        alone: It is this process, and no other.
        elsewhere: It is not this machine, so its devices are others'.
    """

    alone: bool
    elsewhere: bool

    def spread(self, work: Work, progress: Progress) -> Spread:
        """Do the work; what was done before a failure is not done again."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function where the devices are."""


class ThisProcess:
    """Works itself, one item after another."""

    alone = True
    elsewhere = False

    def spread(self, work: Work, progress: Progress) -> Spread:
        """Do the work."""
        results = [work.task(work.shared, item, progress=progress) for item in work.items]
        return Spread(results, [(worker_name(), "")] * len(results))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function."""
        return function(*arguments)


THIS_PROCESS = ThisProcess()


@contextmanager
def open_workers(runtime: RuntimeConfig) -> Iterator[Workers]:
    """Yield who sketches blocks by these settings; processes start when there is work for them."""
    if runtime.index_cluster is None and runtime.index_workers == 1:
        yield THIS_PROCESS
        return
    workers = ManyWorkers(runtime)
    try:
        yield workers
    finally:
        workers.close()


class ManyWorkers:
    """Worker processes of a Dask scheduler; use `open_workers`."""

    alone = False

    def __init__(self, runtime: RuntimeConfig) -> None:
        self.elsewhere = runtime.index_cluster is not None
        self._runtime = runtime
        self._opened = ExitStack()
        self._client: Client | None = None
        self._done: dict[Any, Done] = {}
        self._begun: Counter[Any] = Counter()

    def close(self) -> None:
        """End the processes, or leave the cluster."""
        self._client = None
        self._opened.close()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function: on a worker of the cluster, or in this process, on this machine."""
        if not self.elsewhere:
            return function(*arguments)
        run = _Run(self._connected(), self._terms(), NO_PROGRESS)
        name = function.__name__
        return run.results(Work(_called, (function, arguments), [name], "step"))[name].result

    def spread(self, work: Work, progress: Progress) -> Spread:
        """Do the work, each item on a worker that is free.

        Raises:
            WorkersLostError: Every worker that took an item died, or there was none for
                `PATIENCE_SECONDS`.
            ConnectionError: The scheduler does not answer, or went away.
        """
        left = [item for item in work.items if item not in self._done]
        if left:
            run = _Run(self._connected(), self._terms(), progress, self._done, self._begun)
            run.results(replace(work, items=left))
        done = [self._done[item] for item in work.items]
        again = {item: self._begun[item] for item in work.items if self._begun[item] > 1}
        return Spread(
            [one.result for one in done], [(one.worker, one.device) for one in done], again
        )

    def _connected(self) -> "Client":
        if self._client is not None and self._client.status != "running":
            self.close()
        if self._client is None:
            address = self._runtime.index_cluster
            self._client = self._opened.enter_context(
                local_client(self._runtime.index_workers)
                if address is None
                else remote_client(address, otherwise="set runtime.index_workers instead")
            )
        return self._client

    def _terms(self) -> Terms:
        n_cores = len(os.sched_getaffinity(0))
        threads = None if self.elsewhere else max(1, n_cores // self._runtime.index_workers)
        return Terms(f"rise-{uuid.uuid4().hex}", self._runtime.device, threads, versions())


class _Run:
    """One spread of a task: sends, listens, counts."""

    def __init__(
        self,
        client: "Client",
        terms: Terms,
        progress: Progress,
        done: dict[Any, Done] | None = None,
        begun: Counter[Any] | None = None,
    ) -> None:
        self._client, self._terms, self._progress = client, terms, progress
        self._done: dict[Any, Done] = {} if done is None else done
        self._begun: Counter[Any] = Counter() if begun is None else begun
        self._news: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._told: Counter[Any] = Counter()
        self._seen_worker = time.monotonic()

    def results(self, todo: Work) -> dict[Any, Done]:
        """Return what the task gave for each item, and for those of earlier runs."""
        topic = self._terms.topic
        self._client.subscribe_topic(topic, lambda event: self._news.put(("told", event[1])))
        unsent = deque(todo.items)
        sent: dict[Any, Future[Any]] = {}
        try:
            while unsent or sent:
                while unsent and len(sent) < MOST_SENT:
                    item = unsent.popleft()
                    sent[item] = self._send(todo, item)
                kind, item = self._next()
                if kind == "told":
                    self._hear(item)
                elif self._end(item, sent.pop(item), todo.what):
                    unsent.appendleft(item)
        finally:
            self._client.cancel(list(sent.values()))
            self._client.unsubscribe_topic(topic)
        return self._done

    def _send(self, todo: Work, item: Any) -> "Future[Any]":
        # nothing that it depends on: Dask would put all of them where that is
        key = f"{self._terms.topic}-{item}-{uuid.uuid4().hex[:8]}"
        future = self._client.submit(
            work, todo.task, todo.shared, item, self._terms, pure=False, key=key
        )
        future.add_done_callback(lambda _: self._news.put(("ended", item)))
        return future

    def _next(self) -> tuple[str, Any]:
        """Return the next news; while there is none, see that the cluster is there."""
        while True:
            try:
                return self._news.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                self._look()

    def _look(self) -> None:
        if self._client.status != "running":
            raise self._gone()
        now = time.monotonic()
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except OSError as error:
            raise self._gone() from error
        if workers:
            self._seen_worker = now
        elif now - self._seen_worker > PATIENCE_SECONDS:
            raise WorkersLostError(
                "the Dask cluster has had no worker for "
                f"{PATIENCE_SECONDS:.0f} s. Start workers that have this project, or see in their "
                "logs why they ended, and run again; finished work is kept."
            )

    def _hear(self, message: dict[str, Any]) -> None:
        item = message["item"]
        if message.get("begins"):
            self._begun[item] += 1
        else:
            self._count(item, message["done"])

    def _count(self, item: Any, n_done: int) -> None:
        """Advance by what is new: a piece that is done again counts once."""
        if n_done > self._told[item]:
            self._progress.advance(n_done - self._told[item])
            self._told[item] = n_done

    def _end(self, item: Any, future: "Future[Any]", what: str) -> bool:
        """Take what came of an item; tell whether it is to be sent again."""
        from distributed import KilledWorker

        if future.status == "cancelled":
            raise self._gone()
        try:
            self._done[item] = future.result()
        except KilledWorker as error:
            self._hear_all()
            if self._begun[item] < MOST_DEATHS:
                return True  # it was behind another one that takes its workers with it
            raise WorkersLostError(
                f"{self._begun[item]} workers died while they worked on {what} {item} (the "
                f"last one: {error.last_worker.address}). Most often the memory was not enough: "
                "lower runtime.index_workers, runtime.batch_tokens or block_rows; else see what "
                "the workers' logs and the system's say. Finished work is kept; run again to go on."
            ) from error
        return False

    def _hear_all(self) -> None:
        """Hear what was told before now, without losing the order of the rest."""
        rest = []
        while not self._news.empty():
            kind, item = self._news.get()
            if kind == "told":
                self._hear(item)
            else:
                rest.append((kind, item))
        for one in rest:
            self._news.put(one)

    def _gone(self) -> ConnectionError:
        return ConnectionError(
            "the Dask scheduler of the index's workers went away. Finished work is kept: start "
            "the scheduler and run again to go on."
        )


def _called(call: tuple[Callable[..., Any], tuple[Any, ...]], _: Any, *, progress: Progress) -> Any:
    del progress
    function, arguments = call
    return function(*arguments)
