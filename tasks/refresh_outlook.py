"""What the next refresh would do, and why: from sizes, times and what the last one noted."""

from typing import Any

from storage.cursor import Cursor
from storage.refs import CorpusRef
from tasks.config import PipelineConfig
from tasks.refresh import RELEASED_NOTE, look, released_inputs

INPUTS = {
    "settings": "settings",
    "queries": "queries",
    "named_files": "files that the settings name",
    "corpus": "rows of the corpus",
    "suites": "quality suites",
}
"""What releases follow from, as the note of the last one calls it, to what people call it."""


def next_refresh(config: PipelineConfig) -> dict[str, Any]:
    """Return what a refresh with these settings would do now; nothing is written.

    Returns:
        ``nothing`` (bool), ``summary``, ``read`` (file and why), ``waiting`` and ``refused`` (file
        and reason), ``duplicates``, ``gone`` (files), ``gone_rows`` (what becomes of their rows)
        and ``changed`` (what else changed since the last release; None: there was none).

    Raises:
        SuiteError: The ingest suite cannot be used.
        ValueError: A dataset, or the queries, cannot be found.
        CorruptionError: An entry of the cursor is damaged.
    """
    outlook = look(config)
    news = outlook.news
    return {
        "nothing": outlook.nothing,
        "summary": outlook.summary,
        "read": [{"file": one.file.name, "why": one.why} for one in news.readings],
        "waiting": [{"file": name, "reason": why} for name, why in news.waiting.items()],
        "refused": [{"file": one.name, "reason": one.reason} for one in outlook.refused],
        "duplicates": [entry.name for entry in news.duplicates],
        "gone": [entry.name for entry in news.gone],
        "gone_rows": "withdrawn" if config.refresh.withdraw_deleted else "kept",
        "changed": _changed(config),
    }


def _changed(config: PipelineConfig) -> list[str] | None:
    """Return which inputs of the releases are others than at the last refresh that made them."""
    noted = Cursor(CorpusRef(config.store, config.corpus)).note(RELEASED_NOTE)
    if noted is None:
        return None
    now = released_inputs(config)
    return [text for name, text in INPUTS.items() if now[name] != noted.get(name)]
