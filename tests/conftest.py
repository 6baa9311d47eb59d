"""Fixtures that several tests share, and what keeps test processes out of each other's way.

`make test` runs two processes (pytest-xdist). Each has folders of its own for temporary files,
RISE, Prefect and datasets, and ports of its own (`prefect_process.free_port`). All tests of a file
run in one process, in order, so that what a file's tests share is made once.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

# tiny tensors gain nothing from threads, and on a busy machine they wait for each other
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# libraries read these when they are imported, here or in a child: neither the user's settings and
# databases nor another test process's
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="rise-tests-")
os.environ["HF_DATASETS_CACHE"] = f"{os.environ['PREFECT_HOME']}/datasets"

import hypothesis
import pytest
import torch
from object_server import object_server
from processes import environment
from tiny import tiny_model

torch.set_num_threads(1)

# examples count, not how long a busy machine takes for them
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

HOME = os.environ["PREFECT_HOME"]

USER_CACHE = Path(os.environ.get("RISE_HOME") or Path.home() / ".cache" / "rise")


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out files, the long ones first, as they are collected; one process has the server."""
    from xdist.scheduler import LoadFileScheduling

    @cache
    def unit_of(file: str) -> str:
        served = "prefect_harness" in (config.rootpath / file).read_text()
        return "files on the one Prefect server" if served else file

    class FilesScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(super()._split_scope(nodeid))

    config.option.loadscopereorder = False
    return FilesScheduling(config, log)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave later tests the same environment, and torch's own numbers whatever ran before."""
    torch.manual_seed(0)
    with environment():
        yield


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep digests and converted models of a test run out of the user's cache."""
    real = os.environ.get("RISE_HOME")
    os.environ["RISE_HOME"] = str(tmp_path_factory.mktemp("rise-home"))
    yield
    if real is None:
        del os.environ["RISE_HOME"]
    else:
        os.environ["RISE_HOME"] = real


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with tied embeddings and its tokenizer; do not write into it."""
    return tiny_model(tmp_path_factory.mktemp("tiny-llama") / "model")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real SmolLM2; the test is skipped when it was never fetched."""
    folder = USER_CACHE / "models" / "smollm2-135m-instruct"
    if not folder.is_dir():
        pytest.skip("SmolLM2 is not fetched: `rise models fetch smollm2-135m-instruct`")
    return folder


@pytest.fixture(scope="session")
def prefect_harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One real Prefect server for all tests that run flows."""
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_HOME,
        PREFECT_LOCAL_STORAGE_PATH,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    folder = tmp_path_factory.mktemp("prefect")
    settings = {
        PREFECT_HOME: folder,
        PREFECT_LOCAL_STORAGE_PATH: folder / "storage",
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_LOGGING_TO_API_ENABLED: False,
    }
    with temporary_settings(settings), prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One real S3 server for all tests; the environment variables that lead to it."""
    with object_server(tmp_path_factory.mktemp("s3")) as variables:
        yield variables


@pytest.fixture
def s3_bucket(s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket; this process and its children are led to the server."""
    import fsspec

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RISE_MIRROR", str(tmp_path / "mirrors"))
    name = f"test-{uuid.uuid4().hex[:12]}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"
