"""The words of an evaluation's report: metrics by name, verdicts, the headline."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.evaluate.report_data import DECIDING, Contender, Key, Measure, Place, Results, Verdict
from tasks.page.text import count, listed, number, shortened, size

UNDECIDED = "\N{DAGGER}"
"""Marks a task that decides nothing."""
NAME_CHARS = 48
WINNERS_NAMED = 2
MOST_P = 0.05
"""Of an LDS that counts as foretelling, after Holm's correction."""
NONE_LEVEL = (
    "the 95% interval of the difference to every other method excludes 0 (not corrected for the "
    "number of methods)"
)
METRIC_NAMES = {
    "auprc": "auPRC",
    "auroc": "auROC",
    "precision": "precision",
    "recall": "recall",
    "full_ap": "AP, all rows",
    "mrr": "MRR",
    "length_correlation": "corr. with length",
}
ABOUT_METRICS = {
    "full_ap": "average precision over the whole ranking; decides which method is best",
    "mrr": "one over the rank of the first right row",
    "auprc": "the published measure: of the k highest and k lowest rows; it flatters",
    "auroc": "likewise, area under the ROC; queries whose ends hold one kind only are skipped",
    "precision": "part of the k highest rows that is right",
    "recall": "part of the right rows that is among the k highest",
    "length_correlation": "Spearman's of score and tokens; far from 0, the method prefers long or "
    "short rows",
}


def about_task(place: Place) -> str:
    """Return what a task asks, without marks of emphasis."""
    return re.sub(r"\*([\w ]+)\*", r"\1", str(place.line["about"]))


def metric_name(key: Key) -> str:
    """Return a metric as the tables' heads name it."""
    name = METRIC_NAMES.get(key[0], key[0])
    return name if key[1] is None else f"{name}@{key[1]}"


def short(name: str) -> str:
    """Return a name as it stands in a sentence."""
    return shortened(name, NAME_CHARS)


def figure_of(value: float | None) -> str:
    """Return a metric with as many digits as it deserves: three behind the point."""
    return number(None) if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def ends_of(low: float | None, high: float | None) -> str:
    """Return an interval in words; empty where there is none."""
    return "" if low is None or high is None else f"{figure_of(low)} to {figure_of(high)}"


def with_interval(found: Measure | None) -> str:
    """Return a value and its interval."""
    if found is None:
        return number(None)
    ends = ends_of(found.low, found.high)
    return f"{figure_of(found.value)} ({ends})" if ends else figure_of(found.value)


def row_bytes(n_bytes: float | None) -> str:
    """Return what a method keeps of a row beside its text, for a cell."""
    return "text only" if n_bytes is not None and n_bytes <= 0 else size(n_bytes)


def stored(n_bytes: float | None) -> str:
    """Return what a method keeps of a row, such as ``516 bytes a row``."""
    if n_bytes is None:
        return "storage unknown"
    return "text only" if n_bytes <= 0 else f"{size(n_bytes)} a row"


def verdict_words(results: Results, verdict: Verdict) -> str:
    """Return what a task says of methods, in a sentence or two."""
    place, best = verdict.place, verdict.best
    if best is None:
        return "No method has scores."
    found = results.measure(place, best.name, DECIDING)
    words = f"{short(best.name)} ({stored(results.bytes_of(best.name, place))})"
    if not verdict.beats_shuffled:
        return f"Nothing: the interval of the best, {words}, reaches down to shuffled right rows."
    if verdict.controls:
        names = listed([short(one.name) for one in verdict.controls])
        return f"Nothing: {names} does as well as the best method, {words}. Claim nothing from it."
    value = with_interval(found)
    if verdict.caveat:
        return f"Nothing: {verdict.caveat}. Highest is {words}: {value}."
    if not verdict.level:
        return f"{words}: {value}. Level with it: none, {NONE_LEVEL}."
    level = listed([f"{short(one.name)} ({_bytes(results, one, place)})" for one in verdict.level])
    return f"{words}: {value}. Level with it: {level}."


def _bytes(results: Results, method: Contender, place: Place) -> str:
    return stored(results.bytes_of(method.name, place)).removesuffix(" a row")


def title(results: Results, verdicts: Sequence[Verdict]) -> str:
    """Return the headline: which method is to be trusted, on how much, at how many bytes."""
    words = _title(results, verdicts)
    return f"{words[0].upper()}{words[1:]}"


def _title(results: Results, verdicts: Sequence[Verdict]) -> str:
    decided = [one for one in verdicts if one.decides]
    if not any(one.best for one in verdicts):
        return "no method has scores"
    if not decided:
        return "nothing is shown: no task can tell methods from shuffled rows and the controls"
    if len(decided) == 1:
        rest = len(verdicts) - 1
        others = f"; {count(rest, 'other task decides', 'other tasks decide')} nothing"
        return _single(results, decided[0]) + (others if rest else "")
    names, wins = winners(results, decided)
    asked = f"{wins} of the {count(len(decided), 'task that decides', 'tasks that decide')}"
    if len(names) == 1:
        return f"{short(names[0])} is best or level on {asked}, with {_cost(results, names[0])}"
    shown = [f"{short(name)} ({_cost(results, name)})" for name in names[:WINNERS_NAMED]]
    if len(names) > WINNERS_NAMED:
        shown.append(count(len(names) - WINNERS_NAMED, "other method"))
    return f"{listed(shown)} are each best or level on {asked}"


def _single(results: Results, verdict: Verdict) -> str:
    name = verdict.best.name if verdict.best else ""
    words = f"On {verdict.place.name}, {short(name)} ({_cost(results, name)}) finds the right rows "
    words += "best"
    if len(verdict.level) == 1:
        other = verdict.level[0].name
        words += f"; {short(other)} ({_cost(results, other)}) is level with it"
    elif verdict.level:
        words += f"; {count(len(verdict.level), 'method')} are level with it"
    return words


def _cost(results: Results, name: str) -> str:
    return stored(results.bytes_of(name))


def tally(verdicts: Sequence[Verdict]) -> Counter[str]:
    """Return on how many tasks each method is best or level with the best."""
    return Counter(
        one.name
        for verdict in verdicts
        if verdict.decides
        for one in (verdict.best, *verdict.level)
        if one is not None
    )


def winners(results: Results, verdicts: Sequence[Verdict]) -> tuple[list[str], int]:
    """Return the methods that are best or level on most tasks, and on how many.

    The one that is best more often comes first; of equals the one with fewer bytes.
    """
    wins = tally(verdicts)
    alone = Counter(one.best.name for one in verdicts if one.best is not None)
    most = max(wins.values())

    def order(name: str) -> tuple[int, float]:
        return -alone[name], results.bytes_of(name) or 0.0

    return sorted((name for name in sorted(wins) if wins[name] == most), key=order), most


def standfirst(results: Results, verdicts: Sequence[Verdict]) -> str:
    """Return how the headline came about, what it leaves out, and what trainings say."""
    decided = [one for one in verdicts if one.decides]
    parts = [_bests(decided), _undecided(verdicts), _trained(results)]
    model = _model(results)
    parts.append(
        f"Judged by average precision over the whole ranking, with {model}; two methods are level "
        "when the 95% interval of their difference over queries includes 0 (not corrected for the "
        "number of methods)."
    )
    return " ".join(part for part in parts if part)


def _bests(decided: Sequence[Verdict]) -> str:
    """Return which method is best on which tasks."""
    where: dict[str, list[str]] = {}
    for one in decided:
        if one.best is not None:
            where.setdefault(one.best.name, []).append(one.place.name)
    words = [f"{short(name)} on {listed(tasks)}" for name, tasks in where.items()]
    return f"Best: {'; '.join(words)}." if len(decided) > 1 else ""


def _undecided(verdicts: Sequence[Verdict]) -> str:
    shuffled = [one.place.name for one in verdicts if one.best and not one.beats_shuffled]
    aided = [one.place.name for one in verdicts if one.beats_shuffled and one.controls]
    parts = []
    if shuffled:
        parts.append(f"On {listed(shuffled)} no method is above shuffled right rows.")
    if aided:
        parts.append(f"On {listed(aided)} a control does as well: no claim rests there.")
    parts += [
        f"{one.place.name} decides nothing: {one.caveat}."
        for one in verdicts
        if one.caveat and one.beats_shuffled and not one.controls
    ]
    return " ".join(parts)


def _trained(results: Results) -> str:
    """Return which methods foretell what training does, and where none does."""
    words, noise = [], []
    for place in results.places:
        lines = [line for line in results.rows_of("lds", place) if line["kind"] == "method"]
        sure = [line for line in lines if foretells(line)]
        if sure:
            best = max(sure, key=lambda line: float(line["value"]))
            value = f"LDS {figure_of(best['value'])}{_no_more(best)}{_level_with(lines)}"
            words.append(f"{short(best['method'])} on {place.name} ({value})")
        elif lines:
            highest = max(float(line["value"]) for line in lines)
            noise.append(f"{place.name} (highest LDS {figure_of(highest)})")
    parts = []
    if words:
        parts.append(f"What training does is foretold best by {listed(words)}.")
    if noise:
        words_ = "no method foretells better than its own scores given to other rows"
        parts.append(f"What training does on {listed(noise)} {words_}.")
    return " ".join(parts)


def is_level(line: Mapping[str, Any]) -> bool:
    """Tell whether a method is not the best, and its difference to the best may be chance."""
    return line["to_best_high"] is not None and line["to_best_high"] >= 0.0


def foretells(line: Mapping[str, Any]) -> bool:
    """Tell whether an LDS is above those of shuffled scores, one error in 20 over all methods."""
    return line["p_holm"] is not None and line["p_holm"] <= MOST_P


def _no_more(line: Mapping[str, Any]) -> str:
    """Return a reservation where knowing the label alone foretells as much."""
    low, high = line["to_label_low"], line["to_label_high"]
    if low is None or low > 0.0:
        return ""
    return ", below the label alone" if high < 0.0 else ", level with the label alone"


def _level_with(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return which methods of a task are level with the best LDS, or how many."""
    level = [short(line["method"]) for line in lines if is_level(line)]
    if not level:
        return ""
    if len(level) > WINNERS_NAMED:
        return f"; {count(len(level), 'method')} are level with it"
    return f"; {listed(level)} {'is' if len(level) == 1 else 'are'} level with it"


def _model(results: Results) -> str:
    names = dict.fromkeys(str(place.line["model"]) for place in results.places)
    return listed([shortened(name.rstrip("/").rpartition("/")[2], NAME_CHARS) for name in names])
