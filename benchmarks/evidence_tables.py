"""Puts measured numbers into docs/evidence.md, between its markers; nothing there is typed by hand.

python benchmarks/evidence_tables.py docs/evidence.json docs/lds.json docs/evidence.md
"""

import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]

METRICS = ("auprc@10", "auprc@50", "precision@10")

_SIZES = ("256 B", "512 B", "2 KiB", "8 KiB", "16 KiB")
_TEMPERATURES = ("0.8", "0.5", "0.1")
_TEMPERED = "compact by temperature"
_CHOICE = "compact, how it was chosen"
_ONE_CHANGE = "compact 512 B, one change"
SUMMARY = (
    ("BM25", "baseline", "BM25", "BM25"),
    ("mean hidden state", "baseline", "mean hidden state", "mean hidden state cosine"),
    ("paper, 24,576 numbers", "main", "paper, 24,576 numbers", "paper, 24,576 numbers"),
    ("paper, 4,096 numbers", "main", "paper, 4,096 numbers", "paper, 4,096 numbers"),
    ("paper, 352 numbers", "main", "paper, 352 numbers", "paper, 352 numbers"),
    *((f"**compact, {size}**", "main", *[f"compact, {size}"] * 2) for size in _SIZES),
    *(
        (f"compact, {name}", _TEMPERED, name, f"compact, {name}")
        for size in _SIZES[1:]
        for name in [f"{size}, temperature {temperature}" for temperature in _TEMPERATURES]
    ),
)
"""What the line is called, its group and name in the evidence, its name in the LDS."""

_MIDDLE = tuple(
    (f"**{size}: support 64, mass 0.8, damping 3**", "main", *[f"compact, {size}"] * 2)
    for size in ("512 B", "16 KiB")
)
CHOSEN_FROM = (
    *_MIDDLE,
    ("512 B, support 256", _ONE_CHANGE, "support 256", "compact, 512 B, support 256"),
    ("16 KiB, support 256", _CHOICE, "16 KiB, support 256", "compact, 16 KiB, support 256"),
    *(
        (f"{size}, {name}", _CHOICE, f"{size}, {name}", f"compact, {size}, {name}")
        for size in ("512 B", "16 KiB")
        for name in (
            *[f"mass {mass}" for mass in ("1", "0.92", "0.9", "0.7", "0.6")],
            *[f"damping {damping}" for damping in ("0.1", "1", "10", "30")],
        )
    ),
)
"""Alike: the presets, and what was tried around them."""


def main() -> None:
    evidence, lds, page = (Path(word) for word in sys.argv[1:4])
    found = json.loads(evidence.read_text())
    tables = {
        "setting": setting_table(found),
        "main-50": main_table(found["records"], "auprc@50"),
        "main-10": main_table(found["records"], "auprc@10"),
        "main-precision": main_table(found["records"], "precision@10"),
        "paper": change_table(found["records"], "paper, one change", "paper, 24,576 numbers"),
        "compact": change_table(found["records"], _ONE_CHANGE, "compact, 512 B"),
        "temperature": change_table(
            found["records"], "compact by temperature", "paper, 24,576 numbers"
        ),
        "calibration": change_table(found["records"], "calibration", "compact, 512 B"),
    }
    if lds.exists():
        retrained = json.loads(lds.read_text())
        tables |= {"lds": lds_table(retrained), "lds-setting": lds_setting(retrained)}
        tables |= {
            name: summary_table(found["records"], retrained["records"], lines)
            for name, lines in (("summary", SUMMARY), ("choice", CHOSEN_FROM))
        }
    text = page.read_text()
    for name, table in tables.items():
        text = filled(text, name, table)
    page.write_text(text)


def filled(text: str, name: str, table: str) -> str:
    """Return a page with what stands between a name's markers replaced."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text or end not in text:
        raise ValueError(f"the page lacks the markers {begin} and {end}.")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{table}\n{end}", text)


def summary_table(
    records: Sequence[Record], retrained: Sequence[Record], wanted: Sequence[tuple[str, ...]]
) -> str:
    """Return means over tasks, the least gain over the paper's largest size, and the LDS."""
    tasks = _tasks(records)

    def by_task(group: str, name: str, metric: str) -> list[float]:
        chosen = [one for one in records if (one["group"], one["name"]) == (group, name)]
        return [
            statistics.fmean(one[metric] for one in chosen if one["task"] == task) for task in tasks
        ]

    paper = by_task("main", "paper, 24,576 numbers", "auprc@50")
    lines = []
    for label, group, name, effect in wanted:
        at_10, at_50 = (by_task(group, name, metric) for metric in METRICS[:2])
        gains = [own - base for own, base in zip(at_50, paper, strict=True)]
        worst = min(range(len(tasks)), key=gains.__getitem__)
        values = [
            one["lds"] for one in retrained if re.sub(r", seed \d+$", "", one["name"]) == effect
        ]
        chosen = [one for one in records if (one["group"], one["name"]) == (group, name)]
        is_base = label == "paper, 24,576 numbers"
        lines.append(
            [
                label,
                _bytes(chosen),
                f"{statistics.fmean(at_10):.3f}",
                f"{statistics.fmean(at_50):.3f}",
                "" if is_base else f"{gains[worst]:+.3f} ({tasks[worst]})",
                _spread(values) if values else "",
            ]
        )
    head = ["", "bytes", "mean auPRC@10", "mean auPRC@50", "least gain @50 on a task", "LDS"]
    return _table(head, lines)


def main_table(records: Sequence[Record], metric: str) -> str:
    """Return baselines and main estimators by task, and their mean over the tasks."""
    tasks = _tasks(records)
    chosen = [one for one in records if one["group"] in ("baseline", "main")]
    lines = [
        [name, _bytes(own), *_cells(own, tasks, lambda one: one[metric])]
        for name, own in _by_name(chosen).items()
    ]
    return _table(["", "bytes", *tasks, "mean"], lines)


def change_table(records: Sequence[Record], group: str, base: str) -> str:
    """Return one group below what it starts from, auPRC@10 and @50 in each cell."""
    tasks = _tasks(records)
    start = [one for one in records if (one["group"], one["name"]) == ("main", base)]
    lines = []
    for name, own in _by_name([*start, *(r for r in records if r["group"] == group)]).items():
        both = [_cells(own, tasks, lambda one, m=metric: one[m]) for metric in METRICS[:2]]
        cells = [" / ".join(pair) for pair in zip(*both, strict=True)]
        lines.append([f"**{name}**" if name == base else name, _bytes(own), *cells])
    return _table(["", "bytes", *tasks, "mean"], lines)


def setting_table(found: dict[str, Any]) -> str:
    """Return what was measured on."""
    lines = []
    for pool, facts in found["pools"].items():
        labels = ", ".join(f"{n} {label}" for label, n in facts["labels"].items())
        for task, (used, there) in facts["queries"].items():
            rows = f"{facts['rows']} of {facts['of']}"
            lines.append(
                [task, pool, rows, labels, f"{facts['positions']:,}", f"{used} of {there}"]
            )
    head = ["task", "pool", "rows", "of which", "positions", "queries"]
    return f"{_machine(found)}\n\n{_table(head, lines)}"


def lds_table(found: dict[str, Any]) -> str:
    """Return the LDS of each method; several seeds of one are one line."""
    groups: dict[tuple[str, Any], list[Record]] = {}
    for record in found["records"]:
        name = re.sub(r", seed \d+$", "", record["name"])
        groups.setdefault((name, record["bytes"]), []).append(record)
    lines = []
    for (name, size), own in groups.items():
        values = [one["lds"] for one in own]
        interval = "{:.3f} to {:.3f}".format(*own[0]["interval"]) if len(own) == 1 else ""
        halves = f"{statistics.fmean(one['deviation_over_halves'] for one in own):.3f}"
        lines.append([name, f"{size:,}" if size else "", _spread(values), interval, halves])
    head = ["", "bytes", "LDS", "95 % over queries", "deviation over halves"]
    return _table(head, lines)


def lds_setting(found: dict[str, Any]) -> str:
    """Return what the bank is, in words."""
    noise, items, training = found["noise"], found["items"], found["training"]
    return (
        f"{_machine(found)} {items['rows']} rows and {items['queries']} queries of "
        f"{items['tokens']} tokens, {found['halves']} random halves; last {training['blocks']} "
        f"blocks, {training['epochs']} epochs, AdamW {training['learning_rate']}, "
        f"{training['batch_rows']} rows a step. Mean query loss {found['loss_before']:.3f} before, "
        f"{found['loss_after']:.3f} after. Noise floor, from {noise['halves']} halves trained in "
        f"two orders: a query's loss differs by {noise['deviation_between_seeds']:.4f} between "
        f"orders and by {noise['deviation_between_halves']:.4f} between halves (standard "
        f"deviations), so that even the true effect would correlate with it at "
        f"{noise['best_correlation']:.2f} only; the two orders rank these halves alike at "
        f"{noise['seed_to_seed_lds']:.2f}. Calibration: {found['calibration_positions']:,} "
        "positions of the pools above."
    )


def _machine(found: dict[str, Any]) -> str:
    machine, model = found["machine"], found["model"]
    return (
        f"{Path(model['name']).name} ({model['id'][:12]}), {model['dtype']}; "
        f"{machine['processor']}, {machine['cores']} cores; Python {machine['python']}, "
        f"torch {machine['torch']}, transformers {machine['transformers']}; {machine['date']}."
    )


def _tasks(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(one["task"] for one in records))


def _by_name(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["name"], []).append(record)
    return groups


def _cells(records: list[Record], tasks: list[str], value: Callable[[Record], float]) -> list[str]:
    """Return a cell a task, and the mean over tasks where every task has one."""
    cells, means = [], []
    for task in tasks:
        values = [value(one) for one in records if one["task"] == task]
        cells.append(_spread(values) if values else "")
        means += [statistics.fmean(values)] if values else []
    whole = f"{statistics.fmean(means):.3f}" if len(means) == len(tasks) else ""
    return [*cells, whole]


def _spread(values: list[float]) -> str:
    """Return the mean, and the deviation over seeds where it shows."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    mean = f"{statistics.fmean(values):.3f}".replace("0.", ".", 1)
    return f"{mean} ± {deviation:.3f}".replace("± 0.", "± .") if deviation >= 5e-4 else mean


def _bytes(records: list[Record]) -> str:
    size = records[0].get("bytes")
    return f"{size:,}" if size else ""


def _table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines))


if __name__ == "__main__":
    main()
