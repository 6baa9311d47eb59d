"""What a build of an index is going to do, and what was done for a block; sent to processes."""

from dataclasses import dataclass, replace

from storage.lease import Fence
from storage.refs import CorpusRef, IndexRef
from storage.roots import absolute_root
from tasks.calibration import Drift
from tasks.config import IndexConfig, RuntimeConfig
from tasks.models import from_anywhere


@dataclass(frozen=True)
class IndexPlan:
    """What a build will do.

    Attributes:
        ref: The index.
        corpus: Its corpus.
        config: Identity of the index.
        runtime: Speed only.
        batches: Corpus batches that it will cover, in corpus order.
        n_rows: Their rows.
        blocks: Numbers of the blocks that are missing.
        n_blocks: All blocks.
        predicted_bytes: Memory that the work will take; 0 when there is none to do.
        drift: How appended rows fit the index; None where that was not to be measured.
        fence: Says whether the index is still this build's to write.
        device: Where it was measured, or would be; "" where nobody had to ask.
    """

    ref: IndexRef
    corpus: CorpusRef
    config: IndexConfig
    runtime: RuntimeConfig
    batches: tuple[str, ...]
    n_rows: int
    blocks: tuple[int, ...]
    n_blocks: int
    predicted_bytes: int
    drift: Drift | None
    fence: Fence
    device: str = ""

    @property
    def n_missing_rows(self) -> int:
        """Rows of the missing blocks."""
        size = self.config.block_rows
        return sum(min(size, self.n_rows - block * size) for block in self.blocks)

    def to_send(self) -> "IndexPlan":
        """Return the plan as another process needs it: small, and wherever that process runs."""
        ref, corpus, config = sendable(self.ref, self.corpus, self.config)
        return replace(self, ref=ref, corpus=corpus, config=config, blocks=())


@dataclass(frozen=True)
class BlockReport:
    """What was done for one block, in how many seconds, and where: "" is this process."""

    block: int
    n_rows: int
    n_tokens: int
    n_empty: int
    seconds: float
    worker: str = ""
    device: str = ""


def sendable(
    ref: IndexRef, corpus: CorpusRef, config: IndexConfig
) -> tuple[IndexRef, CorpusRef, IndexConfig]:
    """Return them with absolute paths, as processes in other folders find them."""
    return (
        IndexRef(_absolute(ref.root), ref.index),
        CorpusRef(_absolute(corpus.root), corpus.corpus),
        config.model_copy(update={"model": from_anywhere(config.model)}),
    )


def _absolute(root: str) -> str:
    return absolute_root(root)
