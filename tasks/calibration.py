"""Stage: a sample of the corpus says along which directions rows are told apart.

Whole rows, chosen by a hash of their id and the seed, go through the model once; the second moments
of their hidden states and errors give the tables of the sketch, which are stored in the index by
value and never change. Rows that are appended later are held against them: when the kept directions
capture much less of the new rows than of the sample, a new index is due.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rise_ops.calibration import Basis, Moments, energy_ratio, held_out_energy
from rise_ops.principal import PrincipalTables
from rise_ops.projection import ProjectionTables
from storage.corpus import Corpus, Row
from storage.files import digest
from storage.refs import CorpusRef
from storage.signatures import SignatureIndex
from tasks.backbone import TokenRow, load_backbone, load_tokenizer
from tasks.codes import without_rotation
from tasks.config import DriftLimits, IndexConfig, RuntimeConfig
from tasks.index_identity import CALIBRATION_KEY
from tasks.signature_config import PrincipalProjection, TensorSketch
from tasks.sketch_tables import (
    input_sizes,
    load_tables,
    make_tables,
    measuring_signature,
    measuring_tables,
)
from tasks.sketching import measure_moments
from tasks.space import make_space
from tasks.takedown import living_rows

SAMPLE_BATCH_TOKENS = 1024
SAMPLE_HEAD_BYTES = 67_108_864
"""Sizes of a sample's batches. Fixed: rounding depends on them, and tables must not depend on
settings that are there for speed. Small enough for any machine that can build the index."""

ENOUGH_POSITIONS = 2_000
"""Positions of a sample from which docs/evidence.md found no task to suffer much."""

FEW_POSITIONS = 512
"""Energy of fewer appended positions than this varies too much to refuse rows for it."""


@dataclass(frozen=True)
class Drift:
    """How appended rows fit the directions of an index.

    Attributes:
        n_rows: Appended rows that were read.
        n_positions: Their positions.
        ratios: For each factor the share of energy that its directions capture of these rows, over
            the share that such directions capture of rows like the sample's (``held_out_energy`` of
            the calibration); 1: no drift.
        warning: What to say about it; None when all is well.
    """

    n_rows: int
    n_positions: int
    ratios: Mapping[str, float]
    warning: str | None


@dataclass(frozen=True)
class _Sample:
    row_ids: list[str]
    rows: list[TokenRow]

    @property
    def n_tokens(self) -> int:
        return sum(len(row.ids) for row in self.rows)

    def halves(self) -> list["_Sample"]:
        """Return every other row, and the others: rows are in random order."""
        return [_Sample(self.row_ids[i::2], self.rows[i::2]) for i in (0, 1)]


def calibrated_tables(
    corpus: CorpusRef, batches: Sequence[str], config: IndexConfig, *, device: str
) -> tuple[ProjectionTables, dict[str, Any] | None]:
    """Make the tables of a new index.

    Args:
        corpus: Where the sample is taken from.
        batches: Batches of it that count.
        config: Model, sketch and positions.
        device: Where to compute.

    Returns:
        The tables, and the record of the sample: ``seed``, ``n_rows``, ``n_tokens``,
        ``n_positions``, ``rows_sha256`` (of the JSON list of row ids), ``batches``, ``energy``, the
        share that each factor's directions capture of the sample, and ``held_out_energy``, what
        directions of one half capture of the other. None for a sketch without calibration.

    Raises:
        ValueError: The sample predicts no token, or the sketch wants more directions than the model
            has.
    """
    sketch = config.signature.sketch
    sizes = input_sizes(load_backbone(config.model, device=device), sketch)
    if not (isinstance(sketch, PrincipalProjection | TensorSketch) and sketch.is_calibrated):
        return make_tables(sketch, sizes, None), None
    sample = _read_sample(corpus, batches, config)
    halves = [
        _moments(half, config, device=device, where="calibration sample")
        for half in sample.halves()
    ]
    moments = halves[0].merge(halves[1])
    if moments.n_positions == 0:
        raise ValueError(
            f"the calibration sample ({len(sample.rows)} rows) predicts no token: there is nothing "
            "to find directions by. Add rows, or use preset 'paper', which needs no calibration."
        )
    tables = make_tables(sketch, sizes, moments)
    bases = _bases(tables)
    return tables, {
        "seed": sketch.seed,
        "n_rows": len(sample.rows),
        "n_tokens": sample.n_tokens,
        "n_positions": moments.n_positions,
        "rows_sha256": digest(sample.row_ids),
        "batches": list(batches),
        "energy": {name: basis.energy for name, basis in bases.items()},
        "held_out_energy": {
            name: _held_out_energy(halves, name, basis) for name, basis in bases.items()
        },
    }


def measure_drift(
    index: SignatureIndex,
    corpus: CorpusRef,
    batches: Sequence[str],
    config: IndexConfig,
    *,
    device: str,
) -> Drift | None:
    """Hold a sample of appended rows against the directions of an index.

    Args:
        index: Its tables.
        corpus: Its corpus.
        batches: All batches that it shall cover.
        config: Its settings, and the limits of the drift.
        device: Where to compute.

    Returns:
        None where nothing was appended, nothing of it predicts a token, or the sketch keeps no
        directions that could become wrong.

    Raises:
        ValueError: The drift is beyond the limit; the message has the numbers.
    """
    sketch = config.signature.sketch
    record = index.identity.get(CALIBRATION_KEY)
    # a tensor sketch whitens in all directions: it loses none
    if record is None or not isinstance(sketch, PrincipalProjection):
        return None
    known = index.batches if index.committed_rows else record["batches"]
    appended = list(batches)[len(known) :]
    if not appended:
        return None
    bases = _bases(load_tables(sketch, without_rotation(index.tables())))
    sample = _read_sample(corpus, appended, config)
    moments = _moments(sample, config, device=device, where="appended rows")
    if moments.n_positions == 0:
        return None
    ratios = {
        name: energy_ratio(
            moments.second_moment(name), basis, expected=record["held_out_energy"][name]
        )
        for name, basis in bases.items()
    }
    warning = _judge(ratios, moments.n_positions, config.drift, name=index.ref.index)
    return Drift(len(sample.rows), moments.n_positions, ratios, warning)


def calibration_warning(record: Mapping[str, Any] | None) -> str | None:
    """Return what is to be said about the sample that an index was made from.

    Args:
        record: From `calibrated_tables`.
    """
    if record is None or record["n_positions"] >= ENOUGH_POSITIONS:
        return None
    return (
        f"made from {record['n_positions']:,} positions, fewer than {ENOUGH_POSITIONS:,}: its "
        "directions fit these rows and may miss what others have. For a corpus that has grown "
        "build an index under another name; or use preset 'paper', which needs no calibration"
    )


def choose_rows(corpus: Corpus, batches: Sequence[str], *, n_tokens: int, seed: int) -> list[str]:
    """Return the ids of a random sample of the rows without tombstones.

    Rows are taken in the order of a hash of seed and id, so the sample depends on which rows there
    are, not on their order or on the machine.

    Args:
        corpus: The rows.
        batches: Batches that count.
        n_tokens: Rows are taken until they have so many tokens (as counted at ingestion), or there
            are no more.
        seed: Another seed, another sample.
    """
    living = living_rows(corpus.ref, batches).mask
    chosen: list[tuple[bytes, str, int]] = []
    start = 0
    for rows in corpus.iter_tables(batches=batches, columns=["row_id", "n_tokens"]):
        stop = start + rows.num_rows
        table = rows if living is None else rows.filter(pa.array(living[start:stop]))
        start = stop
        columns = (table.column(name).to_pylist() for name in ("row_id", "n_tokens"))
        chosen += [(_hash(seed, row_id), row_id, n) for row_id, n in zip(*columns, strict=True)]
        # rows behind enough tokens stay behind them, whatever comes
        chosen = _first_tokens(sorted(chosen), n_tokens)
    return [row_id for _, row_id, _ in chosen]


def _hash(seed: int, row_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{row_id}".encode()).digest()


def _first_tokens(
    rows: Sequence[tuple[bytes, str, int]], n_tokens: int
) -> list[tuple[bytes, str, int]]:
    total = 0
    for number, (_, _, n_row_tokens) in enumerate(rows):
        total += n_row_tokens
        if total >= n_tokens:
            return list(rows[: number + 1])
    return list(rows)


def _read_sample(corpus: CorpusRef, batches: Sequence[str], config: IndexConfig) -> _Sample:
    opened, sketch = Corpus(corpus), config.signature.sketch
    n_tokens = getattr(sketch, "calibration_tokens", 0)
    row_ids = choose_rows(opened, batches, n_tokens=n_tokens, seed=sketch.seed)
    rows = list(opened.rows_by_id(row_ids, batches=batches).values())
    return _Sample(row_ids, encoded_rows(rows, config))


def encoded_rows(rows: Sequence[Row], config: IndexConfig) -> list[TokenRow]:
    """Return the tokens of corpus rows, with prompts masked if the index masks them."""
    masked = config.positions == "completion"
    return load_tokenizer(config.model).encode(
        [row.text for row in rows], [row.prompt_chars if masked else 0 for row in rows]
    )


def _moments(sample: _Sample, config: IndexConfig, *, device: str, where: str) -> Moments:
    signature = measuring_signature(config.signature)
    sizes = input_sizes(load_backbone(config.model, device=device), signature.sketch)
    tables = measuring_tables(signature.sketch, sizes)
    return measure_moments(
        sample.rows,
        make_space(config.model, signature, tables, device=device),
        RuntimeConfig(
            device=device, batch_tokens=SAMPLE_BATCH_TOKENS, head_bytes=SAMPLE_HEAD_BYTES
        ),
        row_ids=sample.row_ids,
        where=where,
    )


def _held_out_energy(halves: Sequence[Moments], name: str, basis: Basis) -> float:
    if min(half.n_positions for half in halves) == 0:
        return basis.energy  # a single row: there is nothing else to go by
    first, second = (half.second_moment(name) for half in halves)
    energy = held_out_energy(first, second, n_directions=basis.matrix.shape[1])
    return energy or basis.energy


def _bases(tables: ProjectionTables) -> dict[str, Basis]:
    """Return the bases that leave directions out."""
    if not isinstance(tables, PrincipalTables):
        return {}
    bases = {
        "hidden": tables.hidden,
        "projected": tables.projected,
        "residual": tables.residual,
    }
    return {name: basis for name, basis in bases.items() if basis is not None}


def _judge(
    ratios: Mapping[str, float], n_positions: int, limits: DriftLimits, *, name: str
) -> str | None:
    factor = min(ratios, key=lambda one: ratios[one])
    found = (
        f"the directions of index {name!r} capture {ratios[factor]:.2f} times as much of the "
        f"appended rows' {factor} energy as of rows like the calibration sample's "
        f"({n_positions} positions read)"
    )
    remedy = "Build an index under another name, which is calibrated on all rows that are there now"
    if ratios[factor] < limits.refuse_below and n_positions >= FEW_POSITIONS:
        raise ValueError(
            f"{found}; below drift.refuse_below = {limits.refuse_below} rows are not appended. "
            f"{remedy}, or lower that limit. The index is as it was."
        )
    if ratios[factor] < limits.warn_below:
        return f"{found}, less than drift.warn_below = {limits.warn_below}. {remedy}."
    return None
