"""What a flow run leaves in Prefect: a log line, a short story and a table, from its report."""

from collections.abc import Mapping
from pathlib import Path

Facts = Mapping[str, object]


def leave_report(key: str, *, title: str, facts: Facts, links: Mapping[str, str]) -> None:
    """Log the title; create a Markdown and a table artifact of a finished stage.

    Args:
        key: Lower-case letters, digits and dashes; Prefect keeps a history per key.
        title: One line: what was done.
        facts: Name of a quantity to its value, in the order to show.
        links: Name of a file or folder to its path; shown as absolute paths, since browsers
            refuse ``file:`` links from a web page.
    """
    from prefect.artifacts import create_markdown_artifact, create_table_artifact
    from prefect.logging import get_run_logger

    get_run_logger().info(title)
    lines = [f"## {title}", "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {readable(value)} |" for name, value in facts.items()]
    lines += ["", *[f"- {name}: `{Path(path).absolute()}`" for name, path in links.items()]]
    create_markdown_artifact(key=f"{key}-report", markdown="\n".join(lines), description=title)
    create_table_artifact(
        key=f"{key}-facts",
        table=[{"what": name, "value": readable(value)} for name, value in facts.items()],
        description=title,
    )


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
