"""How the state of a store reads in a terminal: a table, what to look at, what is next."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flows.artifacts import readable, readable_bytes

COLUMNS = ("kind", "name", "holds", "state", "age", "size")
MOST_SHOWN = 5
"""Files or batches that are listed one by one; JSON has all."""
REASON_CHARS = 160

UNITS = (("d", 86400), ("h", 3600), ("min", 60))

Facts = Mapping[str, Any]


def status_rows(status: Facts) -> list[tuple[str, ...]]:
    """Return the lines of the table: COLUMNS, a line a thing, of scores only the newest."""
    return [
        *(_line("corpus", one, _corpus_holds) for one in status["corpora"]),
        *(_line("inbox", one, _inbox_holds) for one in status["inboxes"]),
        *(_line("index", one, _index_holds) for one in status["indexes"]),
        *(_line("query set", one, _query_set_holds) for one in status["query_sets"]),
        *(_line("scores", one, _scores_holds) for one in newest_scores(status["scores"])),
        *(_line("release", one, _release_holds) for one in status["releases"]),
    ]


def newest_scores(scores: Sequence[Facts]) -> list[dict[str, Any]]:
    """Return the newest scores of each index and query set, with the number of ``older`` ones."""
    older: dict[tuple[Any, Any], int] = {}
    for one in scores:
        key = (one.get("index"), one.get("query_set"))
        older[key] = older.get(key, -1) + 1
    return [
        {**one, "older": older[one.get("index"), one.get("query_set")]}
        for one in scores
        if one["newest"]
    ]


def things_to_look_at(status: Facts) -> list[str]:
    """Return what somebody should act on, a line each, with what to do."""
    return [
        *(
            f"{one['name']}: {one['problem']}"
            for part in _parts(status)
            for one in part
            if "problem" in one
        ),
        *(line for one in status["inboxes"] for line in _inbox_lines(one)),
        *(line for one in status["indexes"] for line in _index_lines(one)),
        *(line for one in status["releases"] for line in _release_lines(one, status["store"])),
        *(one["state"] for one in status["leases"]),
        *_leftover_lines(status),
    ]


def next_lines(outlook: Facts) -> list[str]:
    """Return what the next refresh would do, a line each."""
    return [
        *_some([f"read {one['file']} ({one['why']})" for one in outlook["read"]], "files to read"),
        *_some(
            [f"leave {one['file']} to a later run: {one['reason']}" for one in outlook["waiting"]],
            "files to wait for",
        ),
        *_some([f"leave out {name}: a duplicate" for name in outlook["duplicates"]], "duplicates"),
        *_some(
            [f"{name} is gone: its rows are {outlook['gone_rows']}" for name in outlook["gone"]],
            "files that are gone",
        ),
        *_some(
            [f"{one['file']} stays refused until its bytes change" for one in outlook["refused"]],
            "refused files",
        ),
        *_release_reasons(outlook),
    ]


def detail_words(step: Facts) -> str:
    """Return where a station has a row, as words: a name and value after the other."""
    detail = step["detail"]
    return ", ".join(
        f"{name.removeprefix('n_').replace('_', ' ')} {readable(value)}"
        for name, value in detail.items()
        if value is not None and name not in ("content_hash", "lineage_id")
    )


def age(created: str | None, *, now: datetime | None = None) -> str:
    """Return how long ago an ISO 8601 time was, such as ``3 h``; empty without one."""
    if not created:
        return ""
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(created)).total_seconds()
    for unit, length in UNITS:
        if seconds >= length:
            return f"{int(seconds // length):,} {unit}"
    return f"{max(0, int(seconds))} s"


def shortened_reason(text: str, n_chars: int = REASON_CHARS) -> str:
    """Return the first line of a reason, cut where it is long."""
    line = text.partition("\n")[0]
    return line if len(line) <= n_chars else f"{line[: n_chars - 1]}…"


def counted(number: int, noun: str, ending: str = "s") -> str:
    """Return a number and its noun, such as ``1 batch`` and ``2 batches``."""
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def _line(kind: str, one: Facts, holds: Any) -> tuple[str, ...]:
    if "problem" in one:
        return (kind, one["name"], "", one["state"], "", "")
    size = one.get("bytes")
    return (
        kind,
        one["name"],
        holds(one),
        one["state"],
        age(one.get("made")),
        "" if size is None else readable_bytes(size),
    )


def _corpus_holds(one: Facts) -> str:
    alive = "" if one["alive"] == one["rows"] else f", {one['alive']:,} alive"
    return f"{counted(one['rows'], 'row')} in {counted(one['batches'], 'batch', 'es')}{alive}"


def _inbox_holds(one: Facts) -> str:
    return counted(sum(one["files"].values()), "file")


def _index_holds(one: Facts) -> str:
    return f"{counted(one['rows'], 'row')}, {one['numbers']:,} numbers {one['code']}"


def _query_set_holds(one: Facts) -> str:
    versions = f"; {one['versions']:,} versions" if one["versions"] > 1 else ""
    return f"{one['queries']:,} {'query' if one['queries'] == 1 else 'queries'}{versions}"


def _scores_holds(one: Facts) -> str:
    older = f"; {one['older']:,} older" if one["older"] else ""
    return f"{counted(one['rows'], 'row')}, {one['index']} x {one['query_set']}{older}"


def _release_holds(one: Facts) -> str:
    tokens = "" if one["tokens"] is None else f", {readable(one['tokens'])} tokens"
    others = f"; {one['releases']:,} in all" if one["releases"] > 1 else ""
    return f"{counted(one['rows'], 'row')}{tokens}{others}"


def _parts(status: Facts) -> Iterator[Sequence[Facts]]:
    for name in ("corpora", "inboxes", "indexes", "query_sets", "scores", "releases"):
        yield status[name]


def _inbox_lines(one: Facts) -> list[str]:
    if "problem" in one:
        return []
    refused = [
        f"{file['file']} is refused: {shortened_reason(file['reason'])} "
        f"Rejected records: {file['report'] or 'none'}"
        for file in one["refused"]
    ]
    stopped = [
        f"{name} was being taken by a run that ended; the next refresh reads it again"
        for name in one["interrupted"]
    ]
    return [*_some(refused, "refused files"), *_some(stopped, "interrupted files")]


def _index_lines(one: Facts) -> list[str]:
    if "problem" in one or not one["current"]:
        return []
    missing = [
        f"{batch['id']} ({counted(batch['rows'], 'row')})" for batch in one["batches"]["missing"]
    ]
    more = f" and {len(missing) - MOST_SHOWN:,} more" if len(missing) > MOST_SHOWN else ""
    lines = (
        [
            f"index {one['name']} lacks {', '.join(missing[:MOST_SHOWN])}{more}: "
            "rise index, rise run or rise refresh adds them"
        ]
        if missing
        else []
    )
    return lines + [f"index {one['name']}: {text}" for text in one["warnings"]]


def _release_lines(one: Facts, store: str) -> Iterator[str]:
    if "problem" in one:
        return
    for held in one["held"]:
        beyond = [
            verdict["measure"]
            for verdict in held.get("verdicts", ())
            if verdict["outcome"] == "fails"
        ]
        yield (
            f"release {one['name']} {held['id']} is held (drift: {', '.join(beyond)}): "
            f"rise diff {held.get('against', one['latest'])} {held['id']} --store {store}; "
            f"rise release accept {one['name']} --id {held['id']} --store {store}"
        )
    if one["refused"]:
        yield f"release {one['name']}: {counted(len(one['refused']), 'release')} refused by a gate"


def _leftover_lines(status: Facts) -> Iterator[str]:
    if status["partial_bytes"]:
        yield (
            f"{readable_bytes(status['partial_bytes'])} are in files that are not finished: being "
            "written now, or left by a run that was killed, and then cleared by the next writer"
        )


def _release_reasons(outlook: Facts) -> list[str]:
    if outlook["nothing"]:
        return []
    changed = outlook["changed"]
    if changed is None:
        return ["index, score and release for the first time"]
    why = f"other {', '.join(changed)}" if changed else ""
    if not why:
        why = "what comes in" if outlook["read"] else "a release of the last run is gone"
    return [f"index, score and release again: {why}"]


def _some(lines: list[str], noun: str) -> list[str]:
    rest = len(lines) - MOST_SHOWN
    return lines if rest <= 0 else [*lines[:MOST_SHOWN], f"... {rest:,} more {noun}"]


def version_words(steps: Sequence[Facts], starts: Sequence[int]) -> list[str]:
    """Return which version of its row each part of a lineage is, such as ``, version 2 of 3``.

    Args:
        steps: Stations; a part begins with a source, then the row and its batch.
        starts: Where parts begin: the newest version of a row comes first.
    """
    rows = [(steps[at + 1]["id"], steps[at + 2]["detail"].get("corpus")) for at in starts]
    left, words = Counter(rows), []
    for row in rows:
        words.append(f", version {left[row]} of {rows.count(row)}" if rows.count(row) > 1 else "")
        left[row] -= 1
    return words
