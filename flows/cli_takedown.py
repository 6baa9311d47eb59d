"""The ``rise takedown`` command: rows that must no longer be used. No flow, no server."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_settings import AsJson, StoreOption
from flows.terminal import plain_errors, say, show_facts, show_json, show_table, waiting


def takedown(
    row_id: Annotated[list[str] | None, typer.Option("--id", help="A row id; repeat it.")] = None,
    ids_file: Annotated[
        Path | None, typer.Option("--ids-file", help="A text file with a row id on each line.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option("--source", help="A source or pattern; repeat it.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; published with every later release.")] = "",
    corpus: Annotated[str, typer.Option(help="Name of the corpus.")] = "main",
    store: StoreOption = "rise-store",
    wait: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait for a run that writes the corpus.")
    ] = 60.0,
    *,
    missing_ok: Annotated[
        bool, typer.Option("--missing-ok", help="Bar what the corpus does not have (yet).")
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="Only show what is taken down.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take rows down: no score, attribution or release from now on has them."""
    with plain_errors():
        if listing:
            _list(store, as_json=as_json)
            return
        from storage.refs import CorpusRef
        from tasks.takedown import read_ids, take_down

        row_ids = [*(row_id or []), *(read_ids(ids_file) if ids_file else [])]
        with waiting(wait):
            report = take_down(
                CorpusRef(store, corpus),
                reason=reason,
                row_ids=row_ids,
                sources=source or [],
                missing_ok=missing_ok,
            )
        if as_json:
            show_json(report)
            return
        _show(report, corpus)


def _show(report: Any, corpus: str) -> None:
    record = report.record
    show_facts(
        f"corpus {corpus}: " + ("nothing new to take down" if record is None else "taken down"),
        {
            "rows": report.n_rows,
            "of them by equal content": report.n_same_content,
            "taken down before": report.n_before,
            "barred, not in the corpus": len(report.unknown),
            "record": "" if record is None else record.record_id,
        },
    )
    _show_releases(report.releases)
    say(
        "\nScores, attributions and releases made from now on leave these rows out. Their texts "
        "stay in the corpus's files,\nand their signatures in the index, until those are rewritten."
    )


def _rows_of(held: Any) -> str:
    return "damaged: perhaps" if held.n_rows is None else f"{held.n_rows:,}"


def _show_releases(releases: list[Any]) -> None:
    if not releases:
        say("\nNo published release has rows that are taken down.")
        return
    show_table(
        "\nPublished releases that still have rows that are taken down. Make new ones, delete the "
        "folders of these,\nand tell whoever has copies:",
        ("release", "id", "rows", "latest"),
        [
            (held.ref.name, held.ref.release_id, _rows_of(held), "yes" if held.is_latest else "no")
            for held in releases
        ],
    )


def _list(store: str, *, as_json: bool) -> None:
    from tasks.takedown import all_releases_holding, list_takedowns

    records = list_takedowns(store)
    held = all_releases_holding(store)
    if as_json:
        show_json({"records": records, "releases": held})
        return
    columns = ("corpus", "id", "kind", "time", "n_rows", "sources", "reason")
    show_table(
        f"Taken down in {store}",
        columns,
        [(*(r[key] for key in columns[:5]), " ".join(r["sources"]), r["reason"]) for r in records],
    )
    _show_releases(held)
