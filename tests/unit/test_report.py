"""The report of a release says what is so, shows rows as text, and loads nothing."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from page_checks import ATTRIBUTES, ELEMENTS, HOSTILE, Reader
from report_samples import CONFIG, N_RELEASED, make_release, plain_texts, ranked
from scored_store import make_scored_store

from storage.errors import NotFoundError
from storage.refs import ReleaseRef
from storage.releases import open_release
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks import report_data
from tasks.config import RuntimeConfig
from tasks.page.shell import Section
from tasks.release_config import LeakageConfig, PrivacyConfig, ReportConfig
from tasks.report import write_report
from tasks.report_cost import StageCost, costs_of, recorded_costs
from tasks.report_cut import find_cut, null_values
from tasks.report_data import ReportData, read_report_data
from tasks.report_examples import MOST_EXAMPLES, read_examples
from tasks.report_mix import names_without_folder
from tasks.report_rows import read_pairs
from tasks.report_use import stage_bytes
from tasks.report_words import concentration, settings_in_words

CPU = RuntimeConfig(device="cpu")
MAX_BYTES = 3_000_000


def draw(ref: ReleaseRef, **config: object) -> str:
    return Path(write_report(ref, ReportConfig(**config), runtime=CPU).path).read_text("utf-8")


def read(ref: ReleaseRef) -> ReportData:
    return read_report_data(open_release(ref))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ReleaseRef:
    return make_release(str(tmp_path_factory.mktemp("plain")))


# ------------------------------------------------------------------------------------- safety


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    texts = [f"{HOSTILE[n % len(HOSTILE)]} number {n} of them all" for n in range(60)]
    root = str(tmp_path_factory.mktemp("hostile"))
    ref = make_release(root, texts=texts, queries=HOSTILE[:2], excerpt=HOSTILE[1])
    return draw(ref, examples=12)


def test_hostile_rows_stay_text(hostile_page: str):
    found = Reader(hostile_page)
    assert {name for name, _ in found.elements} <= set(ELEMENTS.split())
    assert {name for _, attributes in found.elements for name in attributes} <= set(
        ATTRIBUTES.split()
    )
    assert "<script>alert(1)</script>" in found.text
    assert "⟨U+202E⟩right to left⟨U+202C⟩ and ⟨U+001B⟩[31mred⟨U+0000⟩" in found.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u200b\ufeff]", hostile_page)
    assert "שלום עולם" in found.text


def test_a_page_loads_nothing(hostile_page: str):
    found = Reader(hostile_page)
    links = [attributes["href"] for _, attributes in found.elements if "href" in attributes]
    assert links
    assert all(link and link.startswith("#") for link in links)
    (style,) = re.findall(r"<style>(.*?)</style>", hostile_page, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = (a["content"] for name, a in found.elements if "http-equiv" in a)
    assert str(policy).startswith("default-src 'none'; style-src 'sha256-")


def test_anchors_lead_somewhere_and_ids_are_unique(hostile_page: str):
    elements = Reader(hostile_page).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"] for name, a in elements if name == "a"} <= {f"#{one}" for one in ids}


def test_pictures_are_described(hostile_page: str):
    pictures = [a for name, a in Reader(hostile_page).elements if name == "svg"]
    assert any(a.get("role") == "img" for a in pictures)
    for attributes in pictures:
        if attributes.get("role") == "img":
            assert attributes["aria-label"]


def test_huge_rows_and_many_examples_keep_the_page_small(tmp_path: Path):
    texts = [f"{n} " + "&<\u202e" * 40_000 for n in range(60)]
    html = draw(make_release(str(tmp_path), texts=texts, queries=texts[:2]), examples=10_000)
    assert len(html.encode()) < MAX_BYTES
    assert "characters more]" in html


def test_a_page_says_the_same_in_every_store(plain: ReleaseRef, tmp_path: Path):
    first = draw(plain)
    assert draw(plain) == first
    assert draw(make_release(str(tmp_path))) == first
    assert str(tmp_path) not in first


# ------------------------------------------------------------------------------------- content


def test_the_headline_and_key_numbers_are_those_of_the_release(plain: ReleaseRef):
    page = write_report(plain, runtime=CPU)
    assert page.title.startswith(f"{N_RELEASED} of 59 rows made the cut")
    html = Path(page.path).read_text()
    assert page.n_bytes == len(html.encode())
    text = Reader(html).text
    assert "after 3 rows had been passed over" in text
    for section in ("Cut", "Question", "Selection", "Mix", "Rows", "Duplicates", "Leakage"):
        assert f'id="{Section(section, "", None).anchor}"' in html
    assert "At most 30 rows of every source." in text
    assert "Dearest constraint: quotas of source, 20% of value" in text


def test_every_candidate_is_counted_once(plain: ReleaseRef):
    groups = read(plain).groups
    assert groups.able.sum() == 59
    assert groups.selected.sum() == N_RELEASED
    assert groups.dropped.sum() == 3
    both = [groups.selected, groups.dropped, groups.rest]
    assert (np.sum(both, axis=0) == groups.able).all()


def test_the_cut_lies_between_the_last_released_row_and_the_rest(plain: ReleaseRef):
    data = read(plain)
    cut, groups = find_cut(data), data.groups
    assert cut.value == groups.values[groups.selected].min()
    assert groups.values[groups.rest].max() < cut.value
    assert cut.outscored == pytest.approx(groups.rest[groups.able].mean())


def test_lowest_rows_are_cut_at_the_other_end(tmp_path: Path):
    config = CONFIG.model_copy(update={"prefer": "lowest"})
    ref = make_release(str(tmp_path), config=config)
    data = read(ref)
    cut = find_cut(data)
    assert cut.value == data.groups.values[data.groups.selected].max()
    text = Reader(draw(ref)).text
    assert "12 of 59 rows help least: 75% of the candidates score higher" in text
    values = data.groups.values[data.groups.able]
    assert null_values(values, lowest=True).min() < np.median(values)


def test_the_null_is_symmetric_and_keeps_the_half_without_proponents():
    values = np.array([-3.0, -1.0, 0.0, 2.0, 50.0])
    assert sorted(null_values(values)) == [-3.0, -1.0, 0.0, 0.0, 1.0, 3.0]


def test_examples_are_the_rows_that_they_say_they_are(plain: ReleaseRef):
    data = read(plain)
    order = ranked(Scores.open(data.scores.ref))
    found = read_examples(data, 3, highlights=False, runtime=CPU)
    kept = [row for place, row in enumerate(order) if place not in (1, 3, 6)]
    assert [one.position for one in found.top] == kept[:3]
    assert [one.position for one in found.last] == kept[11:8:-1]
    assert [one.position for one in found.next] == kept[12:15]
    assert [one.reason for one in found.rejected] == ["duplicate_text", "quota", "leakage"]
    assert [one.rank for one in found.top] == [1, 2, 3]
    assert len(list(read_examples(data, 99, highlights=False, runtime=CPU))) <= 4 * MOST_EXAMPLES


def test_each_example_stands_beside_the_query_that_it_answers_strongest(plain: ReleaseRef):
    data = read(plain)
    scores = np.concatenate([data.scores.matrix_block(block) for block in range(4)])
    for example in read_examples(data, 4, highlights=False, runtime=CPU):
        assert example.answered is not None
        best = int(scores[example.position].argmax())
        assert example.answered.query_id == f"row-{best:04d}"
        # the matrix is made of int8 queries, the example's score of float32 ones
        assert example.answered.score == pytest.approx(scores[example.position, best], rel=0.02)


def test_without_its_index_a_release_has_a_report_without_queries(tmp_path: Path):
    ref = make_release(str(tmp_path))
    (tmp_path / "indexes" / "main").rename(tmp_path / "indexes" / "gone")
    page = write_report(ref, ReportConfig(highlights=True), runtime=CPU)
    assert "no longer there" in str(page.no_highlights)
    assert "Strongest for query" not in Reader(Path(page.path).read_text()).text


def test_duplicates_stand_beside_what_they_repeat(plain: ReleaseRef):
    (pair,) = read_pairs(read(plain))
    order = ranked(read(plain).scores)
    assert pair.kept.row_id == f"row-{order[0]:04d}"
    assert pair.dropped.row_id == f"row-{order[1]:04d}"


def test_private_strings_are_masked_unless_nobody_looks(tmp_path: Path):
    texts = [f"{text}, write to jane.doe@mail-host.org" for text in plain_texts()]
    queries = ["who is it? ask bob.roe@mail-host.org now", "nobody at all"]
    excerpt = "as bob.roe@mail-host.org said"
    found = make_release(str(tmp_path / "a"), texts=texts, queries=queries, excerpt=excerpt)
    text = Reader(draw(found)).text
    assert "jane.doe" not in text
    assert "bob.roe" not in text
    assert "xxxx.xxx@xxxx-xxxx.xxx" in text
    off = CONFIG.model_copy(update={"privacy": PrivacyConfig(action="off")})
    unguarded = draw(make_release(str(tmp_path / "b"), texts=texts, config=off))
    assert "jane.doe@mail-host.org" in unguarded
    assert "Nobody looked for private strings" in unguarded


def test_rows_that_were_taken_down_later_are_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ref = make_release(str(tmp_path))
    order = ranked(read(ref).scores)
    gone = np.array(order[:4] + order[15:17])
    texts = plain_texts()
    shown = Reader(draw(ref)).text
    assert any(texts[row] in shown for row in gone)
    monkeypatch.setattr(report_data, "masked_rows", lambda corpus, batches: gone)
    shown = Reader(draw(ref)).text
    assert not any(texts[row] in shown for row in gone)


def test_costs_are_kept_beside_the_page(plain: ReleaseRef, tmp_path: Path):
    ref = make_release(str(tmp_path))
    assert "times were not recorded" in draw(ref)
    costs = (StageCost("index", 50.0, n_tokens=20_000), StageCost("score", 2.0, already=True))
    write_report(ref, runtime=CPU, costs=costs)
    assert recorded_costs(open_release(ref).folder) == costs
    again = Reader(draw(ref)).text
    assert "The model read 400 tokens a second." in again
    assert "2.0 s, was there" in again
    # the page of the release is no part of it
    assert open_release(ref).verify() == []


def test_the_bytes_of_an_index_are_those_of_all_its_files(plain, tmp_path, monkeypatch):
    store = make_scored_store(str(tmp_path / "store"), code="int8", keep_floats=True)
    index = SignatureIndex.open(store.index)
    monkeypatch.setattr(ReportData, "index", index)
    paths = [path for path in index.folder.rglob("*") if path.is_file()]
    parts = [path.relative_to(index.folder).parts for path in paths]
    blocks = [p for p, part in zip(paths, parts, strict=True) if part[2:3] == ("c",)]
    found = stage_bytes(read_report_data(open_release(plain)))["index"]
    assert found == sum(path.stat().st_size for path in blocks)


def test_costs_come_from_what_stages_report():
    @dataclasses.dataclass
    class Report:
        seconds: float = 3.0
        n_tokens: int = 30
        n_sketched: int = 0

    assert costs_of(index=Report(), score=None) == (StageCost("index", 3.0, 30, already=True),)


def test_guards_that_are_off_say_so(tmp_path: Path):
    config = CONFIG.model_copy(update={"leakage": LeakageConfig(action="off")})
    assert "Nobody looked for leaks" in draw(make_release(str(tmp_path), config=config))


def test_checks_of_the_gate_are_listed_with_their_results(tmp_path: Path):
    ref = make_release(str(tmp_path))
    quality = open_release(ref).folder / "quality"
    quality.mkdir()
    check = {"description": "Every <b>score</b> is a number.", "severity": "warn"}
    checks = [{**check, "success": n > 0, "n_unexpected": 3} for n in range(4)]
    (quality / "validation.json").write_text(json.dumps({"runs": [{"checks": checks}]}))
    text = Reader(draw(ref)).text
    assert "1 of 4 checks found something odd" in text
    assert "Every <b>score</b> is a number." in text
    assert "warning" in text


def test_a_report_of_no_release_is_refused(tmp_path: Path, plain: ReleaseRef):
    with pytest.raises(NotFoundError):
        write_report(ReleaseRef(plain.root, "picked", "r2"), runtime=CPU)


# --------------------------------------------------------------------------------------- words


def test_concentration_needs_a_doubled_share_of_a_quarter():
    assert concentration({"a": 10, "b": 90}, {"a": 9, "b": 1}) == ("a", 0.1, 0.9)
    assert concentration({"a": 50, "b": 50}, {"a": 9, "b": 1}) is None
    assert concentration({"a": 1, "b": 99}, {"a": 1, "b": 9}) is None
    assert concentration({}, {}) is None


@pytest.mark.parametrize(
    ("settings", "topic", "words"),
    [
        ({"select": {"kind": "top_k", "top_k": 5}}, "Rows wanted", "The 5 rows of highest value."),
        (
            {"select": {"kind": "threshold", "min_score": 0.25}, "prefer": "lowest"},
            "Rows wanted",
            "Every row with a value of at most 0.25.",
        ),
        (
            {"select": {"kind": "tokens", "max_tokens": 10_000}},
            "Rows wanted",
            "Rows in order of value, highest first, while their tokens fit into 10,000 tokens.",
        ),
        (
            {"aggregate": {"kind": "max"}, "length_correction": "regression"},
            "A row's value",
            "Its highest score over the 3 queries, without what its length foretells.",
        ),
        (
            {"aggregate": {"kind": "groups", "weights": {"good": 1.0, "bad": -0.5}}},
            "A row's value",
            "The mean within groups of queries, weighted: 1 times “good” and "
            "\N{MINUS SIGN}0.5 times “bad”.",
        ),
        (
            {
                "quotas": [
                    {"field": "label", "value": "x", "min_rows": 2, "max_rows": 4},
                    {"field": "label", "value": "*", "min_rows": 1},
                ]
            },
            "Quotas",
            "2 to 4 rows of label “x”; at least 1 row of every other label.",
        ),
        (
            {"collapse": {"signature": 0.95}},
            "Near duplicates",
            "Left out when they have signatures with a cosine of 0.95 or more with a row taken "
            "before.",
        ),
    ],
)
def test_settings_are_told_in_words(settings: dict, topic: str, words: str):
    config = type(CONFIG).model_validate(settings)
    assert settings_in_words(config, n_queries=3)[topic] == words


def test_files_are_named_without_the_folders_that_they_share():
    assert names_without_folder(["/a/b/x.jsonl", "/a/b/c/y.jsonl"]) == {
        "/a/b/x.jsonl": "x.jsonl",
        "/a/b/c/y.jsonl": "c/y.jsonl",
    }
    assert names_without_folder(["only/one.csv"]) == {"only/one.csv": "one.csv"}
