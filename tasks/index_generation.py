"""Where the rows of an index name go when its settings change: into a new index beside the old one.

The old index stays as it is and stays what the name means until the new one is whole; then the name
is switched. A run that is stopped in between goes on with the same new index, because its folder is
named by its settings.
"""

from storage.catalog import published_folders
from storage.errors import MismatchError, NotFoundError
from storage.files import digest
from storage.index_names import EXACT_DIGITS, exact_ref, index_place, switch_index
from storage.refs import CorpusRef, IndexRef
from storage.roots import store_folder
from storage.signatures import SignatureIndex
from tasks.backbone import resolve_device
from tasks.config import IndexConfig, RuntimeConfig
from tasks.index_identity import existing_index, index_identity


def index_for(
    ref: IndexRef, corpus: CorpusRef, config: IndexConfig, runtime: RuntimeConfig
) -> IndexRef:
    """Return the index of a name that was built with these settings, or is to be.

    Args:
        ref: The name.
        corpus: Whose rows.
        config: The settings.
        runtime: Its device decides what ``auto`` means.

    Returns:
        ``ref`` itself where it is that index, or there is none yet; else one beside it.

    Raises:
        MismatchError: The name is an index of another corpus.
    """
    identity = index_identity(corpus, config, device=resolve_device(runtime.device))
    if _is_it(ref, identity):
        return ref
    found = SignatureIndex.open(ref).identity
    if found["corpus"] != corpus.corpus:
        raise MismatchError(
            f"index {ref.index!r} is of another corpus",
            [("corpus", found["corpus"], corpus.corpus)],
            "Give the index of this corpus another name.",
        )
    for folder in published_folders(store_folder(ref.root) / "indexes"):
        if folder.name == ref.index or folder.name.startswith(f"{ref.index}."):
            other = exact_ref(ref.root, folder)
            if _is_it(other, identity):
                return other
    return IndexRef(ref.root, f"{ref.index}.{digest(identity)[:EXACT_DIGITS]}")


def make_current(ref: IndexRef, built: IndexRef) -> str:
    """Switch a name to the index that was built for it.

    Returns:
        The name by which the index that it meant before is still read; empty where nothing changed.
    """
    before = index_place(ref)
    if index_place(built) == before:
        return ""
    old = exact_ref(ref.root, before).index
    switch_index(ref, built)
    return old


def _is_it(ref: IndexRef, identity: dict[str, object]) -> bool:
    try:
        existing_index(ref, identity)
    except MismatchError:
        return False
    except NotFoundError:
        return True
    return True
