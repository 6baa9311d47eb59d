"""The report's section of a task: metrics with intervals, precision-recall curves, scores."""

from markupsafe import Markup

from tasks.evaluate.report_data import (
    DECIDING,
    FAMILIES,
    Contender,
    Key,
    Measure,
    Place,
    Results,
    leaders,
    present_families,
)
from tasks.evaluate.report_glossary import flattered, words_link
from tasks.evaluate.report_words import (
    ABOUT_METRICS,
    about_task,
    ends_of,
    figure_of,
    metric_name,
    verdict_words,
)
from tasks.page.charts import Curve, curves, interval
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, figure, more, paragraphs, table
from tasks.page.plots import Layer, legend, outlines
from tasks.page.shell import Section
from tasks.page.text import NOTHING, count, number, percent

TABLE_METRICS = ("auprc", "precision", "mrr")
"""Beside the one that decides, in the table that is open from the start."""
BY_LENGTH: Key = ("length_correlation", None)
LEVEL_SIGN = " \N{ALMOST EQUAL TO}"


def task_section(results: Results, place: Place) -> Section:
    """Return the section of a task."""
    line = place.line
    base_rate = percent(line["positives_share"])
    intro = (
        f"{about_task(place)} {count(line['n_queries'], 'query', 'queries')} over "
        f"{count(line['n_rows'], 'row')}; of all pairs {base_rate} are right (the base rate)."
    )
    body = [paragraphs(tag("span", verdict_words(results, results.verdict(place)), class_="lede"))]
    body.append(paragraphs(intro))
    if results.scored(place):
        body += [_main_table(results, place), _curves(results, place), _spreads(results, place)]
        body.append(more("All metrics, with controls and skipped queries", _all(results, place)))
    return Section(f"Task {place.name}", line["title"], joined(*body))


def family_legend(results: Results) -> Markup:
    """Return the colours of the families that have scores."""
    methods = [one for one in results.methods if results.bytes_of(one.name) is not None]
    return legend([(family, f"block {FAMILIES[family]}") for family in present_families(methods)])


def method_cell(one: Contender) -> Markup:
    """Return a method's name with its family's colour."""
    return tag("span", one.name, class_=f"family {one.style}")


def value_cell(results: Results, place: Place, method: str, key: Key) -> Content:
    """Return a value with its interval; the best is bold, what is level with it has a sign."""
    found = results.measure(place, method, key)
    if found is None:
        return NOTHING
    standing = results.standing(place, key)
    value = figure_of(found.value)
    shown: Content = value
    if method == standing.best:
        shown = tag("span", value, class_="best", title="the best")
    elif method in standing.level:
        shown = joined(value, tag("span", LEVEL_SIGN, title="level with the best"))
    return with_ends(shown, found.low, found.high)


def with_ends(shown: Content, low: float | None, high: float | None) -> Content:
    """Return a value, of 0 or more, with its interval on a line below."""
    if low is None or high is None:
        return shown
    ends = "\N{EN DASH}".join(figure_of(end).removeprefix("0") for end in (low, high))
    return joined(shown, " ", tag("span", ends, class_="aside under"))


# -------------------------------------------------------------------------------------- tables


def _main_table(results: Results, place: Place) -> Markup:
    keys = _table_keys(results, place)
    columns = [Column("method"), Column(metric_name(DECIDING), "number"), Column("", "picture")]
    columns += [Column(metric_name(key), "number") for key in (*keys, BY_LENGTH)]
    rows = [
        [
            method_cell(one),
            value_cell(results, place, one.name, DECIDING),
            _picture(results.measure(place, one.name, DECIDING), one.style),
            *[value_cell(results, place, one.name, key) for key in keys],
            _number(results.measure(place, one.name, BY_LENGTH)),
        ]
        for one in results.ranked(place)
    ]
    shuffled = [figure_of(results.shuffled(place, key)) for key in (DECIDING, *keys)]
    rows.append(["shuffled right rows", shuffled[0], "", *shuffled[1:], NOTHING])
    note = (
        f"Bold: best of the methods; {LEVEL_SIGN.strip()}: level with it. Below each value, and as "
        "a line through its dot: its 95% interval over queries; dashed: shuffled. "
        f"{flattered(results, place)}"
    )
    words = [f"{metric_name(key)}: {ABOUT_METRICS[key[0]]}" for key in (DECIDING, *keys, BY_LENGTH)]
    help_ = tag("ul", *[tag("li", one) for one in dict.fromkeys(words)], class_="plain")
    return joined(
        table(columns, rows, caption=f"Methods on {place.name}"),
        tag("p", note, " ", words_link(), class_="note"),
        more("What the columns say", help_),
    )


def _table_keys(results: Results, place: Place) -> list[Key]:
    """Return the cuts of the published measure, precision at the smallest cut, and MRR."""
    found = results.metrics(place)
    return [
        key
        for name in TABLE_METRICS
        for key in _first([key for key in found if key[0] == name], whole=name == "auprc")
    ]


def _first(keys: list[Key], *, whole: bool) -> list[Key]:
    return keys if whole else keys[:1]


def _number(found: Measure | None) -> str:
    return NOTHING if found is None else figure_of(found.value)


def _picture(found: Measure | None, style: str) -> Content:
    if found is None:
        return ""
    ends = [None if end is None else 100 * end for end in (found.low, found.high)]
    marks = [] if found.control is None else [100 * found.control]
    return interval(100 * found.value, ends[0], ends[1], style=style, marks=marks)


def _all(results: Results, place: Place) -> Markup:
    columns = [Column("method"), Column("metric")]
    columns += [Column(name, "number") for name in ("value", "95% interval", "shuffled", "queries")]
    rows: list[list[Content]] = []
    for one in results.ranked(place):
        for key in results.metrics(place):
            found = results.measure(place, one.name, key)
            if found is not None:
                rows.append([one.name, metric_name(key), *_line(found)])
    return table(columns, rows, caption=f"All metrics on {place.name}")


def _line(found: Measure) -> list[Content]:
    shuffled = NOTHING
    if found.control is not None:
        spread = figure_of(found.control_deviation or 0.0)
        shuffled = f"{figure_of(found.control)} ± {spread}"
    used = number(found.n_used)
    if found.n_skipped:
        used += f", {number(found.n_skipped)} skipped"
    ends = ends_of(found.low, found.high)
    return [figure_of(found.value), ends or NOTHING, shuffled, used]


# ------------------------------------------------------------------------------------ pictures


def _curves(results: Results, place: Place) -> Markup:
    """Return precision over recall: the best of each family strong, the others thin."""
    points: dict[str, list[tuple[float, float]]] = {}
    for line in results.rows_of("curves", place):
        points.setdefault(line["method"], []).append((line["recall"], line["precision"]))
    chosen = [one for one in leaders(results, place) if one.name in points]
    rest = [one for one in results.scored(place) if one.name in points and one not in chosen]
    share = place.line["positives_share"]
    lines = [Curve("base rate", "chance", [(0.0, share), (1.0, share)])]
    lines += [Curve(one.name, f"{one.style} back", points[one.name]) for one in rest]
    lines += [Curve(one.name, one.style, points[one.name]) for one in chosen[::-1]]
    names = legend([(one.name, f"block {one.style}") for one in chosen])
    note = (
        "At a level of recall, the highest precision there or beyond, mean over queries. Strong: "
        "the best method of each family; thin: the others. Dashed: the base rate, and controls."
    )
    best = chosen[0].name if chosen else "none"
    alt = f"Precision over recall on {place.name}, for {len(points)} methods; first {best}."
    picture = curves(lines, alt=alt, name="recall")
    return figure("Precision over recall", picture, note=note, legend=names)


def _spreads(results: Results, place: Place) -> Markup:
    """Return how scores of right rows and of others are spread, for the best of each family."""
    lines = results.rows_of("spread", place)
    pictures = [
        figure(one.name, _spread([line for line in lines if line["method"] == one.name], one.name))
        for one in leaders(results, place)
        if any(line["method"] == one.name for line in lines)
    ]
    if not pictures:
        return joined()
    names = legend([("right rows", "block k1"), ("other rows", "candidate")])
    note = (
        "Part of the rows in a bin of scores, in deviations from the query's mean; the outer bins "
        "hold whatever is beyond. The best method of each family."
    )
    return joined(
        tag("h3", "How scores of right rows and of others are spread"),
        names,
        tag("div", *pictures, class_="columns"),
        tag("p", note, class_="note"),
    )


def _spread(lines: list[dict[str, float]], name: str) -> Markup:
    right = [line for line in lines if line["is_positive"]]
    other = [line for line in lines if not line["is_positive"]]
    first, last, n = right[0]["low"], right[-1]["high"], len(right)
    ticks = [
        (n * (value - first) / (last - first), number(value)) for value in (-3, -1.5, 0, 1.5, 3)
    ]
    layers = [
        Layer("other rows", "filled", [line["share"] for line in other]),
        Layer("right rows", "over", [line["share"] for line in right]),
    ]
    alt = f"Scores of {name}: right rows and others, in deviations from the query's mean."
    return outlines(layers, alt=alt, ticks=ticks)
