"""Programs found by other processes are those found here, in order, whatever happens to them."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hydragen_tree.sample import finishing
from hydragen_tree.sample.finishing import Answer, Programs, workers_for
from tests.sample.answers import FUNCTION, block

ANSWERS = [
    *(Answer(f"    return a + {i}\n", FUNCTION, "", "add") for i in range(200)),
    *(Answer(f"So:\n{block(f'print({i})')}", None, "", None) for i in range(100)),
    Answer("    return '\ud800'\n", FUNCTION, "", "add"),  # half a pair, as bytes may give it
]
FOUND = [answer.program for answer in ANSWERS]


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_programs_come_in_order(n_workers: int) -> None:
    with Programs(n_workers) as programs:
        assert programs.n_workers == n_workers
        assert programs.ask([*ANSWERS, *reversed(ANSWERS)])() == [*FOUND, *reversed(FOUND)]
        assert programs.ask(ANSWERS[:3])() == FOUND[:3]
        assert programs.ask([])() == []
    assert programs.n_workers == 0


def test_more_answers_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "_KEPT", 10)
    with Programs(2) as programs:
        for _ in range(2):
            assert programs.ask(ANSWERS)() == FOUND


def test_what_nobody_fetched_answers_no_other_question() -> None:
    with Programs(2) as programs:
        programs.ask(ANSWERS)
        assert programs.ask(ANSWERS[::-1])() == FOUND[::-1]


def test_a_lost_worker_costs_nothing(children: list[int]) -> None:
    with Programs(2) as programs:
        os.kill(children_of(os.getpid(), children)[-1], signal.SIGKILL)
        assert programs.ask(ANSWERS)() == FOUND
        assert programs.n_workers == 0
        assert programs.ask(ANSWERS[::-1])() == FOUND[::-1]
    assert children_of(os.getpid(), children) == []


def test_an_interrupt_ends_the_workers(
    children: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(file: object) -> object:
        raise KeyboardInterrupt

    with Programs(2) as programs:
        monkeypatch.setattr(pickle, "load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            programs.ask(ANSWERS)()
        assert children_of(os.getpid(), children) == []


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import time; from hydragen_tree.sample.finishing import Programs; p = Programs(2); "
        "print(*[w.pid for w in p._workers], flush=True); time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    workers = [int(word) for word in run.stdout.readline().split()]
    assert len(workers) == 2
    run.kill()
    run.communicate()
    until = time.monotonic() + 20
    while any(map(_lives, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(_lives, workers))


def test_workers_import_no_torch() -> None:
    script = (
        "import sys, hydragen_tree.sample.finishing; print({'torch', 'numpy'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_workers_only_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    assert workers_for("cuda", 16_400) == 4
    assert workers_for("cpu", 16_400) == 0
    assert workers_for("cuda", 100) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3))
    assert workers_for("cuda", 16_400) == 0


@pytest.fixture
def children() -> list[int]:
    """Processes that this one has started before."""
    return children_of(os.getpid(), [])


def children_of(process: int, before: list[int]) -> list[int]:
    """Those that it has started since."""
    started = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [pid for pid in map(int, started) if pid not in before]


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
