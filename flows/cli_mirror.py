"""``rise mirror``: the copies on this disk of stores in object stores, listed and deleted."""

from typing import Annotated

import typer

from flows.artifacts import readable_bytes
from flows.terminal import plain_errors, say, show_json, show_table

mirror_app = typer.Typer(
    no_args_is_help=True, help="Copies on this disk of stores in object stores."
)


@mirror_app.command("ls")
def ls(*, as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False) -> None:
    """List the mirrors of this machine and what they take."""
    with plain_errors():
        from tasks.mirrors import list_mirrors

        found = list_mirrors()
        if as_json:
            show_json(
                [{"url": one.url, "folder": str(one.folder), "bytes": one.n_bytes} for one in found]
            )
            return
        rows = [[one.url, readable_bytes(one.n_bytes), str(one.folder)] for one in found]
        show_table("Mirrors of this machine", ["store", "size", "folder"], rows)


@mirror_app.command("clear")
def clear(
    url: Annotated[str | None, typer.Argument(help="Of the store whose mirror goes.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Delete all mirrors.")] = False,
) -> None:
    """Delete mirrors that no process uses; the stores stay, and are fetched again when needed."""
    with plain_errors():
        from tasks.mirrors import clear_mirrors

        if (url is None) != every:
            raise ValueError("expected a store's URL, or --all. `rise mirror ls` lists them.")
        for one in clear_mirrors(url):
            say(f"deleted  {readable_bytes(one.n_bytes)}, the mirror of {one.url}")
