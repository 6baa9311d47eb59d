"""A selection in numbers: the rows that can be selected in order of value, and their bounds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rise_ops.quotas import NO_LIMIT, Bounds, QuotaField
from rise_ops.scoring import ranks_of
from rise_ops.selection import reaches, value_order
from tasks.release_config import Quota, ReleaseConfig, Share, Threshold, TokenBudget, TopK

ANY_VALUE = "*"
"""Value of a quota that stands for every value without one of its own that a row, which could be
selected, has."""

TAKEDOWN = "takedown"
"""Optional column of candidates: bool, true for rows that were withdrawn."""


@dataclass(frozen=True)
class NamedQuota:
    """A quota of one value; those that '*' stands for have one each."""

    field: str
    value: str
    min_rows: int
    max_rows: int | None

    def __str__(self) -> str:
        return f"the quota of {self.field} {self.value!r}"


@dataclass(frozen=True, eq=False)
class Problem:
    """What there is to choose from, best value first; all arrays have one entry a *place*.

    Attributes:
        config: What is asked for.
        positions: Line of each row in the table of candidates, int64.
        values: float32.
        tokens: int64.
        fields: Quotas by field, as the walk takes them.
        quotas: The same by name, in the same order.
        n_rows: Lines of the table.
        n_empty: Rows without positions; they have no value to speak of.
        n_withdrawn: Rows with positions that were taken down.
        n_below: Rows that could be selected but do not reach the threshold.
    """

    config: ReleaseConfig
    positions: NDArray[np.int64]
    values: NDArray[np.float32]
    tokens: NDArray[np.int64]
    fields: tuple[QuotaField, ...]
    quotas: tuple[tuple[NamedQuota, ...], ...]
    n_rows: int
    n_empty: int
    n_withdrawn: int
    n_below: int

    @property
    def n_eligible(self) -> int:
        """Rows that can be selected, whatever their value."""
        return self.n_rows - self.n_empty - self.n_withdrawn

    @property
    def wanted_rows(self) -> int | None:
        """Rows asked for, None where the size is not a number of rows."""
        select = self.config.select
        if isinstance(select, TopK):
            return select.top_k
        if isinstance(select, Share):
            return max(1, int(select.share * self.n_eligible))
        return None

    def bounds(self, *, fields: Sequence[int] | None = None, exact: bool = False) -> Bounds:
        """Return the bounds of the walk, with the quotas of some fields only if given."""
        select = self.config.select
        return Bounds(
            tokens=self.tokens,
            fields=self.fields if fields is None else tuple(self.fields[n] for n in fields),
            max_rows=self.wanted_rows,
            max_tokens=select.max_tokens if isinstance(select, TokenBudget) else None,
            exact=exact,
        )


def row_id_ranks(row_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint32]:
    """Return each row's rank among the row ids in the order of their UTF-8 bytes, uint32."""
    order = pc.sort_indices(row_ids).to_numpy(zero_copy_only=False)
    return ranks_of(order.astype(np.int64))


def eligible_rows(candidates: pa.Table) -> NDArray[np.bool_]:
    """Return which candidates can be selected: those with positions that were not withdrawn."""
    eligible: NDArray[np.bool_] = candidates.column("n_positions").to_numpy() > 0
    if TAKEDOWN in candidates.column_names:
        eligible &= ~candidates.column(TAKEDOWN).to_numpy()
    return eligible


def make_problem(candidates: pa.Table, config: ReleaseConfig) -> Problem:
    """Put candidates in order of value and read their quotas.

    Args:
        candidates: As `tasks.selection.select_rows` takes them.
        config: What is asked for.

    Raises:
        ValueError: Two quotas are for one value.
    """
    values = candidates.column("value").to_numpy()
    has_positions = candidates.column("n_positions").to_numpy() > 0
    eligible = eligible_rows(candidates)
    within = eligible
    if isinstance(config.select, Threshold):
        within = eligible & reaches(values, config.select.min_score, config.prefer)
    ranks = row_id_ranks(candidates.column("row_id"))
    positions = value_order(values, ranks, within, prefer=config.prefer)
    names = [name for name in ("source", "label") if _quotas_of(config, name)]
    coded = [
        _field(candidates.column(name), _quotas_of(config, name), positions, eligible)
        for name in names
    ]
    return Problem(
        config=config,
        positions=positions,
        values=values[positions],
        tokens=candidates.column("n_tokens").to_numpy()[positions].astype(np.int64),
        fields=tuple(field for field, _ in coded),
        quotas=tuple(named for _, named in coded),
        n_rows=len(values),
        n_empty=int((~has_positions).sum()),
        n_withdrawn=int((has_positions & ~eligible).sum()),
        n_below=int(eligible.sum() - within.sum()),
    )


def _quotas_of(config: ReleaseConfig, field: str) -> list[Quota]:
    return [quota for quota in config.quotas if quota.field == field]


def _field(
    column: pa.ChunkedArray,
    quotas: Sequence[Quota],
    positions: NDArray[np.int64],
    eligible: NDArray[np.bool_],
) -> tuple[QuotaField, tuple[NamedQuota, ...]]:
    """Return the quotas of one field by code, and their names; rows without a value are on none."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    encoded = column.unify_dictionaries().combine_chunks()
    values = encoded.dictionary.to_pylist()
    indices = encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    there = set(indices[eligible].tolist())
    named = _named(quotas, [value for code, value in enumerate(values) if code in there])
    code_of = {quota.value: code for code, quota in enumerate(named)}
    codes_of_values = np.array([code_of.get(value, -1) for value in values] + [-1], np.int32)
    most = [NO_LIMIT if quota.max_rows is None else quota.max_rows for quota in named]
    field = QuotaField(
        codes=codes_of_values[indices[positions]],
        least=np.array([quota.min_rows for quota in named], np.int64),
        most=np.array(most, np.int64),
    )
    return field, named


def _named(quotas: Sequence[Quota], values: Sequence[str]) -> tuple[NamedQuota, ...]:
    """Return one quota a value: those given by name, then what '*' stands for."""
    given: dict[str, Quota] = {}
    for quota in quotas:
        if quota.value in given:
            raise ValueError(
                f"there are two quotas of {quota.field} {quota.value!r}; leave one of them."
            )
        given[quota.value] = quota
    any_value = given.pop(ANY_VALUE, None)
    lines = list(given.items())
    if any_value is not None:
        lines += [(value, any_value) for value in dict.fromkeys(values) if value not in given]
    return tuple(
        NamedQuota(quota.field, value, quota.min_rows, quota.max_rows) for value, quota in lines
    )
