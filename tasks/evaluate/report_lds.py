"""The words of a report about LDS: how a method stands, what a control says, what was trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from rise_ops.lds import N_RESAMPLES, N_SHUFFLES
from tasks.evaluate.lds import LEAST_PREDICTED
from tasks.evaluate.report_data import Place, Results
from tasks.evaluate.report_words import figure_of, short
from tasks.page.text import NOTHING, count, duration, listed, number

Line = Mapping[str, Any]

CONTROL_WORDS = {
    "control": "control",
    "same_domain": "control: the label alone",
    "shuffled": "control: about 0",
    "ceiling": "ceiling",
    "reliability": "reliability",
}
READING = (
    "Rank correlation (Spearman) over the subsets, mean over queries. 95% interval: queries and "
    f"subsets drawn anew together, {number(N_RESAMPLES)} times. p: share of "
    f"{number(N_SHUFFLES)} shuffles of a method's scores among the rows with an LDS as high, after "
    "Holm's correction for the number of methods (a control's p is not corrected). ≈ level with "
    "the best, and above, below or level with the label alone: by the interval of the difference "
    "on the same resamples. Above: it foretells more than the label tells. Level or below: nothing "
    "here that topics alone do not give; whether it foretells at all, p says. "
    "Shuffled scores: mean of the shuffles, ± one of them. Ceiling: correlation (Pearson) of a "
    "method that foretells all but what the order of rows does. Reliability of the losses: what a "
    "second training of the same subsets foretells of the first; no bound for methods."
)
"""What the columns are; the same under every table."""


def p_words(line: Line) -> str:
    """Return the p-value of a line, corrected where it is a method's."""
    p = line["p"] if line["p_holm"] is None else line["p_holm"]
    return NOTHING if p is None else figure_of(p)


def label_words(line: Line) -> str:
    """Return how a method stands to knowing the label alone."""
    low, high = line["to_label_low"], line["to_label_high"]
    if low is None or high is None:
        return NOTHING
    return "above" if low > 0.0 else "below" if high < 0.0 else "level"


def trained_words(results: Results, place: Place, lines: Sequence[Line]) -> str:
    """Return what was trained, how far losses moved, and which queries say nothing.

    Args:
        results: With the facts of the trainings.
        place: The task.
        lines: Of its table of LDS.
    """
    constant = [
        f"{number(line['n_constant'])} of {short(line['method'])}"
        for line in lines
        if line["n_constant"]
    ]
    parts = []
    if constant:
        words = "Queries that count as 0, as all foretold or all real losses are equal"
        parts.append(f"{words}: {listed(constant)}.")
    facts = _facts(results, place)
    if facts:
        parts.insert(0, _fact_words(facts))
    return " ".join(parts)


def _facts(results: Results, place: Place) -> Mapping[str, Any]:
    trainings = results.about.get("lineage", {}).get("trainings", {})
    found = trainings.get(f"lds on {place.task} ({place.paradigm})", {})
    return dict(found.get("lds", {}))


def _fact_words(facts: Mapping[str, Any]) -> str:
    left_out = facts["queries_too_short"]
    short_ = count(left_out, "query was", "queries were")
    too_short = f" {short_} left out: fewer than {LEAST_PREDICTED} predicted tokens."
    return (
        f"{count(facts['subsets'], 'subset')} of {facts['rows_a_subset']} of "
        f"{count(facts['rows'], 'row')}, {count(facts['queries'], 'query', 'queries')}; "
        f"{duration(facts['seconds_a_training'])} a training (median). Mean loss of a query: "
        f"{figure_of(facts['loss_before'])} before, {figure_of(facts['loss_after'])} after a "
        f"training. It differs by {facts['deviation_between_subsets']:.4f} between subsets and by "
        f"{facts['deviation_between_seeds']:.4f} between orders of the same subset (standard "
        f"deviations; {facts['repeated']} subsets trained twice)." + (too_short if left_out else "")
    )
