"""What flows do about others and about time: wait, say for whom, give up, stop in time, retry."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_rows import tiny_texts, write_texts

from flows.index import index
from flows.run_rules import OutOfTimeError
from storage.errors import BusyError, LeaseLostError
from storage.guards import Guard, index_guard
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks.backbone import Backbone
from tasks.config import IndexConfig, ModelConfig, RuntimeConfig
from tasks.signature_config import SeparableSketch, SignatureConfig, WindowConfig
from tasks.signatures import build_index

pytestmark = pytest.mark.usefixtures("prefect_harness")

N_BLOCKS, BLOCK_ROWS = 5, 6


@pytest.fixture
def arguments(tmp_path: Path, tiny_llama: Path) -> dict[str, Any]:
    root = str(tmp_path / "store")
    write_texts(CorpusRef(root, "main"), "b1", tiny_texts(N_BLOCKS * BLOCK_ROWS))
    sketch = SeparableSketch(residual_dim=8, hidden_dim=8, projected_dim=4)
    signature = SignatureConfig(sketch=sketch, window=WindowConfig(tokens=24, overlap=6))
    config = IndexConfig(
        model=ModelConfig(name=str(tiny_llama), dtype="float32"),
        signature=signature,
        block_rows=BLOCK_ROWS,
    )
    return {"store": root, "config": config, "runtime": RuntimeConfig(device="cpu")}


@contextmanager
def somebody_else(guard: Guard) -> Iterator[threading.Event]:
    """Hold a lease in another thread until the event is set."""
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        with guard.hold():
            begun.set()
            ended.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(60)
    try:
        yield ended
    finally:
        ended.set()
        thread.join()


def with_runtime(arguments: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {**arguments, "runtime": arguments["runtime"].model_copy(update=changes)}


def artifacts() -> list[Any]:
    """Return the newest ones first: other files leave theirs on this server too."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import ArtifactSort

    with get_client(sync_client=True) as client:
        return client.read_artifacts(sort=ArtifactSort.CREATED_DESC)


def waits_were_drawn() -> list[str]:
    """Return the artifacts about waiting, once there is one."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = [one.description or "" for one in artifacts()]
        if waits := [text for text in found if "being written" in text]:
            return waits
        time.sleep(0.2)
    return []


def test_a_flow_waits_for_whoever_builds_the_same_index_and_says_so(
    arguments: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the logs of runs go to the server alone; here they are wanted
    monkeypatch.setattr("prefect.logging.get_run_logger", lambda: logging.getLogger("run"))
    guard = index_guard(IndexRef(arguments["store"], "main"))
    with somebody_else(guard) as ended:
        threading.Thread(target=lambda: ended.set() if waits_were_drawn() else None).start()
        report = index(**with_runtime(arguments, wait_seconds=300.0))
    assert report.n_sketched == N_BLOCKS * BLOCK_ROWS
    said = [line for line in caplog.messages if "is being written by" in line]
    assert 1 <= len(said) <= 3  # a line a minute
    assert said[0].startswith("waiting, up to 300 s more: index 'main' is being written by ")
    drawn = waits_were_drawn()
    assert drawn[0].startswith("patience used up, 300 s in all: index 'main' is being written by")


def test_a_flow_whose_patience_is_over_is_refused_and_tells_what_to_do(
    arguments: dict[str, Any],
) -> None:
    ref = IndexRef(arguments["store"], "main")
    with somebody_else(index_guard(ref)):
        state = index(**with_runtime(arguments, wait_seconds=0.0), return_state=True)
        with pytest.raises(BusyError):  # a plain call waits for nobody
            build_index(
                ref,
                CorpusRef(ref.root, "main"),
                arguments["config"],
                arguments["runtime"].model_copy(update={"wait_seconds": 600.0}),
            )
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), BusyError)
    run = state.state_details.flow_run_id
    story = next(one for one in artifacts() if (one.key, one.flow_run_id) == ("index-failed", run))
    assert "Wait for it to end, or stop it" in story.data
    assert "nothing is wrong with either of them" in story.data


# the time may run out between the opening of a file and its `with`: Python closes it, and warns
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_run_that_takes_too_long_keeps_its_blocks_and_the_next_one_goes_on(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = IndexRef(arguments["store"], "main")
    read = Backbone.hidden_states

    def hang_in_the_third_block(backbone: Backbone, ids: torch.Tensor) -> torch.Tensor:
        while SignatureIndex.open(ref).block_record(1) is not None:
            time.sleep(0.02)  # a test's own alarm keeps Prefect from ending a long sleep
        return read(backbone, ids)

    with monkeypatch.context() as slow:
        slow.setattr(Backbone, "hidden_states", hang_in_the_third_block)
        state = index(**with_runtime(arguments, timeout_seconds=15.0), return_state=True)
    assert (state.name, state.is_failed()) == ("TimedOut", True)
    error = state.result(raise_on_failure=False)
    assert isinstance(error, OutOfTimeError)
    assert "took longer than 15 s (runtime.timeout_seconds)" in str(error)
    opened = SignatureIndex.open(ref)
    done = [block for block in range(N_BLOCKS) if opened.block_record(block) is not None]
    assert done == [0, 1]
    assert index_guard(ref).holder() is None
    report = index(**with_runtime(arguments, timeout_seconds=300.0))
    assert report.n_sketched == BLOCK_ROWS * (N_BLOCKS - 2)


def test_a_build_that_lost_its_lease_stops_before_the_next_block(
    arguments: dict[str, Any],
) -> None:
    ref = IndexRef(arguments["store"], "main")
    guard = index_guard(ref)

    class TakenOver:
        """Takes the lease away while the third block is computed."""

        blocks = 0

        def start(self, *, total: int, unit: str) -> None: ...

        def advance(self, n_units: int) -> None:
            del n_units
            self.blocks = len(list((SignatureIndex.open(ref).folder / "blocks").iterdir()))
            if self.blocks == 2:
                token = guard.held().holder.token.encode()
                guard.path.write_bytes(guard.path.read_bytes().replace(token, b"0" * 32))

    with pytest.raises(LeaseLostError, match="What was finished before is kept"):
        build_index(
            ref,
            CorpusRef(ref.root, "main"),
            arguments["config"],
            arguments["runtime"],
            progress=TakenOver(),
        )
    assert len(list((SignatureIndex.open(ref).folder / "blocks").iterdir())) == 2
    assert guard.holder() is not None  # the other one's is left alone


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError("the network"), True),
        (ConnectionResetError("the network"), True),
        (TimeoutError("the network"), True),
        (BusyError("somebody"), False),
        (LeaseLostError("somebody"), False),
        (FileNotFoundError("gone"), False),
        (PermissionError("not yours"), False),
        (ValueError("settings"), False),
        (MemoryError("too small"), False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: Exception, *, again: bool) -> None:
    from prefect.states import Failed

    from tasks.prefect_tasks import passes_by_itself

    assert passes_by_itself(None, None, Failed(data=error)) is again


def test_a_fault_that_passes_is_retried_within_a_flow(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import prefect_tasks

    monkeypatch.setattr(prefect_tasks.sketch_block, "retry_delay_seconds", [0.0, 0.0])
    faults = [OSError("the disk is away"), OSError("still away")]
    write = SignatureIndex.write_block

    def fail_first(index: SignatureIndex, *given: Any, **named: Any) -> None:
        if faults:
            raise faults.pop()
        write(index, *given, **named)

    monkeypatch.setattr(SignatureIndex, "write_block", fail_first)
    assert index(**arguments).n_sketched == N_BLOCKS * BLOCK_ROWS
    assert faults == []
