"""The report's sections on what was asked and on how it can be done again."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tasks.evaluate.report_data import Place, Results
from tasks.evaluate.report_tasks import method_cell
from tasks.evaluate.report_words import about_task
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, facts, more, table
from tasks.page.shell import Section
from tasks.page.text import NOTHING, duration, number, percent, shortened

VALUE_CHARS = 160
LABELS_SHOWN = 6


def asked_section(results: Results) -> Section:
    """Return tasks and methods: how large, cut from what, with which settings."""
    columns = [Column("task"), Column("what it asks")]
    columns += [Column(name, "number") for name in ("rows", "queries", "base rate", "tokens a row")]
    columns += [Column("labels"), Column("model")]
    tasks = table(columns, [_task(one) for one in results.places], caption="Tasks", stacks=True)
    names = [Column("method"), Column("family"), Column("in settings")]
    names += [Column("positions of rows"), Column("settings")]
    rows: list[list[Content]] = [
        [
            method_cell(one),
            one.family,
            tag("code", one.key),
            one.positions or NOTHING,
            _settings(one.settings),
        ]
        for one in results.methods
    ]
    note = (
        "Rows of a query's label are right for it. Base rate: the part of all pairs of row and "
        "query that is right. “Of”: what there was before limits. No method sees a label."
    )
    body = joined(
        tasks,
        tag("p", note, class_="note"),
        more("Methods and their settings", table(names, rows, caption="Methods", stacks=True)),
    )
    return Section("Question", "What was asked", body)


def _task(place: Place) -> list[Content]:
    line = place.line
    return [
        place.name,
        joined(tag("strong", line["title"]), " ", about_task(place)),
        _part(line["n_rows"], line["of_rows"]),
        _part(line["n_queries"], line["of_queries"]),
        percent(line["positives_share"]),
        number(line["median_tokens"]),
        _labels(dict(line["labels"])),
        joined(_file(str(line["model"])), _training(line["training"])),
    ]


def _part(used: int, of: int) -> str:
    return number(used) if used == of else f"{number(used)} of {number(of)}"


def _labels(labels: Mapping[str, int]) -> str:
    ordered = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{shortened(name, 24)} {number(n)}" for name, n in ordered[:LABELS_SHOWN]]
    if len(ordered) > LABELS_SHOWN:
        shown.append(f"{number(len(ordered) - LABELS_SHOWN)} more")
    return ", ".join(shown)


def _training(training: str | None) -> str:
    if not training:
        return ""
    found = json.loads(training)
    losses = found.get("losses") or []
    ends = f", loss {number(losses[0])} to {number(losses[-1])}" if losses else ""
    trained = found.get("settings", {}).get("trained", {}).get("kind", "")
    seconds = duration(found.get("seconds"))
    amount = f"{number(found.get('n_tokens'))} tokens, {seconds}{ends}"
    return f", trained on the pool ({trained}; {amount})"


def _file(path: str) -> str:
    return shortened(path.rstrip("/").rpartition("/")[2], 48)


def _settings(settings: str) -> Content:
    found = json.loads(settings)
    if not found:
        return NOTHING
    words = json.dumps(found, ensure_ascii=False)
    if len(words) <= VALUE_CHARS:
        return tag("code", words)
    return more("open", tag("pre", json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)))


# ------------------------------------------------------------------------------------- lineage


def lineage_section(results: Results) -> Section:
    """Return command, date, machine, versions, settings and the ids of everything used."""
    about = results.about
    machine, versions = about.get("machine", {}), about.get("versions", {})
    known: dict[str, Content] = {
        "Command": tag("code", about.get("command") or NOTHING),
        "Date": about.get("date") or NOTHING,
        "Machine": _pairs(machine),
        "Python": versions.get("python") or NOTHING,
        "Libraries": _pairs(versions.get("libraries", {})),
        "Tables": tag("code", "/".join(results.folder.parts[-2:])),
    }
    lineage = about.get("lineage", {})
    body = joined(
        facts(known),
        more("Ids of tasks, models and trainings", _tasks(lineage.get("tasks", {}))),
        more("Ids of results", _results(lineage.get("results", {}))),
        _trainings(lineage.get("trainings", {})),
        more("Settings", tag("pre", _json(about.get("settings", {})))),
    )
    return Section("Lineage", "How to do it again", body)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def _tasks(tasks: Mapping[str, Mapping[str, Any]]) -> Markup:
    names = ("texts", "model", "checkpoints")
    rows: list[list[Content]] = [
        [task, *[tag("code", str(own.get(name) or NOTHING)) for name in names]]
        for task, own in tasks.items()
    ]
    columns = [Column("task"), *(Column(name, "wide") for name in names)]
    return table(columns, rows, caption="Ids of tasks", stacks=True)


def _results(results: Mapping[str, str]) -> Markup:
    rows: list[list[Content]] = [[name, tag("code", own)] for name, own in results.items()]
    return table([Column("result"), Column("id")], rows, caption="Ids of results")


def _trainings(trainings: Mapping[str, Any]) -> Markup | None:
    if not trainings:
        return None
    return more("What was trained for the counterfactual measures", tag("pre", _json(trainings)))


def _json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
