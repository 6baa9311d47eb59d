"""What the words of an evaluation's report mean, one meaning a word; notes on what misleads."""

from collections.abc import Mapping

from markupsafe import Markup

from tasks.evaluate.report_data import Key, Place, Results
from tasks.evaluate.report_words import figure_of, metric_name, short
from tasks.page.markup import tag
from tasks.page.parts import facts
from tasks.page.shell import Section
from tasks.page.text import count, listed

WORDS: Mapping[str, str] = {
    "right": "a row of the query's label; no method sees labels",
    "base rate": "the share of right pairs among all pairs of row and query",
    "shuffled": "the same metric with right and wrong rows shuffled: what a method without "
    "knowledge gets on this pool",
    "control": "length (longer rows first) and random (any order): no methods, never best; a task "
    "that one of them solves decides nothing",
    "interval": "95% bootstrap interval over queries: how much the mean moves with further queries "
    "for the same rows, not with other data; what those of trainings are over stands below them",
    "level with": "the 95% interval of the difference to the best method, query by query, "
    "includes 0; not corrected for the number of methods",
    "decides": "a task decides when its best method is above shuffled right rows, no control is "
    "level with it, and the task is not known to be solved by something else",
    "AP": "average precision: precision at every right row, mean over them; over the whole ranking",
    "auPRC@K, auROC@K": "areas under precision over recall, and under the ROC, of the K highest "
    "and the K lowest rows alone; all between them is ignored",
    "precision@K, MRR": "the share of the K highest rows that is right; one over the rank of the "
    "first right row",
    "LDS": "linear datamodeling score: rank correlation of what a method foretells and what the "
    "loss is after training on random halves of the rows; 1 is perfect, 0 is nothing",
    "tail-patch": "how much likelier a query becomes after one training step on its highest rows",
    "closed loop": "training on the rows a method puts on top, on random ones, on those at its "
    "bottom, with equal tokens",
    "base, random, oracle": "what the closed loop compares with: no training; random rows; random "
    "rows of the target's label",
    "recovered": "of what the oracle gains over random rows, the share that a method's top rows "
    "gain",
    "nats": "natural units of log-probability: +0.01 a token makes each token 1% likelier; "
    "mnat is a thousandth",
    "purity": "the share of right rows among those chosen for training",
    "text only": "nothing is stored beside the rows' own text",
}
SECTION = "Words"
HIGHEST_FLATTERED = 0.5
"""A value so far above the precision at its cut is explained."""


def glossary_section() -> Section:
    """Return what the words mean."""
    return Section(SECTION, "What the words mean", facts(dict(WORDS)))


def words_link() -> Markup:
    """Return a link to the section."""
    return tag("a", "What the words mean", href=f"#{SECTION.lower()}")


def flattered(results: Results, place: Place) -> str:
    """Return why a high auPRC can stand beside a low precision, where it does; else nothing."""
    for key in results.metrics(place):
        if key[0] == "auprc":
            shown = [
                words
                for one in results.scored(place)
                if (words := _beside_precision(results, place, one.name, key))
            ]
            if shown:
                return (
                    f"{metric_name(key)} looks only at the {key[1]} highest and {key[1]} lowest "
                    f"rows, and one right row on top can make it 1: {listed(shown)}."
                )
    return ""


def _beside_precision(results: Results, place: Place, method: str, key: Key) -> str:
    area, precision = (results.measure(place, method, one) for one in (key, ("precision", key[1])))
    if area is None or precision is None or area.value - precision.value < HIGHEST_FLATTERED:
        return ""
    return (
        f"{short(method)} has {figure_of(area.value)}, with a precision of "
        f"{figure_of(precision.value)}"
    )


def skipped(results: Results, place: Place) -> str:
    """Return how many queries auROC leaves out, by method and cut; else nothing."""
    parts = []
    for key in results.metrics(place):
        if key[0] != "auroc":
            continue
        found = [(one.name, results.measure(place, one.name, key)) for one in results.scored(place)]
        counts = [f"{short(name)} {one.n_skipped}" for name, one in found if one and one.n_skipped]
        if counts:
            parts.append(f"@{key[1]}: {listed(counts)}")
    if not parts:
        return ""
    n_queries = count(place.line["n_queries"], "query", "queries")
    return (
        "auROC skips a query whose highest and lowest rows are all right or all wrong; skipped of "
        f"{n_queries}, {'; '.join(parts)}."
    )
