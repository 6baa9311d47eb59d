"""Every mapping ends in one text and the length of its prompt, or in a reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.backbone import RowTokenizer
from tasks.config import (
    AutoFields,
    ChatFields,
    Fields,
    InstructionFields,
    PromptCompletionFields,
    TextFields,
)
from tasks.fields import RowError, resolve_fields, scalar_string, to_text

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine, thank you"}]

plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
filled_text = plain_text.filter(str.strip)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": CHAT, "text": "x"}, ChatFields()),
        ({"instruction": "a", "output": "b", "prompt": "c"}, InstructionFields()),
        ({"prompt": "a", "completion": "b", "text": "x"}, PromptCompletionFields()),
        ({"prompt": "a", "text": "ab"}, TextFields()),
    ],
)
def test_auto_chooses_by_the_fields_that_are_there(
    record: dict[str, Any], expected: Fields
) -> None:
    assert resolve_fields(AutoFields(), record) == expected


def test_auto_names_what_it_looked_for_and_what_was_there() -> None:
    with pytest.raises(RowError, match=r"missing field: expected 'messages', .*has 'body', 'id'"):
        resolve_fields(AutoFields(), {"body": "x", "id": 1})


def test_a_named_mapping_is_taken_as_it_is() -> None:
    assert resolve_fields(TextFields(text="body"), {"messages": CHAT}) == TextFields(text="body")


@given(prompt=plain_text, separator=plain_text, completion=filled_text)
def test_prompt_and_completion_meet_at_the_border(
    row_tokenizer: RowTokenizer, prompt: str, separator: str, completion: str
) -> None:
    fields = PromptCompletionFields(separator=separator)
    text, border = to_text({"prompt": prompt, "completion": completion}, fields, row_tokenizer)
    assert text[:border] == prompt + separator
    assert text[border:] == completion


@given(prompt=plain_text, rest=filled_text)
def test_a_prompt_field_marks_a_prefix(row_tokenizer: RowTokenizer, prompt: str, rest: str) -> None:
    record = {"prompt": prompt, "text": prompt + rest}
    assert to_text(record, TextFields(prompt="prompt"), row_tokenizer) == (
        prompt + rest,
        len(prompt),
    )


@pytest.mark.parametrize("extra", [{}, {"input": None}, {"input": ""}, {"input": " \n"}])
def test_an_instruction_without_input_has_two_headings(
    row_tokenizer: RowTokenizer, extra: dict[str, Any]
) -> None:
    record = {"instruction": "Name {a} colour.", "output": "Blue.", **extra}
    text, border = to_text(record, InstructionFields(), row_tokenizer)
    assert text == "### Instruction:\nName {a} colour.\n\n### Response:\nBlue."
    assert text[border:] == "Blue."


@pytest.mark.parametrize(("extra", "prompt"), [("1, 2", "Add.\n1, 2\n"), ("", "Add.\n")])
def test_a_plain_instruction_has_a_line_each(
    row_tokenizer: RowTokenizer, extra: str, prompt: str
) -> None:
    record = {"instruction": "Add.", "input": extra, "output": "3"}
    text, border = to_text(record, InstructionFields(style="plain"), row_tokenizer)
    assert text == f"{prompt}3"
    assert border == len(prompt)


def test_an_instruction_with_input_has_three(row_tokenizer: RowTokenizer) -> None:
    record = {"instruction": "Add.", "input": "1, 2", "output": "3"}
    text, border = to_text(record, InstructionFields(), row_tokenizer)
    assert text == "### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n3"
    assert text[border:] == "3"


def test_the_last_assistant_turn_is_the_completion(row_tokenizer: RowTokenizer) -> None:
    text, border = to_text({"messages": CHAT}, ChatFields(), row_tokenizer)
    assert text[border:].startswith("fine, thank you")
    assert "hello" in text[:border]


PAIR = TextFields(prompt="prompt")


@pytest.mark.parametrize(
    ("fields", "record", "reason"),
    [
        (TextFields(), {"body": "x"}, "missing field: expected 'text', the record has 'body'"),
        (TextFields(), {}, "missing field: expected 'text', the record has no fields"),
        (TextFields(), {"text": 3}, "wrong type: 'text' must be a string, it is a number"),
        (TextFields(), {"text": True}, "'text' must be a string, it is true or false"),
        (TextFields(), {"text": None}, "'text' must be a string, it is null"),
        (TextFields(), {"text": b"x"}, "'text' must be a string, it is a value of type bytes"),
        (TextFields(), {"text": ""}, "empty text: 'text' holds nothing but white space"),
        (TextFields(), {"text": " \n\t"}, "empty text: 'text' holds nothing but white space"),
        (TextFields(), {"text": "a\0b"}, "not text: the text has a NUL character at character 1"),
        (TextFields(), {"text": "ab\ud800"}, "lone surrogate U+D800 at character 2"),
        (PAIR, {"text": "abc"}, "missing field: expected 'prompt', the record has 'text'"),
        (PAIR, {"text": "abc", "prompt": 1}, "'prompt' must be a string, it is a number"),
        (PAIR, {"text": "abc", "prompt": "abcd"}, "prompt too long: 'prompt' has 4 characters"),
        (PAIR, {"text": "abc", "prompt": "ax"}, "prompt not a prefix: 'prompt' must be the"),
        (PromptCompletionFields(), {"prompt": "a"}, "expected 'completion'"),
        (PromptCompletionFields(), {"prompt": "a", "completion": ""}, "empty text: 'completion'"),
        (InstructionFields(), {"instruction": "a"}, "expected 'output'"),
        (InstructionFields(), {"instruction": "", "output": "b"}, "empty text: 'instruction'"),
        (
            InstructionFields(),
            {"instruction": "a", "input": 5, "output": "b"},
            "wrong type: 'input' must be a string",
        ),
        (ChatFields(), {"messages": "hi"}, "'messages' must be a list, it is a string"),
        (ChatFields(), {"messages": []}, "empty text: 'messages' has no message"),
        (ChatFields(), {"messages": ["hi"]}, "message 1 of 'messages' must be an object"),
        (
            ChatFields(),
            {"messages": [{"role": "user"}]},
            "missing field: expected 'content', the record has 'role' (message 1 of 'messages')",
        ),
        (ChatFields(), {"messages": CHAT[:1]}, "must have the role 'assistant', it has 'user'"),
        (
            ChatFields(),
            {"messages": [CHAT[0], {"role": "assistant", "content": " "}]},
            "empty text: 'content' holds nothing",
        ),
        (
            ChatFields(),
            {"messages": [{"role": "user", "content": "\ud83d"}, CHAT[1]]},
            "not text: message 1 of 'messages' has the lone surrogate U+D83D",
        ),
    ],
)
def test_what_does_not_fit_gets_a_reason(
    row_tokenizer: RowTokenizer, fields: Any, record: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RowError) as raised:
        to_text(record, fields, row_tokenizer)
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    ("value", "expected"), [("a7", "a7"), (7, "7"), (-1, "-1"), ("007", "007")]
)
def test_ids_are_strings_or_whole_numbers(value: Any, expected: str) -> None:
    assert scalar_string({"id": value}, "id", what="id") == expected


@pytest.mark.parametrize("value", [1.0, True, None, "", ["a"], {"a": 1}, "a\0", "\ud800"])
def test_other_ids_are_refused(value: Any) -> None:
    with pytest.raises(RowError, match="id"):
        scalar_string({"id": value}, "id", what="id")
