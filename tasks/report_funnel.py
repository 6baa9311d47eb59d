"""How many rows are left after each step, and what every constraint cost in value."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from storage.corpus import Corpus
from storage.refs import CorpusRef
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, figure, table
from tasks.page.plots import bar
from tasks.page.shell import Section
from tasks.page.text import count, number, percent, shortened
from tasks.report_data import ReportData
from tasks.report_mix import names_without_folder
from tasks.report_words import REASONS, reason_name

SHOWN_QUOTAS = 24


def reasons(data: ReportData) -> dict[str, int]:
    """Return how many rows were passed over for each reason, most first."""
    counted = Counter(data.dropped.column("reason").to_pylist())
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def funnel_section(data: ReportData) -> Section:
    """Return the section that follows the number of rows from the raw records to the release."""
    passed = reasons(data)
    parts = [_funnel(data, passed), _costs(data), _quotas(data)]
    return Section("Selection", _heading(passed), joined(*parts))


def _heading(passed: Mapping[str, int]) -> str:
    if not passed:
        return "Nothing stood between a row's value and its place"
    rows = count(sum(passed.values()), "row")
    return f"{rows} had to make room; the next best took the places"


# ------------------------------------------------------------------------ costs of constraints


def _costs(data: ReportData) -> Markup | None:
    """Return what every constraint cost, as the solver found by leaving it out."""
    costs = data.selection.get("constraints", ())
    if not costs:
        return None
    mean = data.selection["value"]["mean"]
    lost = [cost["mean_value_lost"] for cost in costs]
    most = max((abs(value) for value in lost if value is not None), default=0.0) or 1.0
    lines = [_cost_line(cost, most) for cost in costs]
    columns = [
        Column("constraint"),
        Column("rows passed over", "number"),
        Column("value lost", "picture"),
        Column("of the mean", "number"),
        Column("rows kept without it", "number"),
    ]
    note = (
        "Each line is the same selection made once more without that one constraint. Value lost: "
        f"by how much the mean value, now {number(mean)}, would be better. Rows kept: how many of "
        "the released rows would be in that selection too."
    )
    picture = table(columns, lines, caption="Cost of every constraint", stacks=True)
    return figure(_dearest(costs, mean), picture, note=note)


def _cost_line(cost: Mapping[str, Any], most: float) -> list[Content]:
    lost, without = cost["mean_value_lost"], cost["without"]
    kept = "cannot be left out" if without is None else number(without["rows_in_common"])
    share = None if lost is None or without["mean_value"] == 0 else lost / without["mean_value"]
    return [
        reason_name(cost["constraint"]),
        cost["rows_dropped"],
        bar([(100 * max(0.0, lost or 0.0) / most, "dropped")]),
        percent(share),
        kept,
    ]


def _dearest(costs: Sequence[Mapping[str, Any]], mean: float) -> str:
    known = [cost for cost in costs if cost["mean_value_lost"] is not None]
    worst = max(known, key=lambda cost: cost["mean_value_lost"], default=None)
    if worst is None or worst["mean_value_lost"] <= 0:
        return "The constraints cost no value"
    without = worst["without"]["mean_value"]
    name = reason_name(worst["constraint"])
    return f"Dearest constraint: {name}, {percent((without - mean) / abs(without or 1.0))} of value"


def _quotas(data: ReportData) -> Markup | None:
    """Return how full every quota is."""
    quotas = data.selection.get("quotas", ())
    if not quotas:
        return None
    shown = sorted(quotas, key=lambda one: (-one["selected"], one["field"], one["value"]))
    shown = shown[:SHOWN_QUOTAS]
    most = max(max(one["selected"], one["min_rows"], one["max_rows"] or 0) for one in shown) or 1
    brief = names_without_folder(one["value"] for one in quotas if one["field"] == "source")
    lines = [_quota_line(one, brief.get(one["value"], one["value"]), most) for one in shown]
    full = sum(one["selected"] == one["max_rows"] for one in quotas)
    columns = [
        Column("quota"),
        Column("how full", "picture"),
        Column("released", "number"),
        Column("allowed", "number"),
        Column("there were", "number"),
    ]
    note = "Dashed lines: least and most rows allowed."
    if len(quotas) > len(shown):
        note += f" {number(len(shown))} of {count(len(quotas), 'quota')}."
    picture = table(columns, lines, caption="Quotas and how full they are", stacks=True)
    return figure(f"{number(full)} of {count(len(quotas), 'quota')} are full", picture, note=note)


def _quota_line(one: Mapping[str, Any], name: str, most: int) -> list[Content]:
    limits = [limit for limit in (one["min_rows"], one["max_rows"]) if limit]
    least, upper = number(one["min_rows"]), one["max_rows"]
    allowed = f"{least} or more" if upper is None else f"{least} to {number(upper)}"
    return [
        f"{one['field']} {shortened(name, 40)}",
        bar([(98 * one["selected"] / most, "selected")], marks=[98 * n / most for n in limits]),
        one["selected"],
        allowed,
        one["available"],
    ]


# ------------------------------------------------------------------------------------- steps


def _funnel(data: ReportData, passed: Mapping[str, int]) -> Markup:
    corpus = Corpus(CorpusRef(data.root, data.lineage["corpus"]))
    batches = [corpus.manifest(batch["id"]) for batch in data.lineage["batches"]]
    n_rejected = sum(int(batch["n_rejected"]) for batch in batches)
    n_rows = data.values.num_rows
    n_empty = n_rows - data.n_candidates
    n_passed = sum(passed.values())
    n_left = data.n_candidates - data.n_released - n_passed
    n_raw = n_rows + n_rejected
    lines: list[tuple[str, str, int, int, str]] = [
        ("raw records", "", n_raw, 0, "candidate"),
        ("rejected when read", "they failed the checks of ingest", n_rejected, n_rows, "rest"),
        ("without a value", "nothing to predict in them", n_empty, n_rows - n_empty, "rest"),
        (
            "not reached",
            "their values lie on the other side of the cut",
            n_left,
            data.n_candidates - n_left,
            "candidate",
        ),
    ]
    base = data.n_candidates - n_left
    for reason, n in passed.items():
        base -= n
        explained = REASONS.get(reason, ("", ""))[1]
        lines.append((f"passed over: {reason_name(reason)}", explained, n, base, "dropped"))
    lines.append(("released", "", data.n_released, 0, "selected"))
    rows = [_step(*line, n_raw=n_raw) for line in lines if line[2] or line[0] == "released"]
    columns = [Column("step"), Column("", "picture"), Column("rows", "number")]
    picture = table(columns, rows, caption="Rows left out at every step")
    return figure(f"From {count(n_raw, 'record')} to {count(data.n_released, 'row')}", picture)


def _step(name: str, explained: str, n: int, base: int, style: str, *, n_raw: int) -> list[Content]:
    scale = 100 / max(1, n_raw)
    # a step of one row among a million must still be seen
    width = max(n * scale, 0.6) if n else 0.0
    drawn = bar([(min(base * scale, 100 - width), "blank"), (width, style)])
    cell = joined(name, tag("div", explained, class_="note") if explained else None)
    return [cell, drawn, number(n)]
