"""Whatever text comes, a page shows it as text and hides what is masked."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from tasks.page.markup import tag
from tasks.page.parts import Hidden, differing, passage
from tasks.page.scales import Scale
from tasks.page.text import shortened, visible

MARKS = "<>&\"'/=`\x00\x1b\x7f\x85\u200b\u202e\u2066\ufeff\U000e0041 \n\rab"
TEXTS = st.text(st.one_of(st.sampled_from(MARKS), st.characters()), max_size=60)


class Reader(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.values: list[str | None] = []
        self.text = ""
        self.feed(str(html))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data):
        self.text += data


@given(TEXTS)
def test_an_element_holds_its_text_and_nothing_more(words: str):
    found = Reader(tag("p", words, title=words))
    assert found.tags == ["p"]
    assert found.values == [visible(words)]
    assert found.text == visible(words)


@given(TEXTS)
def test_nothing_hidden_is_left(words: str):
    shown = visible(words)
    assert visible(shown) == shown
    assert not any(0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in shown)
    assert not any(ord(c) < 32 and c not in "\t\n" for c in shown)
    shown.encode()


@given(st.text("abc\n <", max_size=50), st.integers(0, 60), st.integers(0, 60), st.data())
def test_a_passage_shows_all_but_the_masks(words: str, n_chars: int, prompt: int, data):
    ends = data.draw(st.lists(st.integers(0, len(words)), max_size=6, unique=True).map(sorted))
    hidden = [Hidden(a, b, "*" * (b - a)) for a, b in zip(ends[::2], ends[1::2], strict=False)]
    found = Reader(passage(words, n_chars, prompt_chars=prompt, hidden=hidden))
    masked = list(words)
    for one in hidden:
        masked[one.start : one.stop] = one.shown
    shown = found.text.partition(" … [")[0]
    assert "".join(masked).startswith(shown)
    assert len(shown) >= min(n_chars, len(words))


@given(TEXTS, TEXTS)
def test_marking_differences_changes_no_word(words: str, other: str):
    for side, given_words in zip(differing(words, other, 100), (words, other), strict=True):
        assert Reader(side).text.split() == visible(given_words).split()


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(1, 8))
def test_ticks_lie_on_the_scale(low: float, span: float, n_most: int):
    scale = Scale(low, low + span)
    ticks = scale.ticks(n_most)
    assert 1 <= len(ticks) <= n_most
    assert ticks == sorted(set(ticks))
    margin = 1e-6 * span + 1e-9 * abs(low)
    assert all(low - margin <= tick <= low + span + margin for tick in ticks)


@given(TEXTS, st.integers(3, 40))
def test_shortened_names_fit(words: str, n_chars: int):
    assert len(shortened(words, n_chars)) <= n_chars
