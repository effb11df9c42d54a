"""One sampling run: waiting branches in, finished samples out.

    while branches are live or waiting:
        admit()    waiting branches into the batch, their missing keys and values computed
        decode()   one token of every row through the model
        draw()     one token for every sample; forks; finished samples leave

The batch is bounded in rows and in pages. What does not fit waits as bare tokens and is computed
again when its turn comes, depth-first, so that n is bounded by neither.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hydragen_tree.branches import Batch, Children, Waiting
from hydragen_tree.choice import Drawn, draw, stream_key
from hydragen_tree.engine import Engine
from hydragen_tree.errors import CapacityError
from hydragen_tree.fold import CostModel, KVShape
from hydragen_tree.prompts import Prompt, extract_solution
from hydragen_tree.samples import FinishReason, Sample
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.text import Detokenizer


@dataclass(slots=True)
class RunStats:
    """Live figures of a run; read them whenever you like.

    Attributes:
        samples_total: samples to draw in this run.
        samples_done: samples finished.
        samples_live: samples in the batch.
        rows_live: rows in the batch.
        tokens_sampled: tokens drawn, summed over samples.
        rows_computed: rows whose logits were computed to draw them.
        prompt_tokens: distinct prompt tokens: computed and stored once.
        prompt_tokens_unshared: what n independent runs would compute.
        prefilled_tokens: prompt and tail tokens computed, repeats after parking included.
        kv_bytes_peak: most bytes of keys and values in use.
        started: `time.perf_counter()` at the start.
    """

    samples_total: int = 0
    samples_done: int = 0
    samples_live: int = 0
    rows_live: int = 0
    tokens_sampled: int = 0
    rows_computed: int = 0
    prompt_tokens: int = 0
    prompt_tokens_unshared: int = 0
    prefilled_tokens: int = 0
    kv_bytes_peak: int = 0
    started: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run started."""
        return time.perf_counter() - self.started


class Ledger:
    """What is known of every sample of the run, by its number."""

    def __init__(
        self, prompts: Sequence[Prompt], n: int, seed: int, done: Mapping[str, Collection[int]]
    ) -> None:
        variants: dict[str, int] = {}
        for prompt in prompts:
            variants[prompt.task_id] = max(variants.get(prompt.task_id, 0), prompt.variant + 1)
        prompt_of, index, keys = [], [], []
        for number, prompt in enumerate(prompts):
            finished = done.get(prompt.task_id, ())
            for i in range(prompt.variant, n, variants[prompt.task_id]):
                if i not in finished:
                    prompt_of.append(number)
                    index.append(i)
                    keys.append(stream_key(seed, prompt.task_id, prompt.variant, i))
        self.prompt = np.array(prompt_of, np.int64)
        self.index = np.array(index, np.int64)
        self.keys = np.array(keys, np.uint64)
        self.logprob = np.zeros(self.prompt.size)
        self.sampled_logprob = np.zeros(self.prompt.size)
        self.token_logprobs: list[list[float]] = []


class Run:
    """Draws n samples for every task.

    Args:
        engine: model, trie and cache; leaf and segment numbers are its trie's.
        prompts: in the order the trie was built from.
        n: samples a task.
        settings: how to sample.
        detokenizer: the tokenizer's, with all stop strings.
        eos_ids: tokens that end a text.
        cost: the device's constants, for freezing tails.
        shape: the model's sizes.
        max_rows: rows of the batch at the most.
        done: task ids with the sample indices that exist already.
        stats: filled while running.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        n: int,
        settings: SamplingSettings,
        detokenizer: Detokenizer,
        eos_ids: Collection[int],
        cost: CostModel,
        shape: KVShape,
        max_rows: int,
        done: Mapping[str, Collection[int]],
        stats: RunStats,
    ) -> None:
        self.engine, self.cache, self.trie = engine, engine.cache, engine.trie
        self.prompts, self.settings, self.detokenizer = prompts, settings, detokenizer
        self.eos_ids = np.array(sorted(eos_ids), np.int64)
        self.cost, self.shape, self.max_rows = cost, shape, max_rows
        self.ledger = Ledger(prompts, n, settings.seed, done)
        if settings.logprobs:
            self.ledger.token_logprobs = [[] for _ in self.ledger.index]
        self.batch = Batch(settings.max_tokens, self.cache.pages_for(settings.max_tokens) + 1)
        self.fresh: dict[int, Tensor] = {}  # logits of leaves that have not been drawn from
        self.waiting = self._roots()
        self.stats = stats
        stats.samples_total = self.ledger.index.size

    def _roots(self) -> list[Waiting]:
        """One branch a leaf with all its samples; a stack, so the first leaf is last."""
        leaf_of = self.trie.prompt_leaves[self.ledger.prompt]
        by_leaf = np.argsort(leaf_of, kind="stable")
        leaves, first = np.unique(leaf_of[by_leaf], return_index=True)
        groups = np.split(by_leaf, first[1:])
        roots = zip(leaves.tolist(), groups, strict=True) if leaves.size else ()
        return [Waiting(leaf, np.empty(0, np.int32), group) for leaf, group in roots][::-1]

    def samples(self) -> Iterator[Sample]:
        """Yields every sample as it finishes."""
        self.engine.check_capacity(self.settings.max_tokens)
        while self.batch.size or self.waiting:
            self._admit()
            logits = self._decode()
            drawn = self._draw(logits)
            yield from self._extend(drawn)
            self._update_stats()

    # -- admitting ---------------------------------------------------------------------------

    def _admit(self) -> None:
        """Fills the batch from the waiting branches, as far as rows and pages allow."""
        room = self.max_rows - self._expected_rows(self.batch.samples.size, self.batch.size)
        if not self.waiting or (self.batch.size and room < max(1, self.max_rows // 8)):
            return
        admitted, new_segments = [], []
        while self.waiting:
            branch = self.waiting[-1]
            expected = self._expected_rows(branch.samples.size, 1)
            first = not self.batch.size and not admitted
            if not first and (expected > room or not self._fits(branch)):
                break
            missing = self.engine.missing(branch.leaf)
            tail = max(0, branch.drawn.size - 1)
            if not self.engine.place(missing):
                if not first:
                    break
                self._start_over(branch, missing)
            pages = self.cache.take(self.cache.pages_for(tail))
            admitted.append((self.waiting.pop(), pages, tail))
            new_segments += missing
            room -= expected
        self._compute(admitted, new_segments)

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
                self._prompt_length(self.batch.leaf[back]),
            )
        self.batch.order()

    def _last_logits(self, leaf: int) -> Tensor:
        """Logits after a prompt whose segments are resident but whose logits are not kept."""
        segment = int(self.trie.leaf_segments[leaf])
        return self.engine.prefill([segment])[segment]

    def _prompt_length(self, leaves: NDArray[np.int32]) -> NDArray[np.int32]:
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
                    self._prompt_length(batch.leaf[old]) + last,
                    batch.segment[old],
                    batch.pages[old],
                    batch.tail[old],
                )
            )
            batch.tail[old] += 1
        if new.size:
            parts.append(torch.stack([self.fresh[leaf] for leaf in batch.leaf[new].tolist()]))
            self.fresh = {}
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate([old, new])))]

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
        self._evict()

    def _evict(self) -> None:
        """Gives up segments that no row, and no waiting branch, is below."""
        waiting = np.unique([branch.leaf for branch in self.waiting]).astype(np.int32)
        self.engine.evict_unused(np.append(self.batch.segment, self.trie.leaf_segments[waiting]))

    def _draw(self, logits: Tensor) -> Drawn:
        batch, ledger = self.batch, self.ledger
        keys, positions = ledger.keys[batch.samples], batch.n_drawn[batch.row_of].astype(np.int64)
        drawn = draw(logits, batch.row_of, keys, positions, self.settings)
        ledger.logprob[batch.samples] += drawn.logprobs
        ledger.sampled_logprob[batch.samples] += drawn.sampled_logprobs
        if self.settings.logprobs:
            for sample, logprob in zip(
                batch.samples.tolist(), drawn.logprobs.tolist(), strict=True
            ):
                ledger.token_logprobs[sample].append(logprob)
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
            self._evict()

    def _finished(self, children: Children) -> tuple[list[FinishReason | None], list[str]]:
        """Why each child ends here, if it does, and its text."""
        n_drawn = self.batch.n_drawn[children.parent] + 1
        ends = np.isin(children.token, self.eos_ids)
        full = n_drawn == self.settings.max_tokens
        reasons: list[FinishReason | None] = [None] * children.parent.size
        texts = [""] * children.parent.size
        for child in np.flatnonzero(
            ends | full | self.detokenizer.may_end[children.token]
        ).tolist():
            parent = int(children.parent[child])
            tokens = self.batch.drawn[parent, : n_drawn[child]].copy()
            tokens[-1] = children.token[child]
            prompt = self.trie.segments[self.trie.leaf_segments[self.batch.leaf[parent]]].tokens
            text = self.detokenizer.text(prompt, tokens[:-1] if ends[child] else tokens)
            cut = self.detokenizer.cut(text)
            texts[child] = text if cut is None else cut
            if cut is not None:
                reasons[child] = "stop"
            elif ends[child]:
                reasons[child] = "eos"
            elif full[child]:
                reasons[child] = "length"
        return reasons, texts

    def _records(
        self, child: int, children: Children, reason: FinishReason | None, text: str
    ) -> Iterator[Sample]:
        """One record for each sample that ended in this child."""
        assert reason is not None
        parent, ledger = int(children.parent[child]), self.ledger
        tokens = (
            *self.batch.drawn[parent, : self.batch.n_drawn[parent]].tolist(),
            int(children.token[child]),
        )
        solution = extract_solution(text)
        for number in self.batch.samples[children.of_sample == child].tolist():
            prompt = self.prompts[ledger.prompt[number]]
            self.stats.samples_done += 1
            yield Sample(
                task_id=prompt.task_id,
                sample_index=int(ledger.index[number]),
                prompt_variant=prompt.variant,
                completion=text,
                solution=solution,
                finish_reason=reason,
                n_tokens=len(tokens),
                logprob=float(ledger.logprob[number]),
                sampled_logprob=float(ledger.sampled_logprob[number]),
                seed=self.settings.seed,
                token_ids=tokens,
                token_logprobs=tuple(ledger.token_logprobs[number])
                if self.settings.logprobs
                else None,
            )

    def _surplus(self, children: Children, alive: NDArray[np.bool_]) -> list[Waiting]:
        """Takes children beyond the batch's rows and pages out of `alive`; they wait."""
        living = np.flatnonzero(alive)
        need = self.batch.copies_needed(children, self.cache.page_tokens)
        over = max(living.size - self.max_rows, need - self.cache.free_pages, 0)
        over = min(over, living.size - 1)
        surplus = []
        for child in living[living.size - over :].tolist():
            parent = children.parent[child]
            drawn = self.batch.drawn[parent, : self.batch.n_drawn[parent]]
            tokens = np.append(drawn, np.int32(children.token[child]))
            samples = self.batch.samples[children.of_sample == child]
            surplus.append(Waiting(int(self.batch.leaf[parent]), tokens, samples))
            alive[child] = False
        return surplus

    def _freeze(self, children: Children, alive: NDArray[np.bool_]) -> None:
        """Makes segments of long tails that several branches will read from now on."""
        batch = self.batch
        living = np.bincount(children.parent[alive], minlength=batch.size)
        samples = np.bincount(batch.row_of, minlength=batch.size)
        forked = np.flatnonzero((living > 1) & (batch.tail >= self.cache.page_tokens))
        for row in forked.tolist():
            tail, readers = int(batch.tail[row]), int(samples[row])
            saved = self.cost.saved_s(tail, readers, self.shape.layer_token_bytes)
            if saved > self.cost.spent_s(readers, self.shape.merge_bytes):
                segment = self.engine.freeze(int(batch.segment[row]), batch.pages[row], tail)
                if segment is not None:
                    batch.replace_tails(np.array([row]), segment, self.cache)

    def _update_stats(self) -> None:
        stats, cache = self.stats, self.cache
        stats.samples_live, stats.rows_live = self.batch.samples.size, self.batch.size
        stats.prefilled_tokens = self.engine.prefilled_tokens
        stats.kv_bytes_peak = cache.peak_pages * cache.page_tokens * self.shape.token_bytes
