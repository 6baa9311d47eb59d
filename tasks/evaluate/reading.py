"""How rivals that run the model read a task's texts: cut to a length, prompts masked or not."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.backbone import TokenRow, load_tokenizer, model_shape
from tasks.config import ModelConfig
from tasks.evaluate.gradient_settings import ReadingConfig
from tasks.evaluate.method import LabelledText, PreparedTask


@dataclass(frozen=True, eq=False)
class ReadTexts:
    """Texts as the model reads them.

    Attributes:
        rows: One a text, of ``most`` tokens at most.
        n_cut: Texts that lost their end.
        most: Tokens that a text was cut to.
    """

    rows: Sequence[TokenRow]
    n_cut: int
    most: int

    @property
    def n_tokens(self) -> int:
        """Tokens that the model reads."""
        return sum(len(row.ids) for row in self.rows)

    @property
    def predicted(self) -> list[int]:
        """Places of the texts of which a token is predicted."""
        return [n for n, row in enumerate(self.rows) if row.first_target < len(row.ids)]

    def notes(self, what: str) -> tuple[str, ...]:
        """Return what a reader of the scores should know.

        Args:
            what: How the texts are called: rows or queries.
        """
        cut = f"{self.n_cut} of {len(self.rows)} {what} were cut to {self.most} tokens"
        n_empty = len(self.rows) - len(self.predicted)
        empty = f"{n_empty} of {len(self.rows)} {what} have no predicted token, and score 0"
        return (*((cut,) if self.n_cut else ()), *((empty,) if n_empty else ()))


@dataclass(frozen=True, eq=False)
class ReadTask:
    """A task's rows and queries as the model reads them."""

    rows: ReadTexts
    queries: ReadTexts

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max((len(own.ids) for own in (*self.rows.rows, *self.queries.rows)), default=0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was cut."""
        return (*self.rows.notes("rows"), *self.queries.notes("queries"))


def read_task(task: PreparedTask, config: ReadingConfig) -> ReadTask:
    """Tokenise a task's texts."""
    masked, most = config.positions == "completion", config.max_tokens
    return ReadTask(
        rows=read_texts(task.model, task.rows, most=most, masked=masked),
        queries=read_texts(task.model, task.queries, most=most, masked=True),
    )


def read_texts(
    model: ModelConfig, texts: Sequence[LabelledText], *, most: int, masked: bool
) -> ReadTexts:
    """Tokenise texts.

    Args:
        model: Whose tokenizer.
        texts: Rows or queries.
        most: Tokens that a text is cut to, unless the model reads fewer.
        masked: Whether prompts carry no loss.
    """
    readable = model_shape(model).max_tokens
    most = most if readable is None else min(most, readable)
    borders = [text.prompt_chars if masked else 0 for text in texts]
    encoded = load_tokenizer(model).encode([text.text for text in texts], borders)
    rows = [TokenRow(row.ids[:most], max(1, row.first_target)) for row in encoded]
    return ReadTexts(
        rows=rows,
        n_cut=sum(len(row.ids) > most for row in encoded),
        most=most,
    )
