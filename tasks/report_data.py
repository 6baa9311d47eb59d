"""What a release's report is made of, read once: the release's own tables, and its scores."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.corpus import Corpus, Row
from storage.errors import NotFoundError
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ScoresRef
from storage.releases import ATTRIBUTES_SCHEMA, RELEASE_SCHEMA, Release
from storage.rows import read_table
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks.release_config import ReleaseConfig
from tasks.report_cost import StageCost, recorded_costs
from tasks.row_places import gone_ids, newest_places
from tasks.row_values import row_values
from tasks.takedown import masked_rows


@dataclass(frozen=True)
class ReportData:
    """A release, opened for its report.

    Attributes:
        release: The published release.
        config: How it was selected.
        attributes: One line a released row, by rank, without texts.
        dropped: Rows that were passed over, with reasons, by their place.
        leakage: Overlaps that were found.
        privacy: Strings that look private, by row.
        selection: What the solver recorded; empty when it recorded nothing.
        statistics: Counts before and after; likewise.
        costs: What the stages took, where somebody recorded it.
    """

    release: Release
    config: ReleaseConfig
    attributes: pa.Table
    dropped: pa.Table
    leakage: pa.Table
    privacy: pa.Table
    selection: Mapping[str, Any]
    statistics: Mapping[str, Any]
    costs: tuple[StageCost, ...]

    @property
    def root(self) -> str:
        """Folder of the store."""
        return self.release.ref.root

    @property
    def lineage(self) -> dict[str, Any]:
        """The lineage of the release's manifest."""
        found: dict[str, Any] = self.release.manifest["lineage"]
        return found

    @cached_property
    def index(self) -> SignatureIndex | None:
        """The index whose rows were selected from; None when it is gone, or was replaced since."""
        about = self.lineage["index"]
        try:
            found = SignatureIndex.open(IndexRef(self.root, about["name"]))
        except NotFoundError:
            return None
        return found if found.index_id == about["id"] else None

    @cached_property
    def query_set(self) -> QuerySet:
        """The queries that were asked."""
        about = self.lineage["query_set"]
        return QuerySet.open(QuerySetRef(self.root, about["name"], about["version"]))

    @cached_property
    def scores(self) -> Scores:
        """The scores that were selected by."""
        return Scores.open(ScoresRef(self.root, self.release.manifest["scores_id"]))

    @cached_property
    def values(self) -> pa.Table:
        """Every candidate by its place in the index: row_id, value, n_positions."""
        table = self.scores.values()
        values = row_values(self.scores, self.query_set, self.config)
        return table.set_column(1, "value", pa.array(values, pa.float32()))

    @cached_property
    def candidate_tokens(self) -> np.ndarray:
        """Lengths of all candidates in tokens, int32 [candidates]."""
        corpus = Corpus(CorpusRef(self.root, self.lineage["corpus"]))
        batches = [batch["id"] for batch in self.lineage["batches"]]
        parts = corpus.iter_tables(batches=batches, columns=["n_tokens"])
        lengths = np.concatenate([part.column("n_tokens").to_numpy() for part in parts])
        found: np.ndarray = lengths[self.groups.able]
        return found

    @property
    def n_candidates(self) -> int:
        """Rows that could have been selected."""
        return int(np.count_nonzero(self.groups.able))

    @property
    def n_released(self) -> int:
        """Rows of the release."""
        return int(self.attributes.num_rows)

    def positions(self, row_ids: list[str]) -> list[int]:
        """Return where rows are in the index, counted from 0."""
        places = np.flatnonzero(self._newest)
        found = pc.index_in(
            pa.array(row_ids, pa.string()), self.values.column("row_id").take(pa.array(places))
        )
        return [int(places[place]) for place in found.to_pylist()]

    def rows(self, row_ids: list[str]) -> dict[str, Row]:
        """Return rows by id, as they were when they were scored."""
        batches = [batch["id"] for batch in self.lineage["batches"]]
        corpus = Corpus(CorpusRef(self.root, self.lineage["corpus"]))
        return corpus.rows_by_id(row_ids, batches=batches)

    @cached_property
    def _newest(self) -> np.ndarray:
        found: np.ndarray = newest_places(self.values.column("row_id"))
        return found

    @cached_property
    def withdrawn(self) -> frozenset[str]:
        """Rows that were taken down until now: nothing of them is shown, released or not."""
        batches = [batch["id"] for batch in self.lineage["batches"]]
        places = masked_rows(CorpusRef(self.root, self.lineage["corpus"]), batches)
        return frozenset(gone_ids(self.values.column("row_id"), places).to_pylist())

    @cached_property
    def groups(self) -> "Groups":
        """Candidates' values, told apart by what became of the row."""
        values = self.values
        ids = values.column("row_id")
        selected = _is_in(ids, self.attributes.column("row_id").combine_chunks())
        dropped = _is_in(ids, self.dropped.column("row_id").combine_chunks()) & ~selected
        withdrawn = _is_in(ids, pa.array(sorted(self.withdrawn), pa.string()))
        has_value = (values.column("n_positions").to_numpy() > 0) & self._newest
        # rows that were taken down later were candidates then, and are counted where they were met
        able = has_value & (~withdrawn | selected | dropped)
        numbers = values.column("value").to_numpy().astype(np.float64)
        return Groups(numbers, able, selected & able, dropped & able)


@dataclass(frozen=True)
class Groups:
    """Values of all rows of the index, and masks over them, each [rows].

    Attributes:
        values: float64; the number that rows were selected by.
        able: The row could be selected.
        selected: It was.
        dropped: It was reached and passed over.
    """

    values: np.ndarray
    able: np.ndarray
    selected: np.ndarray
    dropped: np.ndarray

    @property
    def rest(self) -> np.ndarray:
        """Rows that the selection never reached."""
        found: np.ndarray = self.able & ~self.selected & ~self.dropped
        return found


def read_report_data(release: Release) -> ReportData:
    """Open everything that the report shows.

    Raises:
        NotFoundError: The scores or the queries are no longer in the store.
        CorruptionError: A file of the release is damaged.
    """
    config = ReleaseConfig.model_validate(release.manifest["lineage"]["release"]["config"])
    return ReportData(
        release=release,
        config=config,
        attributes=_attributes(release).sort_by("rank"),
        dropped=release.dropped().sort_by("place"),
        leakage=release.leakage(),
        privacy=release.privacy(),
        selection=_recorded(release.selection),
        statistics=_recorded(release.statistics),
        costs=recorded_costs(release.folder),
    )


def _attributes(release: Release) -> pa.Table:
    found = release.attributes()
    if found.num_rows == release.manifest["n_rows"]:
        return found
    # releases of before there were attributes have most of them beside the texts
    names = [name for name in ATTRIBUTES_SCHEMA.names if name in RELEASE_SCHEMA.names]
    rows = pa.concat_tables([read_table(path, columns=names) for path in release.data_files])
    empty = [pa.nulls(rows.num_rows, field.type) for field in ATTRIBUTES_SCHEMA]
    columns = {
        field.name: rows.column(field.name) if field.name in names else nulls
        for field, nulls in zip(ATTRIBUTES_SCHEMA, empty, strict=True)
    }
    return pa.table(columns)


def _is_in(ids: pa.ChunkedArray, wanted: pa.Array) -> np.ndarray:
    found: np.ndarray = pc.is_in(ids, wanted).to_numpy()
    return found


def _recorded(read: Any) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = read()
    except NotFoundError:
        return {}
    return found
