"""Whether what a store records is there and unchanged: every artifact, pointer and cursor.

Checks go from the listing of artifacts to their files. One thing that cannot be read hides no
other. A *note* is no damage: something was deleted that others were made from, so that their rows
can no longer be followed back.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from storage.catalog import open_store, published_folders, refused_batches, version_folders
from storage.corpus import Corpus
from storage.cursor import Cursor
from storage.errors import NotFoundError, StorageError
from storage.index_names import index_names
from storage.layout import LATEST, REFUSED_FILE, REFUSED_FORMAT, inbox_folder
from storage.manifests import file_problems, read_manifest
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ReleaseRef, ScoresRef
from storage.releases import all_releases, open_release
from storage.roots import fetched, store_folder
from storage.scores import Scores
from storage.signatures import SignatureIndex
from storage.tombstones import Tombstones


@dataclass(frozen=True)
class Checked:
    """One thing that was looked at.

    Attributes:
        kind: ``batches``, ``tombstones``, ``inbox``, ``refused batch``, ``index``, ``index names``,
            ``query set``, ``scores``, ``release`` or ``pointer``.
        name: Which one.
        problems: What is missing or damaged, with what to do.
        notes: What it was made from and is gone.
    """

    kind: str
    name: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def check_store(root: str, *, deep: bool = True) -> list[Checked]:
    """Hold everything in a store against what is recorded of it.

    Args:
        root: Folder of the store.
        deep: Read and hash every byte; else only presence and size.

    Raises:
        NotFoundError: There is no store at ``root``.
    """
    folder = open_store(root)
    return [
        *(
            one
            for path in published_folders(folder / "corpora")
            for one in _corpus(CorpusRef(root, path.name), deep=deep)
        ),
        *_indexes(root, deep=deep),
        *_query_sets(root, deep=deep),
        *_all_scores(root, deep=deep),
        *_releases(root, deep=deep),
    ]


def _checked(kind: str, name: str, problems: Callable[[], list[str]]) -> Checked:
    try:
        return Checked(kind, name, tuple(problems()))
    except StorageError as error:  # what cannot even be opened must not hide the others
        return Checked(kind, name, (f"{kind} {name}: {error}",))


# ------------------------------------------------------------------------------------- corpus


def _corpus(ref: CorpusRef, *, deep: bool) -> Iterator[Checked]:
    name = ref.corpus
    yield _checked("batches", name, partial(_batch_problems, ref, deep=deep))
    yield _checked("tombstones", name, lambda: Tombstones(ref).verify(deep=deep))
    if inbox_folder(ref).is_dir():
        yield _checked("inbox", name, partial(_inbox_problems, ref))
    for folder in refused_batches(ref):
        yield _checked("refused batch", folder.name, partial(_refused, folder, deep=deep))


def _batch_problems(ref: CorpusRef, *, deep: bool) -> list[str]:
    return Corpus(ref).verify(deep=deep) if Corpus.batches(ref) else []


def _inbox_problems(ref: CorpusRef) -> list[str]:
    """Read every entry and every listing that one names."""
    cursor = Cursor(ref)
    problems = []
    for name in cursor.entries:
        try:
            cursor.listing(name)
        except StorageError as error:
            problems.append(
                f"inbox of {ref.corpus}, file {name}: {error} Deleting its entry under "
                f"{inbox_folder(ref) / 'files'} makes the next refresh read the file again."
            )
    return problems


def _refused(folder: Path, *, deep: bool) -> list[str]:
    files = read_manifest(folder / REFUSED_FILE, REFUSED_FORMAT)["files"]
    fetched(folder)
    return file_problems(folder, files, deep=deep)


# -------------------------------------------------------------------------------------- index


def _indexes(root: str, *, deep: bool) -> Iterator[Checked]:
    try:
        names = [
            name for name, _ in index_names(root, published_folders(store_folder(root) / "indexes"))
        ]
    except StorageError as error:
        yield Checked("index names", "indexes", (f"names of indexes: {error}",))
        return
    for name in names:
        yield _checked("index", name, partial(_index_problems, root, name, deep=deep))


def _index_problems(root: str, name: str, *, deep: bool) -> list[str]:
    index = SignatureIndex.open(IndexRef(root, name))
    return [*index.verify(deep=deep), *_lost_batches(root, index)]


def _lost_batches(root: str, index: SignatureIndex) -> list[str]:
    corpus = CorpusRef(root, index.identity["corpus"])
    there = {batch.batch_id for batch in Corpus.batches(corpus)}
    return [
        f"index {index.ref.index}: batch {batch_id} of corpus {corpus.corpus!r} is missing, so its "
        "rows cannot be named. Restore the batch from a copy."
        for batch_id in index.batches
        if batch_id not in there
    ]


# -------------------------------------------------------------------- query sets, scores, releases


def _query_sets(root: str, *, deep: bool) -> Iterator[Checked]:
    for folder in published_folders(store_folder(root) / "queries"):
        for version in version_folders(folder):
            ref = QuerySetRef(root, folder.name, version.name)
            yield _checked(
                "query set", f"{ref.name} {ref.version}", partial(_query_set, ref, deep=deep)
            )
        yield _pointer(folder, "ask for the query set again (rise queries)")


def _query_set(ref: QuerySetRef, *, deep: bool) -> list[str]:
    return QuerySet.open(ref).verify(deep=deep)


def _scores(ref: ScoresRef, *, deep: bool) -> list[str]:
    return Scores.open(ref).verify(deep=deep)


def _release(ref: ReleaseRef, *, deep: bool) -> list[str]:
    return open_release(ref).verify(deep=deep)


def _all_scores(root: str, *, deep: bool) -> Iterator[Checked]:
    for folder in published_folders(store_folder(root) / "scores"):
        ref = ScoresRef(root, folder.name)
        checked = _checked("scores", folder.name, partial(_scores, ref, deep=deep))
        yield Checked(checked.kind, checked.name, checked.problems, tuple(_parents_of_scores(ref)))


def _parents_of_scores(ref: ScoresRef) -> Iterator[str]:
    try:
        manifest = Scores.open(ref).manifest
    except StorageError:
        return
    name, version = manifest["query_set"], manifest["query_set_version"]
    if not QuerySet.exists(QuerySetRef(ref.root, name, version)):
        yield f"scores {ref.scores_id}: query set {name} {version} is no longer in the store"
    try:
        index = SignatureIndex.open(IndexRef(ref.root, manifest["index"]))
    except NotFoundError:
        yield f"scores {ref.scores_id}: index {manifest['index']} is no longer in the store"
    except StorageError:
        return
    else:
        if index.index_id != manifest["index_id"]:
            yield f"scores {ref.scores_id}: index {manifest['index']} is another one now"


def _releases(root: str, *, deep: bool) -> Iterator[Checked]:
    for ref in all_releases(root):
        name = f"{ref.name} {ref.release_id}"
        checked = _checked("release", name, partial(_release, ref, deep=deep))
        yield Checked(checked.kind, name, checked.problems, tuple(_parents_of_release(ref)))
    for folder in published_folders(store_folder(root) / "releases"):
        if version_folders(folder):
            yield _pointer(folder, "point it to a release: rise release rollback NAME --to ID")


def _parents_of_release(ref: ReleaseRef) -> Iterator[str]:
    try:
        scores_id = str(open_release(ref).manifest["scores_id"])
    except StorageError:
        return
    if not Scores.exists(ref.root, scores_id):
        yield (
            f"release {ref.name} {ref.release_id}: scores {scores_id} are no longer in the store; "
            "it is whole, but its rows are followed back by its own manifest only"
        )


def _pointer(folder: Path, remedy: str) -> Checked:
    """Check the link ``latest`` of a name: it is there and leads to a version."""
    link, name = folder / LATEST, f"{folder.parent.name}/{folder.name}/{LATEST}"
    if not link.is_symlink():
        return Checked("pointer", name, (f"{link} is missing. To mend it, {remedy}.",))
    if not link.is_dir():
        target = link.readlink()
        return Checked(
            "pointer", name, (f"{link} leads to {target}, which is not there. {remedy}.",)
        )
    return Checked("pointer", name)
