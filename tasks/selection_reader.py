"""What a selection reads of rows beyond their columns."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rise_ops.codes import Code
from storage.corpus import Row


class RowReader(Protocol):
    """Reads what the table of candidates does not hold."""

    @property
    def code(self) -> Code:
        """How signatures are stored."""

    def rows(self, positions: NDArray[np.int64]) -> list[Row]:
        """Return rows by their lines in the table of candidates, in the order asked for."""

    def signatures(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return their signatures, float32 [n, n_numbers], in the order asked for."""
