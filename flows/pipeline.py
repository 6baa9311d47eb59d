"""Flow: the whole path, from raw files to a validated release."""

from dataclasses import dataclass, field

from prefect import flow

from flows.artifacts import leave_report, readable_bytes
from flows.failure import explain_failure
from flows.index import index
from flows.ingest import ingest
from flows.queries import queries
from flows.release import release
from flows.run_rules import run_rules
from flows.score import score
from storage.refs import CorpusRef, IndexRef
from tasks.config import PipelineConfig
from tasks.corpus import IngestReport, require_rows
from tasks.index_generation import index_for, make_current
from tasks.queries import QuerySetReport
from tasks.release import ReleaseReport
from tasks.release_config import TopK
from tasks.release_drift import ReleaseHeld
from tasks.report_cost import StageCost, costs_of
from tasks.scoring import ScoreReport
from tasks.signatures import IndexReport
from tasks.suite_expectations import require_suites


@dataclass(frozen=True)
class MadeReport:
    """What each stage after ingestion reported."""

    index: IndexReport
    queries: QuerySetReport
    score: ScoreReport
    release: ReleaseReport
    also: dict[str, ReleaseReport] = field(default_factory=dict)
    """The further releases of the same scores, by name."""
    replaced: str = ""
    """The name by which the index is still read that the index's name meant before this run."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the quality gates found odd, each with its gate."""
        gates = {
            "index": self.index.warnings,
            "scores": self.score.warnings,
            "release": self.release.warnings,
            **{f"release {name}": report.warnings for name, report in self.also.items()},
        }
        return tuple(f"{gate}: {text}" for gate, found in gates.items() for text in found)


@dataclass(frozen=True)
class PipelineReport(MadeReport):
    """What every stage reported."""

    ingest: IngestReport = field(kw_only=True)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the quality gates found odd, each with its gate."""
        return (*(f"ingest: {text}" for text in self.ingest.warnings), *super().warnings)


@flow(name="pipeline", flow_run_name="pipeline-{config.release}", on_failure=[explain_failure])
def pipeline(config: PipelineConfig) -> PipelineReport:
    """Ingest rows, index them, sketch the queries, score, select and release.

    Every stage skips what is already there, so running again after a stop, or with new files,
    does only what is missing.

    Args:
        config: Everything the path needs; only rows and queries have no default.
    """
    store, quality = config.store, config.quality
    require_suites(quality)
    with run_rules(config.runtime):
        ingested = ingest(config.rows, store, config.corpus, config.indexing.model, quality)
        made = release_rows(config, ingested)
    report = PipelineReport(
        made.index, made.queries, made.score, made.release, made.also, ingest=ingested
    )
    indexed, queried, released = made.index, made.queries, made.release
    leave_report(
        "pipeline",
        title=f"release {config.release}: {released.n_rows:,} of {indexed.n_rows:,} rows",
        facts={
            "rows ingested": ingested.n_rows,
            "rows rejected": ingested.n_rejected,
            "rows indexed": indexed.n_rows,
            "tokens per second": indexed.tokens_per_second,
            "bytes of the index": readable_bytes(indexed.n_bytes),
            "queries": queried.n_queries,
            "rows released": released.n_rows,
            **{f"rows released as {name}": report.n_rows for name, report in made.also.items()},
        },
        links={
            "release": released.path,
            "report": released.page,
            "Data Docs": released.data_docs,
            **{f"release {name}": report.path for name, report in made.also.items()},
        },
        warnings=report.warnings,
    )
    return report


def release_rows(
    config: PipelineConfig, ingested: IngestReport | None = None, *, new_index: bool = False
) -> MadeReport:
    """Run every stage after ingestion, within a flow: index, queries, scores, releases.

    Args:
        config: Everything the path needs.
        ingested: What was ingested before, for the costs in the report.
        new_index: Other settings than the index's make a new index beside it, to which the name is
            switched; else they are refused.

    Raises:
        ValueError: The settings ask for more rows than there are.
        ReleaseHeld: A release drifted beyond a limit; all of them are published, that one is held.
    """
    store, runtime, quality = config.store, config.runtime, config.quality
    require_rows(CorpusRef(store, config.corpus), _wanted_rows(config))
    named = built = IndexRef(store, config.index)
    if new_index:
        built = index_for(named, CorpusRef(store, config.corpus), config.indexing, runtime)
    indexed = index(store, config.corpus, built.index, config.indexing, runtime, quality)
    replaced = make_current(named, built) if built != named else ""
    queried = queries(config.queries, store, config.query_set, config.index, runtime)
    # its own version: another run may have made a later one of that name meanwhile
    version = queried.ref.version
    scoring = config.scoring
    if any(settings.needs_matrix for settings in config.releases.values()):
        scoring = scoring.model_copy(update={"full_matrix": True})
    scored = score(store, config.index, config.query_set, scoring, runtime, version, quality)
    costs = costs_of(ingest=ingested, index=indexed, queries=queried, score=scored)
    also = _release_all(config, scored.ref.scores_id, costs)
    released = also.pop(config.release)
    return MadeReport(indexed, queried, scored, released, also, replaced)


def _release_all(
    config: PipelineConfig, scores_id: str, costs: tuple[StageCost, ...]
) -> dict[str, ReleaseReport]:
    """Make every release; one that is held keeps none of the others from being published."""
    made, held = {}, []
    for name, settings in config.releases.items():
        try:
            made[name] = release(
                scores_id,
                config.store,
                name,
                settings,
                config.quality,
                config.runtime,
                costs,
                config.drift,
            )
        except ReleaseHeld as error:
            held.append(str(error))
    if held:
        raise ReleaseHeld("\n\n".join(held))
    return made


def _wanted_rows(config: PipelineConfig) -> dict[str, int]:
    wanted = {"scoring.top_k": config.scoring.top_k}
    fields = {"releasing": config.releasing}
    fields |= {f"also.{name}": settings for name, settings in config.also.items()}
    for name, settings in fields.items():
        if isinstance(settings.select, TopK):
            wanted[f"{name}.select.top_k"] = settings.select.top_k
    return wanted
