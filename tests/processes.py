"""This process's environment as it was before, and Dask clusters beside it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import LocalCluster

PYTESTS_OWN = "PYTEST_CURRENT_TEST"


@contextmanager
def environment(changes: Mapping[str, str] | None = None) -> Iterator[None]:
    """Set variables; afterwards all are as they were, whatever else was set within."""
    before = dict(os.environ)
    os.environ.update(changes or {})
    try:
        yield
    finally:
        for name in {*os.environ} - {*before, PYTESTS_OWN}:
            del os.environ[name]
        os.environ.update({name: own for name, own in before.items() if name != PYTESTS_OWN})


@contextmanager
def dask_cluster(*, n_workers: int, threads_per_worker: int) -> Iterator["LocalCluster"]:
    """Start a scheduler and workers on free ports, for as long as the ``with`` block."""
    from distributed import LocalCluster

    with (
        environment(),  # nannies change it
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=threads_per_worker,
            dashboard_address=None,
            # without a dashboard it still serves HTTP
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
    ):
        yield cluster
