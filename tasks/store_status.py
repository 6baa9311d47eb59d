"""How a store stands: what is indexed, scored and released, and what is missing or stale.

Read from manifests, tombstones and sizes of files alone: no row, no signature, no model. Everything
is JSON values, a dictionary a thing; ``state`` is one line for people, ``stale`` its reasons.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from storage.catalog import corpus_names, open_store, published_folders, version_folders
from storage.corpus import REJECTED_FILE, Corpus
from storage.cursor import Cursor
from storage.errors import CorruptionError, IncompleteError, StorageError
from storage.index_names import exact_ref, index_names
from storage.index_quality import IndexQuality
from storage.layout import (
    BATCH_FILE,
    QUERY_SET_FILE,
    RELEASE_FILE,
    ROWS_FILE,
    SCORES_FILE,
    inbox_folder,
)
from storage.manifests import created_at
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, ReleaseRef, ScoresRef
from storage.release_pointer import announced, latest, moves
from storage.releases import open_release
from storage.roots import shown, store_folder, stored_size
from storage.scores import Scores
from storage.signatures import SignatureIndex
from storage.tombstones import Tombstones
from tasks.lease_status import lease_facts
from tasks.release_drift import held_back, noted_drift
from tasks.takedown import count_taken_down, dead_digest

Facts = dict[str, Any]


def store_status(root: str) -> Facts:
    """Return how a store stands.

    Returns:
        ``store``, ``bytes``, ``partial_bytes``, and lists ``corpora``, ``inboxes``, ``indexes``,
        ``query_sets``, ``scores``, ``releases`` and ``leases`` (`tasks.lease_status`). What cannot
        be read has ``problem``.

    Raises:
        NotFoundError: There is no store.
    """
    folder = open_store(root)
    whole = stored_size(folder)
    corpora = [_guarded(_corpus, root, name) for name in corpus_names(root)]
    indexes = list(_indexes(root))
    query_sets = [
        _guarded(_query_set, root, path.name, indexes)
        for path in published_folders(folder / "queries")
    ]
    scores = _scores(root, indexes, query_sets)
    return {
        "store": shown(folder),
        "bytes": whole.n_bytes,
        "files": whole.n_files,
        "partial_bytes": whole.partial_bytes,
        "corpora": corpora,
        "inboxes": [
            _guarded(_inbox, root, name)
            for name in corpus_names(root)
            if inbox_folder(CorpusRef(root, name)).is_dir()
        ],
        "indexes": indexes,
        "query_sets": query_sets,
        "scores": scores,
        "releases": _releases(root, scores),
        "leases": lease_facts(root),
    }


def _guarded(function: Any, root: str, name: str, *more: Any) -> Facts:
    """Return what ``function`` says of a name; what cannot be read must not hide the rest."""
    try:
        facts: Facts = function(root, name, *more)
    except StorageError as error:
        return {"name": name, "problem": str(error), "state": "cannot be read", "stale": []}
    return facts


# ------------------------------------------------------------------------------- corpus, inbox


def _corpus(root: str, name: str) -> Facts:
    ref = CorpusRef(root, name)
    folder = store_folder(root) / "corpora" / name
    batches = Corpus.batches(ref)
    opened = Corpus(ref) if batches else None
    manifests = [] if opened is None else [opened.manifest(one.batch_id) for one in batches]
    n_rows = sum(int(manifest["n_rows"]) for manifest in manifests)
    dead = _dead_by_kind(ref)
    refused = published_folders(folder / "refused")
    made = "" if opened is None else created_at(opened.folder(batches[-1].batch_id) / BATCH_FILE)
    return {
        "name": name,
        "batches": len(batches),
        "rows": n_rows,
        "alive": n_rows - sum(dead.values()),
        "dead": dead,
        "rejected": sum(int(manifest.get("n_rejected", 0)) for manifest in manifests),
        "refused": [{"id": one.name, "rejected": str(one / REJECTED_FILE)} for one in refused],
        "made": made,
        "bytes": stored_size(folder).n_bytes,
        "state": _corpus_state(dead, n_batches=len(batches)),
        "stale": [],
    }


def _corpus_state(dead: Mapping[str, int], *, n_batches: int) -> str:
    if not dead:
        return "all rows alive" if n_batches else "no rows yet"
    words = {"takedown": "taken down"}
    return _joined(
        [f"{_count(n_rows, 'row')} {words.get(kind, kind)}" for kind, n_rows in dead.items()]
    )


def _dead_by_kind(ref: CorpusRef) -> dict[str, int]:
    """Count the places of a corpus that are dead, each by the first tombstone that it got."""
    tombstones = Tombstones(ref)
    kinds: dict[tuple[str, int], str] = {}
    for line in tombstones.rows.to_pylist():
        if line["batch_id"] is not None:
            place = (line["batch_id"], line["position_in_batch"])
            kinds.setdefault(place, tombstones.records[line["record"]].kind)
    return dict(Counter(kinds.values()))


def _inbox(root: str, name: str) -> Facts:
    cursor = Cursor(CorpusRef(root, name))
    entries = list(cursor.entries.values())
    states = Counter(entry.state for entry in entries)
    gone = sum(entry.gone for entry in entries)
    wanted = sum(entry.stale for entry in entries)
    texts = [
        f"{states[kind]:,} {kind}"
        for kind in ("taken", "refused", "duplicate", "taking")
        if states[kind]
    ]
    texts += [f"{gone:,} gone"] if gone else []
    texts += [f"{wanted:,} wanted again"] if wanted else []
    return {
        "name": name,
        "files": dict(states),
        "gone": gone,
        "wanted_again": wanted,
        "refused": [
            {"file": entry.name, "reason": entry.reason, "report": entry.report}
            for entry in entries
            if entry.state == "refused"
        ],
        "interrupted": [entry.name for entry in entries if entry.state == "taking"],
        "state": _joined(texts) or "no file was ever taken",
        "stale": [],
    }


# -------------------------------------------------------------------------------------- index


def _indexes(root: str) -> Iterator[Facts]:
    folders = published_folders(store_folder(root) / "indexes")
    for name, folder in index_names(root, folders):
        facts = {**_guarded(_index, root, name), "folder": str(folder)}
        current = name != exact_ref(root, folder).index
        unused = {} if current else {"state": "not in use, can still be read", "stale": []}
        yield {**facts, "current": current, **unused}


def _index(root: str, name: str) -> Facts:
    index = SignatureIndex.open(IndexRef(root, name))
    corpus = CorpusRef(root, index.identity["corpus"])
    covered = index.batches if index.committed_rows else []
    missing = _missing(corpus, covered)
    n_missing = sum(batch["rows"] for batch in missing)
    verdict = IndexQuality(index).verdict()
    size = stored_size(index.folder)
    stale = []
    if missing:
        stale.append(f"{n_missing:,} rows of {_count(len(missing), 'batch')} are not indexed")
    if index.committed_rows:
        stale += _unsound(index)
    else:
        stale.append("never finished")
    if verdict is not None and not verdict["success"]:
        stale.append(f"its last rows failed the gate: {_joined(verdict['reasons'])}")
    return {
        "name": name,
        "id": index.index_id,
        "corpus": corpus.corpus,
        "rows": index.committed_rows,
        "blocks": index.n_blocks if index.committed_rows else 0,
        "code": index.code,
        "numbers": index.n_numbers,
        "batches": {"covered": len(covered), "missing": missing},
        "missing_rows": n_missing,
        "warnings": [] if verdict is None else list(verdict["warnings"]),
        "made": created_at(index.folder / ROWS_FILE) if index.committed_rows else "",
        "bytes": size.n_bytes,
        "space": index.identity.get("space"),
        "state": "; ".join(stale) or "complete",
        "stale": stale,
    }


def _missing(corpus: CorpusRef, covered: list[str]) -> list[Facts]:
    """Return the batches that an index lacks, with their rows."""
    known = set(covered)
    lacking = [one.batch_id for one in Corpus.batches(corpus) if one.batch_id not in known]
    opened = Corpus(corpus) if lacking else None
    return [
        {"id": batch_id, "rows": int(opened.manifest(batch_id)["n_rows"])}
        for batch_id in lacking
        if opened is not None
    ]


def _unsound(index: SignatureIndex) -> list[str]:
    try:
        index.require_blocks(index.n_rows)
    except (IncompleteError, CorruptionError) as error:
        return [f"damaged or being appended to: {error}"]
    return []


# -------------------------------------------------------------------- query sets, scores, releases


def _query_set(root: str, name: str, indexes: list[Facts]) -> Facts:
    folder = store_folder(root) / "queries" / name
    newest = QuerySet.open(QuerySet.latest(root, name))
    space = newest.manifest.get("space")
    fits = [one["name"] for one in indexes if "problem" not in one and one["space"] == space]
    stale = (
        []
        if any(one["current"] for one in indexes if one["name"] in fits)
        else ["made for no index that is in use"]
    )
    return {
        "name": name,
        "latest": newest.ref.version,
        "versions": len(version_folders(folder)),
        "queries": newest.manifest["n_queries"],
        "fits": fits,
        "made": created_at(newest.folder / QUERY_SET_FILE),
        "bytes": stored_size(folder).n_bytes,
        "state": f"fits index {_joined(fits)}" if not stale else stale[0],
        "stale": stale,
    }


def _scores(root: str, indexes: list[Facts], query_sets: list[Facts]) -> list[Facts]:
    """Return all scores, the newest of each index and query set first (``newest``)."""
    by_name = {one["name"]: one for one in indexes}
    versions = {one["name"]: one.get("latest") for one in query_sets}
    tombstones = {name: dead for name in corpus_names(root) if (dead := _tombstones(root, name))}
    found = [
        _guarded(_score, root, path.name, by_name, versions, tombstones)
        for path in published_folders(store_folder(root) / "scores")
    ]
    found.sort(key=lambda one: (one.get("made_ns", 0), one["name"]), reverse=True)
    seen: set[tuple[str, str]] = set()
    for one in found:
        key = (one.get("index", ""), one.get("query_set", ""))
        one["newest"] = key not in seen
        seen.add(key)
        one.pop("made_ns", None)
    return found


def _tombstones(root: str, name: str) -> Tombstones | None:
    """Return the tombstones of a corpus; None where they cannot be read: its line says so."""
    try:
        return Tombstones(CorpusRef(root, name))
    except StorageError:
        return None


def _score(
    root: str,
    scores_id: str,
    indexes: Mapping[str, Facts],
    versions: Mapping[str, str | None],
    tombstones: Mapping[str, Tombstones],
) -> Facts:
    scores = Scores.open(ScoresRef(root, scores_id))
    manifest = scores.manifest
    stale = [
        *_index_reasons(manifest, indexes.get(manifest["index"])),
        *_died(manifest, tombstones),
    ]
    newest = versions.get(manifest["query_set"])
    if newest != manifest["query_set_version"]:
        stale.append("the query set has another version now" if newest else "query set is gone")
    path = scores.folder / SCORES_FILE
    return {
        "name": scores_id,
        "id": scores_id,
        "index": manifest["index"],
        "query_set": manifest["query_set"],
        "query_set_version": manifest["query_set_version"],
        "rows": manifest["n_rows"],
        "made": created_at(path),
        "made_ns": path.stat().st_mtime_ns,
        "bytes": stored_size(scores.folder).n_bytes,
        "state": "; ".join(stale) or "current",
        "stale": stale,
    }


def _index_reasons(manifest: Mapping[str, Any], index: Facts | None) -> list[str]:
    if index is None or "problem" in index:
        return ["their index is gone or cannot be read"]
    if index["id"] != manifest["index_id"]:
        return ["the index is another one now"]
    more = index["rows"] - manifest["n_rows"] + index["missing_rows"]
    return [f"{more:,} rows came since"] if more else []


def _died(manifest: Mapping[str, Any], tombstones: Mapping[str, Tombstones]) -> list[str]:
    if manifest.get("corpus") not in tombstones:
        return []
    now = dead_digest(tombstones[manifest["corpus"]], manifest["batches"])
    then = manifest.get("identity", {}).get("tombstones")
    return ["rows died since"] if now != then else []


def _releases(root: str, scores: list[Facts]) -> list[Facts]:
    by_id = {one["name"]: one for one in scores}
    return [
        _guarded(_release, root, folder.name, by_id)
        for folder in published_folders(store_folder(root) / "releases")
    ]


def _release(root: str, name: str, scores: Mapping[str, Facts]) -> Facts:
    ref = latest(root, name)
    opened = open_release(ref)
    folder = store_folder(root) / "releases" / name
    every = [ReleaseRef(root, name, path.name) for path in version_folders(folder)]
    held = [one.release_id for one in held_back(root, name)]
    parent = scores.get(opened.manifest["scores_id"])
    stale = ["its scores are gone"] if parent is None else list(parent["stale"])
    stale += ["its scores cannot be read"] if parent is not None and "problem" in parent else []
    if taken := count_taken_down(ref):
        stale.insert(0, f"{taken:,} of its rows were taken down")
    last = next((move for move in reversed(moves(root, name)) if move.to == ref.release_id), None)
    more = [f"{len(held)} held"] if held else []
    more += [f"rolled back from {last.left}"] if last and last.why == "rolled back" else []
    return {
        "name": name,
        "latest": ref.release_id,
        "rows": opened.manifest["n_rows"],
        "tokens": opened.manifest.get("n_tokens"),
        "releases": len(every),
        "held": [{"id": one, **(noted_drift(ReleaseRef(root, name, one)) or {})} for one in held],
        "refused": [path.name for path in published_folders(folder / "refused")],
        "scores_id": opened.manifest["scores_id"],
        "announced": announced(root, name) == ref.release_id,
        "moved": None if last is None else asdict(last),
        "made": created_at(opened.folder / RELEASE_FILE),
        "bytes": stored_size(folder).n_bytes,
        "state": "; ".join([*(stale or ["current"]), *more]),
        "stale": stale,
    }


def _joined(texts: list[str]) -> str:
    return ", ".join(texts)


def _count(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{ending}"
