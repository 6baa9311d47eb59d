"""The report of a release: one HTML page that says what was selected, why, and from what.

It is drawn from the published release and lies in its folder, beside what the manifest lists: the
same release always gives the same page, but for what the run cost. It needs no network and no
model, unless token highlights are wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.files import write_bytes
from storage.refs import ReleaseRef
from storage.releases import REPORT_FILE, open_release
from tasks.config import RuntimeConfig
from tasks.page.shell import Headline, Section, WrittenPage, page
from tasks.page.text import number, percent, shortened
from tasks.release_config import ReportConfig
from tasks.report_checks import checks_section
from tasks.report_cost import StageCost, record_costs
from tasks.report_cut import cut_section, find_cut
from tasks.report_data import ReportData, read_report_data
from tasks.report_examples import Examples, read_examples
from tasks.report_funnel import funnel_section, reasons
from tasks.report_guards import leak_texts, leakage_section, privacy_section
from tasks.report_mix import counts, mix_section
from tasks.report_origin import asked_section, lineage_section, shown_queries
from tasks.report_private import Masks, find_masks
from tasks.report_rows import Pair, duplicates_section, examples_section, read_pairs
from tasks.report_use import cost_section, load_section
from tasks.report_words import NAME_CHARS, concentration, headline, standfirst

FORWARD_ROWS = 5
"""Rows whose whole way is shown."""


@dataclass(frozen=True)
class _Shown:
    """What the page shows of rows."""

    examples: Examples
    pairs: tuple[Pair, ...]
    masks: Masks


def write_report(
    ref: ReleaseRef,
    config: ReportConfig = ReportConfig(),  # noqa: B008 - frozen
    *,
    runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008 - frozen
    costs: Sequence[StageCost] = (),
) -> WrittenPage:
    """Draw the page of a published release, in place of an earlier one.

    Args:
        ref: The release.
        config: How many examples, and whether with token highlights.
        runtime: Device and batch size, for highlights.
        costs: What the run's stages took; kept beside the page. Empty: as kept before.

    Raises:
        NotFoundError: There is no such release, or what it was made from is gone.
        CorruptionError: A file that it is drawn from is damaged.
    """
    release = open_release(ref)
    if costs:
        record_costs(release.folder, costs)
    html, made = _drawn(read_report_data(release), config, runtime)
    data = html.encode()
    path = release.folder / REPORT_FILE
    write_bytes(path, data)
    return WrittenPage(str(path), made[0], len(data), made[1])


def _drawn(
    data: ReportData, config: ReportConfig, runtime: RuntimeConfig
) -> tuple[str, tuple[str, str | None]]:
    examples = read_examples(data, config.examples, highlights=config.highlights, runtime=runtime)
    pairs = read_pairs(data)
    masks = find_masks(_texts(data, examples, pairs), data.config.privacy)
    top = _headline(data)
    sections = _sections(data, _Shown(examples, pairs, masks), highlights=config.highlights)
    footer = (
        f"Report of release {data.release.ref.release_id}, drawn from the files in this folder. "
        "It loads nothing and runs no script."
    )
    return page(top, sections, footer=footer), (top.title, examples.no_highlights)


def _sections(data: ReportData, shown: _Shown, *, highlights: bool) -> list[Section]:
    forward = [*shown.examples.top[:FORWARD_ROWS], *shown.examples.rejected[:1]]
    found = [
        cut_section(data),
        asked_section(data, shown.masks),
        funnel_section(data),
        mix_section(data),
        examples_section(shown.examples, shown.masks, highlights=highlights),
        duplicates_section(data, shown.pairs, shown.masks),
        leakage_section(data, shown.masks),
        privacy_section(data),
        checks_section(data),
        lineage_section(data, forward),
        cost_section(data),
        load_section(data),
    ]
    return [section for section in found if section is not None]


def _texts(data: ReportData, examples: Examples, pairs: Sequence[Pair]) -> list[str]:
    """Return every text from rows and queries that the page shows."""
    answered = [example.answered for example in examples if example.answered is not None]
    return [
        *(example.row.text for example in examples),
        *(one.prompt + one.completion for one in answered),
        *(row.text for pair in pairs for row in (pair.dropped, pair.kept)),
        *(query["text"] for query in shown_queries(data)),
        *leak_texts(data),
    ]


def _headline(data: ReportData) -> Headline:
    cut, passed = find_cut(data), reasons(data)
    manifest, n_queries = data.release.manifest, data.query_set.manifest["n_queries"]
    title = headline(
        n_released=data.n_released,
        n_candidates=data.n_candidates,
        lowest=data.config.prefer == "lowest",
        labels=concentration(*counts(data, "label")),
        sources=concentration(*counts(data, "source")),
        above=cut.outscored,
    )
    numbers = [
        (number(data.n_released), "rows released"),
        *_tokens(manifest),
        (percent(data.n_released / max(1, data.n_candidates)), "of the candidates"),
        (number(n_queries), "queries asked" if n_queries != 1 else "query asked"),
        (number(sum(passed.values())), "rows passed over"),
        (number(len(set(data.leakage.column("row_id").to_pylist()))), "rows with leaks found"),
    ]
    return Headline(
        kicker=f"Release {data.release.ref.name}",
        title=f"{title}.",
        standfirst=standfirst(data.config, data.lineage, n_queries=n_queries, reasons=passed),
        numbers=numbers,
    )


def _tokens(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return how many tokens the release has, by the target's tokenizer too where one was named."""
    target = manifest.get("target_tokens")
    counted = [(number(manifest["n_tokens"]), "tokens in them")]
    if target:
        words = f"tokens for {shortened(target['tokenizer'], NAME_CHARS)}"
        counted.append((number(target["n_tokens"]), words))
    return counted
