"""Which index a name means: its folder, unless the name was switched to a newer index.

``indexes/.current/<name>.json`` names the folder that ``<name>`` means; without it that is the
folder of that name. Replacing the file is the switch. An index that is meant no longer stays where
it is and can be read as ``<folder>.<first 8 digits of its id>``, a name that always means the same.
"""

from collections.abc import Iterator
from pathlib import Path

from storage.errors import NotFoundError
from storage.layout import INDEX_FILE, INDEX_FORMAT, check_name, index_folder, without_links
from storage.manifests import read_manifest, write_manifest
from storage.refs import IndexRef
from storage.roots import store_folder

CURRENT_FOLDER = ".current"
POINTER_FORMAT = "rise-index-pointer"

EXACT_DIGITS = 8
"""Digits of the id that tell the indexes of one name apart."""


def index_place(ref: IndexRef) -> Path:
    """Return the folder of the index that a name means now; it need not be there.

    Raises:
        ValueError: The name could not be a folder's.
        CorruptionError: What the name was switched to cannot be read.
    """
    base, _, digits = ref.index.rpartition(".")
    if base and len(digits) == EXACT_DIGITS and not _is_there(ref):
        folder = index_folder(IndexRef(ref.root, base))
        if _index_id(folder).startswith(digits):
            return folder
    meant = _pointed(ref.root, check_name(ref.index, what="index"))
    return index_folder(ref if meant is None else IndexRef(ref.root, meant))


def exact_ref(root: str, folder: Path) -> IndexRef:
    """Return a reference that means the index in a folder, whatever names are switched to."""
    return IndexRef(root, f"{folder.name}.{_index_id(folder)[:EXACT_DIGITS]}")


def switch_index(ref: IndexRef, to: IndexRef) -> None:
    """Make a name mean another index, atomically.

    Args:
        ref: The name.
        to: The index; it must be there.

    Raises:
        NotFoundError: It is not.
    """
    folder = index_place(to)
    if not (folder / INDEX_FILE).is_file():
        raise NotFoundError(f"there is no index {to.index!r} that {ref.index!r} could mean.")
    path = _pointer(ref.root, check_name(ref.index, what="index"))
    write_manifest(path, POINTER_FORMAT, {"folder": folder.name})


def index_names(root: str, folders: list[Path]) -> Iterator[tuple[str, Path]]:
    """Yield the name by which each index is read, and its folder."""
    current = store_folder(root) / "indexes" / CURRENT_FOLDER
    names = sorted(path.stem for path in current.glob("[!.]*.json"))
    meant = {name: _pointed(root, name) for name in names}
    by_folder = {folder: name for name, folder in meant.items()}
    for folder in folders:
        if folder.name in by_folder:
            yield by_folder[folder.name], folder
        elif folder.name in meant:
            yield exact_ref(root, folder).index, folder
        else:
            yield folder.name, folder


def _pointer(root: str, name: str) -> Path:
    return without_links(store_folder(root), "indexes", CURRENT_FOLDER, f"{name}.json")


def _pointed(root: str, name: str) -> str | None:
    path = _pointer(root, name)
    if not path.is_file():
        return None
    return check_name(str(read_manifest(path, POINTER_FORMAT)["folder"]), what="index")


def _is_there(ref: IndexRef) -> bool:
    return len(ref.index) <= 64 and index_folder(ref).is_dir()


def _index_id(folder: Path) -> str:
    if not (folder / INDEX_FILE).is_file():
        return ""
    return str(read_manifest(folder / INDEX_FILE, INDEX_FORMAT)["index_id"])
