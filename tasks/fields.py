"""From a record's fields to one text and the length of its prompt.

Every mapping ends in ``(text, prompt_chars)``: the model reads ``text``; its first
``prompt_chars`` characters are the prompt, which may be masked. A record that does not fit
raises `RowError` with a reason for the person who made the file; reasons start with their kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tasks.config import (
    AutoFields,
    ChatFields,
    Fields,
    InstructionFields,
    PromptCompletionFields,
    TextFields,
)
from tasks.text_files import json_type

NamedFields = TextFields | PromptCompletionFields | InstructionFields | ChatFields
"""A mapping that says which fields it reads; what `AutoFields` becomes."""

INSTRUCTION_PROMPT = "### Instruction:\n{instruction}\n\n### Response:\n"
INSTRUCTION_INPUT_PROMPT = (
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
"""Alpaca's headings without its opening sentences, which would be the same in every row and so
would make every two rows alike."""

SHOWN_FIELDS = 12
"""Field names that a message lists at most."""


class RowError(ValueError):
    """A record that does not become a row; the message is the reason, its kind first."""


class Tokenizer(Protocol):
    """What reading rows needs of a tokenizer."""

    @property
    def fingerprint(self) -> str:
        """Digest of everything that decides how text becomes tokens."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, as the model would read it."""

    def render_chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
        """Return a conversation as text and the characters before its last assistant turn."""


def resolve_fields(fields: Fields, record: Mapping[str, Any]) -> NamedFields:
    """Return the mapping that ``auto`` means for records like this one.

    The first that fits: ``messages``; ``instruction`` and ``output``; ``prompt`` and
    ``completion``; ``text``.

    Raises:
        RowError: None fits.
    """
    if not isinstance(fields, AutoFields):
        return fields
    if "messages" in record:
        return ChatFields()
    if "instruction" in record and "output" in record:
        return InstructionFields()
    if "prompt" in record and "completion" in record:
        return PromptCompletionFields()
    if "text" in record:
        return TextFields()
    raise RowError(
        "missing field: expected 'messages', 'instruction' and 'output', 'prompt' and "
        f"'completion', or 'text'; the record has {_names(record)}. Name the fields in rows.fields"
    )


def to_text(
    record: Mapping[str, Any], fields: NamedFields, tokenizer: Tokenizer
) -> tuple[str, int]:
    """Return the text of a record and the characters of its prompt.

    - text: the field; the prompt field, when one is named, must be a prefix of it.
    - prompt and completion: prompt + separator + completion.
    - instruction: `INSTRUCTION_PROMPT` or, with an input that is not empty,
      `INSTRUCTION_INPUT_PROMPT`, then the output; in style ``plain`` one line each, no headings.
    - chat: the tokenizer's own template; the last assistant message is the completion.

    Raises:
        RowError: A field is missing, of the wrong type or empty; the prompt is no prefix of the
            text; or the text holds what is no text (NUL, lone surrogates).
    """
    match fields:
        case TextFields():
            text, prompt_chars = _plain(record, fields)
        case PromptCompletionFields():
            prompt = _string(record, fields.prompt) + fields.separator
            text, prompt_chars = prompt + _filled(record, fields.completion), len(prompt)
        case InstructionFields():
            prompt = _instruction_prompt(record, fields)
            text, prompt_chars = prompt + _filled(record, fields.output), len(prompt)
        case ChatFields():
            text, prompt_chars = _chat(record, fields, tokenizer)
    check_text(text, "the text")
    return text, prompt_chars


def scalar_string(record: Mapping[str, Any], field: str, *, what: str) -> str:
    """Return an id or label field as a string: strings as they are, whole numbers in digits.

    Raises:
        RowError: The field is missing, empty, or neither a string nor a whole number.
    """
    value = _get(record, field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise RowError(
            f"wrong type: {what} {field!r} must be a string or a whole number, "
            f"it is {json_type(value)}"
        )
    if not value:
        raise RowError(f"empty {what}: {field!r} has no characters")
    check_text(value, repr(field))
    return value


def check_text(text: str, what: str) -> None:
    """Raise `RowError` for a string that no UTF-8 file and no tokenizer can hold."""
    if (at := text.find("\0")) >= 0:
        raise RowError(f"not text: {what} has a NUL character at character {at}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            f"not text: {what} has the lone surrogate U+{ord(text[error.start]):04X} at character "
            f"{error.start}; half of a character is missing"
        ) from error


def _plain(record: Mapping[str, Any], fields: TextFields) -> tuple[str, int]:
    text = _filled(record, fields.text)
    if fields.prompt is None:
        return text, 0
    prompt = _string(record, fields.prompt)
    if len(prompt) > len(text):
        raise RowError(
            f"prompt too long: {fields.prompt!r} has {len(prompt):,} characters, the text that it "
            f"should begin ({fields.text!r}) only {len(text):,}"
        )
    if not text.startswith(prompt):
        at = next(i for i, letter in enumerate(prompt) if letter != text[i])
        raise RowError(
            f"prompt not a prefix: {fields.prompt!r} must be the beginning of {fields.text!r}; "
            f"they differ at character {at}"
        )
    return text, len(prompt)


def _instruction_prompt(record: Mapping[str, Any], fields: InstructionFields) -> str:
    instruction = _filled(record, fields.instruction)
    given = record.get(fields.input)
    extra = "" if given is None else _string(record, fields.input)
    if fields.style == "plain":
        return "".join(f"{part}\n" for part in (instruction, extra) if part.strip())
    if not extra.strip():
        return INSTRUCTION_PROMPT.format(instruction=instruction)
    return INSTRUCTION_INPUT_PROMPT.format(instruction=instruction, input=extra)


def _chat(record: Mapping[str, Any], fields: ChatFields, tokenizer: Tokenizer) -> tuple[str, int]:
    messages = _messages(record, fields.messages)
    try:
        return tokenizer.render_chat(messages)
    except ValueError as error:
        raise RowError(f"chat template: {error}") from error


def _messages(record: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    messages = _get(record, field)
    if not isinstance(messages, list):
        raise RowError(f"wrong type: {field!r} must be a list, it is {json_type(messages)}")
    if not messages:
        raise RowError(f"empty text: {field!r} has no message")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping):
            raise RowError(
                f"wrong type: message {number} of {field!r} must be an object with 'role' and "
                f"'content', it is {json_type(message)}"
            )
        try:
            _filled(message, "role")
            content = _string(message, "content")
        except RowError as error:
            raise RowError(f"{error} (message {number} of {field!r})") from error
        check_text(content, f"message {number} of {field!r}")
    last = messages[-1]
    if last["role"] != "assistant":
        raise RowError(
            f"no completion: the last message of {field!r} must have the role 'assistant', it has "
            f"{last['role']!r}"
        )
    _filled(last, "content")
    return messages


def _get(record: Mapping[str, Any], field: str) -> Any:
    if field not in record:
        raise RowError(f"missing field: expected {field!r}, the record has {_names(record)}")
    return record[field]


def _string(record: Mapping[str, Any], field: str) -> str:
    value = _get(record, field)
    if not isinstance(value, str):
        raise RowError(f"wrong type: {field!r} must be a string, it is {json_type(value)}")
    return value


def _filled(record: Mapping[str, Any], field: str) -> str:
    value = _string(record, field)
    if not value.strip():
        raise RowError(f"empty text: {field!r} holds nothing but white space")
    return value


def _names(record: Mapping[str, Any]) -> str:
    if not record:
        return "no fields"
    names = [repr(str(name)) for name in list(record)[:SHOWN_FIELDS]]
    more = f" and {len(record) - SHOWN_FIELDS} more" if len(record) > SHOWN_FIELDS else ""
    return ", ".join(names) + more
