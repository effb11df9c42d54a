"""A program ends in the judge as it does in a Python of its own, seen from outside."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hydragen_tree.judge import Judge
from hydragen_tree.judge.sandbox.box import Box
from hydragen_tree.judge.sandbox.interpreter import find_interpreter
from hydragen_tree.judge.sandbox.levels import ENVIRONMENT
from hydragen_tree.judge.sandbox.request import Request, RunLimits

_FINALISED = "class A:\n    def __del__(self): print('del', flush=True)\n"
_STATUSES = ("0", "3", "-1", "255", "256", "2**31", "2**70", "True", "None", "''", "'no'", "1.5")

ENDINGS = {
    **{f"sys.exit({code})": f"import sys\nprint(6)\nsys.exit({code})" for code in _STATUSES},
    "SystemExit with arguments": "print(6)\nraise SystemExit(1, 2)",
    "SystemExit of its own": "class E(SystemExit):\n    code = 'own'\nraise E(3)",
    "exit in a thread": "import sys, threading\n"
    "t = threading.Thread(target=sys.exit, args=(3,))\nt.start()\nt.join()\nprint(6)",
    "os._exit": "import os\nprint('lost')\nos._exit(3)",
    "os._exit in atexit": "import atexit, os\natexit.register(os._exit, 4)\nprint('lost?')",
    "thread that goes on": "import threading, time\n"
    "def f():\n    time.sleep(0.1)\n    print('late')\n"
    "threading.Thread(target=f).start()\nprint('early')",
    "thread that starts a thread": "import threading, time\n"
    "def f(n):\n    time.sleep(0.02)\n    print(n)\n"
    "    if n: threading.Thread(target=f, args=(n - 1,)).start()\n"
    "threading.Thread(target=f, args=(3,)).start()",
    "thread and atexit": "import atexit, threading, time\natexit.register(print, 'atexit')\n"
    "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()",
    "thread, then exit status": "import sys, threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\nsys.exit(3)",
    "thread started in atexit": "import atexit, threading\n"
    "atexit.register(lambda: threading.Thread(target=print, args=('thread',)).start())",
    "daemon thread": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(5), print('no')), daemon=True).start()\nprint(6)",
    "daemon thread that is busy": "import threading\ndef f():\n    while True: pass\n"
    "threading.Thread(target=f, daemon=True).start()\nprint(6)",
    "raw thread": "import _thread, time\n"
    "_thread.start_new_thread(lambda: (time.sleep(5), print('no')), ())\nprint(6)",
    "pool of threads": "from concurrent.futures import ThreadPoolExecutor\n"
    "import time\npool = ThreadPoolExecutor(2)\n"
    "for i in range(2): pool.submit(lambda i: (time.sleep(0.1 * i), print(i)), i)",
    "main thread in atexit": "import atexit, threading\n"
    "atexit.register(lambda: print(threading.main_thread().is_alive()))",
    "atexit order": "import atexit\nfor i in range(3): atexit.register(print, i)",
    "atexit in atexit": "import atexit\natexit.register(lambda: atexit.register(print, 6))",
    "atexit that raises": "import atexit, sys\natexit.register(print, 1)\n"
    "atexit.register(lambda: 1 / 0)\natexit.register(sys.exit, 3)\natexit.register(print, 2)",
    "finalize": "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 6)",
    "__del__": f"{_FINALISED}a = A()\nprint(6)",
    "__del__ in a cycle": f"{_FINALISED}a = A()\na.a = a\ndel a\nprint(6)",
    "__del__ behind a list": f"{_FINALISED}a = [[A()]]\nprint(6)",
    "__del__ of one without attributes": "class A:\n    __slots__ = ()\n"
    "    def __del__(self): print('del')\na = (A(),)\nprint(6)",
    "__del__ in a module": f"import random\n{_FINALISED}random.a = A()\nprint(6)",
    "__del__ after exit": f"import sys\n{_FINALISED}a = A()\nsys.exit(3)",
    "__del__ of a frozen one": f"import gc\n{_FINALISED}a = [A()]\ngc.freeze()\nprint(6)",
    "__del__ with globals": "import sys\nclass A:\n"
    "    def __del__(self): sys.stdout.write(text)\na = A()\ntext = 'del'",
    "__del__ that imports": "class A:\n    def __del__(self):\n        import json\n"
    "        print(json)\na = A()\nprint(6)",
    "__del__ that raises": "class A:\n    def __del__(self): 1 / 0\na = A()\nprint(6)",
    "__del__ that exits": "import os\nclass A:\n"
    "    def __del__(self, leave=os._exit): leave(5)\na = A()\nprint(6, flush=True)",
    "weak reference": "import weakref\nclass A: pass\na = A()\n"
    "r = weakref.ref(a, lambda r: print('gone'))\nb = weakref.ref(A)",
    "weak proxy": "import weakref\nclass A: pass\na = A()\n"
    "r = weakref.proxy(a, lambda r: print('gone'))",
    "generator": "def f():\n    try:\n        yield 1\n    finally:\n        print('finally')\n"
    "g = f()\nnext(g)",
    "coroutine": "async def f(): pass\nc = f()\nprint(6)",
    "abstract classes": "import abc, collections.abc\nclass A(abc.ABC): pass\n"
    "print(isinstance(3, collections.abc.Iterable), issubclass(list, A))",
    "file not closed": "f = open(1, 'w', closefd=False)\nf.write('6')",
    "file not closed, in a function": "def f():\n    f.out = open(1, 'w', closefd=False)\n"
    "    f.out.write('6')\nf()",
    "file not closed, in a module": "import sys\nsys.out = open(1, 'w', closefd=False)\n"
    "sys.out.write('6')",
    "text over a plain file": "import io\nf = io.TextIOWrapper(io.FileIO(1, 'w'))\nf.write('6')",
    "bytes not flushed": "import io\nf = io.BufferedWriter(io.FileIO(1, 'w'))\nf.write(b'6')",
    "open for both": "f = open('/dev/stdout', 'ab+', 0)\nf.write(b'6')\n",
    "open for reading": "f = open(0)\nprint(f.read())",
    "stdout of its own": "import io, sys\n"
    "sys.stdout = io.TextIOWrapper(io.FileIO(1, 'w'))\nprint(6)",
    "text for nobody": "import io, sys\nsys.stdout = io.StringIO()\nprint(6)",
    "two stdouts": "import io, sys\nprint(1)\n"
    "sys.stdout = io.StringIO()\nsys.__stdout__.write('2')",
    "stdout without flush": "import sys\nclass A:\n    def write(self, text): pass\n"
    "sys.stdout = A()\nprint(6)",
    "stdout that counts": "import io, os, sys\nclass A(io.StringIO):\n"
    "    def flush(self): os.write(1, b'flush ')\nsys.stdout = A()\nprint(6)",
    "fast output": "import io, os, sys\nclass A(io.IOBase):\n"
    "    def __init__(self): self.b = io.BytesIO()\n"
    "    def write(self, text): self.b.write(text.encode())\n"
    "    def flush(self):\n"
    "        os.write(1, self.b.getvalue()); self.b.seek(0); self.b.truncate(0)\n"
    "sys.stdout = A()\nprint(6)",
    "stdout is None": "import sys\nprint(6)\nsys.stdout = None",
    "stdout deleted": "import sys\nprint(6)\ndel sys.stdout",
    "stdout closed": "import sys\nprint(6)\nsys.stdout.close()",
    "stdout closed, then print": "import sys\nsys.stdout.close()\nprint(6)",
    "stdout detached": "import sys\nprint(6)\nb = sys.stdout.detach()\nb.write(b'7')",
    "stdout detached and lost": "import sys\nprint(6)\nsys.stdout.detach().write(b'7')",
    "buffer of stdout": "import sys\nsys.stdout.buffer.write(b'6')",
    "descriptor closed": "import os\nprint(6)\nos.close(1)",
    "descriptor closed, with a status": "import os, sys\nprint(6)\nos.close(1)\nsys.exit(3)",
    "descriptor full": "import os\nprint(6)\nos.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
    "stderr not flushed": "import sys\nsys.stderr.write('to stderr')",
    "stderr gone": "import os, sys\nsys.stderr.write('x')\nos.close(2)\nprint(6)",
    "C buffers": "import ctypes\nctypes.CDLL(None).printf(b'6\\n')",
    "C buffers after an exit": "import ctypes, sys\nctypes.CDLL(None).printf(b'6\\n')\nsys.exit(3)",
    "trace": "import sys\nsys.settrace(lambda frame, event, arg: print(event))",
    "exception": "print(6)\n[][1]",
    "exception and atexit": "import atexit\natexit.register(print, 'atexit')\n[][1]",
    "interrupt": "raise KeyboardInterrupt",
    "much memory": "x = [[i] for i in range(200000)]\nprint(len(x))",
    "its own sys.exit": "import sys\nsys.exit = print\nsys.gettrace = None\nsys.exit(6)",
    "modules gone": "import sys\nsys.modules.clear()\nprint(6)",
    "builtins gone": "import builtins\nprint(6)\n"
    "builtins.set = builtins.map = builtins.type = None",
}  # fmt: skip

ORDINARY = {
    "input": "print(input())",
    "classes": "class A:\n    def f(self): return super().__init__()\na = A()",
    "stdin": "import sys\ninput = sys.stdin.readline\nprint(sys.stdin.buffer.read())",
    "open(0)": "f = open(0)\ninput = f.readline\nb = open(0, 'rb')",
    "io.BytesIO": "import io, os\ninput = io.BytesIO(os.read(0, 9)).readline",
    "imports": "import bisect, collections, functools, heapq, itertools, math, random, re, string\n"
    "import copy, dataclasses, decimal, enum, fractions, operator, time, typing\n"
    "@functools.lru_cache\ndef f(n): return n\nf(3)\n"
    "@dataclasses.dataclass\nclass A:\n    x: int\nclass B(enum.Enum):\n    X = 1",
    "abstract classes": "import abc, collections\nclass A(abc.ABC): pass\n"
    "print(isinstance(3, collections.abc.Iterable), issubclass(list, A))",
    "recursion in a thread": "import threading\nt = threading.Thread(target=print)\n"
    "t.start()\nt.join()",
    "generators that ended": "print(sum(i for i in range(3)), any(i for i in [1]))",
}


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with Judge(workers=1, cache=False) as judge:
        box = Box(judge.isolation.container)
        yield box
        box.dispose()


@pytest.mark.parametrize("name", ENDINGS)
def test_ends_as_python_does(box: Box, tmp_path: Path, name: str) -> None:
    code = ENDINGS[name]
    (tmp_path / "solution.py").write_text(code)
    wanted = subprocess.run(
        [find_interpreter().path, "-s", "solution.py"],
        input=b"3\n",
        capture_output=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        check=False,
    )
    limits = RunLimits(cpu_s=5, wall_s=10, memory_bytes=512 << 20)
    got = box.run(Request(limits, sources=[("solution.py", code)]), b"3\n")
    status = -got.signal if got.signal else got.exit_status
    assert (got.stdout, status) == (wanted.stdout, wanted.returncode), got
    assert got.stderr.split(b"\n")[-2:] == wanted.stderr.split(b"\n")[-2:]
    assert not got.killed


def test_nothing_of_an_ending_is_left_for_the_next(box: Box) -> None:
    leave = (
        "import atexit, builtins, random, sys\natexit.register(print, 'left')\n"
        "builtins.left = random.left = sys.left = 1\nrandom.seed = None"
    )
    look = (
        "import builtins, random, sys\nrandom.seed(1)\n"
        "print([hasattr(module, 'left') for module in (builtins, random, sys)])"
    )
    limits = RunLimits(cpu_s=5, wall_s=10, memory_bytes=512 << 20)
    for code, said in ((leave, b"left\n"), (look, b"[False, False, False]\n")) * 2:
        assert box.run(Request(limits, sources=[("solution.py", code)])).stdout == said


@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_ordinary_is_not_left_to_the_interpreter(box: Box, name: str) -> None:
    look = "\nimport sys\nprint(sys.modules['guest.ending']._something_would_notice())"
    limits = RunLimits(cpu_s=5, wall_s=10, memory_bytes=512 << 20)
    got = box.run(Request(limits, sources=[("solution.py", ORDINARY[name] + look)]), b"3\n")
    assert got.stdout.split()[-1] == b"False", got
