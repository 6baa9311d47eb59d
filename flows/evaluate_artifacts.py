"""What an evaluation leaves in Prefect beside its tasks' tables: trainings, and its pictures."""

import re
from collections.abc import Mapping

from flows.artifacts import leave_picture, leave_table
from tasks.evaluate.report_data import read_results
from tasks.evaluate.report_pictures import picture_urls

MEASURES: Mapping[str, str] = {
    "lds": "LDS: methods and controls, 95 % intervals",
    "tail_patch": "Tail-patch: change of log-probability, nats a token, 95 % intervals",
    "closed_loop": "Closed loop: every arm and seed; loss in nats a token",
}
PICTURES: Mapping[str, str] = {
    "methods": "evaluate-picture",
    "bytes": "evaluate-picture-bytes",
    "lds": "evaluate-picture-lds",
}


def leave_measured(folder: str, *, headline: str) -> None:
    """Leave a table a task of what training did, and the pictures; of what was measured alone.

    Args:
        folder: Of the evaluation's tables, with some scores.
        headline: What the evaluation says, for the pictures.
    """
    results = read_results(folder)
    for place in results.places:
        for measure, words in MEASURES.items():
            lines = [
                {name: value for name, value in line.items() if name not in ("task", "paradigm")}
                for line in results.rows_of(measure, place)
            ]
            if lines:
                key = artifact_key("evaluate", *place.key, measure)
                leave_table(key, lines, description=f"{place.name}. {words}")
    for name, url in picture_urls(results.folder).items():
        leave_picture(PICTURES[name], url, description=headline)


def artifact_key(*parts: str) -> str:
    """Return parts as Prefect's key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
