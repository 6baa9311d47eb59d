"""The ``rise`` commands that watch over a store: status, diff, info, lineage, verify.

They only read; no flow, no server, no model.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.artifacts import readable_bytes
from flows.cli_settings import AsJson, StoreOption, pipeline_settings
from flows.terminal import plain_errors, say, show_facts, show_json, show_table, show_wrapped
from flows.watch_words import (
    COLUMNS,
    detail_words,
    next_lines,
    status_rows,
    things_to_look_at,
    version_words,
)

MOST_NAMES = 3
"""Names that a line of `rise verify` shows."""


def add_watch_commands(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command("status")(status)
    app.command("diff")(diff)
    app.command("info")(info)
    app.command("lineage")(lineage)
    app.command("verify")(verify)


def _is_settings(what: str) -> bool:
    """Tell a settings file from the folder of a store, either of which may be a URL."""
    return what.endswith((".yaml", ".yml", ".json")) if "://" in what else Path(what).is_file()


def status(
    what: Annotated[
        str | None,
        typer.Argument(help="Folder of the store; or a settings file, to see what is next too."),
    ] = None,
    store: Annotated[str | None, typer.Option("--store", help="Folder of the store.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show what is indexed, scored and released, what is missing or stale, and what is next."""
    with plain_errors():
        from storage.errors import NotFoundError
        from tasks.store_status import store_status

        config = None
        if what is not None and _is_settings(what):
            config = pipeline_settings(what, {"store": store})
        root = config.store if config is not None else store or what or "rise-store"
        try:
            found = store_status(root)
        except NotFoundError:
            if config is None or Path(root).exists():
                raise
            found = {"store": root, "missing": True}
        if config is not None:
            from tasks.refresh_outlook import next_refresh

            found["next"] = next_refresh(config)
        if as_json:
            show_json(found)
        else:
            _show_status(found, what if config is not None else None)


def _show_status(found: dict[str, Any], settings: str | None) -> None:
    if found.get("missing"):
        say(f"Store {found['store']}: there is none yet; the first run makes it")
    else:
        size = f"{readable_bytes(found['bytes'])} in {found['files']:,} files"
        show_table(f"Store {found['store']}: {size}", COLUMNS, status_rows(found))
        _show_list("Look at", things_to_look_at(found))
    if settings is None:
        say("Next: rise status SETTINGS says what a refresh would do")
        return
    _show_list(f"The next refresh: {found['next']['summary']}", next_lines(found["next"]))


def _show_list(title: str, lines: list[str]) -> None:
    if title == "Look at" and not lines:
        return
    say(title)
    for line in lines:
        show_wrapped(line)


def diff(
    first: Annotated[str, typer.Argument(help="A release: its name, its id, or the id's start.")],
    second: Annotated[
        str | None,
        typer.Argument(help="The later one. Without: the latest is compared with what was before."),
    ] = None,
    limits: Annotated[
        str | None,
        typer.Option(help="A settings file: its drift limits decide, exit status 1 if one fails."),
    ] = None,
    store: StoreOption = "rise-store",
    *,
    as_json: AsJson = False,
) -> None:
    """Show what changed between two releases: rows, scores, mixes, settings, the corpus."""
    with plain_errors():
        from tasks.drift_config import NO_LIMITS
        from tasks.release_diff import diff_releases
        from tasks.release_drift import judge
        from tasks.release_history import two_releases

        drift = NO_LIMITS if limits is None else pipeline_settings(limits, {}, needs=()).drift
        found = diff_releases(*two_releases(store, first, second))
        verdicts = judge(found.measures, drift)
        if as_json:
            show_json({**vars(found), "verdicts": verdicts})
        else:
            from flows.diff_words import show_diff

            show_diff(found, verdicts, limited=drift.is_set)
        if any(verdict.outcome == "fails" for verdict in verdicts):
            raise typer.Exit(1)


def info(
    name: Annotated[
        str,
        typer.Argument(
            help="A name, an id or its beginning (`rise ls`), INDEX:BLOCK, a file of an inbox, "
            "or a row id."
        ),
    ],
    store: StoreOption = "rise-store",
) -> None:
    """Show everything recorded about one thing, what it was made from, and what from it; JSON."""
    with plain_errors():
        from tasks.about import describe

        show_json(describe(store, name))


def lineage(
    row: Annotated[str, typer.Argument(help="A row id, or SOURCE:LINE.")],
    store: StoreOption = "rise-store",
    *,
    as_json: AsJson = False,
) -> None:
    """Walk from a row to its source line and on to every release that carries it."""
    with plain_errors():
        from tasks.catalog import trace

        steps = trace(store, row)
        if as_json:
            show_json(steps)
            return
        _show_steps(row, steps)


def _show_steps(row: str, steps: list[dict[str, Any]]) -> None:
    """Write a table for each version of the row: it begins with its source."""
    starts = [place for place, step in enumerate(steps) if step["kind"] == "source"]
    versions = version_words(steps, starts)
    for version, (start, stop) in zip(versions, pairwise([*starts, len(steps)]), strict=True):
        found = [(one["kind"], one["id"], detail_words(one)) for one in steps[start + 1 : stop]]
        show_table(f"{row}{version}: {steps[start]['id']}", ("station", "id", "where"), found)
    for step in steps[: starts[0]] if starts else steps:
        show_facts(f"{step['kind']}  {step['id']}", step["detail"])


def verify(
    store: StoreOption = "rise-store",
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only whether files are there and have their size.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold everything in the store against its checksums; exit status 1 when something is wrong."""
    with plain_errors():
        from tasks.integrity import check_store

        checked = check_store(store, deep=not quick)
        problems = [problem for one in checked for problem in one.problems]
        if as_json:
            show_json(checked)
        else:
            _show_checked(store, checked, quick=quick)
        if problems:
            raise typer.Exit(1)


def _show_checked(store: str, checked: list[Any], *, quick: bool) -> None:
    kinds = list(dict.fromkeys(one.kind for one in checked))
    by_kind = {kind: [one for one in checked if one.kind == kind] for kind in kinds}
    lines = [
        (kind, len(found), sum(bool(one.problems) for one in found), ", ".join(_few(found)))
        for kind, found in by_kind.items()
    ]
    show_table(f"Store {store}", ("kind", "checked", "damaged", "which"), lines)
    for one in checked:
        for text in one.problems:
            show_wrapped(text)
        for text in one.notes:
            show_wrapped(f"note: {text}")
    if not any(one.problems for one in checked):
        how = "and has its size (--quick)" if quick else "and its checksums hold"
        say(f"{store}: everything that is recorded is there, {how}.")


def _few(found: list[Any]) -> list[str]:
    names = [one.name for one in found if one.problems] or [one.name for one in found]
    return names if len(names) <= MOST_NAMES else [*names[:MOST_NAMES], "..."]
