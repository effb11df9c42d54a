"""Steps of the host that take drafts along: several tokens of a row at once, exactly.

Behind its last token a row brings the tokens that are proposed for it. Each is a query of its own,
with the row's pages and a tail that is longer by its place; so each sees those before it. Every
sample draws at every place, with the random number that the place has in any case. A row goes on
for as long as all its samples have drawn what was proposed. There the step is what it would be
without drafts: rows fork, and samples end, at the next token, which has been drawn already. What
was stored of drafts behind it is overwritten in time.
"""

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.draft_hash import after
from hydragen_kernels.drawn import Drawn
from hydragen_tree.branch.batch import Batch, Children
from hydragen_tree.branch.draft_table import contexts_of
from hydragen_tree.branch.drafting import Drafting, Drafts
from hydragen_tree.branch.stepper import Ends
from hydragen_tree.model.cache import KVCache

_SPARE_PAGES = 3  # for each row, beside which drafts may take some


class HostDrafts:
    """Drafts of a batch that the host steps.

    Args:
        drafting: decides what is proposed.
        batch: its rows.
        cache: where tails are.
        ends: decides when samples end.
        greedy: samples of a row draw the same tokens, always.
    """

    def __init__(
        self, drafting: Drafting, batch: Batch, cache: KVCache, ends: Ends, *, greedy: bool
    ) -> None:
        self._drafting, self._batch, self._cache = drafting, batch, cache
        self._ends, self._greedy = ends, greedy
        self._problems = self._contexts = np.empty(0, np.int64)  # of rows, when the step began

    def propose(self) -> Drafts | None:
        """The drafts of the next step, if any are worth it, and there is room for them."""
        batch, cache = self._batch, self._cache
        self._problems = self._drafting.problems_of(batch.leaf)
        self._contexts = contexts_of(batch.drawn, batch.n_drawn)
        if cache.free_pages < _SPARE_PAGES * batch.size:
            return None
        limits = np.where(batch.n_drawn > 0, batch.max_tokens - 1 - batch.n_drawn, 0)
        limits = np.minimum(limits, cache.page_tokens)
        samples = np.bincount(batch.row_of, minlength=batch.size)
        if self._greedy:
            samples = np.ones_like(samples)
        return self._drafting.propose(self._problems, self._contexts, samples, limits)

    def settle(self, drawn: Drawn[NDArray[np.generic]], drafts: Drafts) -> int:
        """Rows go on by the drafts that their samples have drawn; what was drawn behind is erased.

        Args:
            drawn: `[1 + drafts, samples]` the token -1 where a row has no more drafts; changed in
                place.
            drafts: of the rows.

        Returns:
            Drafts that rows go on by.
        """
        batch = self._batch
        row_of, place = batch.row_of, np.arange(len(drawn.tokens) - 1)
        proposed = drafts.tokens[:, : place.size]
        is_draft = place < drafts.counts[:, None]
        agrees = (proposed[row_of] == drawn.tokens[:-1].T) & is_draft[row_of]
        lead = agrees.cumprod(1).sum(1)
        is_met = is_draft[row_of] & (place <= lead[:, None])
        if self._greedy:  # what the first sample of a row draws says it all
            is_met &= (np.diff(row_of, prepend=-1) > 0)[:, None]
        met, column = np.nonzero(is_met)
        row = row_of[met]
        self._drafting.learn(self._problems[row], drafts.sources[row, column], agrees[met, column])
        counts = np.minimum.reduceat(lead, np.searchsorted(row_of, np.arange(batch.size)))
        counts = self._until_ends(proposed, counts)
        drawn.tokens[np.arange(len(drawn.tokens))[:, None] > counts[row_of]] = -1
        for step in range(int(counts.max(initial=0))):
            goes = np.flatnonzero(counts > step)
            contexts, tokens = self._contexts[goes], proposed[goes, step]
            self._drafting.add(self._problems[goes], contexts, tokens)
            self._contexts[goes] = after(contexts, tokens)
        batch.advance(proposed, counts)
        return int(counts.sum())

    def follow(self, children: Children) -> None:
        """Learns from the last tokens of a step."""
        parent = children.parent
        self._drafting.add(self._problems[parent], self._contexts[parent], children.token)

    def _until_ends(
        self, proposed: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """How many drafts rows go on by, if a sample that ends does so with a step's last token.

        Args:
            proposed: `[rows, drafts]`.
            counts: `[rows]` that samples have drawn.
        """
        batch, counts = self._batch, counts.copy()
        firsts = batch.samples[np.searchsorted(batch.row_of, np.arange(batch.size))]
        for step in range(int(counts.max(initial=0))):
            goes = np.flatnonzero(counts > step)
            stops = self._ends.advance(batch.stops[goes], proposed[goes, step])
            for row in goes[stops < 0].tolist():
                history = np.append(
                    batch.drawn[row, : batch.n_drawn[row]], proposed[row, : step + 1]
                ).astype(np.int32)
                if self._ends.has_ended(int(firsts[row]), history):
                    counts[row] = step
            goes, stops = goes[counts[goes] > step], stops[counts[goes] > step]
            batch.stops[goes] = stops
        return counts
