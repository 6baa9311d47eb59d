"""Tables of an evaluation made of invented scores: no model, no time."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.evaluate.measure import examples, measured
from tasks.evaluate.method import LabelledText
from tasks.evaluate.settings import MeasureConfig
from tasks.evaluate.tables import Tables, lines_table, write_tables

N_ROWS, N_QUERIES = 60, 12
MEASURES = MeasureConfig(cuts=(5, 20), permutations=5, resamples=50, example_queries=2)
FAMILY = {"RISE compact": "RISE", "BM25": "words", "length": "controls", "RISE wide": "RISE"}
BYTES = {"RISE compact": 516.0, "BM25": 0.0, "length": 4.0, "RISE wide": 49_156.0}
CLEAR = {"RISE compact": 3.0, "RISE wide": 3.0, "BM25": 0.7, "length": 0.0}
"""How far right rows lie above the others, in deviations: a task that RISE solves."""
BY_LENGTH = {"RISE compact": 1.0, "RISE wide": 1.0, "BM25": 0.2, "length": 4.0}
KNOWN = "prefixes solve it"
"""Why the task ``known`` decides nothing."""
NOTHING = dict.fromkeys(CLEAR, 0.0)

LDS_FACTS: Mapping[str, Any] = {
    "rows": 16,
    "queries": 6,
    "queries_too_short": 3,
    "subsets": 8,
    "rows_a_subset": 8,
    "seconds_a_training": 14.0,
    "loss_before": 3.91,
    "loss_after": 3.745,
    "repeated": 2,
    "deviation_between_seeds": 0.0061,
    "deviation_between_subsets": 0.0567,
}

ABOUT: Mapping[str, Any] = {
    "command": "rise evaluate x.yaml",
    "date": "2026-01-02T03:04:05+00:00",
    "machine": {"cores": 2, "device": "cpu", "processor": "a chip", "threads": 1},
    "versions": {"python": "3.11", "libraries": {"torch": "2", "transformers": "5"}},
    "settings": {"seed": 0},
    "lineage": {
        "tasks": {"clear (predict)": {"texts": "aa", "model": "bb", "checkpoints": None}},
        "results": {"BM25 on clear (predict)": "cc"},
        "trainings": {"lds on clear (predict)": {"lds": LDS_FACTS}},
    },
}


def leave_evaluation(
    work: Path,
    tasks: Mapping[str, Mapping[str, float]],
    *,
    words: Sequence[str] = ("plain words",),
    **changes: list[dict[str, Any]],
) -> Path:
    """Write the tables of an evaluation and return its work folder.

    Args:
        work: The folder.
        tasks: Name to how well each method does; tasks of one first word share a pool.
        words: Texts of rows and queries, in turn; the first also is title, label and reason.
        changes: Lines of further tables.
    """
    lines: dict[str, list[dict[str, Any]]] = {"methods": _methods()}
    for task, strengths in tasks.items():
        for name, found in _task(task, strengths, words).items():
            lines.setdefault(name, []).extend(found)
    lines["refusals"] = [_refusal(task, words[0]) for task in tasks]
    tables = {name: lines_table(name, own) for name, own in {**lines, **changes}.items()}
    write_tables(work / "tables", Tables(**tables, about=ABOUT))
    return work


def effects(task: str) -> dict[str, list[dict[str, Any]]]:
    """Return lines of the counterfactual tables: RISE foretells training, BM25 does not."""
    cell = {"task": task, "paradigm": "predict"}
    size = {"n_queries": 6, "n_subsets": 8}
    names = ("method", "kind", "value", "low", "high", "deviation", "p", "p_holm")
    names += ("to_best_low", "to_best_high", "to_label_low", "to_label_high", "n_constant")
    none = (None,) * 4
    lds = [
        ("RISE compact", "method", 0.6, 0.5, 0.7, 0.05, 0.001, 0.002, None, None, 0.2, 0.6, 0),
        ("BM25", "method", 0.1, -0.2, 0.3, 0.1, 0.3, 0.3, -0.7, -0.2, -0.3, 0.1, 2),
        ("length", "control", 0.65, 0.5, 0.7, 0.1, 0.001, None, None, None, 0.2, 0.6, 0),
        ("same label", "same_domain", 0.2, 0.1, 0.3, 0.1, 0.01, None, *none, 0),
        (
            "shuffled scores of RISE compact",
            "shuffled",
            0.01,
            None,
            None,
            0.1,
            None,
            None,
            *none,
            None,
        ),
        ("all but the noise", "ceiling", 0.95, 0.9, 0.98, None, None, None, *none, None),
        (
            "the same subset trained again",
            "reliability",
            0.9,
            None,
            None,
            None,
            None,
            None,
            *none,
            None,
        ),
    ]
    losses = {("", "base"): 3.0, ("", "random"): 2.5, ("", "oracle"): 2.1}
    losses |= {("RISE compact", "top"): 2.2, ("RISE compact", "bottom"): 2.8}
    losses |= {("BM25", "top"): 2.52, ("BM25", "bottom"): 2.49}
    signs = {"top": 1, "oracle": 1, "bottom": -1}
    apart = {key: signs[key[1]] * (2.5 - one) for key, one in losses.items() if key[1] in signs}
    return {
        "lds": [{**cell, **size, **dict(zip(names, one, strict=True))} for one in lds],
        "tail_patch": [
            {**cell, "method": name, "k": 4, "value": value, "low": value - 0.001,
             "high": value + 0.001, "random": 0.002, "above": value - 0.002,
             "above_low": value - 0.004, "above_high": value, "tokens": 90.0,
             "random_tokens": 80.0, "n_queries": 5}
            for name, value in (("RISE compact", 0.009), ("BM25", 0.002))
        ],
        "closed_loop": [
            {**cell, "method": method, "arm": arm, "seed": seed, "n_rows": 9, "n_tokens": 100,
             "n_steps": 4, "asked_tokens": 200, "budget": 100, "bound": "oracle",
             "purity": None if arm == "base" else 0.5, "loss_target": loss + 0.001 * seed,
             "loss_elsewhere": loss, "apart": apart.get((method, arm)),
             **{f"apart_{end}": None if (method, arm) not in apart else apart[method, arm] + add
                for end, add in (("low", -0.01), ("high", 0.01))}}
            for (method, arm), loss in losses.items()
            for seed in range(1 if arm == "base" else 2)
        ],
    }  # fmt: skip


def _methods() -> list[dict[str, Any]]:
    return [
        {
            "method": name,
            "key": name.lower().replace(" ", "-"),
            "family": family,
            "positions": "completion" if family == "RISE" else None,
            "settings": json.dumps({"positions": "completion"} if family == "RISE" else {}),
        }
        for name, family in FAMILY.items()
    ]


def _task(
    task: str, strengths: Mapping[str, float], words: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    rng = np.random.default_rng(7)
    rows, queries = (
        [LabelledText(f"{kind}{n}", f"{words[n % len(words)]} {n}", 2, words[0]) for n in range(n_)]
        for kind, n_ in (("row", N_ROWS), ("query", N_QUERIES))
    )
    positives = np.zeros((N_ROWS, N_QUERIES), bool)
    positives[:12] = True
    place = {"task": task, "paradigm": "predict"}
    found: dict[str, list[dict[str, Any]]] = {"tasks": [_task_line(place, words[0])]}
    for method, strength in strengths.items():
        cell = {**place, "method": method}
        scores = (rng.standard_normal(positives.shape) + strength * positives).astype(np.float32)
        made = measured(scores, positives, list(range(N_ROWS)), MEASURES, seed=0)
        for name in ("metrics", "curves", "spread"):
            found.setdefault(name, []).extend({**cell, **line} for line in made[name])
        for line in made["per_query"]:
            query = queries[line.pop("query")]
            own = {"query_id": query.text_id, "label": query.label, **line}
            found.setdefault("per_query", []).append({**cell, **own})
        shown = examples(scores, positives, rows, queries, MEASURES)
        found.setdefault("examples", []).extend({**cell, **line} for line in shown)
        found.setdefault("costs", []).append({**cell, **_cost(method)})
    return found


def _task_line(place: Mapping[str, str], words: str) -> dict[str, Any]:
    return {
        **place,
        "title": f"Title: {words}",
        "about": f"Asks for {words}",
        "n_rows": N_ROWS,
        "of_rows": 1_000,
        "n_queries": N_QUERIES,
        "of_queries": N_QUERIES,
        "n_positives": 12,
        "positives_share": 0.2,
        "median_tokens": 30.0,
        "labels": {words: 12, "others": 48},
        "pool": place["task"].partition(" ")[0],
        "caveat": KNOWN if place["task"] == "known" else None,
        "model": "/models/tiny",
        "training": None,
    }


def _cost(method: str) -> dict[str, Any]:
    return {
        "index_seconds": 12.5,
        "query_seconds": 0.5,
        "n_tokens": 1_000,
        "tokens_per_second": 80.0,
        "bytes_per_row": BYTES[method],
        "load_seconds": 2.0,
        "start_bytes": 10**9,
        "peak_bytes": 3 * 10**9,
        "increase_bytes": 2 * 10**9,
        "device_peak_bytes": None,
        "pool": "a pool",
        "device": "cpu",
        "machine": '{"processor": "A processor", "cores": 2, "threads": 1, "device": "cpu"}',
        "made": "2026-01-02T03:04:05+00:00",
        "notes": ["a note"],
    }


def _refusal(task: str, words: str) -> dict[str, Any]:
    reason = f"weights do not fit: {words}"
    return {
        "task": task,
        "paradigm": "predict",
        "method": "big",
        "kind": "refused",
        "reason": reason,
    }
