"""Tests that share objects with the program: right programs pass, wrong ones do not."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hydragen_tree.judge import Judge
from hydragen_tree.judge.sandbox.levels import LEVELS
from hydragen_tree.judge.shared_objects import shares_objects
from hydragen_tree.problem.formats.evalplus import evalplus_tests
from hydragen_tree.problem.types import Limits, Problem, Test
from tests.judge.offered import judge_at


@dataclass(frozen=True)
class Case:
    """A test, a program that is right, and what makes it wrong: one text in place of another."""

    name: str
    test: str
    right: str
    fault: tuple[str, str]


NODE = """
class Node:
    def __init__(self, data):
        self.data, self.left, self.right = data, None, None
"""
COUNTED = """
from collections import Counter, defaultdict, OrderedDict
"""
CASES = [
    Case("attributes set by the test",
         "root = Node(1)\nroot.left = Node(2)\nroot.left.left = Node(4)\nassert f(root) == 3",
         NODE + "def f(r): return 0 if r is None else 1 + max(f(r.left), f(r.right))",
         ("1 + max", "max")),
    Case("setattr", "n = Node(1)\nsetattr(n, 'right', Node(5))\nassert f(n) == 6",
         NODE + "def f(r): return 0 if r is None else r.data + f(r.left) + f(r.right)",
         ("+ f(r.right)", "")),
    Case("delattr", "n = Node(1)\ndel n.left\nassert f(n) is False",
         NODE + "def f(n): return hasattr(n, 'left')", ("hasattr(n, 'left')", "True")),
    Case("a function that gives a function", "assert f(1)(2) == 3\ng = f(5)\nassert g(1) == 6",
         "def f(a): return lambda b: a + b", ("a + b", "a - b")),
    Case("len of an object", "s = Stack()\ns.push(1)\ns.push(1)\nassert len(s) == 2",
         "class Stack:\n    def __init__(self): self.all = []\n"
         "    def push(self, x): self.all.append(x)\n    def __len__(self): return len(self.all)",
         ("len(self.all)", "len(set(self.all))")),
    Case("len of what a function gives", "assert len(f(3)) == 3\nassert f(4)[1] == 1",
         "class _Many:\n    def __init__(self, n): self.n = n\n"
         "    def __len__(self): return self.n\n    def __getitem__(self, i): return i\n"
         "def f(n): return _Many(n)", ("return self.n", "return 2")),
    Case("identity", "a = [1]\nassert f(a) is a", "def f(a): return a", ("return a", "return [1]")),
    Case("a lambda with a name", "sq = lambda x: x * x\nassert f(sq, 3) == 9",
         "def f(g, x): return g(x)", ("g(x)", "x")),
    Case("exception arguments", "try:\n    f('k')\n    assert False\nexcept KeyError as e:\n"
         "    assert str(e) == \"'k'\" and e.args == ('k',)",
         "def f(x): return {}[x]", ("{}[x]", "{}[1]")),
    Case("an endless iterator given", "import itertools\nassert f(itertools.count()) == 0",
         "def f(it): return next(it)", ("next(it)", "1")),
    Case("equality", "assert f(1, 2) == f(1, 2)\nassert f(1, 2) != f(2, 1)",
         "class P:\n    def __init__(self, *all): self.all = all\n"
         "    def __eq__(self, other): return self.all == other.all\ndef f(a, b): return P(a, b)",
         ("self.all == other.all", "sorted(self.all) == sorted(other.all)")),
    Case("equality of named objects", "a, b = make(1), make(1)\nc = make(2)\nassert a == b != c",
         "class P:\n    def __init__(self, n): self.n = n\n"
         "    def __eq__(self, other): return self.n == other.n\ndef make(n): return P(n)",
         ("self.n == other.n", "True")),
    Case("the name of a class", "assert f(1).__class__.__name__ == 'Pair'",
         "class Pair: pass\ndef f(n): return Pair()", ("Pair", "Pear")),
    Case("a decorator", "@twice\ndef g(x): return x + 1\nassert g(1) == 3",
         "def twice(g): return lambda x: g(g(x))", ("g(g(x))", "g(x)")),
    Case("a coroutine", "import asyncio\nassert asyncio.run(f(2)) == 4",
         "async def f(n): return n * 2", ("n * 2", "n")),
    Case("a lower-case context manager", "with timer() as t:\n    pass\nassert t.get() == 1",
         "class timer:\n    def __enter__(self): return self\n    def __exit__(self, *why): pass\n"
         "    def get(self): return 1", ("return 1", "return 2")),
    Case("dataclasses.asdict", "import dataclasses\nassert dataclasses.asdict(f(1)) == {'n': 1}",
         "from dataclasses import dataclass\n@dataclass\nclass Item:\n    n: int\n"
         "def f(n): return Item(n)", ("Item(n)", "Item(0)")),
    Case("a function handed to map", "assert list(map(f, [1, 2])) == [2, 4]",
         "def f(n): return 2 * n", ("2 * n", "n")),
    Case("equality with a value", "assert Money(3) == 3",
         "class Money:\n    def __init__(self, n): self.n = n\n"
         "    def __eq__(self, other): return self.n == other", ("self.n == other", "False")),
    Case("addition", "v = Vector(1, 2) + Vector(3, 4)\nassert (v.x, v.y) == (4, 6)",
         "class Vector:\n    def __init__(self, x, y): self.x, self.y = x, y\n"
         "    def __add__(self, o): return Vector(self.x + o.x, self.y + o.y)",
         ("self.y + o.y", "self.y - o.y")),
    Case("a product with a number", "assert (Money(3) * 2).cents == 6",
         "class Money:\n    def __init__(self, c): self.cents = c\n"
         "    def __mul__(self, n): return Money(self.cents * n)", ("* n", "+ n")),
    Case("str of an object",
         "assert str(Point(1, 2)) == '(1, 2)'\nassert f'{Point(3, 4)}' == '(3, 4)'",
         "class Point:\n    def __init__(self, x, y): self.at = x, y\n"
         "    def __str__(self): return str(self.at)", ("str(self.at)", "str(list(self.at))")),
    Case("str of what a function gives", "assert str(f(1)) == 'one'",
         "class W:\n    def __str__(self): return 'one'\ndef f(n): return W()", ("'one'", "'1'")),
    Case("Counter returned",
         "assert f('abca').most_common(1) == [('a', 2)]\nassert f('ab')['z'] == 0",
         COUNTED + "def f(s): return Counter(s)", ("Counter(s)", "Counter(set(s))")),
    Case("Counter given", "from collections import Counter\nassert f(Counter('aab')) == 'a'",
         "def f(c): return c.most_common()[0][0]", ("[0][0]", "[-1][0]")),
    Case("Counter without and with zeroes",
         "from collections import Counter\nassert f('aab', 'b') == Counter(a=2, b=0)",
         COUNTED + "def f(a, b):\n    c = Counter(a)\n    c.subtract(b)\n    return c",
         ("c.subtract(b)", "c.update(b)")),
    Case("defaultdict", "d = f([('a', 1), ('a', 2)])\nassert d['a'] == [1, 2] and d['new'] == []",
         COUNTED + "def f(p):\n    d = defaultdict(list)\n    for k, v in p: d[k].append(v)\n"
         "    return d", ("append(v)", "insert(0, v)")),
    Case("OrderedDict", "from collections import OrderedDict\n"
         "assert f('ba') == OrderedDict([('a', 1), ('b', 0)])",
         COUNTED + "def f(s):\n    d = OrderedDict((c, i) for i, c in enumerate(s))\n"
         "    d.move_to_end(s[0])\n    return d", ("d.move_to_end(s[0])", "pass")),
    Case("namedtuple attributes", "assert f(3, 4).x == 3 and f(3, 4) == (3, 4)",
         "from collections import namedtuple\nP = namedtuple('P', 'x y')\n"
         "def f(a, b): return P(a, b)", ("P(a, b)", "P(b, a)")),
    Case("namedtuple made by the test", "p = P(1, 2)._replace(y=9)\nassert f(p) == 10",
         "from collections import namedtuple\nP = namedtuple('P', 'x y')\n"
         "def f(p): return p.x + p.y", ("p.x + p.y", "p.x * p.y")),
    Case("enum members", "assert f('r') is Color.RED and f('b') == Color.BLUE",
         "from enum import Enum\nclass Color(Enum):\n    RED = 1\n    BLUE = 2\n"
         "def f(s): return Color.RED if s == 'r' else Color.BLUE", ("== 'r'", "!= 'r'")),
    Case("dataclass equality", "assert f(1) == Item(1, [1])\nassert Item(1, []) != Item(2, [])",
         "from dataclasses import dataclass\n@dataclass\nclass Item:\n    n: int\n    all: list\n"
         "def f(n): return Item(n, [n])", ("[n]", "[0]")),
    Case("lambda as an argument", "assert f(lambda x: x * 2, [1, 2]) == [2, 4]",
         "def f(g, a): return [g(x) for x in a]", ("g(x)", "x")),
    Case("functions of the test and of Python as arguments",
         "def twice(x): return 2 * x\nassert f(twice, len)('ab') == 4",
         "def f(g, h): return lambda x: g(h(x))", ("g(h(x))", "h(g(x)) + 1")),
    Case("globals read after a call", "f()\nf()\nassert count == 2",
         "count = 0\ndef f():\n    global count\n    count += 1", ("+= 1", "= 1")),
    Case("a container of the program's that calls change", "f(1)\nf(2)\nassert len(log) == 2",
         "log = []\ndef f(x): log.append(x)", ("log.append(x)", "log[:] = [x]")),
    Case("an endless generator", "g = f()\nassert [next(g), next(g), next(g)] == [0, 1, 4]",
         "def f():\n    n = 0\n    while True:\n        yield n * n\n        n += 1",
         ("n * n", "n + n")),
    Case("an endless generator in islice and zip",
         "from itertools import islice\nassert list(islice(f(), 40))[39] == 39\n"
         "assert [a for a, _ in zip(f(), range(3))] == [0, 1, 2]",
         "import itertools\ndef f(): return itertools.count()",
         ("count()", "count(1)")),
    Case("a generator that raises late", "got = []\ntry:\n    for x in f(): got.append(x)\n"
         "except ValueError:\n    got.append('end')\nassert got == [*range(20), 'end']",
         "def f():\n    yield from range(20)\n    raise ValueError",
         ("raise ValueError", "return")),
    Case("send", "g = f()\nnext(g)\nassert g.send(3) == 3\nassert g.send(4) == 7",
         "def f():\n    total = 0\n    while True: total += yield total",
         ("total += yield", "total = yield")),
    Case("a class of the test's", "class Dog:\n    def speak(self): return 'wow'\n"
         "assert f(Dog()) == 'wow!'", "def f(a): return a.speak() + '!'", ("+ '!'", "+ ''")),
    Case("an exception's own attribute", "try:\n    f(3)\nexcept Own as error:\n"
         "    assert error.code == 3\nelse:\n    assert False",
         "class Own(Exception):\n    def __init__(self, c): self.code = c\n"
         "def f(n): raise Own(n)", ("self.code = c", "self.code = 0")),
    Case("context manager", "with Door() as d:\n    assert d.open\nassert not d.open",
         "class Door:\n    def __enter__(self):\n        self.open = True\n        return self\n"
         "    def __exit__(self, *why): self.open = False", ("= False", "= True")),
    Case("identity", "a = Single()\nassert Single() is a",
         "class Single:\n    one = None\n    def __new__(cls):\n"
         "        cls.one = cls.one or object.__new__(cls)\n        return cls.one",
         ("cls.one or ", "")),
]  # fmt: skip


@pytest.fixture(scope="module", params=[level for level in LEVELS if level != "rlimits"])
def judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    with judge_at(request.param) as judge:
        yield judge


def problem(test: str) -> Problem:
    return Problem(
        id="p",
        statement="s",
        entry_point="f",
        tests=(Test(code=test),),
        limits=Limits(time_s=2),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_right_and_wrong(judge: Judge, case: Case) -> None:
    assert shares_objects(case.test)
    right = judge.judge(problem(case.test), case.right)
    assert right.accepted, right
    assert case.fault[0] in case.right
    wrong = judge.judge(problem(case.test), case.right.replace(*case.fault))
    assert wrong.status in ("WA", "RE"), wrong


BESIDE = "n = Node(1)\nn.left = Node(2)\nassert f(n) == 2, 'two nodes'"


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("def f(n): return 3", "WA", "two nodes"),
        ("def f(n): 1 / 0", "RE", "ZeroDivisionError"),
        ("def f(n): return n.other", "RE", "AttributeError"),
        ("def f(n): exit()", "RE", "SystemExit"),
        ("import os\ndef f(n): os._exit(42)", "RE", "exit status 42"),
        ("import os\nprint(42)\nos._exit(0)", "RE", "ended before"),
        ("import os\nos.write(1, b'[42, \"\"]\\n')\ndef f(n): os._exit(0)", "RE", "ended before"),
        ("def f(n):\n    while True: pass", "TLE", ""),
        ("def f(n) return 2", "CE", "SyntaxError"),
        ("def g(n): return 2", "RE", "name 'f' is not defined"),
        ("def f(n): return g(n)", "RE", "NameError: name 'g'"),
        ("print('noise')\ndef f(n):\n    print('noise')\n    return 2", "AC", ""),
    ],
)
def test_endings_beside_the_program(judge: Judge, code: str, status: str, message: str) -> None:
    verdict = judge.judge(problem(BESIDE), NODE + code)
    assert verdict.status == status, verdict
    assert message in verdict.message


PLAIN = [
    "assert f([1, 2], 'a') == {'x': (1, 2)}",
    "assert f(x=[0] * 3) != -1 and not f(1 + 2)\nassert f(1), f'not {1}'",
    "def check(candidate):\n    assert candidate(1) == 2\n"
    "    assert abs(candidate(.1) - 1) < 1\ncheck(f)",
    "METADATA = {'a': [1]}\ndef check(candidate):\n    'Checks.'\n    assert True, 'simple'\n"
    "    a = [2, 1]\n    wanted = [1, 2]\n    assert candidate(a) == wanted, f'not {wanted}'\n"
    "    assert candidate([3, 4]) != wanted\ncheck(f)",
    "assert set(f(3)) == set(range(3)) and len(f(4)) == 4 and list(f(2)) == [0, 1]",
    "assert f([]) is None\nassert f(float('inf')) in (1, 2)\nassert 3 in f(1)",
    "def check(candidate):\n    assert candidate([1]) == 1\ncheck(Solution().f)",
    "assert Solution().f([1], k=2) == [1]",
    "def check(g):\n    assert g(1) == 2, 'got ' + str(g(1))\ncheck(f)",
    "assert Split_Words('a b') == ['a', 'b']",
    "def check(candidate):\n    assert candidate(1) == 2\ncheck(Strongest)",
    "this is no Python",
]
NOT_PLAIN = [
    "assert f(f(1)) == 1",
    "assert f(1) == f(1)",
    "assert f(1) is 1",
    "assert f is not None",
    "assert f(...) == 1",
    "assert f([[0]] * 2) == 1",
    "assert f(*[1]) == 1",
    "assert Item(3) == 3",
    "assert str(f(1)) == '1'",
    "assert f(1)[0] == 1",
    "assert f(1).lower() == 'a'",
    # Python's own functions, unless the program has defined them
    "assert sum(10, 15) == 6",
    "assert sorted([2, 1]) == [1, 2]",
    "assert abs(-1) == 1",
    "assert len() == 1",
    # names that the program sees, or a list that it could keep or change
    "import math\nassert f(2) == 1",
    "n = 1\nassert f(2) == 1",
    "def f(x): return 1\nassert g(2) == 1",
    "def check(g):\n    a = [1]\n    assert g(a) == 1 and a == [1]\ncheck(f)",
    "def check(g):\n    a = [1]\n    assert g(a, a) == 1\ncheck(f)",
    "def check(g):\n    a = [1]\n    b = [a]\n    assert g(b) == 1 and a == [1]\ncheck(f)",
    "def check(g):\n    a = [1]\n    a = [2]\n    assert g(a) == 1\ncheck(f)",
    "def check(g):\n    r = g(1)\n    assert g(2) == 1 and r == [1]\ncheck(f)",
    # a name that may be no function's, and is never called
    "def check(g):\n    assert True\ncheck(f)",
    "if __name__ == '__main__':\n    assert f(1) == 1",
]


@pytest.mark.parametrize("test", PLAIN)
def test_plain_tests_run_apart(test: str) -> None:
    assert not shares_objects(test)


@pytest.mark.parametrize("test", NOT_PLAIN)
def test_other_tests_run_beside_the_program(test: str) -> None:
    assert shares_objects(test)


OWN = "class P:\n    def __init__(self, n): self.n = n\n    def __{}__(self, *o): return {}\n"


@pytest.mark.parametrize(
    ("test", "code", "status", "message"),
    [
        ("assert f(1) == 1", OWN.format("eq", "self.n == o[0]") + "f = P", "IE", "gave a P"),
        ("assert 1 in f(1)", OWN.format("len", "2") + "f = lambda n: [P(n)]", "WA", ""),
        ("assert f(1) < 3", OWN.format("lt", "True") + "f = P", "IE", "__lt__"),
        ("assert f(1) < 3", OWN.format("gt", "True") + "f = P", "WA", "TypeError"),
        ("assert abs(f(1) - 1) < 1", OWN.format("sub", "0") + "f = P", "IE", "__sub__"),
        ("assert not f(1)", OWN.format("bool", "False") + "f = P", "IE", "__bool__"),
        ("assert f(1)", OWN.format("eq", "1") + "f = P", "AC", ""),
        ("assert len(f(1)) == 1", "def f(n): return (i for i in [n])", "WA", "TypeError"),
        ("assert list(f(1)) == [1]", "def f(n): return (i for i in [n])", "AC", ""),
        ("assert f(1) == [1]", "def f(n): return (i for i in [n])", "WA", ""),
        ("assert f(1) != [[1]]", "import itertools\nf = lambda n: [itertools.count()]", "AC", ""),
        ("assert f(1) == [1]", "def f(n): return {n: 2}.keys()", "WA", ""),
        ("assert f(1) == {1}", "def f(n): return {n: 2}.keys()", "AC", ""),
        ("assert f(1) == b'a'", "def f(n): return memoryview(b'a')", "IE", "memoryview"),
        ("assert f(1) == '2020-01-01'", "import datetime\nf = lambda n: datetime.date(2020, n, 1)",
         "WA", ""),
        ("assert f(1) == 'a'", "class S(str):\n    def __eq__(self, o): return o == self.lower()\n"
         "    __hash__ = str.__hash__\nf = lambda n: S('A')", "IE", "gave a S"),
        ("assert f(1) == (1, 2)", "from collections import namedtuple\nP = namedtuple('P', 'a b')\n"
         "f = lambda n: P(n, 2)", "AC", ""),
        ("assert f(1) == 2", "from enum import IntEnum\nclass E(IntEnum):\n    A = 2\n"
         "f = lambda n: E.A", "AC", ""),
        ("assert f(1) != []", "def f(n):\n    r = []\n    for _ in range(5000): r = [r]\n"
         "    return r", "IE", "nested too deeply"),
        ("assert f(1) != []", "import sys\nsys.setrecursionlimit(50000)\ndef f(n):\n    r = []\n"
         "    for _ in range(2000): r = [r]\n    return r", "IE", "nested too deeply"),
        ("assert f(1) == 2", "class Yes:\n    def __eq__(self, other): return True\n"
         "f = lambda n: Yes()", "WA", ""),
    ],
)  # fmt: skip
def test_results_that_are_objects(
    judge: Judge, test: str, code: str, status: str, message: str
) -> None:
    """What plain parts cannot answer is refused by name, and no more than that."""
    assert not shares_objects(test)
    verdict = judge.judge(problem(test), code)
    assert verdict.status == status, verdict
    assert message in verdict.message


def test_tests_of_evalplus_stay_apart() -> None:
    record = {
        "task_id": "HumanEval/1", "prompt": "def f(x):\n", "entry_point": "f", "atol": 0,
        "canonical_solution": "    return x\n", "base_input": [[1]], "plus_input": [[[1, 2.0]]],
    }  # fmt: skip
    assert not any(map(shares_objects, evalplus_tests(record)))
