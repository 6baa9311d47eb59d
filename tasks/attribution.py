"""One answer, the rows behind it: a question to an index, without a query set and without flows."""

from storage.refs import IndexRef
from tasks.config import RuntimeConfig
from tasks.fields import check_text
from tasks.queries import query_signatures
from tasks.scoring import Hit, attribute


def attribute_text(
    index: IndexRef, *, prompt: str, completion: str, top_k: int, runtime: RuntimeConfig
) -> list[Hit]:
    """Return the training rows that pushed the model towards ``completion``, strongest first.

    Args:
        index: A complete index; its own model and sketch read the text.
        prompt: What came before; it is read but its tokens are not counted. May be empty.
        completion: What the model said.
        top_k: Rows wanted, at most the rows of the index.
        runtime: Device and workers.

    Raises:
        ValueError: The completion has no predicted token, or ``top_k`` exceeds the rows.
    """
    if not completion.strip():
        raise ValueError("the completion is empty: give the text that the model said.")
    check_text(prompt + completion, "the text")
    signatures = query_signatures(index, [prompt + completion], [len(prompt)], runtime)
    return attribute(index, signatures, top_k=top_k, runtime=runtime)[0]
