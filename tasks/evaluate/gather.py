"""The tables of an evaluation, from what is kept: nothing runs here but the measuring."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tasks.backbone import resolve_device
from tasks.evaluate.closed_loop import verdicts
from tasks.evaluate.effects import MEASURES, kept_effects
from tasks.evaluate.kept import KeptResult
from tasks.evaluate.lds import SCORED_KINDS
from tasks.evaluate.machine import machine, now, together
from tasks.evaluate.measure import MEASURE_VERSION, examples, measured
from tasks.evaluate.method import Cost
from tasks.evaluate.ready import ReadyTask, ready_task
from tasks.evaluate.registry import ChosenMethod, choose_methods
from tasks.evaluate.run import Outcome, cells, kept_result
from tasks.evaluate.settings import EvaluateConfig, settings_of
from tasks.evaluate.tables import Tables, lines_table, write_tables
from tasks.release_lineage import environment
from tasks.training import texts_digest

TABLES = "tables"
SHOWN_METRICS = (
    *("auprc", "precision", "full_ap", "mrr", "length_correlation"),
    *("lds", "tail_patch", "closed_loop"),
)
FILLED = ("tasks", "metrics", "per_query", "costs", "curves", "spread", "examples", *MEASURES)

Lines = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Gathered:
    """What an evaluation left.

    Attributes:
        folder: Where the tables are.
        n_results: Cells with scores.
        n_refused: Cells whose method refused.
        n_failed: Cells whose method failed.
        summary: Task, method and its headline numbers, for people.
        page: The report; empty where none was drawn yet.
    """

    folder: str
    n_results: int
    n_refused: int
    n_failed: int
    summary: tuple[Mapping[str, Any], ...]
    page: str = ""

    def shown(self, task: str, paradigm: str) -> list[dict[str, Any]]:
        """Return what a terminal or an artifact shows of a task: a line a method."""
        return [
            {"method": line["method"]} | {name: line[name] for name in line if _is_shown(name)}
            for line in self.summary
            if (line["task"], line["paradigm"]) == (task, paradigm)
        ]


def _is_shown(metric: str) -> bool:
    return metric.partition("@")[0] in SHOWN_METRICS


def gather(
    config: EvaluateConfig, outcomes: Sequence[Outcome] = (), *, command: str = ""
) -> Gathered:
    """Write the tables of everything that is kept for these settings.

    Args:
        config: The evaluation.
        outcomes: Of this run: why cells have no scores.
        command: How it was started, for the record.
    """
    lines: Lines = {name: [] for name in FILLED}
    lines["refusals"] = [_refusal(one) for one in outcomes if one.reason]
    chosen = choose_methods(config.methods)
    lineage: dict[str, Any] = {"tasks": {}, "results": {}, "trainings": {}}
    reached = {(one.task, one.paradigm) for one in outcomes if one.has_task}
    for name, paradigm in cells(config):
        if outcomes and (name, paradigm) not in reached:
            continue
        ready = ready_task(config, name, paradigm)
        lines["tasks"].append(_task_line(config, ready))
        lineage["tasks"][ready.name] = ready.identity
        found = [(method, kept_result(config, ready, method)) for method in chosen]
        for method, kept in found:
            if kept is not None:
                _add_cell(lines, config, ready, method, kept)
                lineage["results"][f"{method.name} on {ready.name}"] = kept.result_id
        effects = kept_effects(config, ready, [method for method, kept in found if kept])
        for measure, taken in effects.items():
            _add_effects(lines, ready, measure, taken)
            lineage["trainings"][f"{measure} on {ready.name}"] = taken["facts"]
    lines["methods"] = [_method_line(one) for one in chosen]
    folder = Path(config.work) / TABLES
    tables = {name: lines_table(name, found) for name, found in lines.items()}
    write_tables(folder, Tables(**tables, about=_about(config, command, lineage, lines)))
    return _gathered(folder, lines)


def _add_cell(
    lines: Lines, config: EvaluateConfig, ready: ReadyTask, method: ChosenMethod, kept: KeptResult
) -> None:
    cell = {"task": ready.texts.name, "paradigm": ready.paradigm, "method": method.name}
    positives = ready.texts.positives
    settings = {
        "version": MEASURE_VERSION,
        "measures": settings_of(config.measures),
        "seed": config.seed,
    }
    found = kept.measured(
        settings,
        lambda: measured(
            kept.scores(), positives, ready.lengths, config.measures, seed=config.seed
        ),
    )
    for table in ("metrics", "curves", "spread"):
        lines[table] += [{**cell, **line} for line in found[table]]
    for line in found["per_query"]:
        query = ready.texts.queries[line["query"]]
        own = {name: value for name, value in line.items() if name != "query"}
        lines["per_query"].append({**cell, "query_id": query.text_id, "label": query.label, **own})
    shown = examples(
        kept.scores(), positives, ready.texts.rows, ready.texts.queries, config.measures
    )
    lines["examples"] += [{**cell, **line} for line in shown]
    lines["costs"].append({**cell, **_cost_line(kept)})


def _add_effects(lines: Lines, ready: ReadyTask, measure: str, taken: Mapping[str, Any]) -> None:
    cell = {"task": ready.texts.name, "paradigm": ready.paradigm}
    lines[measure] += [{**cell, **line} for line in taken[measure]]
    lines["refusals"] += [
        {**cell, **line, "reason": f"{measure}: {line['reason']}"} for line in taken["refusals"]
    ]


def _task_line(config: EvaluateConfig, ready: ReadyTask) -> dict[str, Any]:
    texts, positives = ready.texts, ready.texts.positives
    return {
        "task": texts.name,
        "paradigm": ready.paradigm,
        "title": texts.title,
        "about": texts.about,
        "n_rows": len(texts.rows),
        "of_rows": texts.of_rows,
        "n_queries": len(texts.queries),
        "of_queries": texts.of_queries,
        "n_positives": int(positives.any(axis=1).sum()),
        "positives_share": float(positives.mean()),
        "median_tokens": float(median(ready.lengths)),
        "labels": texts.labels,
        "pool": texts_digest(texts.rows),
        "caveat": texts.caveat or None,
        "model": config.model.name,
        "training": json.dumps(ready.training) if ready.training else None,
    }


def _method_line(method: ChosenMethod) -> dict[str, Any]:
    return {
        "method": method.name,
        "key": method.key,
        "family": method.family,
        "positions": method.settings.get("positions"),
        "settings": json.dumps(dict(method.settings), sort_keys=True),
    }


def _cost_line(kept: KeptResult) -> dict[str, Any]:
    cost = kept.cost
    has_speed = cost.n_tokens > 0 and cost.index_seconds > 0
    return {
        "index_seconds": cost.index_seconds,
        "query_seconds": cost.query_seconds,
        "n_tokens": cost.n_tokens,
        "tokens_per_second": cost.n_tokens / cost.index_seconds if has_speed else None,
        "bytes_per_row": cost.bytes_per_row,
        "load_seconds": cost.load_seconds,
        "start_bytes": cost.start_bytes,
        "peak_bytes": cost.peak_bytes,
        "increase_bytes": _increase(cost),
        "device_peak_bytes": cost.device_peak_bytes,
        "pool": kept.about["pool"],
        "device": kept.about["machine"]["device"],
        "machine": json.dumps(kept.about["machine"]),
        "made": kept.about["made"],
        "notes": kept.notes,
    }


def _increase(cost: Cost) -> int | None:
    if cost.peak_bytes is None or cost.start_bytes is None:
        return None
    return cost.peak_bytes - cost.start_bytes


def _refusal(outcome: Outcome) -> dict[str, Any]:
    return {
        "task": outcome.task,
        "paradigm": outcome.paradigm,
        "method": outcome.method,
        "kind": outcome.kind,
        "reason": outcome.reason,
    }


def _about(
    config: EvaluateConfig, command: str, lineage: Mapping[str, Any], lines: Lines
) -> dict[str, Any]:
    made_on = [json.loads(one) for one in dict.fromkeys(line["machine"] for line in lines["costs"])]
    return {
        "command": command,
        "date": now(),
        "machine": together(made_on or [machine(resolve_device(config.runtime.device))]),
        "versions": environment(),
        "settings": settings_of(config),
        "lineage": dict(lineage),
    }


def _gathered(folder: Path, lines: Lines) -> Gathered:
    headlines: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in lines["metrics"]:
        key = (line["task"], line["paradigm"], line["method"])
        name = line["metric"] if line["k"] is None else f"{line['metric']}@{line['k']}"
        headlines.setdefault(key, {})[name] = line["value"]
    _add_effects_headlines(headlines, lines)
    kinds = [line["kind"] for line in lines["refusals"]]
    return Gathered(
        folder=str(folder),
        n_results=len(lines["costs"]),
        n_refused=kinds.count("refused"),
        n_failed=kinds.count("failed"),
        summary=tuple(
            {"task": task, "paradigm": paradigm, "method": method, **found}
            for (task, paradigm, method), found in headlines.items()
        ),
    )


def _add_effects_headlines(
    headlines: dict[tuple[str, str, str], dict[str, Any]], lines: Lines
) -> None:
    """Add LDS, tail-patch above random rows, and the closed loop's verdict to their methods."""
    for line in lines["lds"]:
        key = (line["task"], line["paradigm"], line["method"])
        if line["kind"] in SCORED_KINDS and key in headlines:
            headlines[key]["lds"] = line["value"]
    for line in lines["tail_patch"]:
        key = (line["task"], line["paradigm"], line["method"])
        headlines.setdefault(key, {})["tail_patch"] = line["above"]
    for place in dict.fromkeys((line["task"], line["paradigm"]) for line in lines["closed_loop"]):
        mine = [line for line in lines["closed_loop"] if (line["task"], line["paradigm"]) == place]
        for one in verdicts(mine):
            word = "passed" if one.passed else "not passed"
            headlines.setdefault((*place, one.method), {})["closed_loop"] = word
