"""SIGKILL of a process that builds an index, at moments of its whole life; then it is run again.

Readers never see an unfinished index, the second run does the blocks that were not done and no
other, and it ends with the very bytes of a build that nobody disturbed.
"""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from child import child
from store_samples import tree_bytes
from tiny_rows import tiny_texts, write_texts

from storage.errors import IncompleteError, NotFoundError
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks.config import IndexConfig, ModelConfig
from tasks.signature_config import (
    PrincipalProjection,
    ResidualConfig,
    SeparableSketch,
    SignatureConfig,
    WindowConfig,
)

BLOCK_ROWS = 6
N_ROWS = 27
N_BLOCKS = 5

Run = Callable[[str, str], int]


SKETCHES = {
    "separable": {"sketch": SeparableSketch(residual_dim=8, hidden_dim=8, projected_dim=4)},
    # calibrated before its first block, coded, with floats beside the codes
    "principal": {
        "sketch": PrincipalProjection(hidden_dim=8, projected_dim=4, calibration_tokens=300),
        "head": "two_pass",
        "code": "sign",
        "keep_floats": True,
    },
}


@pytest.fixture(name="sketch", scope="module", params=SKETCHES)
def sketch_settings(request: pytest.FixtureRequest) -> dict[str, object]:
    return SKETCHES[request.param]


@pytest.fixture(name="root", scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory, sketch: dict[str, object]) -> Path:
    del sketch  # each has a store of its own
    root = tmp_path_factory.mktemp("kills") / "store"
    write_texts(CorpusRef(str(root), "main"), "b1", tiny_texts(N_ROWS))
    return root


@pytest.fixture(name="run", scope="module")
def victim(root: Path, tiny_llama: Path, sketch: dict[str, object]) -> Iterator[Run]:
    """Builds the named index in a child that dies at the named moment; gives its exit code."""
    config = IndexConfig(
        model=ModelConfig(name=str(tiny_llama), dtype="float32"),
        signature=SignatureConfig(
            residual=ResidualConfig(temperature=1.0, top_k=64),
            window=WindowConfig(tokens=24, overlap=6),
            **sketch,
        ),
        block_rows=BLOCK_ROWS,
    )
    with child("index_child.py") as ask:

        def run(index: str, moment: str) -> int:
            command = {"root": str(root), "index": index, "moment": moment}
            command |= {"config": config.model_dump_json(), "report": str(root / "report")}
            return int(ask(json.dumps(command)))

        yield run


@pytest.fixture(name="undisturbed", scope="module")
def whole_index(root: Path, run: Run) -> dict[str, str]:
    assert run("undisturbed", "") == 0
    return tree_bytes(root / "indexes" / "undisturbed")


def _blocks_done(ref: IndexRef) -> list[int]:
    try:
        index = SignatureIndex.open(ref)
    except NotFoundError:
        return []
    return [block for block in range(N_BLOCKS) if index.block_record(block) is not None]


@pytest.mark.parametrize(
    ("moment", "done"),
    [
        ("rename:indexes/victim", 0),  # the empty index is about to appear
        ("batch:0", 0),  # nothing was read yet; or calibrating
        ("rename:signatures/c/0/", 0),  # between calibration and the first block
        ("batch:2", 0),  # within block 0
        ("done:1", 1),  # between blocks
        ("batch:9", None),  # within some later block
        ("rename:signatures/c/2/", 2),  # the shard of block 2 is computed, not yet in place
        ("rename:n_positions/c/2", 2),  # shard and floats are in place, counts are not
        ("rename:blocks/00000003", 3),  # shard 3 is in place, its record is not
        ("done:5", 5),  # all blocks are done
        ("rename:quality.json", 5),  # the gate has judged, its verdict is not yet noted
        ("rename:rows.json", 5),  # the commit is about to count
    ],
)
def test_kill_then_resume(
    root: Path,
    run: Run,
    undisturbed: dict[str, str],
    moment: str,
    done: int | None,
):
    name = "victim-" + "".join(char if char.isalnum() else "-" for char in moment.lower())
    ref = IndexRef(str(root), name)
    assert run(name, moment) == -signal.SIGKILL
    finished = _blocks_done(ref)
    assert finished == list(range(len(finished)))
    assert done is None or len(finished) == done
    if finished:
        with pytest.raises(IncompleteError):
            _ = SignatureIndex.open(ref).n_rows

    assert run(name, "") == 0
    again = int((root / "report").read_text())
    assert again == N_ROWS - BLOCK_ROWS * len(finished) if len(finished) < N_BLOCKS else again == 0
    assert tree_bytes(root / "indexes" / name) == undisturbed
    assert SignatureIndex.open(ref).verify() == []
