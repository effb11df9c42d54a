"""One sampling run: waiting branches in, finished samples out.

    while branches are live or waiting:
        admit()    waiting branches into the batch, their missing keys and values computed
        decode()   one token of every row through the model
        draw()     one token for every sample; forks; finished samples leave

The batch is bounded in rows and in pages. What does not fit waits as bare tokens and is computed
again when its turn comes, depth-first, so that n is bounded by neither.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_tree.branch.batch import Batch, Children, Waiting
from hydragen_tree.branch.budget import FROZEN_LEVELS
from hydragen_tree.branch.drawing import Drawn, draw
from hydragen_tree.branch.engine import Engine
from hydragen_tree.errors import CapacityError
from hydragen_tree.sample.ledger import Ledger, RunStats
from hydragen_tree.sample.sample import FinishReason, Sample
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.shape import KVShape
from hydragen_tree.trie.costs import CostModel

if TYPE_CHECKING:
    from hydragen_tree.branch.decoder import Decoder


class Run:
    """Draws all samples of a ledger.

    Args:
        engine: model, trie and cache; leaf and segment numbers are its trie's.
        ledger: the samples.
        settings: how to sample.
        cost: the device's constants, for freezing tails.
        shape: the model's sizes.
        max_rows: rows of the batch at the most.
        stats: filled while running.
        decoder: decodes on a GPU, if there is one.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        settings: SamplingSettings,
        cost: CostModel,
        shape: KVShape,
        max_rows: int,
        stats: RunStats,
        decoder: "Decoder | None" = None,
    ) -> None:
        self.engine, self.cache, self.trie = engine, engine.cache, engine.trie
        self.ledger, self.settings = ledger, settings
        self.cost, self.shape, self.max_rows = cost, shape, max_rows
        self.decoder = decoder
        self.batch = Batch(settings.max_tokens, self.cache.pages_for(settings.max_tokens) + 1)
        self.fresh: dict[int, Tensor] = {}  # logits of leaves that have not been drawn from
        self.waiting = self._roots()
        self.stats = stats

    def _roots(self) -> list[Waiting]:
        """One branch a leaf with all its samples; a stack, so the first leaf is last.

        Where prompts of one leaf have other stop strings, each kind is a branch of its own.
        """
        leaf_of = self.trie.prompt_leaves[self.ledger.prompt].tolist()
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for sample, leaf in enumerate(leaf_of):
            groups.setdefault((leaf, self.ledger.stop(sample)), []).append(sample)
        return [
            Waiting(leaf, np.empty(0, np.int32), np.array(group, np.int64))
            for (leaf, _), group in sorted(groups.items(), reverse=True)
        ]

    def samples(self) -> Iterator[Sample]:
        """Yields every sample as it finishes, one step after the other."""
        self.engine.check_capacity(self.settings.max_tokens)
        while self.unfinished:
            self.admit()
            yield from self.step()

    @property
    def unfinished(self) -> bool:
        """Whether samples are left to draw."""
        return bool(self.batch.size or self.waiting)

    def step(self) -> Iterator[Sample]:
        """One token of every sample."""
        logits = self._decode()
        drawn = self._draw(logits)
        yield from self._extend(drawn)
        self.update_stats()

    # -- admitting ---------------------------------------------------------------------------

    def admit(self) -> None:
        """Fills the batch from the waiting branches, as far as rows and pages allow."""
        if not self.wants_to_admit():
            return
        room = self._room()
        admitted: list[tuple[Waiting, NDArray[np.int32], int]] = []
        new_segments: list[int] = []
        while True:
            first = not self.batch.size and not admitted
            branch = self._next(room, first)
            if branch is None:
                break
            missing = self.engine.missing(branch.leaf)
            tail = max(0, branch.drawn.size - 1)
            if not self.engine.place(missing):
                if not first:
                    break
                self._start_over(branch, missing)
            pages = self.cache.take(self.cache.pages_for(tail))
            self._take_waiting(branch)
            admitted.append((branch, pages, tail))
            new_segments += missing
            room -= self._expected_rows(branch.samples.size, 1)
        self._compute(admitted, new_segments)

    def _room(self) -> int:
        """Rows that the batch's samples will leave free."""
        return self.max_rows - self._expected_rows(self.batch.samples.size, self.batch.size)

    def _next(self, room: int, first: bool) -> Waiting | None:
        """The waiting branch that fits next, or as many of its samples as there is room for.

        Args:
            room: free rows.
            first: the batch is empty; it takes any branch.
        """
        if not self.waiting:
            return None
        branch = self.waiting[-1]
        if first:
            return branch
        if self._expected_rows(branch.samples.size, 1) > room:
            if room < self._least_room():
                return None
            branch = replace(branch, samples=branch.samples[:room])
        return branch if self._fits(branch) else None

    def _take_waiting(self, taken: Waiting) -> None:
        """Takes a branch, or a part of one, from those that wait."""
        whole = self.waiting.pop()
        rest = whole.samples[taken.samples.size :]
        if rest.size:
            self.waiting.append(replace(whole, samples=rest))

    def _least_room(self) -> int:
        """Free rows that are worth the work of admitting."""
        return max(1, self.max_rows // 8)

    def _expected_rows(self, samples: int, rows: int) -> int:
        """Rows that samples will spread over: one each, unless nothing is left to chance."""
        return rows if self.settings.temperature == 0.0 else samples

    def _fits(self, branch: Waiting) -> bool:
        """Whether pages are free for the branch, its missing path, and some growth of all rows."""
        left = self.settings.max_tokens - branch.drawn.size
        rows = self._expected_rows(branch.samples.size, 1)
        need = self.cache.pages_for(branch.drawn.size) + rows * self.cache.pages_for(left // 2)
        sizes = self.engine.table.n_tokens[self.engine.missing(branch.leaf)].tolist()
        return self.cache.free_pages - self.batch.size >= need + sum(
            map(self.cache.pages_for, sizes)
        )

    def _start_over(self, branch: Waiting, missing: list[int]) -> None:
        """Nothing is live, yet a branch's path finds no room: keep only what is on that path."""
        segments = np.array([self.trie.leaf_segments[branch.leaf]], np.int32)
        self.engine.evict_unused(segments)
        if not self.engine.place(missing):  # what is left is in the way: compute the path anew
            self.engine.evict_unused(np.empty(0, np.int32))
            missing[:] = self.engine.missing(branch.leaf)
            if not self.engine.place(missing):
                raise CapacityError("a path that fits into the cache found no room in it")

    def _compute(
        self, admitted: list[tuple[Waiting, NDArray[np.int32], int]], segments: list[int]
    ) -> None:
        """Computes what admitted branches lack, and makes rows of them."""
        logits = self.engine.prefill(segments)
        ends = {int(segment): leaf for leaf, segment in enumerate(self.trie.leaf_segments)}
        self.fresh.update({ends[segment]: row for segment, row in logits.items()})
        back = []
        for branch, pages, tail in admitted:
            segment = int(self.trie.leaf_segments[branch.leaf])
            if not branch.drawn.size and branch.leaf not in self.fresh:
                self.fresh.update({branch.leaf: self._last_logits(branch.leaf)})
            self.batch.admit(branch, segment, pages, tail)
            if tail:
                back.append(self.batch.size - 1)
        if back:
            self.engine.prefill_tails(
                self.batch.segment[back],
                [self.batch.drawn[row, : self.batch.tail[row]] for row in back],
                self.batch.pages[back],
                self.prompt_length(self.batch.leaf[back]),
            )
        self.batch.order()

    def _last_logits(self, leaf: int) -> Tensor:
        """Logits after a prompt whose segments are resident but whose logits are not kept."""
        segment = int(self.trie.leaf_segments[leaf])
        return self.engine.prefill([segment])[segment]

    def last_segment(self, leaf: int) -> NDArray[np.int32]:
        """The tokens of the segment that a leaf's prompt ends in."""
        return self.trie.segments[int(self.trie.leaf_segments[leaf])].tokens

    def prompt_length(self, leaves: NDArray[np.int32]) -> NDArray[np.int32]:
        """Tokens of the prompts that these leaves end."""
        return np.array(
            [self.trie.end(int(self.trie.leaf_segments[leaf])) for leaf in leaves], np.int32
        )

    # -- one token ---------------------------------------------------------------------------

    def _decode(self) -> Tensor:
        """Logits of all rows: kept ones for those that have drawn nothing, else one step."""
        self._take_pages()
        batch = self.batch
        old = np.flatnonzero(batch.n_drawn > 0)
        new = np.flatnonzero(batch.n_drawn == 0)
        parts = []
        if old.size:
            last = batch.n_drawn[old] - 1
            parts.append(
                self.engine.decode(
                    batch.drawn[old, last],
                    self.prompt_length(batch.leaf[old]) + last,
                    batch.segment[old],
                    batch.pages[old],
                    batch.tail[old],
                )
                if self.decoder is None
                else self._decode_on_device(self.decoder, old)
            )
            batch.tail[old] += 1
        if new.size:
            parts.append(torch.stack([self.fresh[leaf] for leaf in batch.leaf[new].tolist()]))
            self.fresh = {}
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate([old, new])))]

    def _decode_on_device(self, decoder: "Decoder", rows: NDArray[np.int64]) -> Tensor:
        """One step of these rows by the decoder, which then holds nothing but them."""
        self.load(decoder, rows)
        return decoder.logits()

    def load(self, decoder: "Decoder", rows: NDArray[np.int64]) -> None:
        """Puts these rows of the batch on the device."""
        batch, drawn = self.batch, self.batch.n_drawn[rows]
        first_samples = batch.samples[np.searchsorted(batch.row_of, rows)]
        decoder.load(
            batch.drawn[rows, drawn - 1],
            self.prompt_length(batch.leaf[rows]) + drawn - 1,
            batch.tail[rows],
            batch.tail[rows] + self.settings.max_tokens - drawn,
            drawn,
            self.ledger.keys[first_samples].view(np.int64),
            batch.pages[rows],
            self.engine.table.path_items(batch.segment[rows], np.ones_like(drawn)),
        )

    def is_steady(self) -> bool:
        """Whether no row can fork any more: it carries one sample, or nothing is left to chance."""
        batch = self.batch
        alone = batch.samples.size == batch.size or self.settings.temperature == 0.0
        return alone and bool((batch.n_drawn > 0).all())

    def wants_to_admit(self) -> bool:
        """Whether a branch waits that would fit, and there is room enough to be worth the work."""
        if not self.batch.size:
            return bool(self.waiting)
        room = self._room()
        return room >= self._least_room() and self._next(room, first=False) is not None

    def _take_pages(self) -> None:
        """A page for every row whose tail fills its pages; parks the last rows if none is left."""
        while True:
            batch = self.batch
            due = np.flatnonzero((batch.n_drawn > 0) & (batch.tail % self.cache.page_tokens == 0))
            if due.size <= self.cache.free_pages:
                break
            if batch.size == 1:
                raise CapacityError("a single branch found no page for its next token")
            self._park(np.arange(batch.size - max(1, batch.size // 8), batch.size))
        batch.pages[due, batch.tail[due] // self.cache.page_tokens] = self.cache.take(due.size)

    def _park(self, rows: NDArray[np.int64]) -> None:
        self.waiting += self.batch.park(rows, self.cache)[::-1]
        self.evict()

    def evict(self) -> None:
        """Gives up segments that no row, and no waiting branch, is below."""
        waiting = np.unique([branch.leaf for branch in self.waiting]).astype(np.int32)
        self.engine.evict_unused(np.append(self.batch.segment, self.trie.leaf_segments[waiting]))

    def _draw(self, logits: Tensor) -> Drawn:
        batch = self.batch
        keys = self.ledger.keys[batch.samples]
        positions = batch.n_drawn[batch.row_of].astype(np.int64)
        drawn = draw(logits, batch.row_of, keys, positions, self.settings)
        self.ledger.add(batch.samples, drawn)
        self.stats.rows_computed += batch.size
        self.stats.tokens_sampled += batch.samples.size
        return drawn

    def _extend(self, drawn: Drawn) -> Iterator[Sample]:
        """Forks where draws differ, yields what has finished, and keeps the rest."""
        batch = self.batch
        children = batch.children(drawn.tokens)
        reasons, texts = self._finished(children)
        alive = np.array([reason is None for reason in reasons])
        for child in np.flatnonzero(~alive).tolist():
            yield from self._records(child, children, reasons[child], texts[child])
        before = batch.size
        surplus = self._surplus(children, alive)
        self._freeze(children, alive)
        batch.grow(children, alive, self.cache)
        self.waiting += surplus[::-1]
        if batch.size < before or not alive.all():
            self.evict()

    def _finished(self, children: Children) -> tuple[list[FinishReason | None], list[str]]:
        """Why each child ends here, if it does, and its text."""
        reasons: list[FinishReason | None] = [None] * children.parent.size
        texts = [""] * children.parent.size
        n_drawn = self.batch.n_drawn[children.parent] + 1
        for child in np.flatnonzero(self.ledger.may_end(children.token, n_drawn)).tolist():
            prompt = self.last_segment(int(self.batch.leaf[children.parent[child]]))
            history = self._history(child, children)
            sample = int(self.batch.samples[np.argmax(children.of_sample == child)])
            reasons[child], texts[child] = self.ledger.ending(sample, prompt, history)
        return reasons, texts

    def _history(self, child: int, children: Children) -> NDArray[np.int32]:
        """All tokens a child has drawn."""
        parent = children.parent[child]
        drawn = self.batch.drawn[parent, : self.batch.n_drawn[parent]]
        return np.append(drawn, np.int32(children.token[child]))

    def _records(
        self, child: int, children: Children, reason: FinishReason | None, text: str
    ) -> Iterator[Sample]:
        """One record for each sample that ended in this child."""
        assert reason is not None
        samples = self.batch.samples[children.of_sample == child]
        return self.ledger.records(samples, self._history(child, children), reason, text)

    def _surplus(self, children: Children, alive: NDArray[np.bool_]) -> list[Waiting]:
        """Takes children beyond the batch's rows and pages out of `alive`; they wait."""
        living = np.flatnonzero(alive)
        need = self.batch.copies_needed(children, self.cache.page_tokens)
        over = max(living.size - self.max_rows, need - self.cache.free_pages, 0)
        over = min(over, living.size - 1)
        surplus = []
        for child in living[living.size - over :].tolist():
            leaf = int(self.batch.leaf[children.parent[child]])
            samples = self.batch.samples[children.of_sample == child]
            surplus.append(Waiting(leaf, self._history(child, children), samples))
            alive[child] = False
        return surplus

    def _freeze(self, children: Children, alive: NDArray[np.bool_]) -> None:
        """Makes segments of long tails that several branches will read from now on."""
        batch = self.batch
        living = np.bincount(children.parent[alive], minlength=batch.size)
        samples = np.bincount(batch.row_of, minlength=batch.size)
        forked = np.flatnonzero((living > 1) & (batch.tail >= self.cache.page_tokens))
        copies = batch.copies_needed(children, self.cache.page_tokens)  # `grow` will take these
        for row in forked.tolist():
            if not self._may_freeze(row, copies):
                continue
            tail, readers = int(batch.tail[row]), int(samples[row])
            saved = self.cost.saved_s(tail, readers, self.shape.layer_token_bytes)
            if saved > self.cost.spent_s(readers, self.shape.merge_bytes):
                segment = self.engine.freeze(int(batch.segment[row]), batch.pages[row], tail)
                if segment is not None:
                    batch.replace_tails(np.array([row]), segment, self.cache)

    def _may_freeze(self, row: int, copies: int) -> bool:
        """Whether a row's tail may become a segment: pages and levels are left for it."""
        batch, depth = self.batch, self.engine.table.depth
        leaf = int(self.trie.leaf_segments[batch.leaf[row]])
        pages = self.cache.pages_for(int(batch.tail[row]))
        frozen = int(depth[batch.segment[row]] - depth[leaf])
        return frozen < FROZEN_LEVELS and self.cache.free_pages - pages >= copies

    def update_stats(self) -> None:
        """Brings the live figures up to date."""
        stats, cache = self.stats, self.cache
        stats.samples_live, stats.rows_live = self.batch.samples.size, self.batch.size
        stats.prefilled_tokens = self.engine.prefilled_tokens
        stats.kv_bytes_peak = cache.peak_pages * cache.page_tokens * self.shape.token_bytes
