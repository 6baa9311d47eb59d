"""Tokens that hold parts of characters are read as the text that they are parts of."""

import pytest

from tasks.report_tokens import BROKEN, Piece, readable_pieces


def pieces(*tokens: str) -> list[Piece]:
    return [Piece(token, 1.0, 0.25) for token in tokens]


def test_plain_tokens_stay_and_the_beginning_is_told():
    before, found = readable_pieces(pieces("two", " three"), "one two three")
    assert before == "one "
    assert found == pieces("two", " three")


@pytest.mark.parametrize(
    ("tokens", "text", "shown"),
    [
        (("a ", BROKEN, BROKEN, " b"), "x a 日 b", ["a ", "日", " b"]),
        ((BROKEN, BROKEN * 2, "c"), "日本c", ["本", "c"]),
        (("a", BROKEN, BROKEN), "a日本", ["a", "日本"]),
        (("é", f" {BROKEN}", BROKEN, "!"), "é 👩!", ["é", " 👩", "!"]),
    ],
)
def test_parts_of_characters_are_put_together(tokens, text, shown):
    before, found = readable_pieces(pieces(*tokens), text)
    assert [piece.token for piece in found] == shown
    assert before + "".join(shown) == text
    assert sum(piece.contribution for piece in found) == len(tokens)


def test_tokens_of_another_text_stay_as_they_are():
    before, found = readable_pieces(pieces("one", BROKEN, "two"), "something else")
    assert before == ""
    assert [piece.token for piece in found] == ["one", BROKEN, "two"]
