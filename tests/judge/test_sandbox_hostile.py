"""Hostile programs, run for real at every level the machine offers.

Each must end as a verdict, with nothing left running or changed. Every bomb is small enough to be
harmless should the sandbox fail: at most 400 processes, 2 GiB, and a few seconds.
"""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hydragen_tree.judge import Judge, Verdict

Run = Callable[..., Verdict]
Check = Callable[[Judge], None]


@pytest.fixture
def judge(judge_of_each_level: Judge) -> Judge:
    return judge_of_each_level


def token() -> str:
    """A number of seconds that no other process sleeps."""
    return f"30.{secrets.randbelow(10**9):09}"


def sleepers(argument: str) -> list[int]:
    """Processes of the whole machine that have the token among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument.encode() in words and b"sleep" in words[0]:
                found.append(int(entry.name))
    return found


def assert_none_left(argument: str) -> None:
    for _ in range(50):
        if not sleepers(argument):
            return
        time.sleep(0.02)
    left = sleepers(argument)
    for pid in left:
        os.kill(pid, 9)
    pytest.fail(f"{len(left)} processes were left running")


def may_fork(judge: Judge) -> bool:
    """Whether programs can start processes; where not, starting one earns them no verdict."""
    return judge.isolation.container.nested or judge.isolation.level == "rlimits"


def test_fork_bomb(judge: Judge, run: Run, assert_well: Check) -> None:
    mark = token()
    verdict = run(
        judge,
        f"""
import os
for _ in range(400):
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "{mark}"])
print(42)
""",
    )
    assert verdict.status in (("RE", "MLE", "TLE") if may_fork(judge) else ("IE",)), verdict
    assert_none_left(mark)
    assert_well(judge)


def test_exponential_fork_bomb(isolated: Judge, run: Run, assert_well: Check) -> None:
    code = "import os, time\nfor _ in range(8):\n    os.fork()\ntime.sleep(0.5)"
    verdict = run(isolated, code)
    ends = ("RE", "MLE", "WA", "TLE")  # TLE where the machine has other work
    assert verdict.status in (ends if may_fork(isolated) else ("IE",)), verdict
    assert_well(isolated)


def test_thread_bomb(judge: Judge, run: Run, assert_well: Check) -> None:
    verdict = run(
        judge,
        """
import threading, time
threading.stack_size(32768)
for _ in range(400):
    threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
print(42)
""",
    )
    assert verdict.status in ("RE", "MLE", "TLE", "AC"), verdict
    assert_well(judge)


def test_memory_bomb(judge: Judge, run: Run, assert_well: Check) -> None:
    verdict = run(judge, "x = []\nwhile len(x) < 2048: x.append(b'x' * (1 << 20))")
    assert verdict.status == "MLE", verdict
    assert verdict.memory_bytes < 512 << 20
    assert_well(judge)


def test_memory_asked_for_at_once(judge: Judge, run: Run) -> None:
    assert run(judge, "bytearray(100 << 30)").status == "MLE"


def test_memory_bomb_of_several_processes(judge: Judge, run: Run, assert_well: Check) -> None:
    verdict = run(
        judge,
        """
import os, time
for _ in range(6):
    if os.fork() == 0:
        x = b"x" * (60 << 20)
        time.sleep(20)
time.sleep(20)
""",
    )
    if judge.isolation.container.nested:
        assert verdict.status == "MLE", verdict
    else:
        assert verdict.status in (("MLE", "RE", "TLE") if may_fork(judge) else ("IE",)), verdict
    assert_well(judge)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_flood(judge: Judge, stream: str, run: Run, assert_well: Check) -> None:
    verdict = run(judge, f"import sys\nwhile True: sys.{stream}.write('flood' * 10000)", time_s=5)
    assert verdict.status == "OLE", verdict
    assert_well(judge)


def test_endless_loop_that_ignores_signals(judge: Judge, run: Run, assert_well: Check) -> None:
    verdict = run(
        judge,
        """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
""",
    )
    assert verdict.status == "TLE", verdict
    assert_well(judge)


def test_endless_sleep(judge: Judge, run: Run) -> None:
    verdict = run(judge, "import time\nwhile True: time.sleep(10)", time_s=0.1)
    assert verdict.status == "TLE", verdict
    assert not verdict.rerun


def test_program_that_stops_itself(judge: Judge, run: Run, assert_well: Check) -> None:
    if judge.isolation.level == "unshare":
        pytest.skip("waits as long as the others, for the same code")
    verdict = run(judge, "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", time_s=0.1)
    assert verdict.status == "TLE", verdict
    assert_well(judge)


def test_double_forked_daemon(judge: Judge, run: Run, assert_well: Check) -> None:
    mark = token()
    verdict = run(
        judge,
        f"""
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "{mark}"])
    os._exit(0)
os.wait()
print(42)
""",
    )
    assert verdict.status == ("AC" if may_fork(judge) else "IE"), verdict
    assert_none_left(mark)
    assert_well(judge)


def test_daemon_that_holds_the_output_open(judge: Judge, run: Run, assert_well: Check) -> None:
    started = time.monotonic()
    run(judge, "import os, time\nif os.fork() == 0: time.sleep(25)\nprint(42)", time_s=1)
    assert time.monotonic() - started < 10
    assert_well(judge)


def test_nothing_is_left_for_the_next_program(isolated: Judge, run: Run) -> None:
    leave = """
import os, subprocess
for directory in ("/tmp", "/dev/shm", ".", "/var/tmp", "/run", "/"):
    try:
        os.makedirs(directory + "/left/deep/down")
        os.symlink("/etc", directory + "/link")
        open(directory + "/file", "w").write("left")
    except OSError:
        pass
print(42)
"""
    look = """
import os
left = [d for d in ("/tmp", "/dev/shm", ".", "/var/tmp", "/run", "/")
        for name in ("left", "link", "file") if os.path.lexists(d + "/" + name)]
print(left or 42)
"""
    assert run(isolated, leave).status == "AC"
    verdict = run(isolated, look)
    assert verdict.status == "AC", verdict


def test_filling_the_disk(isolated: Judge, run: Run, assert_well: Check) -> None:
    code = """
import os
written = 0
try:
    for directory in ("/tmp", "/dev/shm"):
        for number in range(400):
            with open(f"{directory}/{number}", "wb") as file:
                written += file.write(bytes(1 << 20))
except OSError:
    pass
print(42 if written <= 200 << 20 else written)
"""
    verdict = run(isolated, code, time_s=5, memory_mib=512)
    assert verdict.status == "AC", verdict
    assert_well(isolated)


def test_lifting_the_limits(isolated: Judge, run: Run) -> None:
    code = """
import resource
for name in ("AS", "CPU", "NPROC", "FSIZE"):
    which = getattr(resource, "RLIMIT_" + name)
    try:
        resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print("lifted", name)
    except (OSError, ValueError):
        pass
print(42)
"""
    assert run(isolated, code).status == "AC"
