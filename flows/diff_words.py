"""How a comparison of two releases reads in a terminal."""

from typing import Any

from flows.artifacts import readable
from flows.terminal import say, show_facts, show_table
from flows.watch_words import age, counted
from tasks.drift_config import MEASURES
from tasks.release_diff import ReleaseDiff
from tasks.release_drift import Verdict

MOST_KINDS = 8
"""Sources, labels or languages that are listed one by one."""
MOST_SETTINGS = 15


def show_diff(diff: ReleaseDiff, verdicts: tuple[Verdict, ...], *, limited: bool) -> None:
    """Write a comparison: facts, measures with their limits, rows, mixes, settings."""
    before, after = diff.before, diff.after
    show_facts(
        f"{before['name']} {before['id']}  ->  {after['name']} {after['id']}",
        {
            "rows": f"{before['rows']:,} -> {after['rows']:,}",
            "": _rows(diff),
            "tokens": f"{before['tokens']:,} -> {after['tokens']:,}",
            "candidates": _arrow(diff, "candidates"),
            "corpus": f"{_corpus(diff.corpus['before'])} -> {_corpus(diff.corpus['after'])}",
            "mean z": f"{readable(before['mean_z'])} -> {readable(after['mean_z'])}",
            "lowest z": f"{readable(before['min_z'])} -> {readable(after['min_z'])}",
            "made": f"{age(before['made'])} ago -> {age(after['made'])} ago",
        },
    )
    say()
    _show_measures(verdicts, limited=limited)
    _show_best(diff)
    for name, mix in diff.mixes.items():
        _show_mix(name, mix, before["rows"], after["rows"])
    _show_settings(diff.settings)


def _rows(diff: ReleaseDiff) -> str:
    rows = diff.rows
    changed = f" ({rows['changed']:,} in another version)" if rows["changed"] else ""
    return (
        f"{rows['kept']:,} kept{changed}, {rows['came']:,} came{_why(diff.came)}, "
        f"{rows['went']:,} went{_why(diff.went)}"
    )


def _why(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{n:,} {why}' for why, n in counts.items())})" if counts else ""


def _arrow(diff: ReleaseDiff, name: str) -> str:
    return f"{readable(diff.before[name])} -> {readable(diff.after[name])}"


def _corpus(facts: dict[str, int]) -> str:
    return f"{counted(facts['rows'], 'row')} in {counted(facts['batches'], 'batch', 'es')}"


def _show_measures(verdicts: tuple[Verdict, ...], *, limited: bool) -> None:
    columns: tuple[str, ...] = ("measure", "value", "what (0: no drift)")
    lines: list[tuple[object, ...]] = [
        (one.measure, readable(one.value), MEASURES[one.measure]) for one in verdicts
    ]
    if limited:
        columns = ("measure", "value", "warn", "fail", "outcome", "what (0: no drift)")
        lines = [
            (one.measure, readable(one.value), readable(one.warn), readable(one.fail), one.outcome,
             MEASURES[one.measure])
            for one in verdicts
        ]  # fmt: skip
    show_table("Drift", columns, lines)


def _show_best(diff: ReleaseDiff) -> None:
    lines = [
        (kind, one["rank"], one["row_id"], readable(one["z"]), one["why"])
        for kind, rows in diff.best.items()
        for one in rows
    ]
    if lines:
        show_table("The first rows that came and went", ("", "rank", "row", "z", "why"), lines)


def _show_mix(name: str, mix: list[dict[str, Any]], n_before: int, n_after: int) -> None:
    if len(mix) < 2 and all(one["value"] is None for one in mix):
        return
    totals = sum(one["before"] for one in mix) or n_before, sum(one["after"] for one in mix)
    lines = [
        (readable(one["value"]), one["before"], _share(one["before"], totals[0]), one["after"],
         _share(one["after"], totals[1] or n_after))
        for one in mix[:MOST_KINDS]
    ]  # fmt: skip
    more = f" (the {MOST_KINDS} commonest of {len(mix):,})" if len(mix) > MOST_KINDS else ""
    show_table(f"Rows by {name}{more}", (name, "before", "share", "after", "share"), lines)


def _share(number: int, total: int) -> str:
    return f"{number / total:.1%}" if total else "-"


def _show_settings(settings: list[dict[str, Any]]) -> None:
    if not settings:
        say("Settings are the same.")
        return
    lines = [
        (one["field"], readable(one["before"]), readable(one["after"]))
        for one in settings[:MOST_SETTINGS]
    ]
    more = (
        f" (the first {MOST_SETTINGS} of {len(settings)})" if len(settings) > MOST_SETTINGS else ""
    )
    show_table(f"Settings that differ{more}", ("setting", "before", "after"), lines)
