"""The parts of a page show what they are given, as text and as pictures, and nothing else."""

import base64
import hashlib
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from tasks.page import text
from tasks.page.markup import TEMPLATES, tag
from tasks.page.parts import Column, Hidden, differing, facts, passage, table, tokens
from tasks.page.plots import Layer, Mark, Point, bar, dumbbell, histogram, outlines, scatter
from tasks.page.scales import Scale, tick_label
from tasks.page.shell import Headline, Section, page

MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


class Reader(HTMLParser):
    """What a browser finds in a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(str(html))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def text(self) -> str:
        return "".join(self.texts)


@dataclass(frozen=True)
class Token:
    token: str
    contribution: float
    share: float = 0.1


# ---------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\x00b", "a⟨U+0000⟩b"),
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
        ("one\r\ntwo\ttab", "one\ntwo\ttab"),
        ("\ud800", "\N{REPLACEMENT CHARACTER}"),
        ("שלום می‌خواهم 👩‍🚀", "שלום می‌خواهم 👩‍🚀"),
    ],
)
def test_what_cannot_be_seen_is_named(given: str, shown: str):
    assert text.visible(given) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *[(0, "0"), (1234567, "1,234,567"), (-3, f"{MINUS}3"), (0.04493, "0.0449")],
        *[
            (1234.0, "1,234"),
            (5.3e-11, f"5.3e{MINUS}11"),
            (-0.5, f"{MINUS}0.5"),
            (2.0, "2"),
            (None, DASH),
        ],
    ],
)
def test_numbers(value: float | None, shown: str):
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        *[(0.0, "0%"), (1.0, "100%"), (0.9996, "99.96%"), (0.0732, "7.3%"), (0.5, "50%")],
        *[(0.0004, "<0.1%"), (None, DASH), (-0.02, f"{MINUS}2.0%")],
    ],
)
def test_shares_never_round_to_all_or_nothing(part: float | None, shown: str):
    assert text.percent(part) == shown


def test_sizes_times_and_counts():
    assert [text.size(n) for n in (0, 999, 1000, 4_200_000)] == [
        "0 bytes",
        "999 bytes",
        "1.0 KB",
        "4.2 MB",
    ]
    assert [text.duration(s) for s in (0.42, 12.4, 3930.0)] == ["0.4 s", "12 s", "1:05:30"]
    assert text.count(1, "query", "queries") == "1 query"
    assert text.count(1200, "query", "queries") == "1,200 queries"
    assert text.listed(["a", "b", "c"]) == "a, b and c"


def test_long_names_keep_both_ends():
    found = text.shortened("/a/very/long/folder/of/mine/train.jsonl", 20)
    assert len(found) == 20
    assert found.startswith("/a/very")
    assert found.endswith("jsonl")


# -------------------------------------------------------------------------------------- markup


def test_elements_and_templates_escape_what_they_are_given():
    hostile = '</td><script>alert("1")</script>\u202e'
    made = tag("p", hostile, title=hostile)
    drawn = table([Column(hostile)], [[hostile]], caption=hostile)
    for html in (made, drawn):
        found = Reader(html)
        assert not found.named("script")
        assert text.visible(hostile) in found.text
        assert "\u202e" not in html
    assert Reader(made).named("p") == [{"title": text.visible(hostile)}]


def test_markup_is_not_escaped_twice():
    assert tag("p", tag("b", "x & y")) == Markup("<p><b>x &amp; y</b></p>")


# --------------------------------------------------------------------------------------- parts


def test_a_table_names_its_columns_and_rows():
    found = Reader(table([Column("what"), Column("n", "number")], [["a", 1234], ["b", None]]))
    assert [one["scope"] for one in found.named("th")] == ["col", "col", "row", "row"]
    assert "1,234" in found.text
    assert DASH in found.text


def test_facts_keep_names_beside_values():
    found = Reader(facts({"rows": "12"}))
    assert [tag for tag, _ in found.elements] == ["dl", "div", "dt", "dd"]


def test_a_passage_masks_and_says_what_is_left_out():
    words = "write to ann@example.org or not, " * 3
    hidden = [Hidden(9, 24, "xxx@xxxxxxx.xxx"), Hidden(42, 57, "xxx@xxxxxxx.xxx")]
    html = passage(words, 45, prompt_chars=5, hidden=hidden)
    assert "ann@example.org" not in html.replace("ann@example.org or not, write", "")
    found = Reader(html)
    assert found.text.startswith("write to xxx@xxxxxxx.xxx or not")
    # the mask that begins inside is shown whole, and nothing of the string behind the cut
    assert "ple.org" not in found.text
    assert f"[{len(words) - 57} characters more]" in found.text
    assert found.named("span")[0] == {"class": "prompt"}


def test_the_strongest_token_is_the_darkest_and_negative_ones_differ():
    html = tokens([Token("a", 0.5), Token("b", 1.0), Token("c", -0.5), Token("d", 0.001)], n_most=9)
    found = Reader(html)
    assert [one["class"] for one in found.named("mark")] == ["p4", "p6", "n4"]
    assert found.text == "abcd"


def test_of_many_tokens_those_around_the_strongest_are_shown():
    shares = [Token(f"{n} ", 1.0 if n == 70 else 0.1) for n in range(100)]
    shown = Reader(tokens(shares, n_most=10, before="prompt ")).text
    assert "70 " in shown
    assert shown.startswith("… ")
    assert shown.endswith(" …")
    assert len(re.findall(r"\d+ ", shown)) == 10


def test_tokens_without_any_contribution_are_plain():
    assert Reader(tokens([Token("a", 0.0)], n_most=3, before="p ")).text == "p a"


def test_differing_texts_keep_their_words():
    left, right = (Reader(side) for side in differing("one two three", "one 2 three", 100))
    assert (left.text, right.text) == ("one two three", "one 2 three")
    assert len(left.named("mark")) == len(right.named("mark")) == 1


# --------------------------------------------------------------------------------------- plots


def test_ticks_are_round_and_few():
    assert Scale(0.0, 1.0).ticks(5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Scale(-0.017, 0.2).ticks(5) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert tick_label(0.25, [0.0, 0.25]) == "0.25"
    assert tick_label(-20_000, [-20_000, 0]) == f"{MINUS}20k"
    assert Scale(3.0, 3.0).ticks(4) == [3.0]


def test_bars_of_a_histogram_are_as_high_as_their_counts():
    layers = [Layer("a", "selected", [1, 0, 4]), Layer("b", "dropped", [1, 2, 0])]
    html = histogram([0.0, 1.0, 2.0, 3.0], layers, alt="three bins", marks=[Mark(1.5, "cut")])
    found = Reader(html)
    heights = [float(rect["height"] or 0) for rect in found.named("rect")]
    assert heights == pytest.approx([60.0, 240.0, 60.0, 120.0])
    assert found.named("svg")[0]["aria-label"] == "three bins"
    assert "cut" in found.text


def test_a_single_row_among_a_million_is_still_drawn():
    layers = [Layer("a", "candidate", [1_000_000, 0]), Layer("b", "selected", [0, 1])]
    found = Reader(histogram([0.0, 1.0, 2.0], layers, alt="two bins"))
    assert min(float(rect["height"] or 0) for rect in found.named("rect")) >= 1.0


def test_pictures_say_what_they_show_and_give_the_same_bytes():
    pictures = [
        lambda: outlines([Layer("a", "filled", [0.5, 0.5])], alt="x", ticks=[(0.0, "1")]),
        lambda: scatter([Point(1.0, 2.0, "p", "selected")], alt="x", names=("a", "b")),
    ]
    for draw in pictures:
        assert draw() == draw()
        assert Reader(draw()).named("svg")[0]["role"] == "img"
    for cell in (bar([(50.0, "selected")], marks=[20.0]), dumbbell(10.0, 90.0)):
        assert Reader(cell).named("svg")[0]["aria-hidden"] == "true"


# --------------------------------------------------------------------------------------- shell


def test_the_policy_allows_the_pages_own_style_and_nothing_else():
    html = page(
        Headline("kicker", "Title & more", "words", [("1", "row")]),
        [Section("First one", "Says something", tag("p", "x"))],
        footer="end",
    )
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    found = Reader(html)
    (policy,) = (m["content"] for m in found.named("meta") if "http-equiv" in m)
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "style" not in {name for _, attributes in found.elements for name in attributes}
    assert found.named("section")[0]["id"] == "first-one"
    assert {"href": "#first-one"} in found.named("a")
    assert found.named("html") == [{"lang": "en"}]


# --------------------------------------------------------------------------------------- style


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _over(paper: str, tint: str, part: float) -> str:
    below = [int(paper[at : at + 2], 16) for at in (1, 3, 5)]
    above = [int(number) for number in tint.split(",")]
    mixed = [round(b * (1 - part) + a * part) for b, a in zip(below, above, strict=True)]
    return "#" + "".join(f"{number:02x}" for number in mixed)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_can_be_read_in_both_schemes(scheme: int):
    style = (TEMPLATES / "page.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6}|\d+, \d+, \d+)", blocks[scheme]))
    for name in ("ink", "soft", "selected", "dropped"):
        assert _contrast(colours["paper"], colours[name]) >= 4.5, name
    assert _contrast(colours["only"], colours["ink"]) >= 4.5
    for sign in ("positive", "negative"):
        strongest = re.findall(rf"rgba\(var\(--{sign}\), ([.\d]+)\)", style)[-1]
        tinted = _over(colours["paper"], colours[sign], float(strongest))
        assert _contrast(tinted, colours["ink"]) >= 4.5, sign
