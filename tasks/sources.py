"""Where rows come from: files and Hugging Face datasets, streamed as records with a location.

A bad line never stops a source (`Record.error` says what is wrong); a source that is missing,
empty or damaged as a whole does, with the path. Nothing here touches the network unless the
source says ``online: true``.
"""

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.files import digest, file_sha256
from storage.inputs import InputFile, remote_files
from storage.urls import is_url, local_path
from tasks.config import DatasetSource, FilesSource, RowLimits, Source
from tasks.offline import forbid_network
from tasks.records import Advance, Record
from tasks.tables import read_csv, read_parquet
from tasks.text_files import read_json_lines

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".ndjson.gz": "jsonl",
    ".ndjson.zst": "jsonl",
    ".parquet": "parquet",
    ".csv": "csv",
}
"""Endings that are recognised when the format is ``auto``."""

READERS = {"jsonl": read_json_lines, "parquet": read_parquet, "csv": read_csv}
"""Each yields the records of one file, given its name in locations and the limits."""


def _ignore(_: int) -> None:
    """Progress that nobody watches."""


def read_records(
    source: Source, limits: RowLimits, *, advance: Advance = _ignore
) -> Iterator[Record]:
    """Stream every record of a source, good and bad, in order.

    Args:
        source: Files, or a Hugging Face dataset.
        limits: Only ``max_line_bytes`` is used here.
        advance: Called with the bytes of the source that were read since the last call.

    Raises:
        ValueError: A path matches nothing, a file is empty, damaged or of unknown format, or the
            dataset cannot be loaded.
    """
    if isinstance(source, DatasetSource):
        yield from _read_dataset(source)
        advance(sum(path.stat().st_size for path in _files_under(_dataset_folder(source))))
        return
    for path, name in expand(source):
        kind = _format(path, source)
        n_records = 0
        for record in READERS[kind](path, source=name, limits=limits, advance=advance):
            n_records += 1
            yield record
        if not n_records:
            raise ValueError(
                f"{name}: expected at least one record, found none. Remove the file from the "
                "source's paths, or fill it."
            )


def source_identity(source: Source) -> list[dict[str, object]]:
    """Return what makes a source this source: paths as given, and sha256 and size of the bytes.

    A dataset on the hub is identified by the commit that its revision names now.

    Raises:
        ValueError: As `read_records`; and a hub dataset without ``online: true``.
    """
    if isinstance(source, FilesSource):
        return [_file_identity(path, name) for path, name in expand(source)]
    folder = _dataset_folder(source)
    given: dict[str, object] = {"dataset": source.path, "name": source.name, "split": source.split}
    if folder.is_dir():
        files = [
            _file_identity(path, str(path.relative_to(folder))) for path in _files_under(folder)
        ]
        if not files:
            raise ValueError(f"{source.path}: expected a dataset folder, found no file in it.")
        return [
            {**given, "sha256": digest(files), "bytes": sum(int(str(f["bytes"])) for f in files)}
        ]
    _require_online(source)
    forbid_network(online=True)
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(source.path, revision=source.revision)
    return [{**given, "revision": info.sha}]


def pinned(source: Source, identity: Sequence[Mapping[str, object]]) -> Source:
    """Return the source as it was identified: a hub dataset at that very commit."""
    revision = identity[0].get("revision")
    if isinstance(source, DatasetSource) and isinstance(revision, str):
        return source.model_copy(update={"revision": revision})
    return source


def expand(source: FilesSource) -> list[tuple[InputFile, str]]:
    """Return the files of a source, each with its name in locations, without repeats.

    Patterns are expanded and sorted; a folder stands for the files of known endings below it.

    Raises:
        ValueError: A path matches nothing, or a file is empty (0 bytes).
    """
    found: dict[InputFile, str] = {}
    for given in source.paths:
        for path in _matches(given, source):
            found.setdefault(path.resolve(), str(path))
    for path, name in found.items():
        if name != name.encode(errors="replace").decode():
            raise ValueError(
                f"{name!r}: expected a path in UTF-8, since it becomes part of every row's id. "
                "Rename the file or folder."
            )
        if path.stat().st_size == 0:
            raise ValueError(
                f"{name}: expected rows, but the file is empty (0 bytes). Remove it from the "
                "source's paths, or write it again."
            )
    return list(found.items())


def _matches(given: str, source: FilesSource) -> Sequence[InputFile]:
    if is_url(given):
        found, is_folder = remote_files(given)
        return _some(_known(found, given) if is_folder and found else found, given, source)
    path = local_path(given).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return _known(_files_under(path), given)
    # glob.glob takes absolute patterns, which Path.glob refuses
    matched = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    return _some([file for file in matched if file.is_file()], given, source)


def _known(files: Sequence[InputFile], given: str) -> Sequence[InputFile]:
    known = [file for file in files if _known_format(file)]
    if not known:
        raise ValueError(
            f"{given}: expected a folder with files ending in {', '.join(FORMATS)}; it has "
            "none. Name the files, and their format where the ending does not tell."
        )
    return known


def _some(files: Sequence[InputFile], given: str, source: FilesSource) -> Sequence[InputFile]:
    if not files:
        where = "" if is_url(given) else f" (seen from {Path.cwd()})"
        raise ValueError(
            f"{given}: expected a file, a folder or a pattern; it matches nothing{where}. "
            f"Correct the path in source.paths ({len(source.paths)} given)."
        )
    return files


def _files_under(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )


def _known_format(path: InputFile) -> str | None:
    name = path.name.lower()
    return next((kind for ending, kind in FORMATS.items() if name.endswith(ending)), None)


def _format(path: InputFile, source: FilesSource) -> str:
    kind = _known_format(path) if source.format == "auto" else source.format
    if kind is None:
        raise ValueError(
            f"{path}: expected a file ending in {', '.join(FORMATS)}. Rename it, or set "
            "source.format to jsonl, parquet or csv."
        )
    return kind


def _file_identity(path: InputFile, name: str) -> dict[str, object]:
    return {"path": name, "sha256": file_sha256(path), "bytes": path.stat().st_size}


# ------------------------------------------------------------------------------------ datasets


def _read_dataset(source: DatasetSource) -> Iterator[Record]:
    dataset = _open_dataset(source)
    name = f"{source.path}[{source.split}]"
    number = 0
    import pyarrow as pa
    from datasets.exceptions import DatasetGenerationError

    try:
        for number, row in enumerate(dataset, start=1):
            yield Record(name, number, dict(row))
    except (pa.ArrowInvalid, DatasetGenerationError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{name}: reading failed after record {number}: {error}. Mend the file, or ingest the "
            "JSON Lines directly (kind: files), which skips and reports bad lines."
        ) from error
    if not number:
        raise ValueError(f"{name}: expected at least one record, found none. Choose another split.")


def _open_dataset(source: DatasetSource) -> Any:
    folder = _dataset_folder(source)
    if not folder.is_dir():
        _require_online(source)
    forbid_network(online=source.online)
    import datasets

    try:
        if (folder / "state.json").is_file():
            return datasets.load_from_disk(folder)
        if (folder / "dataset_dict.json").is_file():
            return _split_of(datasets.load_from_disk(folder), source)
        return datasets.load_dataset(
            str(folder) if folder.is_dir() else source.path,
            source.name,
            split=source.split,
            revision=source.revision,
            streaming=True,
        )
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"{source.path}: expected a dataset with split {source.split!r}; loading failed: "
            f"{error}"
        ) from error


def _dataset_folder(source: DatasetSource) -> Path:
    if is_url(source.path):
        raise ValueError(
            f"{source.path}: expected a dataset folder on disk or a hub id, got a URL. Name its "
            "Parquet or JSON Lines files instead (kind: files), or copy the folder."
        )
    return local_path(source.path).expanduser()


def _split_of(splits: Any, source: DatasetSource) -> Any:
    if source.split not in splits:
        raise ValueError(f"it has the splits {', '.join(splits)}. Set source.split to one of them")
    return splits[source.split]


def _require_online(source: DatasetSource) -> None:
    if not source.online:
        raise ValueError(
            f"{source.path}: expected a dataset folder; there is none, and a Hugging Face id needs "
            "the network. Correct source.path, or set source.online to true."
        )
