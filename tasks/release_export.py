"""A release in other shapes: a folder of the `datasets` library, and lines for the TDA viewer.

Exports are copies for other programs. They lie outside of the store, are written whole or not at
all, and never over something that is there.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from storage.corpus import Corpus
from storage.files import published_folder
from storage.inputs import exported_folder
from storage.queries import QuerySet
from storage.refs import CorpusRef, QuerySetRef, ReleaseRef, ScoresRef
from storage.releases import Release, open_release
from storage.scores import Scores
from storage.urls import is_url, local_path
from tasks.offline import forbid_network
from tasks.row_places import gone_ids
from tasks.takedown import masked_rows, require_none_taken_down

VIEWER_FILE = "queries.jsonl"


def export(ref: ReleaseRef, target: str, form: str) -> str:
    """Write a release in another shape to a folder, or below a URL.

    Args:
        ref: The release.
        target: Path or URL; nothing may be there.
        form: A key of `EXPORTS`.

    Returns:
        Path or URL of what was written.

    Raises:
        ValueError: There is no such form; and as the export itself.
        FileExistsError: Something is there.
    """
    if form not in EXPORTS:
        raise ValueError(f"--format is one of {', '.join(EXPORTS)}, got {form!r}.")
    if not is_url(target):
        return str(EXPORTS[form](ref, local_path(target)))
    with exported_folder(target.rstrip("/")) as folder:
        name = EXPORTS[form](ref, folder).relative_to(folder).as_posix()
    return target.rstrip("/") + ("" if name == "." else f"/{name}")


def export_dataset(ref: ReleaseRef, folder: Path) -> Path:
    """Write a release as `datasets.Dataset.save_to_disk` does, for `load_from_disk`.

    Args:
        ref: The release.
        folder: Must not exist; made.

    Raises:
        FileExistsError: ``folder`` exists.
        NotFoundError: There is no such release.
        ValueError: Rows of it were taken down since.
        CorruptionError: A file of the release is missing or damaged.
    """
    forbid_network(online=False)
    from datasets import Dataset

    release = _sound(ref)
    require_none_taken_down(
        ref, remedy="nothing was exported. Publish a new release and export that."
    )
    _refuse_existing(folder)
    with published_folder(folder.absolute()) as staging:
        with tempfile.TemporaryDirectory(dir=staging) as cache:
            files = [str(path) for path in release.data_files]
            rows = Dataset.from_parquet(files, split="train", cache_dir=cache)
            rows.save_to_disk(staging / "dataset")
        _move_up(staging / "dataset")
    return folder


def export_viewer(ref: ReleaseRef, folder: Path) -> Path:
    """Write the strongest proponents and opponents of each query as the TDA viewer reads them.

    One JSON object a query, with the fields that the viewer's documentation names
    (``example_id``, ``query_set``, ``inputs_plaintext``, ``targets_plaintext``, ``proponents``,
    ``proponent_ids``, ``proponent_scores`` and the same of ``opponents``), and for each of these
    rows whether it is in the release (``proponent_released``, ``opponent_released``).

    Args:
        ref: The release; its scores say which rows are proponents, released or not.
        folder: Must not exist; made, with one file in it.

    Returns:
        The file.

    Raises:
        FileExistsError: ``folder`` exists.
        NotFoundError: There is no such release, or its scores are gone or keep no opponents.
    """
    release = _sound(ref)
    _refuse_existing(folder)
    scores = Scores.open(ScoresRef(ref.root, release.manifest["scores_id"]))
    released = set(release.attributes().column("row_id").to_pylist())
    with (
        published_folder(folder.absolute()) as staging,
        (staging / VIEWER_FILE).open("wb") as file,
    ):
        for line in viewer_lines(scores, released):
            file.write(orjson.dumps(line) + b"\n")
    return folder / VIEWER_FILE


def viewer_lines(scores: Scores, released: set[str]) -> Iterator[dict[str, Any]]:
    """Yield one record a query, in the order of the query set."""
    manifest = scores.manifest
    query_set = QuerySet.open(
        QuerySetRef(scores.ref.root, manifest["query_set"], manifest["query_set_version"])
    )
    hits = {
        "proponent": _hits(scores, scores.top_rows()),
        "opponent": _hits(scores, scores.bottom_rows()),
    }
    texts = _texts(scores, hits.values())
    for query in query_set.queries().to_pylist():
        text, border = query["text"], query["prompt_chars"]
        record = {
            "example_id": query["row_id"],
            "query_set": query_set.ref.name,
            "inputs_plaintext": text[:border],
            "targets_plaintext": text[border:],
        }
        for kind, found in hits.items():
            record |= _fields(kind, found[query["row_id"]], texts, released)
        yield record


def _fields(
    kind: str,
    hits: Sequence[Mapping[str, Any]],
    texts: Mapping[str, str],
    released: set[str],
) -> dict[str, Any]:
    ids = [hit["row_id"] for hit in hits]
    return {
        f"{kind}s": [texts[row_id] for row_id in ids],
        f"{kind}_ids": ids,
        f"{kind}_scores": [hit["score"] for hit in hits],
        f"{kind}_released": [row_id in released for row_id in ids],
    }


def _hits(scores: Scores, table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each query in order of rank, without those that were taken down."""
    corpus = CorpusRef(scores.ref.root, scores.manifest["corpus"])
    masked = masked_rows(corpus, scores.manifest["batches"])
    if len(masked):
        gone = gone_ids(scores.values().column("row_id"), masked)
        table = table.filter(pc.invert(pc.is_in(table.column("row_id"), gone)))
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in table.to_pylist():
        found[line["query_id"]].append(line)
    return found


def _texts(
    scores: Scores, hits: Iterable[Mapping[str, Sequence[Mapping[str, Any]]]]
) -> dict[str, str]:
    corpus = Corpus(CorpusRef(scores.ref.root, scores.manifest["corpus"]))
    wanted = {hit["row_id"] for found in hits for rows in found.values() for hit in rows}
    rows = corpus.rows_by_id(sorted(wanted), batches=scores.manifest["batches"])
    return {row_id: row.text for row_id, row in rows.items()}


def _sound(ref: ReleaseRef) -> Release:
    release = open_release(ref)
    release.require_sound(deep=True)
    return release


def _refuse_existing(folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"{folder} exists. Choose a folder that does not, or delete it.")


def _move_up(folder: Path) -> None:
    for path in folder.iterdir():
        path.rename(folder.parent / path.name)
    folder.rmdir()


EXPORTS: Mapping[str, Callable[[ReleaseRef, Path], Path]] = {
    "hf": export_dataset,
    "viewer": export_viewer,
}
"""Name of a format to what writes it."""
