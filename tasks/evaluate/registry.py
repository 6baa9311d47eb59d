"""Every method by its name in settings, with what it is and how it is set."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.files import short_id
from tasks.config_file import validated
from tasks.evaluate.ekfac import EkFac
from tasks.evaluate.gradient_settings import (
    EkFacConfig,
    RapidInConfig,
    TracInConfig,
    TrackStarConfig,
    Z0InfConfig,
)
from tasks.evaluate.mean_states import MeanStateMethod
from tasks.evaluate.method import CONTROLS, Method, MethodScores, PreparedTask
from tasks.evaluate.rapidin import RapidIn
from tasks.evaluate.readout_method import ReadoutGradientMethod
from tasks.evaluate.rise_method import RiseMethod
from tasks.evaluate.sentence_embedding import SentenceEmbeddingMethod
from tasks.evaluate.settings import MethodChoice
from tasks.evaluate.sum_method import SumConfig, SumMethod
from tasks.evaluate.tracin import TracIn
from tasks.evaluate.trackstar import TrackStar
from tasks.evaluate.word_methods import Bm25Method, LengthMethod, RandomMethod, TfIdfMethod
from tasks.evaluate.z0inf import Z0Inf
from tasks.progress import NO_PROGRESS, Progress
from tasks.signature_config import PRESETS
from tasks.stage_config import StageConfig


@dataclass(frozen=True)
class Registered:
    """A method that settings can name.

    Attributes:
        family: RISE, gradients, trajectories, states, words, sums, controls: what tables and plots
            group by.
        about: One sentence.
        make: Returns the method, from settings of its own as keywords, or from one ``config``.
        fixed: Settings that the name stands for.
        config: Class of the settings, where the method has one.
    """

    family: str
    about: str
    make: Callable[..., Method]
    fixed: Mapping[str, Any]
    config: type[StageConfig] | None = None

    @property
    def parameters(self) -> list[str]:
        """Settings that can be given."""
        if self.config is not None:
            return [name for name in self.config.model_fields if name not in self.fixed]
        taken = inspect.signature(self.make).parameters
        return [name for name in taken if name not in {*self.fixed, "name"}]

    def made(self, key: str, settings: Mapping[str, Any]) -> Method:
        """Return the method with settings.

        Raises:
            ValueError: It has no such setting, or refuses a value.
        """
        unknown = sorted(set(settings) - set(self.parameters))
        if unknown:
            raise ValueError(
                f"methods: {key} has no setting {', '.join(unknown)}; it has "
                f"{', '.join(self.parameters) or 'none'}."
            )
        given = {**self.fixed, **settings}
        if self.config is None:
            return self.make(**given)
        return self.make(validated(self.config, given, origin=f"methods: {key}"))


@dataclass(frozen=True)
class ChosenMethod:
    """A method as an evaluation runs it.

    Attributes:
        key: Its name in settings.
        family: See `Registered`.
        name: What the tables call it.
        method: What scores.
    """

    key: str
    family: str
    name: str
    method: Method

    @property
    def settings(self) -> dict[str, object]:
        """The method's own settings."""
        return self.method.settings

    @property
    def folder(self) -> str:
        """Name of the folders that it keeps its own things in."""
        return f"{self.key}-{short_id(dict(self.settings))}"

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`."""
        return self.method.scores(task, progress=progress)


def _sum_of(config: SumConfig) -> SumMethod:
    return SumMethod([(choose_method(part), part.weight) for part in config.of])


_PRESETS = {
    f"rise-{name}": Registered(
        "RISE", f"The pipeline's own stages, preset {name}.", RiseMethod, {"preset": name}
    )
    for name in PRESETS
}

_PARAMETERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "lora": ("adapters", {"kind": "lora"}),
    "block": ("the last four blocks", {"kind": "block", "blocks": 4}),
    "full": ("every parameter", {"kind": "full"}),
}

REGISTRY: dict[str, Registered] = {
    **_PRESETS,
    "rise": Registered("RISE", "The pipeline's own stages, settings as given.", RiseMethod, {}),
    "read-out-dot": Registered(
        "gradients",
        "Exact gradient of the read-out head, inner product: RISE without sketches.",
        ReadoutGradientMethod,
        {"form": "dot"},
    ),
    "read-out-cosine": Registered(
        "gradients",
        "Exact gradient of the read-out head, cosine.",
        ReadoutGradientMethod,
        {"form": "cosine"},
    ),
    **{
        f"rapidin-{kind}": Registered(
            "gradients",
            f"RapidIn: compressed gradients, every tensor at unit length; of {what}.",
            RapidIn,
            {"parameters": parameters},
            RapidInConfig,
        )
        for kind, (what, parameters) in _PARAMETERS.items()
    },
    "rapidin-published-shuffle": Registered(
        "gradients",
        "RapidIn of the last four blocks, with the published shuffle.",
        RapidIn,
        {"parameters": {"kind": "block", "blocks": 4}, "shuffle": "published"},
        RapidInConfig,
    ),
    "rapidin": Registered("gradients", "RapidIn, settings as given.", RapidIn, {}, RapidInConfig),
    "tracin": Registered(
        "gradients",
        "TracIn: inner products of gradients of the last block, or of parameters as given.",
        TracIn,
        {},
        TracInConfig,
    ),
    "z0-inf": Registered(
        "trajectories",
        "Z0-Inf: influence from losses at the checkpoints of a fine-tuning (recall alone).",
        Z0Inf,
        {},
        Z0InfConfig,
    ),
    "ek-fac": Registered(
        "gradients",
        "EK-FAC influence functions, by the package kronfluence where it is installed.",
        EkFac,
        {},
        EkFacConfig,
    ),
    "trackstar": Registered(
        "gradients",
        "TrackStar, by the program bergson where it is installed.",
        TrackStar,
        {},
        TrackStarConfig,
    ),
    "mean-hidden-state": Registered(
        "states", "Cosine of mean final hidden states.", MeanStateMethod, {}
    ),
    **{
        f"mean-hidden-state-{name}": Registered(
            "states", f"Cosine of mean final hidden states, {about}.", MeanStateMethod, fixed
        )
        for name, about, fixed in (
            ("int8", "rows in int8", {"code": "int8"}),
            ("sign", "rows as one bit a number", {"code": "sign"}),
            (
                "centred-sign",
                "the rows' mean taken off, one bit a number",
                {"code": "sign", "centre": True},
            ),
        )
    },
    "sentence-embedding": Registered(
        "states",
        "Cosine of whole texts' embeddings, by an encoder that settings name.",
        SentenceEmbeddingMethod,
        {},
    ),
    "bm25": Registered("words", "BM25 over words.", Bm25Method, {}),
    "tf-idf": Registered("words", "Cosine of TF-IDF vectors of words.", TfIdfMethod, {}),
    "sum": Registered(
        "sums", "Weighted sum of other methods' standardised scores.", _sum_of, {}, SumConfig
    ),
    "length": Registered(CONTROLS, "Longer rows first, whatever the query.", LengthMethod, {}),
    "random": Registered(CONTROLS, "Rows in random order.", RandomMethod, {}),
}
"""Name in settings to method."""


def choose_method(choice: MethodChoice) -> ChosenMethod:
    """Return the method that settings name.

    Raises:
        ValueError: No such method, or it has no such setting, or refuses a value.
    """
    registered = REGISTRY.get(choice.method)
    if registered is None:
        close = difflib.get_close_matches(choice.method, REGISTRY, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"methods: there is no {choice.method!r}.{hint} There are {', '.join(REGISTRY)}."
        )
    method = registered.made(choice.method, choice.settings)
    return ChosenMethod(choice.method, registered.family, choice.name or method.name, method)


def choose_methods(choices: tuple[MethodChoice, ...]) -> list[ChosenMethod]:
    """Return the methods that settings name, in their order.

    Raises:
        ValueError: See `choose_method`; or two have one name in the tables.
    """
    chosen = [choose_method(choice) for choice in choices]
    names = [one.name for one in chosen]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"methods: {', '.join(twice)} comes twice; give one of them a name of its own (name)."
        )
    return chosen


def table_names(wanted: Sequence[str], chosen: Sequence[ChosenMethod]) -> tuple[str, ...]:
    """Return what the tables call some of the methods of a run.

    Args:
        wanted: Names in settings, or in tables.
        chosen: The methods of the run; one name in settings may stand for several of them.

    Raises:
        ValueError: The run has no such method.
    """
    names = [(one.key, one.name) for one in chosen]
    unknown = [own for own in wanted if not any(own in known for known in names)]
    if unknown:
        raise ValueError(
            f"counterfactual.closed_loop.methods names {', '.join(unknown)}, but methods of this "
            f"run are {', '.join(f'{name} ({key})' for key, name in names)}. Name some of these, "
            "or add it to methods."
        )
    return tuple(name for key, name in names if key in wanted or name in wanted)
