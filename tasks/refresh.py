"""Stage: what is new in an inbox comes into the corpus, one batch a file; a bad file stops nothing.

`look` says whether there is anything to do at all, from sizes, times and what the last run left,
without a model and without reading a row. `take_inbox` does the files, `remember` notes that
everything that follows from them is published.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from storage.cursor import Cursor, CursorEntry
from storage.errors import StorageError
from storage.files import digest
from storage.guards import corpus_guard
from storage.inputs import InputFile, ReplacedError, input_file, remote_files
from storage.layout import release_folder
from storage.refs import CorpusRef, ReleaseRef
from storage.urls import is_url, local_path
from tasks.config import AutoFields, Fields, FilesSource, PipelineConfig, RowsConfig
from tasks.corpus import IngestRefused, IngestReport, ingest_rows
from tasks.corpus_suite import GATE
from tasks.fields import RowError, Tokenizer, resolve_fields
from tasks.inbox import News, Reading, find_news, list_inbox, reading_settings
from tasks.inbox_file import FileChanged, FileRevision, Inbox, withdraw_file
from tasks.living_ledger import ledger_state
from tasks.progress import NO_PROGRESS, Progress
from tasks.sources import read_records, source_identity
from tasks.suite_files import load_suite

FIELDS_NOTE = "fields"
RELEASED_NOTE = "released"


class FilesRefused(ValueError):  # noqa: N818 - a verdict on files, not a fault of the program
    """Everything was done, but files are refused, which the settings call a failure."""


@dataclass(frozen=True)
class TakenFile:
    """A file that was read and is in use: what it added, changed and dropped."""

    name: str
    why: str
    batch_id: str
    n_rows: int
    n_known: int
    n_changed: int
    n_withdrawn: int
    n_rejected: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RefusedFile:
    """A file whose newest bytes are not used: why, and where its rejected records are."""

    name: str
    reason: str
    report: str
    now: bool
    """It was refused in this run; else it was before, and its bytes are the same."""


@dataclass(frozen=True)
class Outlook:
    """What a look at the inbox found.

    Attributes:
        news: Of the inbox.
        nothing: There is nothing to do: no news, and everything that follows is published.
        summary: One sentence for people.
        refused: Files that were refused and have not changed since.
    """

    news: News
    nothing: bool
    summary: str
    refused: tuple[RefusedFile, ...]


@dataclass(frozen=True)
class IntakeReport:
    """What became of the files of an inbox.

    Attributes:
        taken: Files that were read, in the order of reading.
        refused: Files that are not used in their newest version, new refusals first.
        waiting: Files that are left to the next run, with the reason.
        duplicates: Files with the bytes of another one, newly found.
        withdrawn: Files that are gone, with the rows that went with them.
        n_files: Files that are there.
        n_batches: Batches of the corpus afterwards.
        seconds: Wall time.
    """

    taken: tuple[TakenFile, ...]
    refused: tuple[RefusedFile, ...]
    waiting: tuple[str, ...]
    duplicates: tuple[str, ...]
    withdrawn: tuple[tuple[str, int], ...]
    n_files: int
    n_batches: int
    seconds: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know of files that were not taken, or were odd."""
        refused = [
            f"{one.name} is refused{'' if one.now else ' (as before)'}: {one.reason}"
            for one in self.refused
        ]
        empty = ["the inbox has no file: rows.source matches nothing"] * (not self.n_files)
        waiting = [f"{text}; it is left to the next run" for text in self.waiting]
        odd = [f"{one.name}: {text}" for one in self.taken for text in one.warnings]
        return (*empty, *refused, *waiting, *odd)

    @property
    def summary(self) -> str:
        """One sentence for people."""
        sums = {
            "rows in": sum(one.n_rows for one in self.taken),
            "changed": sum(one.n_changed for one in self.taken),
            "withdrawn": sum(one.n_withdrawn for one in self.taken)
            + sum(n_rows for _, n_rows in self.withdrawn),
        }
        counts = ", ".join(f"{n:,} {name}" for name, n in sums.items())
        return (
            f"{len(self.taken):,} of {self.n_files:,} files taken ({counts}), "
            f"{len(self.refused):,} refused, {len(self.waiting):,} left to the next run"
        )


def look(config: PipelineConfig) -> Outlook:
    """Compare inbox, cursor and what was released last; nothing is written.

    Raises:
        SuiteError: The ingest suite cannot be used.
        ValueError: A dataset, or the queries, cannot be found.
        CorruptionError: An entry of the cursor is damaged.
    """
    cursor = Cursor(CorpusRef(config.store, config.corpus))
    news = _news(config, cursor)
    refused = _refused_before(cursor, news)
    busy = [*news.readings, *news.duplicates, *news.touched]
    leaving = [entry for entry in news.gone if config.refresh.withdraw_deleted or not entry.gone]
    if busy or leaving:
        return Outlook(news, nothing=False, summary=_news_text(news), refused=refused)
    if cursor.note(RELEASED_NOTE) != _released_state(config):
        text = "no new files, but releases are to be made again"
        return Outlook(news, nothing=False, summary=text, refused=refused)
    text = f"nothing new: {news.n_files:,} files looked at, {len(refused):,} of them refused before"
    if news.waiting:
        text += f", {len(news.waiting):,} left to the next run"
    return Outlook(news, nothing=True, summary=text, refused=refused)


def take_inbox(config: PipelineConfig, *, progress: Progress = NO_PROGRESS) -> IntakeReport:
    """Read every new or changed file into the corpus, one batch a file, in the order of names.

    A refused file goes to quarantine and is remembered with its bytes; the rest goes on.

    Raises:
        SuiteError: The ingest suite cannot be used.
        BusyError: Another process takes files of this corpus, or writes it.
        StorageError: The store cannot be read or written.
    """
    started = time.monotonic()
    ref = CorpusRef(config.store, config.corpus)
    cursor = Cursor(ref)
    with cursor.taking():
        news = _news(config, cursor)
        inbox = Inbox(ref, cursor, _settings(config), overlapping=config.rows.id_field is not None)
        for entry in news.touched:
            cursor.put(entry)
        intake = _Intake(config, inbox, progress)
        progress.start(total=len(news.readings), unit="files")
        for reading in news.readings:
            intake.take(reading)
        for entry in news.duplicates:
            intake.leave_to_its_like(entry)
        intake.depart(news)
        intake.take_again()
    return IntakeReport(
        taken=tuple(intake.taken),
        refused=(*intake.refused, *_refused_before(cursor, news)),
        waiting=tuple(f"{name}: {why}" for name, why in {**news.waiting, **intake.waiting}.items()),
        duplicates=tuple(entry.name for entry in news.duplicates),
        withdrawn=tuple(intake.left),
        n_files=news.n_files,
        n_batches=len(ledger_state(ref)[0]),
        seconds=time.monotonic() - started,
    )


def released_inputs(config: PipelineConfig) -> dict[str, Any]:
    """Return what the releases of a run follow from, without reading more than the queries."""
    left_out = {"store", "runtime", "refresh"}
    settings = config.model_dump(mode="json", exclude=left_out)
    named = [settings["indexing"]["model"], settings["releasing"], settings["also"]]
    return {
        "settings": digest(settings),
        "queries": digest(source_identity(config.queries.source)),
        "named_files": digest(sorted(_stats(named))),
        "corpus": digest(ledger_state(CorpusRef(config.store, config.corpus))),
        "suites": digest(sorted(_stats([config.quality.folder]))),
    }


def remember(config: PipelineConfig, inputs: dict[str, Any], releases: dict[str, str]) -> None:
    """Note what releases follow from, so that the next run can tell that nothing is to do.

    Args:
        config: Of the run.
        inputs: From `released_inputs`, before the releases were made.
        releases: Name to id of what was published.
    """
    cursor = Cursor(CorpusRef(config.store, config.corpus))
    cursor.write_note(RELEASED_NOTE, {**inputs, "releases": releases})


def require_no_refusal(config: PipelineConfig, report: IntakeReport) -> None:
    """Raise `FilesRefused` if files are refused and the settings call that a failure."""
    if config.refresh.fail_on_refused and report.refused:
        lines = [f"- {one.name}: {one.reason}\n  {one.report}" for one in report.refused]
        raise FilesRefused(
            f"{len(report.refused)} files of the inbox are refused (refresh.fail_on_refused); "
            "everything else was released:\n" + "\n".join(lines)
        )


class _Intake:
    """The files of one run on their way in."""

    def __init__(self, config: PipelineConfig, inbox: Inbox, progress: Progress) -> None:
        self.taken: list[TakenFile] = []
        self.refused: list[RefusedFile] = []
        self.waiting: dict[str, str] = {}
        self.left: list[tuple[str, int]] = []
        self._config, self._inbox, self._progress = config, inbox, progress
        self._tokenizer: Tokenizer | None = None

    def take(self, reading: Reading) -> None:
        """Read one file; what is wrong with it is noted and stops nothing."""
        config, name = self._config, reading.file.name
        revision = FileRevision(self._inbox, reading)
        tokenizer = self._load_tokenizer()
        try:
            rows = self._rows(reading)
            report = ingest_rows(
                self._inbox.ref, rows, tokenizer, quality=config.quality, revision=revision
            )
        except (FileChanged, ReplacedError):
            self.waiting[name] = "it changed while it was read"
        except FileNotFoundError:
            if not isinstance(reading.file.source, FilesSource) or input_file(name).exists():
                raise
            self.waiting[name] = "it went away"
        except IngestRefused as error:
            self._refuse(revision, str(error), error.rejected_path)
        except StorageError:
            raise
        except ValueError as error:  # the file is empty of records, damaged or cut off
            self._refuse(revision, str(error), "")
        else:
            revision.finish()
            self._pin_fields(rows)
            self.taken.append(_taken(reading, revision, report))
        self._progress.advance(1)

    def take_again(self) -> None:
        """Read the files again of which rows are wanted that others had replaced, until none is."""
        tried: set[str] = set()
        while again := [one for one in self._stale() if one.file.name not in tried]:
            for reading in again:
                tried.add(reading.file.name)
                self.take(reading)

    def depart(self, news: News) -> None:
        """Note the files that are gone; where settings say so, their rows are withdrawn."""
        cursor = self._inbox.cursor
        for gone in news.gone:
            if self._config.refresh.withdraw_deleted:
                self.left.append((gone.name, self.leave(gone.name)))
                outlived = bool(self._inbox.ledger().ids_of(gone.name))
                cursor.forget(gone.name, outlived=outlived)
            elif not gone.gone:
                cursor.put(replace(cursor.entries[gone.name], gone=True))

    def leave_to_its_like(self, duplicate: CursorEntry) -> None:
        """Note a file as a duplicate, once the file with the same bytes is in use."""
        cursor = self._inbox.cursor
        likes = (one for one in cursor.entries.values() if one.name != duplicate.name)
        if any((one.state, one.sha256) == ("taken", duplicate.sha256) for one in likes):
            self.leave(duplicate.name)
            cursor.put(replace(duplicate, listing="", settings=self._inbox.settings))

    def leave(self, name: str) -> int:
        """Withdraw the rows of a file that no other file has; return how many."""
        with corpus_guard(self._inbox.ref).hold():
            return withdraw_file(self._inbox, name)

    def _stale(self) -> Iterator[Reading]:
        entries = self._inbox.cursor.entries
        for file in list_inbox(self._config.rows.source):
            entry = entries.get(file.name)
            same = entry is not None and (entry.n_bytes, entry.mtime_ns) == (
                file.n_bytes,
                file.mtime_ns,
            )
            if entry is not None and entry.stale and same:
                yield Reading(file, entry.sha256, "wanted again")

    def _refuse(self, revision: FileRevision, reason: str, report: str) -> None:
        auto = isinstance(self._config.rows.fields, AutoFields)
        if auto and self._inbox.cursor.note(FIELDS_NOTE):
            reason += (
                "\nThe fields are those of the first file that was taken; name them in rows.fields "
                "if they are others."
            )
        revision.refuse(reason, report)
        self.refused.append(RefusedFile(revision.name, reason, report, now=True))

    def _rows(self, reading: Reading) -> RowsConfig:
        """Return the settings of one file: its own source, and the fields of the whole inbox."""
        rows = self._config.rows.model_copy(update={"source": reading.file.source})
        if not isinstance(rows.fields, AutoFields):
            return rows
        noted = self._inbox.cursor.note(FIELDS_NOTE)
        if noted is not None:
            body = {**rows.model_dump(mode="json"), "fields": noted["fields"]}
            return RowsConfig.model_validate(body)
        return rows.model_copy(update={"fields": _first_fields(rows)})

    def _pin_fields(self, rows: RowsConfig) -> None:
        auto = isinstance(self._config.rows.fields, AutoFields)
        if auto and not isinstance(rows.fields, AutoFields):
            body = {"fields": rows.fields.model_dump(mode="json")}
            self._inbox.cursor.write_note(FIELDS_NOTE, body)

    def _load_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            from tasks.backbone import load_tokenizer

            self._tokenizer = load_tokenizer(self._config.indexing.model)
        return self._tokenizer


def _first_fields(rows: RowsConfig) -> Fields:
    """Return what ``auto`` means for a file; ``auto`` itself where no record of it tells."""
    for record in read_records(rows.source, rows.limits):
        if record.value is not None:
            try:
                return resolve_fields(rows.fields, record.value)
            except RowError:
                return rows.fields
    return rows.fields


def _taken(reading: Reading, revision: FileRevision, report: IngestReport) -> TakenFile:
    return TakenFile(
        name=reading.file.name,
        why=reading.why,
        batch_id="" if report.batch is None else report.batch.batch_id,
        n_rows=report.n_rows,
        n_known=report.n_known,
        n_changed=revision.n_changed,
        n_withdrawn=revision.n_withdrawn,
        n_rejected=report.n_rejected,
        warnings=report.warnings,
    )


def _settings(config: PipelineConfig) -> str:
    suite = load_suite(GATE, config.quality)
    return reading_settings(config.rows, config.indexing.model, suite=suite.sha256)


def _news(config: PipelineConfig, cursor: Cursor) -> News:
    return find_news(
        list_inbox(config.rows.source),
        cursor.entries,
        settings=_settings(config),
        refresh=config.refresh,
        overlapping=config.rows.id_field is not None,
    )


def _news_text(news: News) -> str:
    parts = [f"{len(news.readings):,} files to read"]
    parts += [f"{len(news.gone):,} gone"] if news.gone else []
    parts += [f"{len(news.duplicates):,} duplicates"] if news.duplicates else []
    return ", ".join(parts)


def _refused_before(cursor: Cursor, news: News) -> tuple[RefusedFile, ...]:
    read = {reading.file.name for reading in news.readings}
    return tuple(
        RefusedFile(name, entry.reason, entry.report, now=False)
        for name, entry in cursor.entries.items()
        if entry.state == "refused" and name not in read and not entry.gone
    )


def _released_state(config: PipelineConfig) -> dict[str, Any] | None:
    """Return what the note of a run says if nothing was to do; None while a release is missing."""
    noted = Cursor(CorpusRef(config.store, config.corpus)).note(RELEASED_NOTE)
    releases = {} if noted is None else noted["releases"]
    for name, release_id in releases.items():
        if not release_folder(ReleaseRef(config.store, name, release_id)).is_dir():
            return None
    return {**released_inputs(config), "releases": releases}


def _stats(value: Any) -> Iterator[list[Any]]:
    """Yield path, size and time of every file that settings name anywhere."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _stats(item)
    elif isinstance(value, str) and ("/" in value or "." in value):
        for file in _files_named(value):
            found = file.stat()
            yield [str(file), found.st_size, found.st_mtime_ns]


def _files_named(name: str) -> Sequence[InputFile]:
    """Return the file, or the files below the folder, of that name; none where there is none."""
    if is_url(name):
        return remote_files(name)[0]
    path = local_path(name).expanduser()
    return [
        file for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()
    ]
