"""How many pages the rows of a batch will need, when each may have ended by then."""

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.branch.lengths import LengthCurves, LengthForecast
from hydragen_tree.branch.stepper import Waiting

_TIMES = 16  # from now on, at which the pages of a batch are looked at


class PageForecast:
    """Guesses the pages of some rows, to which others are added; only when somebody asks.

    Args:
        lengths: of samples.
        leaf: `[rows]` the leaf of each; samples that may part count as rows of their own.
        drawn: `[rows]` tokens of each.
        in_use: pages that they have, of which some may be shared.
        page_tokens: slots a page.
        max_tokens: of a sample.

    Attributes:
        rows: those that were added included.
        added: of these, those that were added.
    """

    def __init__(
        self,
        lengths: LengthForecast,
        leaf: Int32,
        drawn: Int32,
        in_use: int,
        page_tokens: int,
        max_tokens: int,
    ) -> None:
        self.rows = leaf.size
        self.added = 0
        self._lengths, self._leaf, self._drawn, self._in_use = lengths, leaf, drawn, in_use
        self._page_tokens = page_tokens
        self._times = np.unique(np.linspace(1, max_tokens, _TIMES).astype(np.int64))
        self._added: list[tuple[Waiting, int]] = []
        self._curves: LengthCurves | None = None
        self._pages = np.zeros(self._times.size)  # of those counted so far, at each time

    def add(self, branch: Waiting, rows: int) -> None:
        """Takes a branch in, which will have so many rows."""
        self.rows += rows
        self.added += rows
        self._added.append((branch, rows))

    def most_with(self, branch: Waiting, rows: int) -> float:
        """The most pages that are expected at any time, if a branch comes as well.

        Args:
            branch: the branch.
            rows: that it will have.
        """
        curves = self._curves
        if curves is None:
            curves = self._curves = self._lengths.curves(self._leaf, self._drawn)
            alone = int(self._held(self._drawn).sum())
            share = min(1.0, max(self._in_use, 0) / max(alone, 1))
            self._pages += self._expected(curves, self._leaf, self._drawn, share)
        for one, count in self._added:
            self._pages += count * self._of_branch(curves, one)
        self._added.clear()
        return float((self._pages + rows * self._of_branch(curves, branch)).max())

    def _of_branch(self, curves: LengthCurves, branch: Waiting) -> NDArray[np.float64]:
        leaf, drawn = np.array([branch.leaf], np.int32), np.array([branch.drawn.size], np.int32)
        return self._expected(curves, leaf, drawn, 1.0)

    def _expected(
        self, curves: LengthCurves, leaf: Int32, drawn: Int32, share: float
    ) -> NDArray[np.float64]:
        """Pages at each time of rows that share those they have by now.

        Args:
            curves: of lengths.
            leaf: `[rows]`.
            drawn: `[rows]`.
            share: pages in use for what was drawn, of those there would be without sharing.
        """
        tokens = drawn.astype(np.int64)
        later = tokens + self._times[:, None]
        now, unshared = curves.alive(leaf, tokens), (1.0 - share) * self._held(tokens)
        goes_on = np.minimum(curves.alive(leaf, later) / now, 1.0)
        expected: NDArray[np.float64] = (goes_on * (self._pages_for(later) - unshared)).sum(1)
        return expected

    def _held(self, drawn: NDArray[np.integer]) -> NDArray[np.integer]:
        """Pages of rows that share none: the last token drawn has no place in them yet."""
        return self._pages_for(np.maximum(drawn - 1, 0))

    def _pages_for(self, tokens: NDArray[np.integer]) -> NDArray[np.integer]:
        return -(-tokens // self._page_tokens)
