"""What changed between two releases: rows, scores, what they are made of, settings, the corpus.

Everything is counted on every row of both; only languages come from the samples that the releases'
statistics drew. Scores are compared as z, their place among random rows (METHOD.md, "What a score
means"), because scores of another query set or signature have another scale.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rise_ops.drift import distribution_distance, mix_distance, rank_correlation
from storage.errors import NotFoundError, flat_differences
from storage.layout import RELEASE_FILE
from storage.manifests import created_at
from storage.refs import CorpusRef, ReleaseRef
from storage.releases import ATTRIBUTES_SCHEMA, Release, open_release
from storage.tombstones import Tombstones

HASH = re.compile(r"(?=[0-9a-f]*[0-9])[0-9a-f]{8,}")
NUMBER = re.compile(r"[0-9]+")

MOST_BEST = 5
"""Rows that came, and that went, which are named; the rest is counted."""


@dataclass(frozen=True)
class ReleaseDiff:
    """Two releases side by side, in JSON values.

    Attributes:
        before: The first release: name, id, made, rows, tokens, candidates, mean_z, min_z.
        after: The second one.
        rows: Counts: kept, changed (kept in another version), came, went.
        came: Rows that came, by what they are: in batches that are new, or there before.
        went: Rows that went, by why.
        best: Of those that came, and of those that went, the first by rank: row_id, rank, z, why.
        measures: How far the second is from the first, by name (`tasks.drift_config.MEASURES`);
            None where there is nothing to measure.
        mixes: Source, label, language: each kind with its rows in both, commonest first.
        settings: Settings that differ: field, before, after.
        corpus: Batches and rows that were there for the first and for the second.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    rows: dict[str, int]
    came: dict[str, int]
    went: dict[str, int]
    best: dict[str, list[dict[str, Any]]]
    measures: dict[str, float | None]
    mixes: dict[str, list[dict[str, Any]]]
    settings: list[dict[str, Any]]
    corpus: dict[str, dict[str, int]]


def diff_releases(before: ReleaseRef, after: ReleaseRef) -> ReleaseDiff:
    """Compare two releases of a store; reads their attributes, no texts.

    Raises:
        NotFoundError: One of them is not there.
        CorruptionError: One of them is damaged.
    """
    sides = _Side(open_release(before)), _Side(open_release(after))
    first, second = sides
    places = pc.index_in(second.rows.column("row_id"), value_set=first.rows.column("row_id"))
    kept = pc.is_valid(places)
    old, new = first.rows.take(places.drop_null()), second.rows.filter(kept)
    moved = pc.not_equal(old.column("lineage_id"), new.column("lineage_id"))
    went = pc.invert(pc.is_in(first.rows.column("row_id"), second.rows.column("row_id")))
    came = second.rows.filter(pc.invert(kept))
    lost = first.rows.filter(went)
    why_came, why_went = _why_came(came, first), _why_went(lost, second)
    counts = {
        "kept": len(new),
        "changed": int(pc.sum(moved, min_count=0).as_py()),
        "came": len(came),
        "went": len(first.rows) - len(new),
    }
    mixes = {name: tuple(side.mix(name) for side in sides) for name in ("source", "label")}
    mixes["language"] = tuple(side.languages() for side in sides)
    return ReleaseDiff(
        before=first.facts(),
        after=second.facts(),
        rows=counts,
        came=dict(Counter(why_came).most_common()),
        went=dict(Counter(why_went).most_common()),
        best={"came": _best(came, why_came), "went": _best(lost, why_went)},
        measures={
            "replaced": counts["came"] / len(second.rows),
            "lost": counts["went"] / len(first.rows),
            "size": abs(len(second.rows) - len(first.rows)) / len(first.rows),
            **_score_measures(sides, old, new),
            "sources": mix_distance(*mixes["source"]),
            "labels": None if _unlabelled(mixes["label"]) else mix_distance(*mixes["label"]),
            "languages": mix_distance(*mixes["language"]),
            "lengths": distribution_distance(*[_numbers(s.rows, "n_tokens") for s in sides]),
        },
        mixes={name: _side_by_side(*mix) for name, mix in mixes.items()},
        settings=_settings(*sides),
        corpus={"before": first.corpus_facts(), "after": second.corpus_facts()},
    )


def source_kind(source: str) -> str:
    """Return a source without what only numbers it: ``day-2026-05-01`` gives ``day-#-#-#``.

    The files of an inbox have a name each; what counts is whether they are files of one kind.
    Hexadecimal runs of 8 digits and more, as in the names of shards, count as numbers too.
    """
    return NUMBER.sub("#", HASH.sub("#", source))


class _Side:
    """One of the two releases."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.lineage: Mapping[str, Any] = release.manifest.get("lineage", {})
        table = release.attributes()
        if not len(table):  # a release of before there were attributes
            table = _attributes(release.rows())
        self.rows = table.combine_chunks()

    def facts(self) -> dict[str, Any]:
        ref, z = self.release.ref, _numbers(self.rows, "z")
        return {
            "name": ref.name,
            "id": ref.release_id,
            "made": created_at(self.release.folder / RELEASE_FILE),
            "rows": len(self.rows),
            "tokens": int(pc.sum(self.rows.column("n_tokens")).as_py()),
            "candidates": self.statistics().get("rows", {}).get("before"),
            "mean_z": float(z.mean()) if len(z) else None,
            "min_z": float(z.min()) if len(z) else None,
        }

    def corpus_facts(self) -> dict[str, int]:
        batches = [batch["manifest"] for batch in self.lineage.get("batches", ())]
        return {
            "batches": len(batches),
            "rows": sum(int(batch["n_rows"]) for batch in batches),
            "candidates": int(self.statistics().get("rows", {}).get("before", 0)),
        }

    def mix(self, column: str) -> Counter[Any]:
        pairs = pc.value_counts(self.rows.column(column)).to_pylist()
        counts: Counter[Any] = Counter()
        for pair in pairs:
            value = pair["values"]
            counts[source_kind(value) if column == "source" else value] += pair["counts"]
        return counts

    def languages(self) -> Counter[Any]:
        values = self.statistics().get("language", {}).get("values", ())
        return Counter({one["value"]: one["after"] for one in values if one["after"]})

    def statistics(self) -> dict[str, Any]:
        try:
            return self.release.statistics()
        except NotFoundError:
            return {}

    def batches(self) -> set[str]:
        return {batch["id"] for batch in self.lineage.get("batches", ())}


def _attributes(rows: pa.Table) -> pa.Table:
    columns = [
        rows.column(field.name) if field.name in rows.column_names else pa.nulls(len(rows))
        for field in ATTRIBUTES_SCHEMA
    ]
    return pa.table(dict(zip(ATTRIBUTES_SCHEMA.names, columns, strict=True)))


def _numbers(table: pa.Table, column: str) -> NDArray[np.float64]:
    found = table.column(column).cast(pa.float64()).drop_null()
    numbers: NDArray[np.float64] = found.to_numpy()
    return numbers


def _score_measures(
    sides: tuple[_Side, _Side], old: pa.Table, new: pa.Table
) -> dict[str, float | None]:
    """Compare scores; ``old`` and ``new`` are the same rows in the two releases, in one order."""
    shifts = pc.subtract(new.column("z").cast("double"), old.column("z").cast("double"))
    shift = pc.mean(shifts).as_py()
    order = rank_correlation(_numbers(old, "score"), _numbers(new, "score"))
    return {
        "score_shift": None if shift is None else abs(shift),
        "score_order": None if order is None else 1 - order,
        "score_spread": distribution_distance(*[_numbers(side.rows, "z") for side in sides]),
    }


def _why_came(rows: pa.Table, first: _Side) -> list[str]:
    """Tell whether rows that came are in batches that the first release could not have known."""
    batches = pc.list_element(pc.split_pattern(rows.column("lineage_id"), ":"), 0)
    known = pc.is_in(batches, pa.array(sorted(first.batches()), pa.string()))
    why: list[str] = pc.if_else(known, "there before", "in a new batch").to_pylist()
    return why


def _why_went(rows: pa.Table, second: _Side) -> list[str]:
    """Tell why rows went: a tombstone, what kept them out, or their value."""
    ids, places = rows.column("row_id").to_pylist(), rows.column("lineage_id").to_pylist()
    dropped = second.release.dropped()
    reasons = dict(
        zip(dropped.column("row_id").to_pylist(), dropped.column("reason").to_pylist(), strict=True)
    )
    dead = _dead(second) if places else {}
    return [
        dead.get(place) or reasons.get(row_id) or "outranked"
        for row_id, place in zip(ids, places, strict=True)
    ]


def _best(rows: pa.Table, why: list[str]) -> list[dict[str, Any]]:
    columns = rows.select(["row_id", "rank", "z"]).append_column("why", pa.array(why, pa.string()))
    best: list[dict[str, Any]] = columns.sort_by("rank").slice(0, MOST_BEST).to_pylist()
    return best


def _dead(side: _Side) -> dict[str, str]:
    """Return the places (``lineage_id``) of rows with a tombstone, and its kind, the last one."""
    if "corpus" not in side.lineage:
        return {}
    tombstones = Tombstones(CorpusRef(side.release.ref.root, side.lineage["corpus"]))
    kinds = [record.kind for record in tombstones.records]
    return {
        f"{line['batch_id']}:{line['position_in_batch']}": kinds[line["record"]]
        for line in tombstones.rows.to_pylist()
    }


def _unlabelled(mixes: tuple[Counter[Any], ...]) -> bool:
    return all(set(mix) == {None} for mix in mixes)


def _side_by_side(before: Counter[Any], after: Counter[Any]) -> list[dict[str, Any]]:
    kinds = sorted(before | after, key=lambda kind: (-before[kind] - after[kind], str(kind)))
    return [{"value": kind, "before": before[kind], "after": after[kind]} for kind in kinds]


def _settings(before: _Side, after: _Side) -> list[dict[str, Any]]:
    differences = flat_differences(_chosen(before), _chosen(after))
    return [{"field": name, "before": old, "after": new} for name, old, new in differences]


def _chosen(side: _Side) -> dict[str, Any]:
    """Return what people chose for a release, by the names that settings have."""
    lineage, manifest = side.lineage, side.release.manifest
    query_set = lineage.get("query_set", {})
    return {
        "releasing": lineage.get("release", {}).get("config", {}),
        "scoring": lineage.get("scores", {}).get("identity", {}).get("config", {}),
        "indexing": lineage.get("index", {}).get("identity", {}),
        "query_set": {name: query_set.get(name) for name in ("name", "version")},
        "versions": manifest.get("versions", {}),
    }
