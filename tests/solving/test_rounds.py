"""Rounds of samples: each problem goes on by its own verdicts, while others are still drawn."""

import time
from collections.abc import Iterable

import numpy as np
import pytest

from hydragen_tree.passk.stopping import Stopping
from hydragen_tree.solving.board import Board
from hydragen_tree.solving.rounds import Rounds


class Run:
    """A board, and the rounds that go by it."""

    def __init__(
        self,
        rule: Stopping,
        done: dict[str, set[int]] | None = None,
        late_in_s: float | None = None,
    ) -> None:
        self.rule, self.board = rule, Board(["a", "b"])
        self.waits: list[tuple[str, Iterable[int], set[int]]] = []  # verdicts that come when waited
        self.unjudged = False
        for task, indices in (done or {}).items():
            self.board.drew(task, len(indices))
        self.rounds = Rounds(
            rule,
            self.board,
            done or {},
            deadline=None if late_in_s is None else time.monotonic() + late_in_s,
            in_rounds=True,
            enough=4,
            is_all_judged=lambda: self.unjudged,
            wait=lambda: self.judge(*self.waits.pop(0)),
        )

    def give(self, n_waiting: int = 0) -> dict[str, list[int]]:
        given = self.rounds.give(n_waiting) or {}
        return {task: indices.tolist() for task, indices in given.items()}

    def draw(self, task: str, indices: Iterable[int]) -> None:
        for _ in indices:
            self.board.drew(task)
            self.rounds.came(task)

    def judge(self, task: str, indices: Iterable[int], right: set[int]) -> None:
        for index in indices:
            verdict = "AC" if index in right else "WA"
            about = {"task_id": task, "sample_index": index, "stopping": self.rule.to_json()}
            self.board.add({**about, "verdict": verdict})


def to(first: int, stop: int) -> list[int]:
    return list(range(first, stop))


def test_a_problem_goes_on_while_others_are_drawn() -> None:
    run = Run(Stopping(100, until_solved=2))
    assert run.give() == {"a": to(0, 32), "b": to(0, 32)}
    run.draw("a", to(0, 32))
    run.judge("a", to(0, 31), set())
    assert run.give() == {}  # one verdict is missing
    run.judge("a", [31], {31})
    assert run.give() == {"a": to(32, 64)}
    assert run.give() == {}  # each is given once
    run.draw("b", to(0, 32))
    run.waits = [("b", to(0, 32), {3, 5})]
    run.draw("a", to(32, 64))
    run.judge("a", to(32, 64), set())
    assert run.give() == {"a": to(64, 100)}
    assert not run.rounds.ended
    run.judge(*run.waits.pop())
    assert run.give() == {}
    assert run.rounds.ended == {"b"}
    run.draw("a", to(64, 100))
    run.judge("a", to(64, 100), set())
    assert run.give() == {}
    assert not run.rounds.open


def test_where_nothing_is_drawn_verdicts_are_waited_for() -> None:
    run = Run(Stopping(64, until_solved=1), {"a": set(range(32)), "b": set(range(40))})
    run.waits = [("b", to(0, 30), {7}), ("b", to(30, 40), set()), ("a", to(0, 32), set())]
    assert run.give() == {"a": to(32, 64)}
    assert run.rounds.ended == {"b"}
    assert run.waits == []


def test_verdicts_that_never_come_hold_nothing_up() -> None:
    run = Run(Stopping(64, until_solved=1), {"a": set(range(32)), "b": set(range(64))})
    run.judge("a", to(0, 31), set())
    run.unjudged = True  # the judge is done, and had a fault
    assert run.give() == {"a": to(32, 64)}


def test_a_limit_of_time_ends_them() -> None:
    run = Run(Stopping(100), late_in_s=-1.0)
    assert run.give() == {"a": to(0, 32), "b": to(0, 32)}
    assert not run.rounds.is_out_of_time
    run.draw("a", to(0, 32))
    assert run.give(n_waiting=9) == {}  # enough samples wait
    assert not run.rounds.is_out_of_time
    assert run.give() == {}
    assert run.rounds.is_out_of_time
    assert run.give() == {}


@pytest.mark.parametrize("there", [{0, 5}, set(range(32)), set(range(40))])
def test_what_is_there_is_not_given_again(there: set[int]) -> None:
    run = Run(Stopping(64), {"a": there})
    given = np.array(run.give()["a"])
    assert sorted({*given.tolist()} | there) == to(0, 32 if len(there) < 32 else 64)
    assert not {*given.tolist()} & there
