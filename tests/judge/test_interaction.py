"""Two programs that talk to each other, each in a box, and one thread that attends to both."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hydragen_tree.judge import Judge
from hydragen_tree.judge.sandbox.box import Box, BoxError
from hydragen_tree.judge.sandbox.interaction import interact
from hydragen_tree.judge.sandbox.request import Request, RunLimits

LIMITS = RunLimits(cpu_s=2, wall_s=12, memory_bytes=256 << 20, output_bytes=1 << 20)
ASKS = "print('question', flush=True)\nassert input() == 'answer'"
ANSWERS = "assert input() == 'question'\nprint('answer', flush=True)"
WAITS = "input()"


@pytest.fixture(scope="module")
def boxes() -> Iterator[tuple[Box, Box]]:
    with Judge(workers=1, cache=False) as judge:
        pair = Box(judge.isolation.container), Box(judge.isolation.container)
        yield pair
        for box in pair:
            box.dispose()


def of(code: str) -> Request:
    return Request(LIMITS, sources=[("solution.py", code)])


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("in_order", [False, True])
def test_each_hears_the_other(boxes: tuple[Box, Box], in_order: bool) -> None:
    one, other = boxes
    ended = interact(one, of(ASKS), other, of(ANSWERS), in_order=in_order)
    assert all(outcome.succeeded for outcome in ended), ended
    before = open_files()
    ended = interact(one, of(ANSWERS), other, of(ASKS), in_order=in_order)
    assert all(outcome.succeeded for outcome in ended), ended
    assert open_files() == before


@pytest.mark.parametrize("in_order", [False, True])
def test_who_waits_hears_of_the_others_end(boxes: tuple[Box, Box], in_order: bool) -> None:
    one, other = boxes
    gone, left = interact(one, of("raise SystemExit(3)"), other, of(WAITS), in_order=in_order)
    assert (gone.exit_status, left.exit_status) == (3, 1)
    assert b"EOFError" in left.stderr
    assert not in_order or gone.ended_at < left.ended_at


def test_both_write_more_than_a_pipe_takes_to_their_errors(boxes: tuple[Box, Box]) -> None:
    one, other = boxes
    flood = "import sys\nsys.stderr.write('x' * 500_000)\n"
    ended = interact(one, of(flood + ASKS), other, of(flood + ANSWERS))
    assert all(outcome.succeeded for outcome in ended), ended


def test_limits_hold_for_each(boxes: tuple[Box, Box]) -> None:
    one, other = boxes
    flood = "import sys\nwhile True: sys.stderr.write('x' * 1000)"
    loud, waiting = interact(one, of(flood), other, of(WAITS))
    assert (loud.killed, waiting.killed) == ("output", "")
    busy, waiting = interact(one, of("while True: pass"), other, of(WAITS))
    assert (busy.killed, waiting.killed) == ("cpu", "")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("in_order", [False, True])
def test_a_box_that_is_lost(boxes: tuple[Box, Box], which: int, in_order: bool) -> None:
    """Both boxes can be used again, and nothing stays open."""
    one, other = boxes
    assert interact(one, of(ASKS), other, of(ANSWERS))[0].succeeded
    before = open_files()
    process = boxes[which]._process
    assert process is not None
    waits = "import time\ntime.sleep(60)" if which == 0 else WAITS
    killer = threading.Timer(0.3, process.kill)
    killer.start()
    with pytest.raises(BoxError, match="lost"):
        interact(one, of(waits), other, of(WAITS), in_order=in_order)
    ended = interact(one, of(ASKS), other, of(ANSWERS))
    assert all(outcome.succeeded for outcome in ended), ended
    killer.join()
    assert open_files() == before


CLOSES = "import os, sys, time\nos.close(1)\ntime.sleep(0.2)\nsys.stdin.read()\n"
HEARS = "import sys\nassert sys.stdin.read() == ''\nprint('heard', file=sys.stderr)"


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_who_closes_its_output_ends_the_others_input(
    boxes: tuple[Box, Box], in_order: bool, turned: bool
) -> None:
    """Though the one that closes it lives on, and waits for the other."""
    one, other = boxes
    codes = (HEARS, CLOSES) if turned else (CLOSES, HEARS)
    ended = interact(one, of(codes[0]), other, of(codes[1]), in_order=in_order)
    assert all(outcome.succeeded for outcome in ended), ended
    assert b"heard" in ended[0 if turned else 1].stderr


@pytest.mark.parametrize("in_order", [False, True])
def test_who_closes_its_input_breaks_the_others_pipe(
    boxes: tuple[Box, Box], in_order: bool
) -> None:
    one, other = boxes
    deaf = "import os, sys, time\nsys.stdin.close()\nos.close(0)\ntime.sleep(2)"
    talks = "import time\nfor _ in range(20):\n    print(1, flush=True)\n    time.sleep(0.1)"
    gone, left = interact(one, of(talks), other, of(deaf), in_order=in_order)
    assert left.succeeded
    assert b"BrokenPipeError" in gone.stderr


@pytest.mark.parametrize("in_order", [False, True])
def test_much_is_passed_on_whole(boxes: tuple[Box, Box], in_order: bool) -> None:
    one, other = boxes
    writes = "print('x' * 3_000_000)"
    reads = "import sys, time\ntime.sleep(0.3)\nassert len(sys.stdin.read()) == 3_000_001"
    before = open_files()
    ended = interact(one, of(writes), other, of(reads), in_order=in_order)
    assert all(outcome.succeeded for outcome in ended), ended
    assert open_files() == before
