"""Drafts come from what has followed the same tokens before, and from nowhere else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hydragen_kernels.draft_hash import SOURCES, after
from hydragen_tree.branch.draft_table import DraftTable, contexts_of

TOKENS = st.integers(1, 2**21 - 1) | st.integers(1, 4)


class PlainSearch:
    """The same in a dictionary, its keys spelled out."""

    def __init__(self) -> None:
        self.entries: dict[tuple[int, int, tuple[int, ...]], int] = {}

    def keys(self, problem: int, past: list[int]) -> list[tuple[int, int, tuple[int, ...]]]:
        *older, last = [0] * 7 + past
        seen = [*(token % 128 for token in older), last]
        return [
            (number, problem if is_own else -1, tuple(seen[-tokens:]))
            for number, (tokens, is_own) in enumerate(SOURCES)
        ]

    def add(self, problem: int, past: list[int], token: int) -> None:
        for key in self.keys(problem, past):
            self.entries[key] = token

    def propose(self, problem: int, past: list[int], most: int) -> list[int]:
        past, found = list(past), []
        for _ in range(most):
            known = [self.entries[key] for key in self.keys(problem, past) if key in self.entries]
            if not known:
                break
            found.append(known[0])
            past.append(known[0])
        return found


@given(
    texts=st.lists(st.tuples(st.integers(0, 2), st.lists(TOKENS, max_size=18)), max_size=5),
    past=st.lists(TOKENS, max_size=9),
    problem=st.integers(0, 3),
)
def test_proposals_are_those_of_a_plain_search(
    texts: list[tuple[int, list[int]]], past: list[int], problem: int
) -> None:
    table, plain = DraftTable(), PlainSearch()
    for owner, text in texts:
        context = np.zeros(1, np.int64)
        for place, token in enumerate(text):
            table.add(np.array([owner]), context, np.array([token]))
            plain.add(owner, text[:place], token)
            context = after(context, np.array([token]))
    for own in (past, *(text[:cut] for _, text in texts for cut in (1, 3, len(text)))):
        drawn = np.array([own or [0]], np.int32)
        context = contexts_of(drawn, np.array([len(own)], np.int32))
        tokens, sources = table.propose(np.array([problem]), context, 6)
        assert tokens[0][tokens[0] >= 0].tolist() == plain.propose(problem, own, 6)
        assert ((sources >= 0) == (tokens >= 0)).all()


def test_a_prompt_is_what_follows_its_own_tokens() -> None:
    table = DraftTable()
    table.add_text(0, np.arange(1, 40, dtype=np.int32))
    drawn = np.array([[7, 8, 9], [3, 30, 0]], np.int32)
    contexts = contexts_of(drawn, np.array([3, 2], np.int32))
    tokens, sources = table.propose(np.zeros(2, np.int64), contexts, 4)
    assert tokens.tolist() == [[10, 11, 12, 13], [31, 32, 33, 34]]
    assert sources[0].tolist() == [3, 2, 1, 1]
    assert sources[1].tolist() == [7, 5, 3, 2]
    elsewhere, source = table.propose(np.ones(2, np.int64), contexts, 4)
    assert elsewhere.tolist() == [[10, 11, 12, 13], [-1, -1, -1, -1]]
    assert source[0].tolist() == [6, 6, 4, 4]


def test_what_came_last_is_proposed() -> None:
    table, problem = DraftTable(), np.zeros(1, np.int64)
    context = contexts_of(np.array([[5, 6, 7]], np.int32), np.array([3], np.int32))
    for token in (11, 12, 13):
        table.add(problem, context, np.array([token]))
        assert table.propose(problem, context, 1)[0].tolist() == [[token]]
    many = np.zeros(200, np.int64)
    table.add(many, np.arange(200), np.arange(1000, 1200))
    tokens, _ = table.propose(many, np.arange(200), 1)
    assert tokens[:, 0].tolist() == list(range(1000, 1200)), "rows overwrite each other"
