"""Checkers that are programs: Kattis, Polygon and Python ones, and interactive problems."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge
from hydragen_tree.judge.languages import find_language
from hydragen_tree.problem.checkers import ProgramChecker
from hydragen_tree.problem.types import Limits, Problem, Test


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(workers=1, cache=False) as judge:
        yield judge


def with_checker(
    directory: Path, name: str, code: str, protocol: str, **settings: object
) -> Problem:
    (directory / name).write_text(code)
    checker = {"type": "program", "source": name, "protocol": protocol, **settings}
    return Problem.model_validate(
        {
            "id": "p",
            "statement": "s",
            "tests": [{"input": "5\n", "output": "five\n", "checker_args": ["extra"]}],
            "checker": checker,
            "limits": {"time_s": 1},
            "source": str(directory / "problem.yaml"),
        }
    )


def needs_cpp() -> None:
    try:
        find_language("c++")
    except InputError as reason:
        pytest.skip(str(reason))


PYTHON_KATTIS = """
import sys
given, answer, feedback, *args = sys.argv[1:]
assert args == ["first", "extra"], args
assert open(given).read() == "5\\n" and open(answer).read() == "five\\n"
output = sys.stdin.read().split()
with open(feedback + "judgemessage.txt", "w") as file:
    file.write("looked at " + " ".join(output))
sys.exit(42 if output == ["five"] else 43 if output == ["six"] else 7)
"""


CPP_KATTIS = """
#include "help.h"
#include <fstream>
#include <iostream>
#include <string>
int main(int argc, char **argv) {
    std::ifstream given(argv[1]), answer(argv[2]);
    std::string n, wanted, got;
    given >> n; answer >> wanted; std::cin >> got;
    if (argc != 6 || n != "5" || std::string(argv[4]) != "first") return 1;
    std::ofstream(std::string(argv[3]) + "judgemessage.txt") << "looked at " << got;
    if (got == "crash") abort();
    return got == wanted ? ACCEPT : REJECT;
}
"""


POLYGON = """
import sys
given, output, answer = (open(path).read().split() for path in sys.argv[1:4])
print("looked at", output, file=sys.stderr)
sys.exit({"five": 0, "six": 1, "": 2, "fail": 3, "points": 7}[output[0] if output else ""])
"""


FUNCTION = """
def check(input, answer, output):
    print("noise")
    if output == "crash":
        raise ValueError("broken")
    if output == "odd":
        return 1
    return (input, answer, output) == ("5\\n", "five\\n", "five"), "looked at " + output
"""


@pytest.mark.parametrize("kind", ["python", "c++"])
def test_kattis_validators(judge: Judge, tmp_path: Path, kind: str) -> None:
    if kind == "c++":
        needs_cpp()
        (tmp_path / "help.h").write_text("#include <cstdlib>\nenum { ACCEPT = 42, REJECT = 43 };\n")
        problem = with_checker(tmp_path, "check.cc", CPP_KATTIS, "kattis", args=["first"])
    else:
        problem = with_checker(tmp_path, "check.py", PYTHON_KATTIS, "kattis", args=["first"])
    assert judge.judge(problem, "print('five')").accepted
    wrong = judge.judge(problem, "print('six')")
    assert (wrong.status, wrong.message) == ("WA", "looked at six")
    broken = judge.judge(problem, "print('crash')")
    assert broken.status == "IE", broken
    assert "check." in broken.message


def test_a_directory_of_cpp_files(judge: Judge, tmp_path: Path) -> None:
    needs_cpp()
    folder = tmp_path / "validator"
    folder.mkdir()
    (folder / "help.h").write_text("int verdict(bool right);\n")
    (folder / "help.cc").write_text("int verdict(bool right) { return right ? 42 : 43; }\n")
    problem = with_checker(
        tmp_path, "validator/main.cc",
        '#include "help.h"\n#include <iostream>\n'
        'int main() { std::string s; std::cin >> s; return verdict(s == "five"); }\n',
        "kattis",
    )  # fmt: skip
    checker = ProgramChecker(type="program", source="validator", protocol="kattis")
    problem = problem.model_copy(update={"checker": checker})
    assert judge.judge(problem, "print('five')").accepted
    assert judge.judge(problem, "print('six')").status == "WA"


@pytest.mark.parametrize(
    ("protocol", "main", "code"),
    [
        ("python", "check.py", "def check(input, answer, output):\n    return right(output)"),
        ("kattis", "main.py", "import sys\nsys.exit(42 if right(sys.stdin.read()) else 43)"),
        ("kattis", "__main__.py", "import sys\nsys.exit(42 if right(input()) else 43)"),
    ],
)
def test_a_directory_of_python_files(
    judge: Judge, tmp_path: Path, protocol: str, main: str, code: str
) -> None:
    folder = tmp_path / "validator"
    (folder / "words" / "deep").mkdir(parents=True)
    (folder / "words" / "deep" / "five.py").write_text("WORD = 'five'\n")
    (folder / "words" / "numbers.py").write_text("from .deep.five import WORD\n")
    (folder / "about.py").write_text(
        "from words.numbers import WORD\ndef right(text): return text.strip() == WORD\n"
    )
    (folder / "notes.txt").write_text("not a program\n")
    problem = with_checker(tmp_path, f"validator/{main}", f"from about import *\n{code}", protocol)
    checker = problem.checker.model_copy(update={"source": "validator"})
    problem = problem.model_copy(update={"checker": checker})
    assert judge.judge(problem, "print('five')").accepted
    assert judge.judge(problem, "print('six')").status == "WA"
    (folder / main).rename(folder / "other.py")
    with pytest.raises(InputError, match=r"__main__\.py or main\.py or check\.py"):
        judge.judge(problem.model_copy(), "print('six')")


@pytest.mark.parametrize(
    ("output", "status"),
    [("five", "AC"), ("six", "WA"), ("", "WA"), ("fail", "IE"), ("points", "IE")],
)
def test_polygon_checkers(judge: Judge, tmp_path: Path, output: str, status: str) -> None:
    problem = with_checker(tmp_path, "check.py", POLYGON, "polygon")
    verdict = judge.judge(problem, f"print({output!r})")
    assert verdict.status == status, verdict
    assert status != "WA" or "looked at" in verdict.message


@pytest.mark.parametrize(
    ("output", "status", "message"),
    [
        ("five", "AC", ""),
        ("six", "WA", "looked at six"),
        ("crash", "IE", "broken"),
        ("odd", "IE", "expected bool"),
    ],
)
def test_python_functions(
    judge: Judge, tmp_path: Path, output: str, status: str, message: str
) -> None:
    problem = with_checker(tmp_path, "check.py", FUNCTION, "python")
    verdict = judge.judge(problem, f"print({output!r}, end='')")
    assert verdict.status == status, verdict
    assert message in verdict.message


def test_a_program_fails_before_its_output_is_looked_at(judge: Judge, tmp_path: Path) -> None:
    problem = with_checker(tmp_path, "check.py", "def check(*all): return True", "python")
    assert judge.judge(problem, "1/0").status == "RE"


def test_a_hostile_output_cannot_hurt_a_checker(judge: Judge, tmp_path: Path) -> None:
    problem = with_checker(tmp_path, "check.py", FUNCTION, "python")
    code = "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 1000)"
    assert judge.judge(problem, code).status == "WA"


def test_a_checker_that_never_ends_is_an_infrastructure_error(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydragen_tree.judge import checker_programs
    from hydragen_tree.judge.sandbox.request import RunLimits

    quick = RunLimits(cpu_s=0.3, wall_s=2, memory_bytes=256 << 20)
    monkeypatch.setattr(checker_programs, "LIMITS", quick)
    problem = with_checker(tmp_path, "check.py", "def check(*all):\n    while True: pass", "python")
    verdict = judge.judge(problem, "print()")
    assert verdict.status == "IE", verdict
    assert "limit" in verdict.message


@pytest.mark.parametrize(
    ("name", "code", "protocol", "reason"),
    [
        ("check.rb", "exit 42", "kattis", "expected a program in Python, C or C"),
        ("check.cc", "int main() {}", "python", "no Python"),
        ("missing", None, "kattis", "No such file"),
    ],
)
def test_checkers_that_cannot_be_run(
    judge: Judge, tmp_path: Path, name: str, code: str | None, protocol: str, reason: str
) -> None:
    problem = with_checker(tmp_path, name, code or "", protocol)
    if code is None:
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=reason):
        judge.judge(problem, "print()")


def test_a_cpp_checker_without_a_compiler(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = with_checker(tmp_path, "check.cc", "int main() {}", "kattis")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"check\.cc.*g\+\+ is not installed"):
        judge.judge(problem, "print()")


def test_a_checker_that_does_not_compile(judge: Judge, tmp_path: Path) -> None:
    needs_cpp()
    problem = with_checker(tmp_path, "check.cc", "int main( {", "kattis")
    verdict = judge.judge(problem, "print()")
    assert verdict.status == "IE"
    assert "does not compile" in verdict.message


GUESS = """
import sys
secret = int(open(sys.argv[1]).read())
for guesses in range(1, 12):
    line = sys.stdin.readline()
    if not line.strip().isdigit():
        sys.exit(43)
    guess = int(line)
    print("right" if guess == secret else "lower" if guess > secret else "higher", flush=True)
    if guess == secret:
        sys.exit(42)
with open(sys.argv[3] + "judgemessage.txt", "w") as file:
    file.write("too many guesses")
sys.exit(43)
"""


BISECT = """
low, high = 1, 1000
while True:
    middle = (low + high) // 2
    print(middle, flush=True)
    word = input()
    if word == "right":
        break
    if word == "lower":
        high = middle - 1
    else:
        low = middle + 1
"""


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (BISECT, "AC"),
        ("for i in range(1000):\n    print(i, flush=True)\n    if input() == 'right': break", "WA"),
        ("print('what?', flush=True)\ninput()", "WA"),
        ("print(1, flush=True)\n1/0", "RE"),
        # The interactor must not hear of the program's end before that is on record.
        ("import os, time\nprint(1, flush=True)\nos.close(1)\ntime.sleep(0.1)\n1/0", "RE"),
        ("while True: pass", "TLE"),
        ("input()", "TLE"),  # both wait
        ("print('what?', flush=True)\nwhile True: pass", "WA"),  # rejected before its time is up
        ("import time\nprint('what?', flush=True)\ntime.sleep(60)", "WA"),
        # To hang up is no answer: what becomes of the program counts, then what is said of it.
        ("import os, time\nos.close(1)\ntime.sleep(60)", "TLE"),
        ("import os, time\nos.close(1)\nwhile True: pass", "TLE"),
        ("import os, time\nos.close(1)\ntime.sleep(1)\nassert False", "RE"),
        ("import os, time\nos.close(1)\ntime.sleep(1)\nos._exit(1)", "RE"),
        ("import os, time\nos.close(1)\ntime.sleep(1)\nos._exit(0)", "WA"),
        ("print('what?', flush=True)\nimport os, time\nos.close(1)\nwhile True: pass", "WA"),
        (BISECT + "import os\nos.close(1)\nwhile True: pass", "TLE"),
        (BISECT + "raise SystemExit(42)", "RE"),
        # One that is accepted may write more than anybody reads.
        (BISECT + "import time\nfor _ in range(5): time.sleep(0.1); print('x' * 99_999)", "AC"),
        ("print(", "CE"),
    ],
)
def test_interactive_problems(judge: Judge, tmp_path: Path, code: str, status: str) -> None:
    problem = with_checker(tmp_path, "guess.py", GUESS, "kattis", interactive=True)
    test = Test(input="777\n", output="")
    limits = Limits(time_s=0.3)
    problem = problem.model_copy(update={"tests": (test,), "limits": limits})
    verdict = judge.judge(problem, code)
    assert verdict.status == status, verdict


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("print(1, flush=True)", "WA"),
        ("print(1, flush=True)\n1/0", "RE"),
        ("import os, time\nos.close(0)\ntime.sleep(1)\nprint(5, flush=True)", "AC"),
        ("print(5, flush=True)", "AC"),
    ],
)
def test_an_interactor_may_write_to_nobody(
    judge: Judge, tmp_path: Path, code: str, status: str
) -> None:
    """Few expect their pipe to break when a program has left; the verdict is theirs even so."""
    needs_cpp()
    talks = """
        #include <cstdio>
        #include <unistd.h>
        int main() {
            int said = 0, next = 0;
            for (int i = 0; i < 4; i++) { usleep(100000); puts("go on"); fflush(stdout); }
            while (scanf("%d", &next) == 1) said = next;
            return said == 5 ? 42 : 43;
        }
    """
    problem = with_checker(tmp_path, "talks.cc", talks, "kattis", interactive=True)
    verdict = judge.judge(problem, code)
    assert verdict.status == status, verdict


def test_interactive_polygon_is_refused(judge: Judge, tmp_path: Path) -> None:
    problem = with_checker(tmp_path, "guess.py", GUESS, "polygon", interactive=True)
    with pytest.raises(InputError, match="kattis"):
        judge.judge(problem, BISECT)


def test_a_compiled_program_dies_of_a_closed_pipe(judge: Judge, tmp_path: Path) -> None:
    """As it would when started from a shell; Python ignores the signal, programs it starts not."""
    needs_cpp()
    leaves = "import os, sys, time\nos.close(0)\ntime.sleep(1.5)\nsys.exit(42)"
    problem = with_checker(tmp_path, "leave.py", leaves, "kattis", interactive=True)
    code = (
        "#include <cstdio>\n#include <unistd.h>\n"
        'int main() { for (;;) { puts("1"); fflush(stdout); usleep(50000); } }'
    )
    verdict = judge.judge(problem, code, "c++")
    assert (verdict.status, verdict.signal) == ("RE", 13), verdict


def test_a_long_conversation_is_no_endless_one(judge: Judge, tmp_path: Path) -> None:
    """A slow interactor's time is not the program's, as long as the two still talk."""
    slow = (
        "import sys, time\nfor line in sys.stdin:\n    if line == 'done\\n': sys.exit(42)\n"
        "    time.sleep(0.1)\n    print('ok', flush=True)\nsys.exit(43)\n"
    )
    problem = with_checker(tmp_path, "slow.py", slow, "kattis", interactive=True)
    limits, test = Limits(time_s=0.2), Test(input="1\n", output="")
    problem = problem.model_copy(update={"tests": (test,), "limits": limits})
    asks = "for i in range(35):\n    print(i, flush=True)\n    input()\nprint('done', flush=True)"
    verdict = judge.judge(problem, asks)
    assert (verdict.status, verdict.rerun) == ("AC", True), verdict
    verdict = judge.judge(problem, "print(1, flush=True)\ninput()\ninput()")
    assert (verdict.status, verdict.rerun) == ("TLE", False), verdict
