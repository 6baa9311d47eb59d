"""What users and rows name shows in a dataset card as it is, and does nothing.

The card is read by a Markdown parser that lets HTML through, as the ones on hubs do: what is not
escaped would come out as a tag, a link or another line of a table.
"""

from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tasks.dataset_card import code_block, markdown_text

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60),
    st.text("\\`*_{}[]()#+-.!|<>&\"'~$^:;=/ \nab1", max_size=40),
)
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://tracker/x.png)",
    "<http://autolink.example>",
    "a | b | c",
    "| --- |",
    "\\| <b>",
    "`code` and ``more``",
    "&lt;b&gt; &#60;i&#62;",
    "***bold*** __under__ ~~gone~~",
    "one\n\n# two",
    "]: http://x",
    "$x$ ^a^ :smile:",
]


class Page(HTMLParser):
    """The tags of a page and its text."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(
            MarkdownIt("commonmark", {"html": True})
            .enable(["table", "strikethrough"])
            .render(markdown)
        )
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_comment(self, data):
        self.tags.append("comment")

    def handle_data(self, data):
        self.text += data


def shown(text: str) -> str:
    return " ".join(text.split())


def hostile(test):
    for text in HOSTILE:
        test = example(text)(test)
    return test


@hostile
@given(TEXTS)
def test_a_table_cell_shows_the_text_and_nothing_else(text):
    page = Page(f"| name | rows |\n| --- | --- |\n| {markdown_text(text)} | 3 |\n")
    assert page.tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert shown(page.text) == shown(f"name rows {text} 3")


@hostile
@given(TEXTS)
def test_a_heading_and_a_sentence_show_the_text_and_nothing_else(text):
    page = Page(f"# Name {markdown_text(text)}\n\nSelected by {markdown_text(text)}, as asked.\n")
    assert page.tags == ["h1", "p"]
    assert shown(page.text) == shown(f"Name {text} Selected by {shown(text)}, as asked.")


@hostile
@given(TEXTS)
@example("```\n<script>alert(1)</script>\n```")
@example("````` ~~~~")
def test_a_block_cannot_be_left(text):
    page = Page(f"{code_block(text, 'json')}\nafter\n")
    assert page.tags == ["pre", "code", "p"]
    assert page.text.rstrip().endswith("after")
    assert shown(text) in shown(page.text)


def test_the_parser_sees_what_is_not_escaped():
    """The tests above can fail: the same texts, as they are, do become tags."""
    seen = {tag for text in HOSTILE for tag in Page(f"x {text}\n").tags}
    assert {"script", "img", "a", "strong", "code", "h1"} <= seen


@pytest.mark.parametrize("text", HOSTILE)
def test_one_line_stays_one_line(text):
    assert "\n" not in markdown_text(text)
