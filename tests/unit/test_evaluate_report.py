"""The page of an evaluation says which method to trust, shows texts as text, and loads nothing."""

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_tables import BY_LENGTH, CLEAR, KNOWN, NOTHING, effects, leave_evaluation
from page_checks import ATTRIBUTES, ELEMENTS, HOSTILE, Reader

from storage.errors import NotFoundError
from tasks.config import RuntimeConfig
from tasks.evaluate.report import write_evaluation_report
from tasks.evaluate.report_average import averaged_words, lds_means, lds_words, mean_of
from tasks.evaluate.report_data import DECIDING, Results, read_results
from tasks.evaluate.report_effects import LOOP_READING, TAIL_READING
from tasks.evaluate.report_lds import label_words, p_words
from tasks.evaluate.report_markdown import write_markdown
from tasks.evaluate.report_pictures import picture_urls, write_pictures
from tasks.evaluate.report_words import is_level, standfirst, title, verdict_words
from tasks.page.bytes_chart import Spot, against_bytes
from tasks.page.plots import HIGH, TOP

SVG = "{http://www.w3.org/2000/svg}"
ALL = {"clear": CLEAR, "by-length": BY_LENGTH, "nothing": NOTHING}


def results(work: Path, tasks: dict[str, Any], **changes: Any) -> Results:
    return read_results(leave_evaluation(work, tasks, **changes))


def said(found: Results) -> list[str]:
    return [verdict_words(found, found.verdict(place)) for place in found.places]


def draw(work: Path, **options: Any) -> str:
    return Path(write_evaluation_report(work, **options).path).read_text("utf-8")


# ------------------------------------------------------------------------------------ verdicts


def test_verdicts_name_the_best_what_is_level_and_what_shows_nothing(tmp_path: Path):
    clear, by_length, nothing = said(results(tmp_path, ALL))
    assert re.match(r"RISE (compact \(516 bytes|wide \(49.2 KB) a row\): 0\.\d{3} \(0\.", clear)
    assert "Level with it: RISE " in clear
    assert "BM25" not in clear
    assert by_length.startswith("Nothing: length does as well as the best method, RISE")
    assert "reaches down to shuffled right rows" in nothing


def test_the_headline_counts_tasks_that_decide_and_names_equals(tmp_path: Path):
    ahead = {**CLEAR, "RISE wide": 0.5}
    found = results(tmp_path / "one", {"one": ahead, "two": ahead, "nothing": NOTHING})
    verdicts = [found.verdict(place) for place in found.places]
    words = "RISE compact is best or level on 2 of the 2 tasks that decide, with 516 bytes a row"
    assert title(found, verdicts) == words
    told = standfirst(found, verdicts)
    assert told.startswith("Best: RISE compact on one and two. On nothing no method is above")
    both = results(tmp_path / "both", {"one": CLEAR, "two": CLEAR})
    words = title(both, [both.verdict(place) for place in both.places])
    names = {"RISE compact (516 bytes a row)", "RISE wide (49.2 KB a row)"}
    assert set(words.partition(" are each best")[0].split(" and ")) == names
    assert words.endswith("are each best or level on 2 of the 2 tasks that decide")


def test_a_single_task_that_decides_and_none(tmp_path: Path):
    one = results(tmp_path / "one", ALL)
    words = title(one, [one.verdict(place) for place in one.places])
    assert words.startswith("On clear, RISE ")
    assert words.endswith("is level with it; 2 other tasks decide nothing")
    none = results(tmp_path / "none", {"nothing": NOTHING})
    words = title(none, [none.verdict(place) for place in none.places])
    assert words == "Nothing is shown: no task can tell methods from shuffled rows and the controls"


def test_level_is_a_difference_by_query_that_may_be_nothing(tmp_path: Path):
    found = results(tmp_path, {"clear": CLEAR})
    (place,) = found.places
    standing = found.standing(place, DECIDING)
    columns = found.tables.per_query.to_pylist()
    own = {
        method: np.array(
            [
                line["value"]
                for line in columns
                if line["method"] == method and line["metric"] == "full_ap"
            ]
        )
        for method in CLEAR
    }
    assert standing.best == max(own, key=lambda method: own[method].mean())
    for method, values in own.items():
        difference = own[str(standing.best)] - values
        # far from 0, every resample is above it; where signs mix evenly, some are not
        if difference.mean() > 4 * difference.std() / np.sqrt(len(values)):
            assert method not in standing.level
    assert len(standing.level) == 1


def test_a_task_with_a_caveat_decides_nothing(tmp_path: Path):
    ahead = {**CLEAR, "RISE wide": 0.5}
    found = results(tmp_path, {"known": ahead, "one": ahead, "two": ahead})
    known = found.verdict(found.places[0])
    assert not known.decides
    assert verdict_words(found, known).startswith(f"Nothing: {KNOWN}. Highest is RISE compact (")
    words = standfirst(found, [found.verdict(place) for place in found.places])
    assert f"known decides nothing: {KNOWN}." in words


def test_a_control_is_never_best_nor_level(tmp_path: Path):
    found = results(tmp_path, {"by-length": BY_LENGTH})
    (place,) = found.places
    assert found.ranked(place)[0].name == "length"
    for key in found.metrics(place):
        standing = found.standing(place, key)
        assert "length" not in {standing.best, *standing.level}


def test_averages_take_tasks_that_decide_and_each_pool_once(tmp_path: Path):
    tasks = {"one": CLEAR, "two plain": CLEAR, "two moved": BY_LENGTH | {"length": 0.0}}
    found = results(tmp_path, {**tasks, "known": CLEAR, "by-length": BY_LENGTH})
    own = {
        place.task: found.measure(place, "RISE compact", DECIDING).value for place in found.places
    }
    mean = mean_of(found, "RISE compact", DECIDING)
    wanted = (own["one"] + (own["two plain"] + own["two moved"]) / 2) / 2
    assert mean.value == pytest.approx(wanted)
    assert mean.low < mean.value < mean.high
    words = "mean over tasks that decide, 2 pools of rows: one; two plain and two moved"
    assert averaged_words(found) == words
    alone = results(tmp_path / "alone", {"one": CLEAR})
    measured = alone.measure(alone.places[0], "BM25", DECIDING)
    ends = mean_of(alone, "BM25", DECIDING)
    assert (ends.low, ends.high) == (measured.low, measured.high)


def test_what_training_does_is_said_where_it_is_above_noise(tmp_path: Path):
    lines = effects("clear")
    found = results(tmp_path / "sure", {"clear": CLEAR}, **lines)
    assert "foretold best by RISE compact on clear (LDS 0.600)" in standfirst(found, [])
    rise = next(line for line in lines["lds"] if line["method"] == "RISE compact")
    rise["to_label_low"] = -0.1
    level = results(tmp_path / "level", {"clear": CLEAR}, **lines)
    assert "(LDS 0.600, level with the label alone)" in standfirst(level, [])
    other = next(line for line in lines["lds"] if line["method"] == "BM25")
    other["to_best_high"] = 0.01
    both = results(tmp_path / "both", {"clear": CLEAR}, **lines)
    words = "(LDS 0.600, level with the label alone; BM25 is level with it)"
    assert words in standfirst(both, [])
    lines["lds"] += [{**other, "method": name} for name in ("RISE wide", "third")]
    many = results(tmp_path / "many", {"clear": CLEAR}, **lines)
    assert "alone; 3 methods are level with it)" in standfirst(many, [])
    rise["p_holm"] = 0.06
    unsure = results(tmp_path / "unsure", {"clear": CLEAR}, **lines)
    told = standfirst(unsure, [])
    assert "clear (highest LDS 0.600) no method foretells better than its own scores" in told


def test_lds_is_level_with_the_best_and_with_the_label_by_intervals_of_differences():
    apart, level = (line for line in effects("clear")["lds"] if line["kind"] == "method")
    assert (is_level(apart), is_level(level)) == (False, False)
    assert (label_words(apart), label_words(level)) == ("above", "level")
    assert (p_words(apart), p_words(level)) == ("0.002", "0.300")
    changed = {**level, "to_best_high": 0.01, "to_label_high": -0.1}
    assert is_level(changed)
    assert label_words(changed) == "below"


# ---------------------------------------------------------------------------------------- page


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("hostile")
    return leave_evaluation(work, ALL, words=HOSTILE, **effects("clear"))


def test_hostile_texts_stay_text_and_a_page_loads_nothing(hostile: Path):
    html = draw(hostile)
    found = Reader(html)
    assert {name for name, _ in found.elements} <= set(ELEMENTS.split())
    assert {name for _, attributes in found.elements for name in attributes} <= set(
        ATTRIBUTES.split()
    )
    assert "Title: <script>alert(1)</script>" in found.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u200b\ufeff]", html)
    links = [attributes["href"] for _, attributes in found.elements if "href" in attributes]
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link) for link in links} <= {f"#{one}" for one in ids}
    for name, attributes in found.elements:
        if name == "svg" and attributes.get("role") == "img":
            assert attributes["aria-label"]


def test_every_part_is_there_and_the_same_tables_give_the_same_page(tmp_path: Path):
    work = leave_evaluation(tmp_path, {"clear": CLEAR}, **effects("clear"))
    html = draw(work)
    assert draw(work) == html
    text = Reader(html).text
    for words in (
        *("60 of 1,000", "AP, all rows", "auPRC@5", "auPRC@20", "corr. with length"),
        *("Precision over recall", "auPRC@20 against bytes a row", "LDS against bytes a row"),
        *(
            "length control",
            "control: about 0",
            "control: the label alone",
            "Reliability of the losses",
        ),
        *("14 s a training", "3.910 before, 3.745 after", "3 queries were left out", "2 of BM25"),
        *(
            "positions of rows",
            "completion",
            "better than random rows",
            "not told from random rows",
            "not passed",
        ),
        "excludes 0 (not corrected for the number of methods). Tokens",
        "Verdicts are not corrected for the number of methods.",
        *("rise evaluate x.yaml", "a note", "weights do not fit", "shuffled right rows"),
        *("base rate", "What the words mean", "linear datamodeling score: rank correlation"),
    ):
        assert words in text
    assert text.count("passed") == 2  # RISE passes, BM25 does not
    assert "+9.00+2.00+7.00+5.00 to +9.00" in text  # tail-patch of RISE, in mnat


def test_private_strings_in_examples_are_masked(tmp_path: Path):
    work = leave_evaluation(
        tmp_path, {"clear": CLEAR}, words=["plain", "mail jane.doe@mail-host.org now"]
    )
    examples = draw(work).partition('id="examples"')[2].partition("</section>")[0]
    assert "now" in examples
    assert "jane.doe" not in examples


def test_a_page_without_index_or_model_says_why_it_has_no_highlights(tmp_path: Path):
    work = leave_evaluation(tmp_path, {"clear": CLEAR})
    page = write_evaluation_report(work, highlights=True, runtime=RuntimeConfig(device="cpu"))
    assert re.match("the index of RISE .* is not in", page.no_highlights or "")
    assert "No token highlights: the index of RISE" in Path(page.path).read_text("utf-8")


def test_an_evaluation_without_any_score_is_still_told(tmp_path: Path):
    page = write_evaluation_report(leave_evaluation(tmp_path, {"clear": {}}))
    assert page.title == "No method has scores."


def test_no_results_are_an_error(tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"results\.json"):
        write_evaluation_report(tmp_path)


# -------------------------------------------------------------------------- pictures, Markdown


def test_pictures_are_whole_files_that_load_nothing(hostile: Path, tmp_path: Path):
    written = write_pictures(hostile, tmp_path)
    assert [path.name for path in written] == ["methods.svg", "bytes.svg", "lds.svg"]
    for path in written:
        picture = ET.fromstring(path.read_text("utf-8"))
        assert picture.tag == f"{SVG}svg"
        style = picture.findtext(f"{SVG}style") or ""
        assert "url(" not in style
        assert "@import" not in style
        assert path.stat().st_size < 40_000
    words = [one.text for one in ET.fromstring(written[0].read_text("utf-8")).iter(f"{SVG}text")]
    assert {"RISE compact", "516 B", "clear"} <= set(words)
    urls = picture_urls(hostile)
    assert set(urls) == {"methods", "bytes", "lds"}
    assert all(url.startswith("data:image/svg+xml;base64,") for url in urls.values())


def test_heads_of_the_picture_of_methods_keep_apart(tmp_path: Path):
    names = ["howdy-plain", "howdy-moved", "howdy-completion", "quality-headlines"]
    work = leave_evaluation(
        tmp_path / "work", {f"{n}-{name}": CLEAR for n in "ab" for name in names}
    )
    path = write_pictures(work, tmp_path)[0]
    texts = list(ET.fromstring(path.read_text("utf-8")).iter(f"{SVG}text"))
    heads = [one for one in texts if one.get("text-anchor") == "middle" and one.text[0].isalpha()]
    assert "completion" in {one.text for one in heads}
    for y in {one.get("y") for one in heads}:
        line = sorted((float(one.get("x")), len(one.text)) for one in heads if one.get("y") == y)
        for (x, n_chars), (next_x, next_chars) in pairwise(line):
            assert x + 3.8 * n_chars < next_x - 3.8 * next_chars


def test_markdown_explains_what_misleads(tmp_path: Path):
    page = write_markdown(leave_evaluation(tmp_path / "work", ALL), tmp_path / "results.md")
    words = page.read_text("utf-8")
    assert "auROC skips a query whose highest and lowest rows are all right or all wrong" in words
    assert re.search(r"skipped of 12 queries, @5: .*BM25 \d", words)
    assert "### Words" in words
    assert "by-length †" in words


def test_points_of_the_same_bytes_stand_side_by_side_and_no_bar_leaves_the_picture():
    spots = [
        Spot(n_bytes, value, value - 0.3, value + 0.1, f"m{number}", "", "k1")
        for number, (n_bytes, value) in enumerate([(0.0, 0.1), (0.0, 0.12), (0.0, 0.5), (600, 0.4)])
    ]
    picture = ET.fromstring(str(against_bytes(spots, alt="LDS")))
    bars = [one for one in picture.iter() if one.get("class") == "mark"]
    places = [float((one.get("x1") or "").rstrip("%")) for one in bars]
    assert len(set(places)) == 4
    assert max(places[:3]) < 20 < places[3]
    assert max(float(one.get("y1") or 0) for one in bars) < HIGH + TOP  # above the axis
    assert min(float(one.get("y2") or 0) for one in bars) > 0


def test_lds_takes_a_pool_once_and_its_interval_pools_as_independent(tmp_path: Path):
    tasks = {"one a": CLEAR, "one b": CLEAR, "two": CLEAR}  # of two pools
    lines = []
    for name, value, low, high in (
        ("one a", 0.2, 0.1, 0.4),
        ("one b", 0.6, 0.3, 0.8),
        ("two", 0.8, 0.4, 0.9),
    ):
        (own,) = (line for line in effects(name)["lds"] if line["method"] == "RISE compact")
        lines.append({**own, "value": value, "low": low, "high": high})
    lines.append(next(line for line in effects("two")["lds"] if line["method"] == "BM25"))
    read = results(tmp_path, tasks, lds=lines)
    found = lds_means(read).get("RISE compact")
    assert found is not None
    assert found.value == pytest.approx((0.4 + 0.8) / 2)
    assert found.low == pytest.approx(0.6 - math.hypot(0.2, 0.4) / 2)
    assert found.high == pytest.approx(0.6 + math.hypot(0.2, 0.1) / 2)
    assert lds_means(read).get("BM25") is None  # it lacks two of the tasks
    assert lds_words(read) == "mean over tasks, 2 pools of rows: one a and one b; two"


def test_markdown_stays_between_its_marks(tmp_path: Path):
    work = leave_evaluation(tmp_path / "work", ALL, words=["a|b <i>"], **effects("clear"))
    page = tmp_path / "docs" / "results.md"
    write_markdown(work, page)
    first = page.read_text("utf-8")
    assert first.startswith("# Results\n")
    assert r"a\|b \<i\>" in first
    assert "| **RISE compact** | 516 bytes |" in first
    assert "| **RISE compact** | completion | 516 bytes |" in first
    assert "| length |  | 4 bytes |" in first
    page.write_text(f"Before.\n{first}After.\n", "utf-8")
    write_markdown(work, page)
    assert page.read_text("utf-8") == f"Before.\n{first}After.\n"
    write_markdown(work, page, name="again")
    found = page.read_text("utf-8")
    assert found.count("### LDS") == 2
    assert re.search(r"\| length \| clear[^|]*\| control \| 0\.650", found)
    assert "that interval excludes 0 (not corrected for the number of methods)." in first
    assert "Verdicts are not corrected for the number of methods." in first
    assert "clear: 8 subsets of 8 of 16 rows, 6 queries; 14 s a training" in first
    assert "| +9.00 | +2.00 | +7.00 (+5.00 to +9.00) |" in first  # tail-patch of RISE, in mnat
    assert TAIL_READING in first
    assert LOOP_READING in first
    assert "- **recovered**: of what the oracle gains" in first
    tables = re.findall(r"(?:^\|.*\n)+", first, re.MULTILINE)
    assert len(tables) == 10
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_marks_that_are_torn_are_an_error(tmp_path: Path):
    work = leave_evaluation(tmp_path / "work", {"clear": CLEAR})
    page = tmp_path / "results.md"
    page.write_text("<!-- evaluation results: begin -->\n", "utf-8")
    with pytest.raises(ValueError, match="put it back"):
        write_markdown(work, page)
    with pytest.raises(ValueError, match="letters, digits and dashes"):
        write_markdown(work, page, name="a b")
