"""What a sandbox keeps its programs from: files, processes, the network, the judge, the answers."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hydragen_tree.judge import Judge, Verdict

Run = Callable[..., Verdict]
Check = Callable[[Judge], None]


def test_writing_outside_through_paths_and_links(isolated: Judge, tmp_path: Path, run: Run) -> None:
    file = tmp_path / "bait"
    file.write_text("untouched")
    for directory in (tmp_path, file):
        directory.chmod(0o777)
    code = f"""
import os
path = {str(file)!r}
attempts = [
    lambda: open(path, "w").write("changed"),
    lambda: open("/proc/1/root" + path, "w").write("changed"),
    lambda: open(f"/proc/{{os.getppid()}}/root" + path, "w").write("changed"),
    lambda: open(f"/proc/{{os.getppid()}}/cwd/../../.." + path, "w").write("changed"),
    lambda: (os.symlink(path, "/tmp/link"), open("/tmp/link", "w").write("changed")),
    lambda: (os.link(path, "/tmp/hard"), open("/tmp/hard", "w").write("changed")),
    lambda: os.rename(path, "/tmp/mine"),
    lambda: os.unlink(path),
    lambda: os.chmod(path, 0),
    lambda: os.utime(path, (0, 0)),
    lambda: os.truncate(path, 0),
    lambda: os.chroot("/proc/1/root"),
]
for attempt in attempts:
    try:
        attempt()
    except OSError:
        pass
print(42)
"""
    before = file.stat()
    assert run(isolated, code).status == "AC"
    after = file.stat()
    assert file.read_text() == "untouched"
    assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [file]


def test_proc_tricks(isolated: Judge, run: Run) -> None:
    """The runner's and the judge's memory, environment and files stay closed."""
    code = f"""
import os
judge = {os.getpid()}
opened = []
for pid in (1, os.getppid(), judge):
    if pid == os.getpid():
        continue
    for name, mode in (("environ", "rb"), ("mem", "rb+"), ("maps", "rb"), ("oom_score_adj", "w")):
        try:
            with open(f"/proc/{{pid}}/{{name}}", mode) as file:
                if name != "mem" and mode == "rb" and not file.read():
                    continue
            opened.append((pid, name))
        except OSError:
            pass
    for name in ("fd", "root", "cwd", "ns"):
        try:
            opened.append((pid, name, os.listdir(f"/proc/{{pid}}/{{name}}")))
        except OSError:
            pass
for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches",
             "/sys/fs/cgroup/cgroup.procs", "/dev/mem", "/dev/kmsg", "/proc/kcore"):
    try:
        open(path, "r+b")
        opened.append(path)
    except OSError:
        pass
print(opened or 42)
"""
    verdict = run(isolated, code)
    assert verdict.status == "AC", verdict


def test_system_calls_that_are_refused(isolated: Judge, run: Run) -> None:
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
names = {
    "ptrace": lambda: libc.ptrace(16, os.getppid(), 0, 0),
    "unshare user": lambda: libc.unshare(0x10000000),
    "unshare mount": lambda: libc.unshare(0x20000),
    "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
    "setns": lambda: libc.setns(0, 0),
    "keyctl": lambda: libc.syscall(250, 0, -3, 1, 0, 0),
    "bpf": lambda: libc.syscall(321, 0, 0, 0),
    "perf": lambda: libc.syscall(298, 0, 0, -1, -1, 0),
    "io_uring": lambda: libc.syscall(425, 1, 0),
    "userfaultfd": lambda: libc.syscall(323, 0),
    "memfd": lambda: libc.syscall(319, b"x", 0),
    "open_by_handle": lambda: libc.syscall(304, -100, 0, 0),
    "setuid": lambda: libc.setuid(0) or libc.setgroups(0, None),
}
made = [name for name, call in names.items() if call() >= 0]
print(made or 42)
"""
    if os.uname().machine != "x86_64":
        pytest.skip("the numbers are of x86_64")
    verdict = run(isolated, code)
    assert verdict.status == "AC", verdict


def test_network(isolated: Judge, run: Run) -> None:
    name = f"\0hydragen-{secrets.token_hex(8)}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as local,
    ):
        udp.bind(("127.0.0.1", 0))
        local.bind(name)
        local.listen()
        for listener in (tcp, udp, local):
            listener.settimeout(0.05)
        code = f"""
import socket
for family, kind, address in (
    (socket.AF_INET, socket.SOCK_STREAM, {tcp.getsockname()!r}),
    (socket.AF_INET, socket.SOCK_DGRAM, {udp.getsockname()!r}),
    (socket.AF_UNIX, socket.SOCK_STREAM, {name!r}),
):
    try:
        with socket.socket(family, kind) as out:
            out.settimeout(1)
            out.connect(address)
            out.send(b"out")
    except OSError:
        pass
print(42)
"""
        assert run(isolated, code, time_s=2).status == "AC"
        for accept in (tcp.accept, lambda: udp.recv(8), local.accept):
            with pytest.raises(TimeoutError):
                accept()


def test_killing_the_judge(isolated: Judge, run: Run, assert_well: Check) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        code = f"""
import ctypes, os, signal
for pid in ({os.getpid()}, {os.getppid()}, {bystander.pid}, os.getppid(), 1, -1, -{os.getpid()}):
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except OSError:
            pass
for request in (8, 15):  # F_SETOWN: signals that arrive with data
    ctypes.CDLL(None).fcntl(0, request, {bystander.pid})
print(42)
"""
        verdict = run(isolated, code)
        assert verdict.status == "AC", verdict
        assert bystander.poll() is None
        bystander.kill()
    assert_well(isolated)


def test_the_expected_answer_is_nowhere_inside(isolated: Judge, run: Run) -> None:
    """It is searched for in every file that can be read and in all of the program's own memory."""
    halves = secrets.token_hex(12), secrets.token_hex(12)
    code = f"""
import os
first, second = {halves[0]!r}.encode(), {halves[1]!r}.encode()
system = ("/usr", "/proc", "/sys", "/nix", {sys.base_prefix!r})
places = []
for fd in range(3, 256):
    try:
        places.append((fd, os.fstat(fd)))
    except OSError:
        pass

def found(data):
    return any(rest.startswith(second) for rest in data.split(first)[1:])

try:
    memory = open("/proc/self/mem", "rb", 0)
    for line in open("/proc/self/maps"):
        span, rights = line.split()[:2]
        start, end = (int(word, 16) for word in span.split("-"))
        if rights[0] == "r" and end < 1 << 47 and "[v" not in line:
            memory.seek(start)
            if found(memory.read(end - start)):
                places.append(line)
except PermissionError:
    pass
for top, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(top, name) not in system]
    for path in (os.path.join(top, name) for name in files):
        try:
            if os.path.isfile(path) and found(open(path, "rb").read(1 << 20)):
                places.append(path)
        except OSError:
            pass
print(places or "nowhere")
"""
    verdict = run(isolated, code, time_s=5, output=f"{halves[0]}{halves[1]}\n")
    assert verdict.status == "WA", verdict
    assert verdict.stdout_excerpt.strip() == "nowhere", verdict


def test_writing_next_to_its_tests(isolated: Judge, tmp_path: Path) -> None:
    (tmp_path / "checker.py").write_text(
        "def check(input, answer, output):\n    return output == '7'"
    )
    (tmp_path / "problem.yaml").write_text(
        "id: p\nstatement: s\ntests: [{input: '', output: ''}]\n"
        "checker: {type: program, source: checker.py, protocol: python}\n"
    )
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o777)
    from hydragen_tree.problem.reading import load_problem

    target = str(tmp_path / "checker.py")
    code = f"""
try:
    open({target!r}, "w").write("def check(*all): return True")
except OSError as error:
    print(error)
"""
    before = (tmp_path / "checker.py").read_bytes()
    verdict = isolated.judge(load_problem(tmp_path / "problem.yaml"), code)
    assert verdict.status == "WA", verdict
    assert (tmp_path / "checker.py").read_bytes() == before


def test_programs_do_not_run_as_root(isolated: Judge, run: Run) -> None:
    """Neither its own identity nor its capabilities let a program do what a user may not."""
    code = """
status = dict(line.split(":\\t") for line in open("/proc/self/status") if ":\\t" in line)
held = [key for key in ("CapInh", "CapPrm", "CapEff", "CapAmb") if int(status[key], 16)]
print(held or (42 if status["NoNewPrivs"].strip() == "1" else "new privileges"))
"""
    if not isolated.isolation.container.nested:
        code = "import os\ntry:\n    os.chown('/dev/null', 0, 0)\nexcept OSError:\n    print(42)"
    assert run(isolated, code).status == "AC"
