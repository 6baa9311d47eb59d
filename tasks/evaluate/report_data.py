"""The tables of an evaluation as its report asks for them: by task, method and metric.

What decides between methods is decided here: which is best on a task, and which are level with it.
Two methods are level when the interval of their difference, query by query, reaches 0.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rise_ops.bootstrap import bootstrap_mean
from storage.files import read_json
from tasks.evaluate.method import CONTROLS
from tasks.evaluate.tables import RESULTS_FILE, Tables, read_tables

Key = tuple[str, int | None]
"""A metric and its cut."""

DECIDING: Key = ("full_ap", None)
"""What decides: the whole ranking counts, and no choice of a cut."""

FAMILIES: Mapping[str, str] = {
    "RISE": "k1",
    "gradients": "k2",
    "trajectories": "k3",
    "states": "k4",
    "words": "k5",
    "sums": "k7",
    CONTROLS: "k6",
}
"""Family to its colour, a class of the page's style sheet."""

RESAMPLES = 1_000
TABLES_FOLDER = "tables"


@dataclass(frozen=True)
class Place:
    """A task in a paradigm.

    Attributes:
        task: Its name.
        paradigm: predict or recall.
        line: Its line of the table of tasks.
    """

    task: str
    paradigm: str
    line: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Task and paradigm."""
        return self.task, self.paradigm

    @property
    def pool(self) -> str:
        """Which rows it is over: tasks of one pool ask the same rows in other words."""
        return str(self.line["pool"])

    @property
    def name(self) -> str:
        """For people: the paradigm is said where the model was trained on the pool."""
        return self.task if self.paradigm == "predict" else f"{self.task} ({self.paradigm})"


@dataclass(frozen=True)
class Contender:
    """A method: its name, family, what settings call it, and its number on the page, from 1."""

    name: str
    family: str
    key: str
    settings: str
    number: int

    @property
    def style(self) -> str:
        """Class of its family's colour."""
        return FAMILIES.get(self.family, "k6")

    @property
    def positions(self) -> str:
        """Which positions of rows it reads; empty where it does not choose."""
        return str(json.loads(self.settings).get("positions") or "")

    @property
    def is_control(self) -> bool:
        """Length and random order: what a method must beat to mean anything."""
        return self.family == CONTROLS


@dataclass(frozen=True)
class Measure:
    """A metric of a method on a task; see the table of metrics."""

    value: float
    low: float | None
    high: float | None
    n_used: int
    n_skipped: int
    control: float | None
    control_deviation: float | None

    @property
    def beats_shuffled(self) -> bool:
        """Tell whether the interval lies above what shuffled right rows give."""
        if self.control is None:
            return False
        low = self.value if self.low is None else self.low
        return low > self.control + 2.0 * (self.control_deviation or 0.0)


@dataclass(frozen=True)
class Standing:
    """Which method is best by a metric, and which cannot be told from it; never a control."""

    best: str | None
    level: frozenset[str]


@dataclass(frozen=True)
class Verdict:
    """What a task says of methods; controls (length, random order) stand aside.

    Attributes:
        place: The task.
        best: The method with the highest value; None where there is none.
        level: Other methods that are level with it, best first.
        controls: Controls that are level with it, or above.
        beats_shuffled: The best is above what shuffled right rows give.
    """

    place: Place
    best: Contender | None
    level: tuple[Contender, ...]
    controls: tuple[Contender, ...]
    beats_shuffled: bool

    @property
    def caveat(self) -> str:
        """Why the task decides nothing whatever its numbers; empty where it may."""
        return str(self.place.line.get("caveat") or "")

    @property
    def decides(self) -> bool:
        """Tell whether the task can tell methods apart: above the controls, and no caveat."""
        shown = self.best is not None and self.beats_shuffled and not self.controls
        return shown and not self.caveat


class Results:
    """An evaluation, from its tables."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        """Use `read_results`."""
        self.folder, self.tables, self.about = folder, tables, tables.about
        self.places = [
            Place(line["task"], line["paradigm"], line) for line in tables.tasks.to_pylist()
        ]
        self.methods = [
            Contender(line["method"], line["family"], line["key"], line["settings"], number)
            for number, line in enumerate(tables.methods.to_pylist(), start=1)
        ]
        self._by_name = {one.name: one for one in self.methods}
        self._standings: dict[tuple[str, str, Key], Standing] = {}

    @property
    def work(self) -> Path:
        """The evaluation's work folder."""
        return self.folder.parent

    def method(self, name: str) -> Contender | None:
        """Return the method of that name."""
        return self._by_name.get(name)

    def scored(self, place: Place) -> list[Contender]:
        """Return the methods with scores on a task, in the order of the settings."""
        found = self._measures.get(place.key, {})
        return [one for one in self.methods if one.name in found]

    def measure(self, place: Place, method: str, key: Key) -> Measure | None:
        """Return a metric; None where it is not defined."""
        return self._measures.get(place.key, {}).get(method, {}).get(key)

    def metrics(self, place: Place | None = None) -> list[Key]:
        """Return the metrics that some method has, in the order of the tables."""
        places = self.places if place is None else [place]
        found = (self._measures.get(one.key, {}) for one in places)
        return list(dict.fromkeys(key for own in found for one in own.values() for key in one))

    def ranked(self, place: Place, key: Key = DECIDING) -> list[Contender]:
        """Return the methods with scores on a task, best first; undefined ones last."""
        return sorted(self.scored(place), key=lambda one: -self.value(place, one.name, key))

    def value(self, place: Place, method: str, key: Key = DECIDING) -> float:
        """Return a metric's value, below everything where it is not defined."""
        found = self.measure(place, method, key)
        return -math.inf if found is None else found.value

    def standing(self, place: Place, key: Key) -> Standing:
        """Return which method is best by a metric, and which are level; controls stand aside."""
        asked = (*place.key, key)
        if asked not in self._standings:
            self._standings[asked] = self._standing(place, key)
        return self._standings[asked]

    def verdict(self, place: Place) -> Verdict:
        """Return what a task says of methods, by the metric that decides."""
        ranked = self.ranked(place)
        standing = self.standing(place, DECIDING)
        best = self.method(standing.best or "")
        found = None if best is None else self.measure(place, best.name, DECIDING)
        return Verdict(
            place=place,
            best=best,
            level=tuple(one for one in ranked if one.name in standing.level),
            controls=tuple(
                one
                for one in ranked
                if best is not None and one.is_control and self._reaches(place, one, best)
            ),
            beats_shuffled=found is not None and found.beats_shuffled,
        )

    def shuffled(self, place: Place, key: Key) -> float | None:
        """Return what shuffled right rows give, mean over methods."""
        found = [self.measure(place, one.name, key) for one in self.scored(place)]
        values = [one.control for one in found if one is not None and one.control is not None]
        return float(np.mean(values)) if values else None

    def per_query(self, place: Place, method: str, key: Key) -> npt.NDArray[np.float64] | None:
        """Return a metric query by query, NaN where one is skipped; None where there is none."""
        return self._per_query.get((*place.key, method, key))

    def cost(self, place: Place, method: str) -> Mapping[str, Any] | None:
        """Return a method's line of the table of costs."""
        return self._costs.get((*place.key, method))

    def bytes_of(self, method: str, place: Place | None = None) -> float | None:
        """Return what a method stores of a row; over all tasks the median; None where unknown."""
        found = [
            line["bytes_per_row"]
            for (task, paradigm, name), line in self._costs.items()
            if name == method and (place is None or place.key == (task, paradigm))
        ]
        return float(np.median(found)) if found else None

    def rows_of(self, table: str, place: Place) -> list[dict[str, Any]]:
        """Return the lines of a table that belong to a task."""
        return self._rows(table).get(place.key, [])

    def _reaches(self, place: Place, one: Contender, best: Contender) -> bool:
        above = self.value(place, one.name) >= self.value(place, best.name)
        return above or self._level(place, DECIDING, best.name, one.name)

    def _standing(self, place: Place, key: Key) -> Standing:
        able = [one for one in self.ranked(place, key) if not one.is_control]
        able = [one for one in able if self.measure(place, one.name, key) is not None]
        if not able:
            return Standing(None, frozenset())
        best = able[0].name
        level = {one.name for one in able[1:] if self._level(place, key, best, one.name)}
        return Standing(best, frozenset(level))

    def _level(self, place: Place, key: Key, best: str, other: str) -> bool:
        """Tell whether the difference of two methods, query by query, may be 0."""
        first, second = (self.per_query(place, name, key) for name in (best, other))
        if first is None or second is None or len(first) != len(second):
            return False
        rng = np.random.default_rng(0)
        found = bootstrap_mean(first - second, rng=rng, n_resamples=RESAMPLES)
        return found is None or found.low <= 0.0

    @cached_property
    def _measures(self) -> dict[tuple[str, str], dict[str, dict[Key, Measure]]]:
        found: dict[tuple[str, str], dict[str, dict[Key, Measure]]] = {}
        for line in self.tables.metrics.to_pylist():
            own = found.setdefault((line["task"], line["paradigm"]), {})
            mine = own.setdefault(line["method"], {})
            if line["value"] is not None and math.isfinite(line["value"]):
                mine[line["metric"], line["k"]] = Measure(
                    **{name: line[name] for name in Measure.__dataclass_fields__}
                )
        return found

    @cached_property
    def _per_query(self) -> dict[tuple[str, str, str, Key], npt.NDArray[np.float64]]:
        found: dict[tuple[str, str, str, Key], list[float]] = defaultdict(list)
        columns = self.tables.per_query.to_pydict()
        names = ("task", "paradigm", "method", "metric", "k", "value")
        for task, paradigm, method, metric, k, value in zip(
            *(columns[name] for name in names), strict=True
        ):
            found[task, paradigm, method, (metric, k)].append(math.nan if value is None else value)
        return {key: np.array(values) for key, values in found.items()}

    @cached_property
    def _costs(self) -> dict[tuple[str, str, str], Mapping[str, Any]]:
        return {
            (line["task"], line["paradigm"], line["method"]): line
            for line in self.tables.costs.to_pylist()
        }

    def _rows(self, table: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
        if table not in self._read:
            found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
            for line in getattr(self.tables, table).to_pylist():
                found[line["task"], line["paradigm"]].append(line)
            self._read[table] = found
        return self._read[table]

    @cached_property
    def _read(self) -> dict[str, dict[tuple[str, str], list[dict[str, Any]]]]:
        return {}


def read_results(folder: str | Path) -> Results:
    """Read an evaluation from its work folder, or from the folder of its tables.

    Raises:
        NotFoundError: There are no results.
        CorruptionError: A table is missing or damaged.
        ValueError: They are of another version of this program.
    """
    given = Path(folder).absolute()
    inside = given / TABLES_FOLDER
    found = inside if (inside / RESULTS_FILE).is_file() or not _has_results(given) else given
    return Results(found, read_tables(found))


def _has_results(folder: Path) -> bool:
    return (folder / RESULTS_FILE).is_file() and "about" in read_json(folder / RESULTS_FILE)


def leaders(results: Results, place: Place, key: Key = DECIDING) -> list[Contender]:
    """Return the best method of every family on a task, in the order of the families."""
    ranked = results.ranked(place, key)
    found = [next((one for one in ranked if one.family == family), None) for family in FAMILIES]
    return [one for one in found if one is not None]


def present_families(methods: Sequence[Contender]) -> list[str]:
    """Return the families that some method is of, in their order."""
    return [family for family in FAMILIES if any(one.family == family for one in methods)]
