"""How do positions that lie end to end become windows, and windows rows?

Layouts and sums whose order is fixed by the indices alone, on every device: atomics on a GPU would
add in another order from run to run. Nothing here makes the host wait for the device, but for
`longest_window`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import embedding_bag


def longest_window(window_index: Int[Tensor, " positions"]) -> int:
    """Return the positions of the longest window; the host waits for the device."""
    if window_index.numel() == 0:
        return 0
    return int(torch.bincount(window_index).max())


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """Where each position goes when windows are laid out beside each other.

    Attributes:
        window_index: Window of each position, ascending.
        places: Place of each position in its window, from 0.
        n_windows: Windows, those without a position included.
        n_places: Positions of the longest window, or more.
    """

    window_index: Int[Tensor, " positions"]
    places: Int[Tensor, " positions"]
    n_windows: int
    n_places: int

    @classmethod
    def of(
        cls,
        window_index: Int[Tensor, " positions"],
        n_windows: int,
        *,
        max_positions: int | None = None,
    ) -> "WindowLayout":
        """Return the layout of windows.

        Args:
            window_index: Window of each position, ascending, 0 to ``n_windows - 1``.
            n_windows: Windows, those without a position included.
            max_positions: Positions of the longest window, or more. None: it is looked up, for
                which the host waits for the device.
        """
        if max_positions is None:
            max_positions = longest_window(window_index)
        windows = torch.arange(n_windows, device=window_index.device, dtype=window_index.dtype)
        starts = torch.searchsorted(window_index, windows)
        places = torch.arange(window_index.shape[0], device=window_index.device)
        return cls(window_index, places - starts[window_index], n_windows, max_positions)

    def padded(
        self, vectors: Shaped[Tensor, "positions dim"]
    ) -> Shaped[Tensor, "{self.n_windows} {self.n_places} dim"]:
        """Return vectors laid out window by window, zeros behind the shorter ones.

        Raises:
            IndexError: A window has more than ``n_places`` positions (on the CPU).
        """
        padded = vectors.new_zeros(self.n_windows, self.n_places, vectors.shape[1])
        return padded.index_put_((self.window_index, self.places), vectors)


def add_rows(
    sums: Float[Tensor, "rows dim"],
    vectors: Float[Tensor, "vectors dim"],
    row_index: Int[Tensor, " vectors"],
) -> None:
    """Add vectors to the rows that they belong to, in place; vectors of one row in their order.

    Args:
        sums: What is added to. Unchanged when memory runs out.
        vectors: In any order.
        row_index: Row of each, 0 to ``rows - 1``.
    """
    if row_index.numel() == 0:
        return
    rows, order = row_index.sort(stable=True)
    is_first = torch.ones_like(rows)
    is_first[1:] = (rows[1:] != rows[:-1]).to(rows.dtype)
    # run number of each vector; there are at most as many runs as vectors, the rest stay empty
    runs = is_first.cumsum(0) - 1
    starts = torch.searchsorted(runs, torch.arange(runs.shape[0], device=runs.device))
    totals = embedding_bag(order, vectors, starts, mode="sum")
    # every row is met by one total, and the last one by the zeros of the empty runs: no order
    sums.index_add_(0, rows[starts.clamp_max(rows.shape[0] - 1)], totals)
