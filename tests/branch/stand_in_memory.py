"""What pages and states hold in place of keys and values: whose they are."""

from typing import Any

import numpy as np
import torch

from hydragen_tree.attention.segment_table import SegmentTable
from hydragen_tree.branch.live_trie import LiveTrie
from hydragen_tree.branch.prefill import Prefill
from hydragen_tree.model.states import States

PAGE = 4
PROMPT = -(1 << 20)  # places of prompts' tokens count from here, of drawn ones from 0
STATE_WORDS = 4


def state_after(segment: int, tokens: list[int]) -> list[int]:
    """The running state of a sequence: the prompt that it began with, and all tokens since."""
    mixed = 0
    for token in tokens:
        mixed = (31 * mixed + token + 1) % 1_000_003
    return [segment, len(tokens), mixed, 7]


def copy_states(
    buffer: torch.Tensor, source: torch.Tensor, target: torch.Tensor, count: torch.Tensor
) -> None:
    """See `hydragen_kernels.copy_states`."""
    n = int(count)
    assert not set(source[:n].tolist()) & set(target[:n].tolist())
    assert len(set(target[:n].tolist())) == n
    buffer[target[:n]] = buffer[source[:n]]


class Memory(Prefill):
    """What pages hold, and a prefill that fills them."""

    def __init__(
        self, trie: LiveTrie, table: SegmentTable, states: States, max_tokens: int = 8
    ) -> None:
        no_model: Any = None
        super().__init__(no_model, trie, table, no_model, max_tokens)
        self.trie, self.states = trie, states
        self.slots: dict[int, tuple[int, int]] = {}  # place in the text, and token

    def _compute(self, pack: list[tuple[int, int, int]]) -> dict[int, torch.Tensor]:
        logits = {}
        for segment, start, stop in pack:
            assert self._table.slot[segment] >= 0
            assert self._table.n_computed[segment] == start
            self._table.n_computed[segment] = stop
            first, place = int(self._table.slot[segment]), self.trie.segments[segment].start
            tokens = self.trie.segments[segment].tokens[start:stop].tolist()
            for offset, token in enumerate(tokens, start):
                self.slots[first + offset] = PROMPT + place + offset, token
            if stop < self._table.n_tokens[segment]:
                continue
            if self.states.is_kept:
                place = int(self._table.state[segment])
                self.states.buffer[place] = torch.tensor(state_after(segment, []))
            if self.trie.segments[segment].ends_prompt:
                logits[segment] = torch.full((8,), float(segment))
        return logits

    def tails(
        self,
        segments: np.ndarray,
        tokens: list[np.ndarray],
        pages: np.ndarray,
        starts: np.ndarray,
        states: np.ndarray,
    ) -> None:
        given = zip(pages.tolist(), tokens, segments.tolist(), states.tolist(), strict=True)
        for row, history, segment, state in given:
            if self.states.is_kept:
                held = self.states.buffer[state]
                assert held.tolist() == state_after(segment, []), "not the prompt's state"
                held.copy_(torch.tensor(state_after(segment, history.tolist())))
            for place, token in enumerate(history.tolist()):
                self.write(row, place, token, place)

    def write(self, pages: list[int], place: int, token: int, drawn: int) -> None:
        assert pages[place // PAGE] >= 0
        self.slots[pages[place // PAGE] * PAGE + place % PAGE] = drawn, token

    def copy_to_run(self, source: np.ndarray, slot: int) -> None:
        for offset, one in enumerate(source.tolist()):
            self.slots[slot + offset] = self.slots[one]

    def read(self, pages: list[int], length: int) -> list[tuple[int, int]]:
        return [self.slots[pages[place // PAGE] * PAGE + place % PAGE] for place in range(length)]

    def copy(self, source: int, target: int) -> None:
        for offset in range(PAGE):
            self.slots.pop(target * PAGE + offset, None)
            if source * PAGE + offset in self.slots:
                self.slots[target * PAGE + offset] = self.slots[source * PAGE + offset]
