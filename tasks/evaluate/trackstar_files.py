"""What the program bergson is handed: texts, and a model's folder whose template adds nothing.

Bergson renders a prompt and a completion through the tokenizer's chat template, without the special
tokens that the tokenizer puts around a text. So that it reads what every other method reads, the
template writes the two as they stand, and the special tokens are spelled out in the texts.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from storage.files import read_json, write_bytes, write_json
from tasks.backbone import RowTokenizer
from tasks.evaluate.method import LabelledText

PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SETTINGS_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FILES = (TEMPLATE_FILE, "chat_template.json", "additional_chat_templates")
"""Where a tokenizer's own templates may lie beside its settings."""


def plain_model(folder: Path, home: Path) -> Path:
    """Link a model's files into a folder whose tokenizer writes messages as they stand.

    Args:
        folder: The model's; it is left as it is.
        home: Made here; must not be there yet.

    Returns:
        ``home``.
    """
    home.mkdir(parents=True)
    for file in folder.iterdir():
        if file.name not in (SETTINGS_FILE, *TEMPLATE_FILES):
            (home / file.name).symlink_to(file.resolve())
    known = read_json(folder / SETTINGS_FILE) if (folder / SETTINGS_FILE).is_file() else {}
    write_json(home / SETTINGS_FILE, {**known, "chat_template": PLAIN_TEMPLATE})
    write_bytes(home / TEMPLATE_FILE, PLAIN_TEMPLATE.encode())
    return home


def special_tokens(tokenizer: RowTokenizer) -> tuple[str, str]:
    """Return what a tokenizer puts before and behind a text, spelled out; often nothing."""
    around, marked = tokenizer.encode(["", "x"], [0, 1])
    back = marked.ids[marked.first_target :]
    front = around.ids[: len(around.ids) - len(back)]
    before, behind = ("".join(tokenizer.token_texts(ids)) for ids in (front, back))
    return before, behind


def write_texts(
    file: Path, texts: Sequence[LabelledText], around: tuple[str, str], *, masked: bool
) -> None:
    """Write texts as lines of a prompt and a completion.

    Args:
        file: Written here, JSON Lines.
        texts: Rows or queries.
        around: See `special_tokens`; what a text already begins with is not put in front again.
        masked: Whether prompts carry no loss.
    """
    before, behind = around
    lines = []
    for text in texts:
        border = text.prompt_chars if masked else 0
        front = "" if text.text.startswith(before) else before
        record = {"prompt": front + text.text[:border], "completion": text.text[border:] + behind}
        lines.append(json.dumps(record))
    write_bytes(file, ("\n".join(lines) + "\n").encode())
