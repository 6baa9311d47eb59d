"""The words of a release's report: its headline, its settings, what a finding says."""

from collections.abc import Mapping
from typing import Any

from tasks.page.text import count, listed, number, percent, shortened
from tasks.release_config import (
    Collapse,
    Diversity,
    LeakageConfig,
    MaxOfQueries,
    MeanOfQueries,
    PrivacyConfig,
    QueryGroups,
    Quota,
    RankFusion,
    ReleaseConfig,
    Share,
    Threshold,
    TokenBudget,
    TopK,
)

NAME_CHARS = 48
"""Characters of a name, label or source that a sentence shows."""

REASONS: Mapping[str, tuple[str, str]] = {
    "duplicate_text": ("near-duplicate text", "its text repeats that of a row taken before"),
    "duplicate_signature": (
        "near-duplicate signature",
        "the model learns from it what a row taken before already teaches",
    ),
    "quota": ("quota", "its source or label had all the rows it may have"),
    "budget": ("token budget", "its tokens did not fit into what was left of the budget"),
    "leakage": ("leakage", "it shares text with a query or an evaluation set"),
    "privacy": ("privacy", "it holds a string that looks private"),
    "takedown": ("takedown", "it was taken down"),
    "diversity": ("diversity", "rows unlike those taken before were preferred"),
}
"""Short name and explanation of why a row was passed over."""


def quoted(name: str) -> str:
    """Return a name as it stands in a sentence: short, in quotation marks."""
    return f"“{shortened(name, NAME_CHARS)}”"


def reason_name(reason: str) -> str:
    """Return the short name of a reason, or of the constraint that it comes from."""
    return REASONS.get(reason, (reason.replace("_", " "), ""))[0]


# ----------------------------------------------------------------------------------- settings


def settings_in_words(config: ReleaseConfig, *, n_queries: int) -> dict[str, str]:
    """Return every setting that had a say in which rows were released, as sentences by topic."""
    found = {
        "Rows wanted": _size(config),
        "A row's value": _aggregate(config, n_queries),
        "Quotas": _quotas(config) or "none",
        "Near duplicates": _collapse(config.collapse),
        "Diversity": _diversity(config.diversity),
        "Leakage": _leakage(config.leakage),
        "Private strings": _privacy(config.privacy),
    }
    return {topic: f"{words[0].upper()}{words[1:]}." for topic, words in found.items()}


def _size(config: ReleaseConfig) -> str:
    select, lowest = config.select, config.prefer == "lowest"
    end = "lowest" if lowest else "highest"
    match select:
        case TopK():
            return f"the {count(select.top_k, 'row')} of {end} value"
        case Threshold():
            bound = "most" if lowest else "least"
            return f"every row with a value of at {bound} {number(select.min_score)}"
        case Share():
            return f"the {percent(select.share)} of all rows with the {end} values"
        case TokenBudget():
            budget = count(select.max_tokens, "token")
            return f"rows in order of value, {end} first, while their tokens fit into {budget}"


def _aggregate(config: ReleaseConfig, n_queries: int) -> str:
    rule, queries = config.aggregate, f"the {count(n_queries, 'query', 'queries')}"
    match rule:
        case MeanOfQueries():
            words = f"its mean score over {queries}"
        case MaxOfQueries():
            words = f"its highest score over {queries}"
        case RankFusion():
            words = f"reciprocal-rank fusion of its ranks for {queries} (constant {rule.constant})"
        case QueryGroups():
            weights = [f"{number(w)} times {quoted(label)}" for label, w in rule.weights.items()]
            words = f"the {rule.within} within groups of queries, weighted: {listed(weights)}"
    corrected = config.length_correction == "regression"
    return f"{words}, without what its length foretells" if corrected else words


def _quotas(config: ReleaseConfig) -> str:
    named = {quota.field for quota in config.quotas if quota.value != "*"}
    words = []
    for quota in config.quotas:
        every = f"every {'other ' if quota.field in named else ''}{quota.field}"
        of = every if quota.value == "*" else f"{quota.field} {quoted(quota.value)}"
        words.append(_quota(quota, of))
    return "; ".join(words)


def _quota(quota: Quota, of: str) -> str:
    if quota.max_rows is None:
        return f"at least {count(quota.min_rows, 'row')} of {of}"
    if quota.min_rows == 0:
        return f"at most {count(quota.max_rows, 'row')} of {of}"
    return f"{number(quota.min_rows)} to {count(quota.max_rows, 'row')} of {of}"


def _collapse(collapse: Collapse) -> str:
    rules = []
    if collapse.text is not None:
        rules.append(f"share {percent(collapse.text)} of their word 5-grams")
    if collapse.signature is not None:
        rules.append(f"have signatures with a cosine of {number(collapse.signature)}")
    if not rules:
        return "kept"
    return f"left out when they {listed(rules, last='or')} or more with a row taken before"


def _diversity(diversity: Diversity | None) -> str:
    if diversity is None:
        return "not asked for"
    rule = diversity.kind.replace("_", " ")
    return (
        f"{rule}, weight {number(diversity.weight)}, among the best "
        f"{count(diversity.candidates, 'row')}"
    )


_ACTIONS = {"remove": "removed", "report": "kept and listed", "off": "not looked for"}


def _leakage(leakage: LeakageConfig) -> str:
    if leakage.action == "off":
        return _ACTIONS["off"]
    sets = ["the queries", *(quoted(name) for name in leakage.evaluation_sets)]
    return (
        f"rows that share {leakage.ngram} words in a row, or all, with a text of {listed(sets)} "
        f"are {_ACTIONS[leakage.action]}"
    )


def _privacy(privacy: PrivacyConfig) -> str:
    if privacy.action == "off":
        return _ACTIONS["off"]
    kinds = {"email": "e-mail addresses", "phone": "phone numbers", "secret": "keys and passwords"}
    return f"rows with {listed([kinds[k] for k in privacy.kinds])} are {_ACTIONS[privacy.action]}"


# ----------------------------------------------------------------------------------- findings


def concentration(
    before: Mapping[str, int], after: Mapping[str, int]
) -> tuple[str, float, float] | None:
    """Return the value whose share grew most, with its shares before and after.

    None when nothing at least doubled to a quarter of the release or more.
    """
    n_before, n_after = sum(before.values()), sum(after.values())
    if not n_before or not n_after:
        return None
    grown = [(name, before.get(name, 0) / n_before, rows / n_after) for name, rows in after.items()]
    found = max(grown, key=lambda item: (item[2] - item[1], item[0]))
    name, share_before, share_after = found
    return found if share_after >= max(0.25, 2 * share_before) and name else None


def headline(
    *,
    n_released: int,
    n_candidates: int,
    lowest: bool,
    labels: tuple[str, float, float] | None,
    sources: tuple[str, float, float] | None,
    above: float,
) -> str:
    """Return the result in one sentence, with its numbers.

    Args:
        n_released: Rows released.
        n_candidates: Rows that could have been.
        lowest: Rows of the lowest values were wanted.
        labels: What `concentration` found among labels.
        sources: Likewise among sources.
        above: Part of the candidates that have a worse value than every released row, 0 to 1.
    """
    what = "help least" if lowest else "made the cut"
    start = f"{number(n_released)} of {count(n_candidates, 'row')} {what}"
    if labels is not None:
        name, before, after = labels
        return f"{start}: {percent(after)} of them are labelled {quoted(name)}, {_against(before)}"
    if sources is not None:
        name, before, after = sources
        return f"{start}: {percent(after)} of them come from {quoted(name)}, {_against(before)}"
    if above < 0.5:
        return start
    if lowest:
        return f"{start}: {percent(above)} of the candidates score higher than each of them"
    return f"{start}: each outscores {percent(above)} of the candidates"


def _against(before: float) -> str:
    return f"against {percent(before)} of the candidates"


def standfirst(
    config: ReleaseConfig,
    lineage: Mapping[str, Any],
    *,
    n_queries: int,
    reasons: Mapping[str, int],
) -> str:
    """Return how the release came about, in two sentences."""
    queries = f"{count(n_queries, 'query', 'queries')} of {quoted(lineage['query_set']['name'])}"
    asked = (
        f"Every row of corpus {quoted(lineage['corpus'])} was scored against the {queries}: how "
        f"much would training on it have helped the model there?"
    )
    taken = f"Taken were {_size(config)}"
    if reasons:
        passed = [f"{number(n)} for {reason_name(reason)}" for reason, n in reasons.items()]
        total = count(sum(reasons.values()), "row")
        return f"{asked} {taken}, after {total} had been passed over: {listed(passed)}."
    return f"{asked} {taken}; no row before the cut was passed over."
