"""What a flow run leaves in Prefect: a log line, a short story and a table, from its report."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.pages import page_url

Facts = Mapping[str, object]


def leave_report(
    key: str,
    *,
    title: str,
    facts: Facts,
    links: Mapping[str, str],
    warnings: Sequence[str] = (),
) -> None:
    """Log title and warnings; create a Markdown and a table artifact of a finished stage.

    Args:
        key: Lower-case letters, digits and dashes; Prefect keeps a history per key.
        title: One line: what was done.
        facts: Name of a quantity to its value, in the order to show.
        links: Name of a file or folder to its path; shown as absolute paths, and as links where
            a web server shows them: browsers refuse ``file:`` links from a web page.
        warnings: What a quality gate found odd, but refused nothing for.
    """
    from prefect.artifacts import create_markdown_artifact, create_table_artifact
    from prefect.logging import get_run_logger

    get_run_logger().info(title)
    for warning in warnings:
        get_run_logger().warning(warning)
    lines = [f"## {title}", "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {readable(value)} |" for name, value in facts.items()]
    if warnings:
        lines += ["", "### Warnings", "", *[f"- {_plain_markdown(text)}" for text in warnings]]
    lines += ["", *[_link(name, path) for name, path in links.items()]]
    create_markdown_artifact(key=f"{key}-report", markdown="\n".join(lines), description=title)
    create_table_artifact(
        key=f"{key}-facts",
        table=[
            *({"what": name, "value": readable(value)} for name, value in facts.items()),
            *({"what": "warning", "value": text} for text in warnings),
        ],
        description=title,
    )


def leave_table(key: str, lines: Sequence[Mapping[str, object]], *, description: str) -> None:
    """Create a table artifact; a line without a column of another line has an empty cell there.

    Args:
        key: Lower-case letters, digits and dashes; Prefect keeps a history per key.
        lines: Column to value, columns in the order to show.
        description: What it shows.
    """
    from prefect.artifacts import create_table_artifact

    columns = list(dict.fromkeys(name for line in lines for name in line))
    table = [
        {name: readable(line[name]) if name in line else "" for name in columns} for line in lines
    ]
    create_table_artifact(key=key, table=table, description=description)


def leave_picture(key: str, url: str, *, description: str) -> None:
    """Create an image artifact.

    Args:
        key: Lower-case letters, digits and dashes.
        url: The picture, as a ``data:`` address: nothing else has to be served.
        description: What it shows.
    """
    from prefect.artifacts import create_image_artifact

    create_image_artifact(image_url=url, key=key, description=description)


def _link(name: str, path: str) -> str:
    url = page_url(path)
    place = f"`{path if '://' in path else Path(path).absolute()}`"
    return f"- {name}: {place}" if url is None else f"- [{name}]({url}): {place}"


def _plain_markdown(text: str) -> str:
    """Return a text of which no part acts as Markdown or HTML: it may hold what rows hold."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))


def readable(value: object) -> str:
    """Return a number with thousands separators and four digits, ``-`` for None, else text."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace("|", "\\|")
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def readable_bytes(n_bytes: int) -> str:
    """Return a size in binary units, such as ``63.2 MiB``."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"
